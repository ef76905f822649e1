//! Starting a guest again that rebooted itself and was stopped for it: by a process of its own, which outlives the
//! keeper and is no hook, so that libvirt answers it.

mod when_off;

use std::ffi::OsStr;
use std::time::Duration;

use nix::unistd::setsid;

use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::guest::{GuestName, GuestUuid};
use crate::host::{DetachedProcess, Host, HostError, Virsh, make_detached, take_signals};
use crate::log;
use when_off::{AskedByVirsh, Started, start_when_off};

/// The hidden first argument of the process.
pub const START_AGAIN: &str = "start-again";

/// How long libvirt has to say that the guest is off: its devices go back first, and it may be restarted meanwhile.
const OFF: Duration = Duration::from_secs(60);

/// How often it is looked whether the guest is off.
const LOOK: Duration = Duration::from_millis(250);

/// Which part of it a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAgain {
    /// It starts the guest.
    Here,
    /// It makes the process that starts the guest, and ends.
    Apart,
}

/// Has a process of its own start the guest as soon as libvirt says that it is off. Does not wait for it: what comes of
/// it is in the journal.
///
/// # Errors
/// There is no `virsh`, or that process cannot be started.
pub(crate) fn hand_over(
    host: &mut Host,
    guest: GuestUuid,
    name: &GuestName,
    deadline: Deadline,
) -> Result<(), HostError> {
    // Whether that process can do anything, the caller that can be told should know.
    host.can_ask_libvirt()?;
    let uuid = guest.to_string();
    let process = DetachedProcess {
        unit: &format!("vfio-hook-start-{guest}.service"),
        description: &format!("vfio-hook: guest {guest} rebooted itself and is started again"),
        command: START_AGAIN,
        arguments: &arguments(&uuid, name.as_os_str()),
    };
    host.start_detached(&process, deadline)
}

fn arguments<'a>(guest: &'a str, name: &'a OsStr) -> [&'a OsStr; 3] {
    [guest.as_ref(), "--".as_ref(), name]
}

/// What the process does.
#[must_use]
pub fn start_again(part: StartAgain, guest: GuestUuid, name: &OsStr) -> Exit {
    take_signals();
    if part == StartAgain::Apart {
        let made = make_detached(START_AGAIN, &arguments(&guest.to_string(), name));
        return if made.is_ok() { Exit::Done } else { Exit::Failed };
    }
    // Fails where systemd has made a session already.
    let _ = setsid();
    let name = GuestName::new(name);
    log::open(&name, Some(guest), None);
    let outcome = match Virsh::find() {
        Ok(virsh) => {
            let name = name.as_os_str().to_string_lossy().into_owned();
            start_when_off(&AskedByVirsh { virsh, host: Host::real(), guest, name }, OFF, LOOK)
        }
        Err(error) => Err(error.to_string()),
    };
    let exit = match outcome {
        Ok(Started::Now) => {
            crate::log::log_info!("{name} rebooted itself: it was stopped, and is started again");
            Exit::Done
        }
        Ok(Started::ByOthers) => {
            crate::log::log_info!("{name} rebooted itself and was stopped; another program started it");
            Exit::Done
        }
        Err(reason) => {
            crate::log::log_error!(
                "{name} rebooted itself and was stopped, but cannot be started again: it stays off: {reason}"
            );
            Exit::Failed
        }
    };
    log::flush();
    log::print_kept();
    exit
}
