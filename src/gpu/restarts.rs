//! How often a guest that reboots itself is started again: a guest that cannot get up would be started for ever.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::guest::GuestUuid;
use crate::host::{Host, HostError};

/// So many restarts are made within [`WITHIN`]: an update of Windows reboots two or three times.
const MOST: usize = 3;

/// The time in which restarts are counted.
const WITHIN: Duration = Duration::from_secs(300);

/// When a guest was started again, in seconds since the boot of the host, the earliest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Restarts(Vec<u64>);

/// Whether a guest may be started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartVerdict {
    /// It may.
    Allowed,
    /// It was started again too often in too short a time.
    TooMany,
}

impl Restarts {
    /// Judges a restart at this moment (time since the boot), and counts it if it may be made.
    pub fn admit(&mut self, now: Duration) -> RestartVerdict {
        let now = now.as_secs();
        // A moment that is yet to come is none of this boot.
        self.0.retain(|at| *at <= now && now - at < WITHIN.as_secs());
        if self.0.len() >= MOST {
            return RestartVerdict::TooMany;
        }
        self.0.push(now);
        RestartVerdict::Allowed
    }
}

/// Judges whether a guest that rebooted itself may be started again, and remembers it if so: `UUID.restarts` in
/// `/run/vfio-hook`.
///
/// # Errors
/// It cannot be remembered: then nobody could count.
pub fn admit_restart(host: &mut Host, guest: GuestUuid) -> Result<RestartVerdict, HostError> {
    let name = file(guest);
    let now = host.uptime()?;
    let bytes = host.read_state(&name)?.unwrap_or_default();
    // One that is damaged counts nothing.
    let mut restarts: Restarts = serde_json::from_slice(&bytes).unwrap_or_default();
    let verdict = restarts.admit(now);
    if verdict == RestartVerdict::Allowed {
        host.replace_state(&name, &serde_json::to_vec(&restarts).unwrap_or_default())?;
    }
    Ok(verdict)
}

/// Forgets how often a guest was started again: it ended otherwise.
///
/// # Errors
/// The file cannot be removed.
pub fn forget_restarts(host: &mut Host, guest: GuestUuid) -> Result<(), HostError> {
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

    /// What is said of restarts at these seconds.
    fn verdicts(seconds: &[u64]) -> Vec<bool> {
        let mut restarts = Restarts::default();
        let is_allowed = |at: &u64| restarts.admit(Duration::from_secs(*at)) == RestartVerdict::Allowed;
        seconds.iter().map(is_allowed).collect()
    }

    #[test]
    fn three_restarts_in_five_minutes_are_made_and_no_fourth() {
        assert_eq!(verdicts(&[100, 130, 160, 190, 399]), [true, true, true, false, false]);
        assert_eq!(verdicts(&[100, 130, 160, 400, 430]), [true, true, true, true, true]);
        assert_eq!(verdicts(&[100, 100, 100, 100]), [true, true, true, false]);
    }

    #[test]
    fn one_that_is_not_made_does_not_count() {
        assert_eq!(verdicts(&[0, 1, 2, 250, 299, 300, 301]), [true, true, true, false, false, true, true]);
    }

    #[test]
    fn moments_to_come_do_not_count() {
        assert_eq!(verdicts(&[1000, 1001, 1002, 5]), [true, true, true, true]);
    }

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
            assert_eq!(admit_restart(&mut host, guest).unwrap(), RestartVerdict::Allowed);
        }
        assert_eq!(admit_restart(&mut host, guest).unwrap(), RestartVerdict::TooMany);
        assert_eq!(admit_restart(&mut host, other).unwrap(), RestartVerdict::Allowed);
        let file = folder.path().join(format!("run/vfio-hook/{GUEST}.restarts"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "[10,20,30]");
        forget_restarts(&mut host, guest).unwrap();
        forget_restarts(&mut host, guest).unwrap();
        assert!(!file.exists());
        assert_eq!(admit_restart(&mut host, guest).unwrap(), RestartVerdict::Allowed);
    }

    #[test]
    fn a_damaged_file_counts_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut host = host(folder.path());
        fs::write(folder.path().join("proc/uptime"), "10.0 1\n").unwrap();
        let file = folder.path().join(format!("run/vfio-hook/{GUEST}.restarts"));
        fs::write(&file, "[1, 2,").unwrap();
        assert_eq!(admit_restart(&mut host, GUEST.parse().unwrap()).unwrap(), RestartVerdict::Allowed);
        assert_eq!(fs::read_to_string(&file).unwrap(), "[10]");
    }
}
