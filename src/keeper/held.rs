//! What lives only as long as a file descriptor.

use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::deadline::Deadline;
use crate::guest::GuestName;
use crate::host::{HeldPowerProfile, Host, HostError};

/// How long logind may take.
const ANSWER: Duration = Duration::from_secs(3);

/// The descriptors, and what they stand for.
pub(super) struct Held {
    /// Why, for people.
    why: String,
    sleep_lock: Option<(String, OwnedFd)>,
    cpu_dma_latency: Option<(u32, OwnedFd)>,
    power_profile: Option<(String, HeldPowerProfile)>,
}

impl Held {
    pub(super) fn new(guest: &str) -> Self {
        Self { why: why(guest), sleep_lock: None, cpu_dma_latency: None, power_profile: None }
    }

    /// The guest's name is known by now.
    pub(super) fn rename(&mut self, guest: &str) {
        self.why = why(guest);
    }

    pub(super) fn sleep_lock_words(&self) -> Option<String> {
        self.sleep_lock.as_ref().map(|(what, _)| what.clone())
    }

    pub(super) fn cpu_dma_latency_micros(&self) -> Option<u32> {
        self.cpu_dma_latency.as_ref().map(|(micros, _)| *micros)
    }

    /// Holds this sleep lock, or none.
    pub(super) fn sleep_lock(&mut self, host: &Host, what: Option<String>) -> Result<(), HostError> {
        if self.sleep_lock_words() == what {
            return Ok(());
        }
        self.sleep_lock = match what {
            Some(what) => {
                let lock = host.inhibit(&what, &self.why, Deadline::after(ANSWER))?;
                Some((what, lock))
            }
            None => None,
        };
        Ok(())
    }

    /// Holds nothing any more.
    pub(super) fn let_go(&mut self) {
        self.sleep_lock = None;
        self.cpu_dma_latency = None;
        self.power_profile = None;
    }

    pub(super) fn power_profile_name(&self) -> Option<String> {
        self.power_profile.as_ref().map(|(profile, _)| profile.clone())
    }

    /// Has the host's daemon hold this power profile, or none. A person who chooses another one ends that, and so does a
    /// restart of the daemon: it is not taken again.
    pub(super) fn power_profile(&mut self, host: &Host, profile: Option<String>) -> Result<(), HostError> {
        if self.power_profile_name() == profile {
            return Ok(());
        }
        self.power_profile = match profile {
            Some(profile) => {
                let held = host.hold_power_profile(&profile, &self.why, Deadline::after(ANSWER))?;
                Some((profile, held))
            }
            None => None,
        };
        Ok(())
    }

    /// A logind that was restarted reads the locks back from its files; should it not have, a new one is taken before
    /// the old one is let go.
    pub(super) fn renew_sleep_lock(&mut self, host: &Host) {
        let Some((what, _)) = &self.sleep_lock else { return };
        match host.inhibit(what, &self.why, Deadline::after(ANSWER)) {
            Ok(lock) => self.sleep_lock = Some((what.clone(), lock)),
            Err(error) => crate::log::log_warning!("sleep lock not taken again: {error}"),
        }
    }

    /// Keeps all CPUs from idle states that take longer to leave, or none of them.
    pub(super) fn cpu_dma_latency(&mut self, host: &Host, micros: Option<u32>) -> Result<(), HostError> {
        if self.cpu_dma_latency_micros() == micros {
            return Ok(());
        }
        self.cpu_dma_latency = match micros {
            Some(micros) => Some((micros, host.hold_cpu_dma_latency(micros)?)),
            None => None,
        };
        Ok(())
    }
}

fn why(guest: &str) -> String {
    format!("guest {} runs", GuestName::new(guest))
}
