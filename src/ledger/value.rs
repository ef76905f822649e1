//! What a knob can hold, and what a guest can want of one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cpuset::CpuSet;
use crate::host::{Bindings, DropIn};
use crate::monitor::{VcpValue, input_name};

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
    /// What a monitor shows.
    Input(VcpValue),
    /// The value of another feature of a monitor.
    Vcp(VcpValue),
    /// What functions are bound to.
    Bindings(Bindings),
    /// Nobody can tell.
    Unknown,
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

impl Value {
    /// In words, for who reads the other one beside it: what they have in common is not said twice.
    #[must_use]
    pub fn beside(&self, other: &Self) -> String {
        match (self, other) {
            (Self::Bindings(this), Self::Bindings(other)) => this.beside(other).to_string(),
            _ => self.to_string(),
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
            Self::Input(value) => match input_name(*value) {
                Some(name) => f.write_str(name),
                None => value.fmt(f),
            },
            Self::Vcp(value) => value.fmt(f),
            Self::Bindings(bindings) => bindings.fmt(f),
            Self::Unknown => f.write_str("(unknown)"),
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
    /// A feature of a monitor.
    Monitor(MonitorClaim),
    /// These functions, bound like this.
    Bindings(Bindings),
}

/// What a guest wants of a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorClaim {
    /// The value.
    pub value: VcpValue,
    /// When it was claimed: the last one counts.
    pub turn: MonitorTurn,
}

/// The order in which guests came to a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MonitorTurn {
    /// The guest is gone; the monitor is on its way back.
    Over,
    /// The guest with the highest number has the monitor.
    Number(u32),
}

impl MonitorTurn {
    /// That of a guest that came when there was no other.
    pub const FIRST: Self = Self::Number(1);

    /// That of the guest that comes after this one.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::Over => Self::FIRST,
            Self::Number(number) => Self::Number(number.saturating_add(1)),
        }
    }
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
