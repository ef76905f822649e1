//! Masks on what a sleep starts: `systemctl mask --runtime` for all of it.
//!
//! A mask is a link in `/run`. systemd looks there before it starts a unit that is not loaded, and nothing loads these
//! units but a sleep; only where an active unit names one of them does it take a `daemon-reload`, for the mask as for
//! its end.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::service::{UnitManager, UnitPresence};
use super::{Host, HostError};
use crate::deadline::Deadline;
use crate::unit_file_name::UnitFileName;

/// Where a mask that ends with the boot is made (`systemd.unit(5)`).
const FOLDER: &str = "/run/systemd/system";

/// What a mask leads to.
const NOTHING: &str = "/dev/null";

/// What a sleep starts, whatever program asks for it: logind starts the targets, and these the services (`systemd.special(7)`,
/// `systemd-suspend.service(8)`).
const SLEEP_UNITS: [&str; 9] = [
    "hibernate.target",
    "hybrid-sleep.target",
    "sleep.target",
    "suspend-then-hibernate.target",
    "suspend.target",
    "systemd-hibernate.service",
    "systemd-hybrid-sleep.service",
    "systemd-suspend-then-hibernate.service",
    "systemd-suspend.service",
];

/// Those of the units that are masked until the next boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SleepMasks(BTreeSet<&'static str>);

impl SleepMasks {
    /// All of them.
    #[must_use]
    pub fn all() -> Self {
        Self(SLEEP_UNITS.into())
    }
}

impl fmt::Display for SleepMasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            0 => f.write_str("none"),
            count if count == SLEEP_UNITS.len() => f.write_str("all"),
            _ => f.write_str(&self.0.iter().copied().collect::<Vec<_>>().join(" ")),
        }
    }
}

impl FromStr for SleepMasks {
    type Err = String;

    fn from_str(words: &str) -> Result<Self, Self::Err> {
        let known = |word: &str| {
            SLEEP_UNITS
                .into_iter()
                .find(|unit| *unit == word)
                .ok_or_else(|| format!("`{word}` is no unit of the host's sleep"))
        };
        match words {
            "none" => Ok(Self(BTreeSet::new())),
            "all" => Ok(Self::all()),
            words => words.split_whitespace().map(known).collect::<Result<_, _>>().map(Self),
        }
    }
}

crate::serde_as_text::serde_as_text!(SleepMasks);

impl Host {
    /// Those that are masked until the next boot.
    ///
    /// # Errors
    /// A link cannot be read: then nobody may take it for unmasked.
    pub fn sleep_masks(&self) -> Result<SleepMasks, HostError> {
        let mut masks = BTreeSet::new();
        for unit in SLEEP_UNITS {
            let target = self.link_target(&mask_path(unit))?;
            if target.is_some_and(|target| target == Path::new(NOTHING)) {
                masks.insert(unit);
            }
        }
        Ok(SleepMasks(masks))
    }

    /// Masks these until the next boot, and the others not.
    ///
    /// # Errors
    /// A file of that name is in the way; systemd does not answer.
    pub fn set_sleep_masks(&mut self, masks: &SleepMasks, deadline: Deadline) -> Result<(), HostError> {
        let before = self.sleep_masks()?;
        for unit in masks.0.difference(&before.0) {
            let path = mask_path(unit);
            let nothing = Path::new(NOTHING);
            self.files.link(&path, nothing).map_err(|error| HostError::write(&path, NOTHING, error))?;
        }
        for unit in before.0.difference(&masks.0) {
            self.remove_if_present(&mask_path(unit))?;
        }
        if masks.0.symmetric_difference(&before.0).any(|unit| self.is_unaware(unit, masks, deadline)) {
            self.units.reload(deadline)?;
        }
        Ok(())
    }

    /// Whether systemd has a unit in memory as it was before.
    fn is_unaware(&self, unit: &str, masks: &SleepMasks, deadline: Deadline) -> bool {
        let Ok(name) = UnitFileName::new(unit) else { return false };
        let Ok(status) = self.units.unit_status(&UnitManager::System, &name, deadline) else { return false };
        match status.presence {
            // A unit file of the administrator's goes before a mask in `/run`, and no reload changes that.
            UnitPresence::Loaded => masks.0.contains(unit) && !status.fragment.starts_with("/etc"),
            UnitPresence::Masked => !masks.0.contains(unit) && !status.fragment.starts_with("/etc"),
            UnitPresence::Absent => false,
        }
    }
}

fn mask_path(unit: &str) -> PathBuf {
    Path::new(FOLDER).join(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["none", "all", "sleep.target suspend.target"] {
            assert_eq!(text.parse::<SleepMasks>().unwrap().to_string(), text);
        }
        assert!("sleep.target ssh.service".parse::<SleepMasks>().is_err());
    }
}
