//! `vfio-hook log`: what the journal has of this program.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::commands::user_error::{UserError, UserResult};
use crate::exit::Exit;
use crate::guest::GuestName;
use crate::host::IDENTIFIER;

/// Since when lines are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Since the journal began.
    All,
    /// Since the host was started.
    ThisBoot,
}

/// When it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With the last line that there is.
    AtTheLastLine,
    /// When the person ends it.
    Never,
}

/// `journalctl` takes the place of this program: its pager, its colours and its exit code are what people know.
pub(super) fn run(guest: Option<OsString>, scope: Scope, end: End) -> UserResult<Exit> {
    let error = Command::new("journalctl").args(arguments(guest.map(GuestName::new), scope, end)).exec();
    Err(UserError::new(format!("failed to run journalctl: {error}"))
        .with_help("it comes with systemd; without a journal the lines are in libvirt's own log"))
}

fn arguments(guest: Option<GuestName>, scope: Scope, end: End) -> Vec<OsString> {
    let mut arguments = vec![OsString::from(format!("--identifier={IDENTIFIER}"))];
    if scope == Scope::ThisBoot {
        arguments.push("--boot".into());
    }
    if end == End::Never {
        arguments.push("--follow".into());
    }
    // The field has the name as it is printed.
    arguments.extend(guest.map(|guest| OsString::from(format!("VFIO_HOOK_GUEST={guest}"))));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_for_the_lines_of_a_guest_by_its_field() {
        let words = |guest: Option<&str>, scope, end| arguments(guest.map(GuestName::new), scope, end);
        assert_eq!(words(None, Scope::All, End::AtTheLastLine), ["--identifier=vfio-hook"]);
        assert_eq!(
            words(Some("--win"), Scope::ThisBoot, End::Never),
            ["--identifier=vfio-hook", "--boot", "--follow", "VFIO_HOOK_GUEST=--win"]
        );
    }
}
