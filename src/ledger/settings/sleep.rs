//! What makes the host sleep.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::deadline::Deadline;
use crate::host::{Host, HostError, LidSwitchHandling, SleepMasks};
use crate::ledger::rule::SameForAll;
use crate::ledger::setting::{Phase, Place, Setting, Traits, Writes};

/// What logind does when the lid is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LidSwitch;

impl fmt::Display for LidSwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lid switch")
    }
}

impl Setting for LidSwitch {
    type Value = LidSwitchHandling;
    type Want = LidSwitchHandling;
    type Rule = SameForAll;

    fn place(&self) -> Place {
        Place::Lid
    }

    fn traits(&self) -> Traits {
        Traits::of_peer(Phase::AroundCommands)
    }

    fn read(&self, host: &Host, _deadline: Deadline) -> Result<LidSwitchHandling, HostError> {
        Ok(host.handle_lid_switch())
    }

    fn write(
        &self,
        host: &mut Host,
        handling: &LidSwitchHandling,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        host.set_handle_lid_switch(*handling, deadline)
    }
}

/// Which of the units that a sleep starts cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MaskedSleep;

impl fmt::Display for MaskedSleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("masked sleep units")
    }
}

impl Setting for MaskedSleep {
    type Value = SleepMasks;
    type Want = SleepMasks;
    type Rule = SameForAll;

    fn place(&self) -> Place {
        Place::SleepMasks
    }

    fn traits(&self) -> Traits {
        Traits { writes: Writes::Several, ..Traits::of_peer(Phase::AroundCommands) }
    }

    fn read(&self, host: &Host, _deadline: Deadline) -> Result<SleepMasks, HostError> {
        host.sleep_masks()
    }

    fn write(&self, host: &mut Host, masks: &SleepMasks, deadline: Deadline) -> Result<(), HostError> {
        host.set_sleep_masks(masks, deadline)
    }
}
