//! Baselines, claims and leases: what is written down before anything is changed.
//!
//! Host state = f(baselines, live claims). Applying a claim, dropping it, rolling back half a `prepare`, cleaning up
//! after a crash and two guests released in the wrong order are all one step: recompute a knob from the ledger and
//! write it if it differs.

mod cards;
mod carry_out;
mod combine;
mod commands;
mod error;
mod foreign;
mod gather_pages;
mod give_back;
mod glance;
mod knob;
mod monitors;
mod new_interrupts;
mod open;
mod plan;
mod promises;
mod record;
mod value;

pub use cards::{CardKind, CardTerms, CardUsage, Cleared, Quarantine, StuckKind, StuckOperation, Verdict};
pub use carry_out::Outcome;
pub use commands::{Commands, Progress};
pub use error::{LedgerError, Shortage};
pub use give_back::AT_THE_END;
pub use glance::{Glance, Writer};
pub use knob::{Knob, OnRefusal, Turn};
pub(crate) use knob::{LOADED, NONE as EMPTY, RUNS};
pub use monitors::{MonitorWish, Tried, Try};
pub use open::{CardPatience, Effort, FILE, LEDGER_PATH, Ledger};
pub use plan::{Change, Claim, Extent, Note, NoteLevel, Plan};
pub use promises::available_pages;
pub use record::{Entry, GuestInterrupts, Lease, Pending, Phase, Record};
pub use value::{MonitorClaim, MonitorTurn, NodeBinding, PageShare, Value, Want};
