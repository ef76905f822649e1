//! A guest that rebooted itself and was stopped for it: it is started again once its card is back and well.

use std::fmt;

use super::LifecycleError;
use crate::deadline::Deadline;
use crate::gpu::{MOST_RESTARTS, RESTARTS_WITHIN, RestartAnswer, Restarts};
use crate::guest::{GuestName, GuestUuid};
use crate::host::{GuestEnd, Host, HostError};
use crate::ledger::Ledger;
use crate::pci::PciFunctions;
use crate::restart;

/// libvirt's reasons (`virDomainShutoffReason`) for which a guest stays off, whatever it was about to do itself.
const STAYS_OFF: [&str; 6] = ["destroyed", "crashed", "failed", "saved", "migrated", "from snapshot"];

/// What becomes of a guest that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterTheEnd {
    /// It is started again.
    StartsAgain,
    /// It stays off, as it was meant to.
    StaysOff,
    /// It rebooted itself, and yet stays off.
    CannotGoOn(String),
}

impl fmt::Display for AfterTheEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartsAgain => f.write_str("the guest rebooted itself: it is started again"),
            Self::StaysOff => f.write_str("the guest stays off"),
            Self::CannotGoOn(reason) => write!(f, "the guest rebooted itself, but stays off: {reason}"),
        }
    }
}

/// What the keeper of a guest does last, when the lease is given back: starts a guest again that rebooted itself.
///
/// # Errors
/// The ledger or the number of its restarts cannot be read; nobody can be asked to start it.
pub fn start_again_after_reboot(
    host: &mut Host,
    guest: GuestUuid,
    name: &GuestName,
    (end, reason): (GuestEnd, &str),
    cards: &[PciFunctions],
    deadline: Deadline,
) -> Result<AfterTheEnd, LifecycleError> {
    if end != GuestEnd::Reset || STAYS_OFF.contains(&reason) {
        forget_restarts(host, guest)?;
        return Ok(AfterTheEnd::StaysOff);
    }
    let record = Ledger::peek(host)?;
    let lost = record.and_then(|record| cards.iter().find_map(|card| record.quarantine_of(card).cloned()));
    if let Some(lost) = lost {
        return Ok(AfterTheEnd::CannotGoOn(format!("{} is in quarantine", lost.terms.name)));
    }
    if admit_restart(host, guest)? == RestartAnswer::TooMany {
        return Ok(AfterTheEnd::CannotGoOn(format!(
            "it was started again {MOST_RESTARTS} times in {} minutes",
            RESTARTS_WITHIN.as_secs() / 60
        )));
    }
    restart::hand_over(host, guest, name, deadline)?;
    Ok(AfterTheEnd::StartsAgain)
}

/// Judges whether a guest that rebooted itself may be started again, and remembers it if so: `UUID.restarts` in
/// `/run/vfio-hook`.
///
/// # Errors
/// It cannot be remembered: then nobody could count.
fn admit_restart(host: &mut Host, guest: GuestUuid) -> Result<RestartAnswer, HostError> {
    let name = file(guest);
    let now = host.uptime()?;
    let bytes = host.read_state(&name)?.unwrap_or_default();
    // One that is damaged counts nothing.
    let mut restarts: Restarts = serde_json::from_slice(&bytes).unwrap_or_default();
    let answer = restarts.admit(now);
    if answer == RestartAnswer::Allowed {
        host.replace_state(&name, &serde_json::to_vec(&restarts).unwrap_or_default())?;
    }
    Ok(answer)
}

/// Forgets how often a guest was started again: it ended otherwise.
///
/// # Errors
/// The file cannot be removed.
fn forget_restarts(host: &mut Host, guest: GuestUuid) -> Result<(), HostError> {
    host.remove_state_file(&file(guest))
}

fn file(guest: GuestUuid) -> String {
    format!("{guest}.restarts")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::host::simulated::Faults;

    const GUEST: &str = "c0ffee00-1111-4222-8333-44445555666f";

    fn host(folder: &Path) -> Host {
        fs::create_dir_all(folder.join("proc")).unwrap();
        fs::create_dir_all(folder.join("run/vfio-hook")).unwrap();
        Host::simulated(folder, &Faults::default())
    }

    #[test]
    fn they_are_remembered_for_each_guest_until_it_ends_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let mut host = host(folder.path());
        let guest: GuestUuid = GUEST.parse().unwrap();
        let other: GuestUuid = "c0ffee00-1111-4222-8333-444455556670".parse().unwrap();
        let at =
            |second: u64| fs::write(folder.path().join("proc/uptime"), format!("{second}.5 1\n")).unwrap();
        for second in [10, 20, 30] {
            at(second);
            assert_eq!(admit_restart(&mut host, guest).unwrap(), RestartAnswer::Allowed);
        }
        assert_eq!(admit_restart(&mut host, guest).unwrap(), RestartAnswer::TooMany);
        assert_eq!(admit_restart(&mut host, other).unwrap(), RestartAnswer::Allowed);
        let file = folder.path().join(format!("run/vfio-hook/{GUEST}.restarts"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "[10,20,30]");
        forget_restarts(&mut host, guest).unwrap();
        forget_restarts(&mut host, guest).unwrap();
        assert!(!file.exists());
        assert_eq!(admit_restart(&mut host, guest).unwrap(), RestartAnswer::Allowed);
    }

    #[test]
    fn a_damaged_file_counts_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut host = host(folder.path());
        fs::write(folder.path().join("proc/uptime"), "10.0 1\n").unwrap();
        let file = folder.path().join(format!("run/vfio-hook/{GUEST}.restarts"));
        fs::write(&file, "[1, 2,").unwrap();
        assert_eq!(admit_restart(&mut host, GUEST.parse().unwrap()).unwrap(), RestartAnswer::Allowed);
        assert_eq!(fs::read_to_string(&file).unwrap(), "[10]");
    }
}
