//! What a worker is told, and what it answers: a line of JSON each.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::host::bounded_child;
use crate::host::i2c::I2cBus;
use crate::host::monitors::{MonitorFound, Talk};
use crate::host::pci::Look;

/// How long a worker that talked with monitors may take to end; one that hangs takes for ever.
pub(super) const LEAVES: Duration = Duration::from_millis(100);

/// What a worker is to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::host) enum Order {
    /// Write a value into a kernel attribute. One answer: nothing.
    Write {
        /// The file.
        path: PathBuf,
        /// What is written, in one write.
        value: String,
    },
    /// Read kernel attributes, one after the other. An answer for each: its text, without the end of the last line.
    Read(Vec<PathBuf>),
    /// Write back all files that were changed in memory. One answer: nothing.
    Sync,
    /// Read the configuration space of PCI functions, one after the other. An answer for each: what came of it.
    Probe(Vec<Look>),
    /// Talk with monitors. One answer: what was [`Said`].
    Monitors {
        /// The questions or orders to the monitors.
        talk: Talk,
        /// How long that may take.
        milliseconds: u64,
        /// Where something hangs that the parent knows of: these are not touched.
        hanging: Vec<I2cBus>,
        /// The monitors that the parent has just found.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        found: Vec<MonitorFound>,
    },
}

/// What came of a talk with monitors.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::host) struct Said<T> {
    /// The answer, or why there is none.
    pub(in crate::host) answer: Result<T, String>,
    /// Where a thread of the worker hangs, which keeps it from ending.
    pub(in crate::host) hanging: Vec<I2cBus>,
}

impl Order {
    /// How many answers it has.
    pub(super) fn answers(&self) -> usize {
        match self {
            Self::Write { .. } | Self::Sync | Self::Monitors { .. } => 1,
            Self::Read(paths) => paths.len(),
            Self::Probe(looks) => looks.len(),
        }
    }

    /// How long a worker that took too long over it may take to end, once it is killed, before it counts as kept by the
    /// kernel. A talk with monitors is given up by the worker itself before.
    pub(super) fn ends(&self) -> Duration {
        match self {
            Self::Write { .. } | Self::Read(_) | Self::Sync | Self::Probe(_) => bounded_child::ENDS,
            Self::Monitors { .. } => LEAVES,
        }
    }
}

/// Why the kernel refused: its `errno`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::host) struct Refusal(pub(in crate::host) i32);

impl From<io::Error> for Refusal {
    /// What is no error of the kernel's is one of the transfer.
    fn from(error: io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(Errno::EIO as i32))
    }
}

impl From<Refusal> for io::Error {
    fn from(Refusal(errno): Refusal) -> Self {
        Self::from_raw_os_error(errno)
    }
}

/// One answer.
pub(in crate::host) type Answer<T> = Result<T, Refusal>;
