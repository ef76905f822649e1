//! The text of a refusal: what `virsh start` and virt-manager show.

use crate::guest::GuestError;
use crate::lifecycle::LifecycleError;

/// The most that is written to standard error: libvirt keeps all of it, and shows it to the person who typed
/// `virsh start`.
const MAX_MESSAGE: usize = 2048;

/// What the person who started the guest is told.
pub(super) struct Failure {
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// What is known of the host after a bug has ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterBug {
    /// There was nothing to give back, or the call was none that gives back.
    NothingToUndo,
    /// What the call had changed is given back.
    GivenBack,
    /// Some of it is not, or it is not known.
    StillHeld,
}

impl Failure {
    pub(super) fn from_stdin(error: std::io::Error) -> Self {
        Self { message: format!("failed to read the guest's XML from standard input: {error}"), help: None }
    }

    pub(super) fn from_xml(error: GuestError) -> Self {
        Self { message: error.to_string(), help: Some("`virsh edit` shows the guest's XML".to_owned()) }
    }

    pub(super) fn from_bug(operation: &str, after: AfterBug) -> Self {
        const DETAILS: &str = "`journalctl -t vfio-hook` has the details; please report them";
        let (state, help) = match after {
            AfterBug::NothingToUndo => ("", DETAILS.to_owned()),
            AfterBug::GivenBack => ("; what it had changed is given back", DETAILS.to_owned()),
            AfterBug::StillHeld => (
                "; what it had changed is not given back",
                format!("`vfio-hook undo` gives it back, `vfio-hook status` shows it; {DETAILS}"),
            ),
        };
        Self { message: format!("a bug in vfio-hook ended {operation}{state}"), help: Some(help) }
    }

    pub(super) fn for_libvirt(&self) -> String {
        let mut text = self.message.clone();
        if let Some(help) = &self.help {
            text.push_str("\nhelp: ");
            text.push_str(help);
        }
        if text.len() >= MAX_MESSAGE {
            let most = MAX_MESSAGE - "…\n".len();
            text.truncate((0..=most).rfind(|end| text.is_char_boundary(*end)).unwrap_or(0));
            text.push('…');
        }
        text.push('\n');
        text
    }
}

impl From<LifecycleError> for Failure {
    fn from(error: LifecycleError) -> Self {
        Self { message: error.to_string(), help: error.help() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_bug_it_is_said_what_is_still_held() {
        let text = Failure::from_bug("prepare", AfterBug::StillHeld).for_libvirt();
        assert!(
            text.starts_with("a bug in vfio-hook ended prepare; what it had changed is not given back\n")
        );
        assert!(text.contains("`vfio-hook undo` gives it back"), "{text}");
        for after in [AfterBug::NothingToUndo, AfterBug::GivenBack] {
            let text = Failure::from_bug("prepare", after).for_libvirt();
            assert!(!text.contains("`vfio-hook undo`"), "{text}");
        }
    }
}
