//! The daemon for power profiles of a host in a folder.

use super::SimulatedFiles;
use crate::deadline::Deadline;
use crate::host::error::HostError;
use crate::host::power_profiles::{HeldPowerProfile, PowerProfiles};

/// There where the host has such a daemon: the names of its profiles.
const PROFILES: &str = "/simulated/power-profiles";

const SERVICE: &str = "org.freedesktop.UPower.PowerProfiles";

/// The daemon of a host in a folder. It chooses nothing: the simulated keepers only note what they hold.
#[derive(Debug)]
pub struct SimulatedPowerProfiles(SimulatedFiles);

impl SimulatedPowerProfiles {
    /// The daemon of this host.
    #[must_use]
    pub fn new(files: SimulatedFiles) -> Self {
        Self(files)
    }
}

impl PowerProfiles for SimulatedPowerProfiles {
    fn profiles(&self, _: Deadline) -> Result<Option<Vec<String>>, HostError> {
        self.0
            .faults
            .before_read(PROFILES.as_ref())
            .map_err(|error| HostError::call("Get Profiles", SERVICE, error))?;
        let text = self.0.text(PROFILES.as_ref()).ok();
        Ok(text.map(|text| text.split_whitespace().map(str::to_owned).collect()))
    }

    fn hold(&self, profile: &str, _: &str, deadline: Deadline) -> Result<HeldPowerProfile, HostError> {
        match self.profiles(deadline)? {
            Some(profiles) if profiles.iter().any(|name| name == profile) => {
                Ok(HeldPowerProfile::simulated())
            }
            _ => Err(HostError::call("HoldProfile", SERVICE, format!("there is no profile `{profile}`"))),
        }
    }
}
