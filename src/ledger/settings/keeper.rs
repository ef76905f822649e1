//! What lives as long as a guest: its keeper, and what only a process can hold.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::OrNone;
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::{Host, HostError};
use crate::keeper_protocol::{KeeperState, Request};
use crate::ledger::rule::SameForAll;
use crate::ledger::setting::{Absence, OnRefusal, Phase, Place, Reconciling, Setting, Traits};

const TRAITS: Traits = Traits { reconciling: Reconciling::Always, ..Traits::of_peer(Phase::AroundCommands) };

/// The process that lives as long as a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeeperProcess(pub GuestUuid);

/// Whether a keeper is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeeperPresence {
    /// There is none.
    None,
    /// There is one.
    Runs,
}

impl fmt::Display for KeeperPresence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Runs => "runs",
        })
    }
}

impl fmt::Display for KeeperProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("keeper")
    }
}

impl Setting for KeeperProcess {
    type Value = KeeperPresence;
    type Want = KeeperPresence;
    type Rule = SameForAll;

    fn place(&self) -> Place {
        Place::Keeper
    }

    fn traits(&self) -> Traits {
        TRAITS
    }

    fn read(&self, host: &Host, deadline: Deadline) -> Result<KeeperPresence, HostError> {
        Ok(match host.keeper(self.0, deadline) {
            Ok(None) => KeeperPresence::None,
            // One that hangs is there too, and can be ended.
            Ok(Some(_)) | Err(_) => KeeperPresence::Runs,
        })
    }

    fn write(&self, host: &mut Host, value: &KeeperPresence, deadline: Deadline) -> Result<(), HostError> {
        match value {
            KeeperPresence::Runs => host.start_keeper(self.0, deadline),
            KeeperPresence::None => host.stop_keeper(self.0, deadline),
        }
    }

    /// Without a keeper the guest starts all the same; what needs one says so itself.
    fn on_refusal(&self, _error: &HostError) -> OnRefusal {
        OnRefusal::Skip
    }
}

/// The lock on the host's sleep that a guest's keeper holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SleepLock(pub GuestUuid);

impl fmt::Display for SleepLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sleep lock")
    }
}

impl Setting for SleepLock {
    type Value = OrNone<String>;
    type Want = OrNone<String>;
    type Rule = SameForAll;

    fn place(&self) -> Place {
        Place::SleepLock
    }

    fn traits(&self) -> Traits {
        Traits { absence: Absence::EndsWithKeeper, ..TRAITS }
    }

    fn read(&self, host: &Host, deadline: Deadline) -> Result<OrNone<String>, HostError> {
        held_by_keeper(host, self.0, deadline, |state| state.sleep_lock)
    }

    fn write(&self, host: &mut Host, what: &OrNone<String>, deadline: Deadline) -> Result<(), HostError> {
        ask_to_hold(host, self.0, Request::SleepLock(what.0.clone()), deadline)
    }
}

/// How long any CPU may take to wake up, in microseconds, as a guest's keeper asks the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CpuDmaLatency(pub GuestUuid);

impl fmt::Display for CpuDmaLatency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cpu_dma_latency")
    }
}

impl Setting for CpuDmaLatency {
    type Value = OrNone<u32>;
    type Want = OrNone<u32>;
    type Rule = SameForAll;

    fn place(&self) -> Place {
        Place::CpuDmaLatency
    }

    fn traits(&self) -> Traits {
        Traits { absence: Absence::EndsWithKeeper, ..TRAITS }
    }

    fn read(&self, host: &Host, deadline: Deadline) -> Result<OrNone<u32>, HostError> {
        held_by_keeper(host, self.0, deadline, |state| state.cpu_dma_latency)
    }

    fn write(&self, host: &mut Host, micros: &OrNone<u32>, deadline: Deadline) -> Result<(), HostError> {
        ask_to_hold(host, self.0, Request::CpuDmaLatency(micros.0), deadline)
    }
}

/// The power profile that a guest's keeper has the host's daemon hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PowerProfile(pub GuestUuid);

impl fmt::Display for PowerProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("power profile held")
    }
}

impl Setting for PowerProfile {
    type Value = OrNone<String>;
    type Want = OrNone<String>;
    type Rule = SameForAll;

    fn place(&self) -> Place {
        Place::PowerProfile
    }

    fn traits(&self) -> Traits {
        Traits { absence: Absence::EndsWithKeeper, ..TRAITS }
    }

    fn read(&self, host: &Host, deadline: Deadline) -> Result<OrNone<String>, HostError> {
        held_by_keeper(host, self.0, deadline, |state| state.power_profile)
    }

    fn write(&self, host: &mut Host, profile: &OrNone<String>, deadline: Deadline) -> Result<(), HostError> {
        ask_to_hold(host, self.0, Request::PowerProfile(profile.0.clone()), deadline)
    }
}

/// What a keeper holds; nothing where there is no keeper. What one that hangs holds goes when that is ended.
fn held_by_keeper<T>(
    host: &Host,
    guest: GuestUuid,
    deadline: Deadline,
    what: impl Fn(KeeperState) -> Option<T>,
) -> Result<OrNone<T>, HostError> {
    let keeper = host.keeper(guest, deadline).map_err(|error| HostError::gone(error.to_string()))?;
    Ok(OrNone(keeper.and_then(what)))
}

/// Asks a keeper to hold something, or nothing: that is what a keeper that is gone does anyway.
fn ask_to_hold(
    host: &mut Host,
    guest: GuestUuid,
    request: Request,
    deadline: Deadline,
) -> Result<(), HostError> {
    let is_nothing = matches!(
        request,
        Request::SleepLock(None) | Request::CpuDmaLatency(None) | Request::PowerProfile(None)
    );
    if is_nothing && host.keeper(guest, deadline)?.is_none() {
        return Ok(());
    }
    host.ask_keeper(guest, &request, deadline).map(drop)
}
