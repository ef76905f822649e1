//! logind's part of a host in a folder.

use std::os::fd::OwnedFd;

use super::SimulatedFiles;
use crate::deadline::Deadline;
use crate::host::error::HostError;
use crate::host::logind::{LOGIND, Logind, SleepState};

/// There where the host has a logind; `yes` while it is about to sleep.
const PREPARING_FOR_SLEEP: &str = "/simulated/logind/PreparingForSleep";

/// The logind of a host in a folder. It takes no locks: the simulated keepers only note them.
#[derive(Debug)]
pub struct SimulatedLogind(SimulatedFiles);

impl SimulatedLogind {
    /// The logind of this host.
    #[must_use]
    pub fn new(files: SimulatedFiles) -> Self {
        Self(files)
    }
}

impl Logind for SimulatedLogind {
    fn sleep_state(&self, _: Deadline) -> Result<SleepState, HostError> {
        Ok(match self.0.text(PREPARING_FOR_SLEEP.as_ref()).as_deref() {
            Ok("yes") => SleepState::GoingToSleep,
            Ok(_) => SleepState::Awake,
            Err(_) => SleepState::NoLogind,
        })
    }

    fn reload(&self, _: Deadline) -> Result<(), HostError> {
        self.0
            .faults
            .before_write(PREPARING_FOR_SLEEP.as_ref())
            .map_err(|error| HostError::call("KillUnit", "systemd-logind.service", error))
    }

    fn inhibit(&self, _: &str, _: &str, _: Deadline) -> Result<OwnedFd, HostError> {
        Err(HostError::call("Inhibit", LOGIND, "a simulated host has no locks"))
    }
}
