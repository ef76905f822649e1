//! Files of the kernel's that have no row in the table: a person named them by their path.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::deadline::Deadline;
use crate::host::{Host, HostError};
use crate::ledger::rule::SameForAll;
use crate::ledger::setting::{Locking, Phase, Place, Setting, Traits};

/// What one file holds: a line, or the word in brackets of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KernelFile(pub PathBuf);

impl fmt::Display for KernelFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Setting for KernelFile {
    type Value = String;
    type Want = String;
    type Rule = SameForAll;

    fn place(&self) -> Place {
        Place::Kernel
    }

    /// What the kernel does at a write is not known: it may wait for a device.
    fn traits(&self) -> Traits {
        Traits { locking: Locking::Released, ..Traits::of_peer(Phase::WithinCommands) }
    }

    fn read(&self, host: &Host, _deadline: Deadline) -> Result<String, HostError> {
        Ok(host.kernel_setting(&self.0)?.value)
    }

    fn write(&self, host: &mut Host, value: &String, deadline: Deadline) -> Result<(), HostError> {
        host.set_kernel_setting(&self.0, value, deadline)
    }
}
