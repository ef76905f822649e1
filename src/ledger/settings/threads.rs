//! How the threads of a guest's QEMU are scheduled.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::deadline::Deadline;
use crate::host::{Host, HostError, ThreadId, ThreadRole};
use crate::ledger::rule::{Conflict, Rule};
use crate::ledger::setting::{Absence, Combining, OnRefusal, Phase, Place, Reconciling, Setting, Traits};
use crate::scheduling::{Scheduling, WantedScheduling};

/// How one thread of a guest's QEMU is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ThreadScheduling {
    /// What it is for.
    pub role: ThreadRole,
    /// The thread.
    pub thread: ThreadId,
}

impl fmt::Display for ThreadScheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (thread {})", self.role, self.thread.thread)
    }
}

impl Setting for ThreadScheduling {
    type Value = Scheduling;
    type Want = WantedScheduling;
    type Rule = AsWanted;

    fn place(&self) -> Place {
        Place::Threads
    }

    /// With QEMU its threads are gone, and nothing is to be given back.
    fn traits(&self) -> Traits {
        Traits {
            reconciling: Reconciling::Noticed,
            absence: Absence::Expected,
            ..Traits::of(Phase::WithinCommands)
        }
    }

    fn read(&self, host: &Host, _deadline: Deadline) -> Result<Scheduling, HostError> {
        host.thread_scheduling(self.thread)
    }

    fn write(&self, host: &mut Host, value: &Scheduling, _deadline: Deadline) -> Result<(), HostError> {
        host.set_thread_scheduling(self.thread, *value)
    }

    fn on_refusal(&self, error: &HostError) -> OnRefusal {
        if error.is_absent() { OnRefusal::Skip } else { OnRefusal::Refuse }
    }
}

/// The baseline with what the thread's own guest wants: a nice value, or a policy.
#[derive(Debug)]
pub enum AsWanted {}

impl Rule<ThreadScheduling> for AsWanted {
    fn combine(of: &Combining<'_, ThreadScheduling>) -> Result<Scheduling, Conflict> {
        Ok(of.claims.values().fold(*of.baseline, |scheduling, want| scheduling.with(*want)))
    }

    fn explains(of: &Combining<'_, ThreadScheduling>, value: &Scheduling) -> bool {
        of.claims.values().any(|want| of.baseline.with(*want) == *value)
    }
}
