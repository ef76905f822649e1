//! Files and devices of shared memory.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::deadline::Deadline;
use crate::host::{Host, HostError};
use crate::ledger::rule::SameForAll;
use crate::ledger::setting::{Phase, Place, Setting, Traits, Writes};
use crate::shared_memory::{SharedMemory, SharedMemoryPath};

/// How long it may be looked for programs that have a file open; the ledger is locked meanwhile.
const LOOK_FOR_USERS: Duration = Duration::from_secs(1);

/// What is at a path of shared memory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SharedMemoryAt(pub SharedMemoryPath);

impl fmt::Display for SharedMemoryAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shared memory {}", self.0)
    }
}

impl Setting for SharedMemoryAt {
    type Value = SharedMemory;
    type Want = SharedMemory;
    type Rule = SameForAll;

    fn place(&self) -> Place {
        Place::SharedMemory
    }

    fn traits(&self) -> Traits {
        Traits { writes: Writes::Several, ..Traits::of(Phase::WithinCommands) }
    }

    fn read(&self, host: &Host, _deadline: Deadline) -> Result<SharedMemory, HostError> {
        host.shared_memory(&self.0)
    }

    fn write(&self, host: &mut Host, value: &SharedMemory, _deadline: Deadline) -> Result<(), HostError> {
        host.set_shared_memory(&self.0, value)
    }

    fn give_back(
        &self,
        host: &mut Host,
        from: &SharedMemory,
        to: &SharedMemory,
        _deadline: Deadline,
    ) -> Result<(), HostError> {
        host.give_back_shared_memory(&self.0, from, to)
    }

    /// A program that has the file open would go on with memory that no guest has any more.
    fn stays_because(&self, host: &Host, then: &SharedMemory, deadline: Deadline) -> Option<String> {
        if *then != SharedMemory::Absent {
            return None;
        }
        match host.shared_memory_users(&self.0, Deadline::after(LOOK_FOR_USERS).earlier(deadline)) {
            Ok(users) if users.is_empty() => None,
            Ok(users) => Some(users.join(", ")),
            Err(error) => Some(format!("it cannot be told whether a program has it open: {error}")),
        }
    }
}
