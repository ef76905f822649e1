//! `vfio-hook hold`: what a guest's file asks for, without the guest.

use std::ffi::OsStr;
use std::path::Path;

use nix::unistd::geteuid;

use super::given_guest::{GivenGuest, guest_of, is_of};
use super::output::{self, Format, OutcomeView};
use crate::commands::user_error::{UserError, UserResult};
use crate::deadline::Deadline;
use crate::event::Operation;
use crate::exit::Exit;
use crate::guest::GuestName;
use crate::host::Host;
use crate::lifecycle;

pub(super) fn run(name: &OsStr, xml: Option<&Path>, format: Format) -> UserResult<Exit> {
    if !geteuid().is_root() {
        return Err(UserError::new("only root can change the host").with_help("run it with sudo"));
    }
    let name = GuestName::new(name);
    let GivenGuest { guest, xml, notes } = guest_of(&name, xml)?;
    if !is_of(&guest, &name) {
        let message =
            format!("the XML is of guest {}, and {name} is to be held", GuestName::new(&guest.name));
        let help = format!("`vfio-hook hold {}`, or the XML of {name}", GuestName::new(&guest.name));
        return Err(UserError::new(message).with_help(help));
    }
    let mut host = Host::real();
    let loaded = lifecycle::load_config(&host, &name, &guest)?.ok_or_else(|| {
        UserError::new(format!("nothing is configured for {name}"))
            .with_help("`vfio-hook check` shows the files that there are")
    })?;
    let deadline = Deadline::after(Operation::Prepare.budget());
    let outcome = lifecycle::hold(&mut host, &loaded, &guest, &xml, deadline)?;
    match format {
        Format::Json => output::json(&OutcomeView::from(&outcome)),
        Format::Text => {
            output::notes(&notes);
            output::notes(&outcome.notes);
            output::changes(&outcome.changes);
            output::line(format_args!(
                "held for {name} until `vfio-hook undo {name}`, its start and end, or a reboot of the host"
            ));
        }
    }
    Ok(Exit::Done)
}
