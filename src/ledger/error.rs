//! Why the ledger could not do what was asked.

use std::fmt;

use thiserror::Error;

use super::record::RecordError;
use crate::cpuset::NodeSet;
use crate::host::HostError;
use crate::pages::PageSize;

/// Why the ledger could not do what was asked.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The machine refused.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The ledger's file cannot be used.
    #[error("{path}: {reason}")]
    Record {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: RecordError,
    },
    /// Another guest holds the knob with another value.
    #[error("{knob} is held at `{held}` by guest {holder}, this guest wants `{wanted}`")]
    Conflict {
        /// The knob, in words.
        knob: String,
        /// The other guest's name.
        holder: String,
        /// What it has.
        held: String,
        /// What is wanted.
        wanted: String,
    },
    /// Not enough huge pages.
    #[error(transparent)]
    Shortage(#[from] Shortage),
    /// A command of the guest's failed that must not.
    #[error("{0}")]
    Command(String),
    /// A card does not answer once it is handed over.
    #[error("{card} does not answer once it is handed over: {evidence}")]
    CardDoesNotAnswer {
        /// Which.
        card: String,
        /// What was seen.
        evidence: String,
    },
    /// Somebody is clearing a quarantine: the number of the process.
    #[error("another `vfio-hook gpu clear` is at work (process {0})")]
    BeingCleared(i32),
    /// The lease was given back by somebody while it was being taken.
    #[error("the lease was given back while it was being taken")]
    GivenBack,
    /// The guest must not start, and the host is not as it was before.
    #[error("{cause}; not all that was taken for it is given back: {rest}")]
    NotUndone {
        /// Why the guest must not start.
        cause: Box<LedgerError>,
        /// What is not given back.
        rest: String,
    },
    /// The time of the event is over.
    #[error("{0} did not finish in time")]
    TimedOut(String),
}

/// Not enough huge pages, in spite of all that can be tried at run time.
#[derive(Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The size of the pages.
    pub size: PageSize,
    /// How many the guest needs.
    pub wanted: u64,
    /// How many could be had.
    pub got: u64,
    /// The nodes they were looked for on.
    pub nodes: NodeSet,
    /// What each node has, in words.
    pub per_node: Vec<String>,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, wanted, got, nodes, per_node } = self;
        write!(
            f,
            "wanted {wanted} huge pages of {size} ({}) on node {nodes}, got {got} ({}): {}",
            size.times(*wanted),
            size.times(*got),
            per_node.join("; ")
        )
    }
}

impl std::error::Error for Shortage {}

impl LedgerError {
    pub(super) fn but_not_undone(self, rest: String) -> Self {
        Self::NotUndone { cause: Box::new(self), rest }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Host(error) => error.help().map(str::to_owned),
            Self::Record { reason: RecordError::Newer(_), .. } => {
                Some("use the newer vfio-hook that wrote it, or restart the host".to_owned())
            }
            Self::Record { path, .. } => Some(format!(
                "look at {path}; restarting the host removes it together with everything it describes"
            )),
            Self::Conflict { holder, .. } => {
                Some(format!("shut {holder} down first, or write the same value into both YAML files"))
            }
            Self::Shortage(shortage) if shortage.size > PageSize::MIB_2 => Some(format!(
                "memory is too fragmented for pages of {0}: reserve them at boot (hugepagesz, hugepages= or \
                 hugetlb_cma= on the kernel command line), or use pages of 2 MiB in the guest's XML",
                shortage.size
            )),
            Self::Shortage(_) => Some(
                "close programs that use much memory, start the guest sooner after boot, or reserve the pages at \
                 boot (hugepages= on the kernel command line)"
                    .to_owned(),
            ),
            Self::NotUndone { .. } => Some(
                "`vfio-hook undo --stale` tries again, and so does the next start of any guest; `vfio-hook status` \
                 shows what is left"
                    .to_owned(),
            ),
            Self::Command(_) => Some(
                "`journalctl -t vfio-hook` has what it printed; with `on_failure: warn` the guest starts all the same"
                    .to_owned(),
            ),
            Self::CardDoesNotAnswer { .. } => Some(
                "`vfio-hook gpu` shows what becomes of it; `vfio-hook gpu report` prints what a report of the problem needs"
                    .to_owned(),
            ),
            Self::BeingCleared(_) => Some("wait until it has ended; a step of `recover` takes up to 75 s".to_owned()),
            Self::GivenBack => Some("start the guest again".to_owned()),
            Self::TimedOut(_) => Some("look at `journalctl -t vfio-hook` for what it waited for".to_owned()),
        }
    }
}
