//! Units that step aside for a guest or run for it, and the kernel module that monitors need.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::deadline::Deadline;
use crate::host::{Host, HostError, I2cDev, ServiceUnit, UnitActivity};
use crate::ledger::rule::{Conflict, Rule, SameForAll};
use crate::ledger::setting::{Combining, Locking, OnRefusal, Phase, Place, Setting, Traits};

/// Whether a unit runs: a service, or a socket, timer or path unit that waits to start one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnitRuns(pub ServiceUnit);

/// What all guests want which want something; a unit that runs need not be started for them.
#[derive(Debug)]
pub enum AsWanted {}

impl Rule<UnitRuns> for AsWanted {
    fn combine(of: &Combining<'_, UnitRuns>) -> Result<UnitActivity, Conflict> {
        let wanted = <SameForAll as Rule<UnitRuns>>::combine(of)?;
        Ok(if UnitRuns::is_same(&wanted, of.now) { *of.now } else { wanted })
    }

    fn explains(of: &Combining<'_, UnitRuns>, value: &UnitActivity) -> bool {
        <SameForAll as Rule<UnitRuns>>::explains(of, value)
    }
}

impl fmt::Display for UnitRuns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Setting for UnitRuns {
    type Value = UnitActivity;
    type Want = UnitActivity;
    type Rule = AsWanted;

    /// Sockets, timers and paths are stopped last and started first: a socket does not start while its service runs.
    fn place(&self) -> Place {
        match self.0.unit.as_str().rsplit_once('.') {
            Some((_, "socket" | "timer" | "path" | "automount")) => Place::Triggers,
            _ => Place::Services,
        }
    }

    fn traits(&self) -> Traits {
        Traits { locking: Locking::Released, ..Traits::of_peer(Phase::AroundCommands) }
    }

    fn read(&self, host: &Host, deadline: Deadline) -> Result<UnitActivity, HostError> {
        host.unit_activity(&self.0, deadline)
    }

    fn write(&self, host: &mut Host, activity: &UnitActivity, deadline: Deadline) -> Result<(), HostError> {
        host.set_unit_activity(&self.0, *activity, deadline)
    }

    fn is_same(left: &UnitActivity, right: &UnitActivity) -> bool {
        (*left == UnitActivity::Stopped) == (*right == UnitActivity::Stopped)
    }
}

/// Whether the kernel's module is loaded that gives programs the i2c buses of monitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct I2cDevModule;

/// Whether a kernel module is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModulePresence {
    /// It is not loaded.
    None,
    /// It is loaded, or part of the kernel.
    Loaded,
}

impl fmt::Display for ModulePresence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Loaded => "loaded",
        })
    }
}

impl fmt::Display for I2cDevModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("kernel module i2c-dev")
    }
}

impl Setting for I2cDevModule {
    type Value = ModulePresence;
    type Want = ModulePresence;
    type Rule = SameForAll;

    fn place(&self) -> Place {
        Place::Module
    }

    fn traits(&self) -> Traits {
        Traits::of_peer(Phase::AroundCommands)
    }

    fn read(&self, host: &Host, _deadline: Deadline) -> Result<ModulePresence, HostError> {
        Ok(match host.i2c_dev() {
            I2cDev::Absent => ModulePresence::None,
            I2cDev::Loaded | I2cDev::BuiltIn => ModulePresence::Loaded,
        })
    }

    fn write(&self, host: &mut Host, presence: &ModulePresence, deadline: Deadline) -> Result<(), HostError> {
        match presence {
            ModulePresence::Loaded => host.load_i2c_dev(deadline),
            ModulePresence::None => host.unload_i2c_dev().map(drop),
        }
    }

    fn on_refusal(&self, _error: &HostError) -> OnRefusal {
        OnRefusal::Skip
    }
}
