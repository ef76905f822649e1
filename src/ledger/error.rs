//! Why the ledger could not do what was asked.

use std::fmt;

use thiserror::Error;

use super::cards::StuckOperation;
use super::claim::ClaimTerms;
use super::format::RecordError;
use super::remedy::remedy;
use crate::cpuset::NodeSet;
use crate::host::HostError;
use crate::key_path::KeyPath;
use crate::pages::PageSize;
use crate::printable::count;

/// What kind of program failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedProgram {
    /// A command of the YAML file.
    Command,
    /// One of a folder of scripts.
    Script,
}

/// Why the ledger could not do what was asked.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The machine refused.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The machine refused what a guest claims.
    #[error("{cause}")]
    Claim {
        /// What was tried, and why it failed.
        cause: Box<HostError>,
        /// On which terms it was claimed.
        terms: Box<ClaimTerms>,
    },
    /// The ledger's file cannot be used.
    #[error("{path}: {reason}")]
    Record {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: RecordError,
    },
    /// Another guest holds the setting with another value.
    #[error("{setting} is held at `{held}` by guest {holder}, this guest wants `{wanted}`")]
    Conflict {
        /// The setting, in words.
        setting: String,
        /// The other guest's name.
        holder: String,
        /// What it has.
        held: String,
        /// What is wanted.
        wanted: String,
        /// The key of this guest's file that asks for it.
        key: Option<Box<KeyPath>>,
    },
    /// Not enough huge pages.
    #[error(transparent)]
    Shortage(#[from] Box<Shortage>),
    /// A command of the guest's failed that must not.
    #[error("{words}")]
    Command {
        /// Which, and how, in words.
        words: String,
        /// What kind it is.
        program: FailedProgram,
    },
    /// A desktop was told that a card is gone, and has it open all the same.
    #[error("{desktop} does not react to udev's event that the card is removed: {cause}")]
    DeafDesktop {
        /// The name of its process.
        desktop: String,
        /// What keeps it from a card: words that follow "for the desktop".
        setting: &'static str,
        /// What has the card open.
        cause: Box<LedgerError>,
    },
    /// A card does not answer once it is handed over.
    #[error("{card} does not answer once it is handed over: {evidence}")]
    CardDoesNotAnswer {
        /// The card's name.
        card: String,
        /// What was seen.
        evidence: String,
    },
    /// A keeper of an earlier version is giving back the lease of this guest.
    #[error(
        "a keeper of an earlier version, which cannot read the ledger of this one, is giving back the lease \
         of guest {0}"
    )]
    EarlierVersionAtWork(String),
    /// Another process is clearing a quarantine: its number.
    #[error("another `vfio-hook gpu clear` is at work (process {0})")]
    BeingCleared(i32),
    /// The lease was given back by another process while it was being taken.
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
    /// The ledger cannot be written while a lease is given back.
    #[error(
        "{reason}; given back all the same: {}; left until the ledger can be written: {}{}",
        count(*given_back, "setting"),
        count(waiting.len(), "setting"),
        named(waiting)
    )]
    Unrecorded {
        /// The store's error.
        reason: Box<LedgerError>,
        /// How many settings are back.
        given_back: usize,
        /// Those that are not, in words.
        waiting: Vec<String>,
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
    /// Why no more was tried.
    pub reason: GivenUp,
    /// On which terms they were claimed.
    pub terms: ClaimTerms,
}

/// Why the gathering of huge pages was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// Its time was over.
    OutOfTime,
    /// Several attempts gained none.
    NoneToBeHad,
}

impl Shortage {
    fn help(&self) -> Option<String> {
        let mut advice = if self.size > PageSize::MIB_2 {
            format!(
                "memory is too fragmented for pages of {0}: reserve them at boot (hugepagesz, hugepages= or \
                 hugetlb_cma= on the kernel command line), or use pages of 2 MiB in the guest's XML",
                self.size
            )
        } else {
            "close programs that use much memory, start the guest sooner after boot, or reserve the pages at \
             boot (hugepages= on the kernel command line)"
                .to_owned()
        };
        if let (GivenUp::OutOfTime, Some(patience)) = (self.reason, &self.terms.patience) {
            advice.push_str(&format!("; `{}` gives it more time", patience.key));
        }
        KeyPath::add_to_hint(self.terms.key.as_ref(), Some(advice))
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, wanted, got, nodes, per_node, .. } = self;
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

/// The first of these settings.
fn named(settings: &[String]) -> String {
    const NAMED: usize = 3;
    match settings.len() {
        0 => String::new(),
        1..=NAMED => format!(" ({})", settings.join(", ")),
        _ => format!(" ({}, ...)", settings[..NAMED].join(", ")),
    }
}

impl LedgerError {
    /// Whether the ledger could be read and makes no sense.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Record { reason: RecordError::Damaged(_), .. })
    }

