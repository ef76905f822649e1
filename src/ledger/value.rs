//! What a knob can hold, and what a guest can want of one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cpuset::CpuSet;
use crate::host::DropIn;

/// What a knob holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Value {
    /// A set of CPUs.
    Cpus(CpuSet),
    /// A unit's `AllowedCPUs`; no CPUs: nothing is set.
    AllowedCpus {
        /// The CPUs set.
        cpus: CpuSet,
        /// Whether a setting made at run time has left its file.
        drop_in: DropIn,
    },
    /// A word of the kernel's.
    Text(String),
    /// A number of pages.
    Pages(u64),
}

impl Value {
    /// A word of the program's own.
    pub(super) fn word(word: &str) -> Self {
        Self::Text(word.to_owned())
    }

    /// Whether both mean the same to whoever looks from outside: a file that systemd leaves behind does not count.
    #[must_use]
    pub fn means_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::AllowedCpus { cpus: left, .. }, Self::AllowedCpus { cpus: right, .. }) => left == right,
            (left, right) => left == right,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpus(cpus) | Self::AllowedCpus { cpus, .. } if cpus.is_empty() => f.write_str("(none)"),
            Self::Cpus(cpus) | Self::AllowedCpus { cpus, .. } => cpus.fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::Pages(pages) => pages.fmt(f),
        }
    }
}

/// What one guest wants of one knob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Want {
    /// These CPUs for itself: nothing else may be served by or run on them.
    Cpus(CpuSet),
    /// This word.
    Text(String),
    /// Pages of a pool.
    Pages(PageShare),
}

/// A guest's part of a page pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageShare {
    /// How many pages it will use, whether they were free before or not.
    pub promised: u64,
    /// How many of these are not there (yet): while they are gathered, or for good if the shortage was let pass.
    pub missing: u64,
    /// How many were added to the pool for it; as many go when it goes.
    pub added: u64,
    /// Whether the pages may come from another node.
    pub binding: NodeBinding,
}

impl PageShare {
    /// A share of which nothing was added yet.
    #[must_use]
    pub fn new(promised: u64, binding: NodeBinding) -> Self {
        Self { promised, missing: 0, added: 0, binding }
    }

    /// The pages that have to be there for the guest.
    #[must_use]
    pub fn set_aside(self) -> u64 {
        self.promised.saturating_sub(self.missing)
    }
}

/// Whether pages may come from another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeBinding {
    /// The XML binds the guest's memory to this node.
    Bound,
    /// Any node the guest has a share on will do.
    Movable,
}