    /// What the machine refused, where that is what failed.
    pub(super) fn of_host(&self) -> Option<&HostError> {
        match self {
            Self::Host(error) => Some(error),
            Self::Claim { cause, .. } => Some(cause),
            _ => None,
        }
    }

    /// The same, with the claim that it was about: its hint names the key that asks for it.
    pub(super) fn asked_by(self, terms: &ClaimTerms) -> Self {
        match self {
            Self::Host(cause) if !cause.is_of_own_file() => {
                Self::Claim { cause: Box::new(cause), terms: Box::new(terms.clone()) }
            }
            Self::Conflict { setting, holder, held, wanted, key: None } => {
                let key = terms.key.clone().map(Box::new);
                Self::Conflict { setting, holder, held, wanted, key }
            }
            Self::Shortage(shortage) => {
                Self::Shortage(Box::new(Shortage { terms: terms.clone(), ..*shortage }))
            }
            other => other,
        }
    }

    pub(super) fn but_not_undone(self, rest: String) -> Self {
        Self::NotUndone { cause: Box::new(self), rest }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Host(error) => StuckOperation::help_for(error).or_else(|| remedy(error)),
            Self::Claim { cause, terms } => StuckOperation::help_for(cause).or_else(|| terms.help(cause)),
            Self::Record { reason: RecordError::Newer(_), .. } => {
                Some("use the newer vfio-hook that wrote it, or restart the host".to_owned())
            }
            Self::Record { path, .. } => Some(format!(
                "look at {path}; restarting the host removes it together with everything it describes"
            )),
            Self::Conflict { holder, key, .. } => {
                let advice =
                    format!("shut {holder} down first, or write the same value into both YAML files");
                KeyPath::add_to_hint(key.as_deref(), Some(advice))
            }
            Self::Shortage(shortage) => shortage.help(),
            Self::NotUndone { cause, .. } => {
                let cause = cause.help().map(|help| format!("{help}; ")).unwrap_or_default();
                Some(format!(
                    "{cause}`vfio-hook undo --stale` tries again, and so do the guest's keeper and its next \
                     start; `vfio-hook status` shows what is left"
                ))
            }
            Self::Command { program, .. } => Some(match program {
                FailedProgram::Command => {
                    "`journalctl -t vfio-hook` has what it printed, if it ran; with `run.on_failure: warn` \
                     the guest starts all the same"
                        .to_owned()
                }
                FailedProgram::Script => {
                    "`journalctl -t vfio-hook` has what it printed, if it ran; a script of `run.scripts` \
                     that fails refuses the start, as it does where libvirt runs it"
                        .to_owned()
                }
            }),
            Self::DeafDesktop { setting, .. } => Some(format!(
                "`gpu.holders.wait` gives it more time; {setting} keeps it from the card at all, with `return_to: vfio` from \
                 the first guest on; `display_manager: stop` ends it; `gpu.compositors` of the YAML file asks for the event"
            )),
            Self::EarlierVersionAtWork(_) => {
                Some("try again when it has finished; `vfio-hook status` shows that".to_owned())
            }
            Self::CardDoesNotAnswer { .. } => Some(
                "`vfio-hook gpu` shows what becomes of it; `vfio-hook gpu report` prints what a report of \
                 the problem needs"
                    .to_owned(),
            ),
            Self::BeingCleared(_) => {
                Some("wait until it has ended; a step of `recover` takes up to 75 s".to_owned())
            }
            Self::Unrecorded { .. } => Some(
                "once /run/vfio-hook can be written, `vfio-hook undo --stale` gives the rest back; the \
                 guest's keeper tries it, too"
                    .to_owned(),
            ),
            Self::GivenBack => Some("start the guest again".to_owned()),
            Self::TimedOut(_) => Some("look at `journalctl -t vfio-hook` for what it waited for".to_owned()),
        }
    }
}
