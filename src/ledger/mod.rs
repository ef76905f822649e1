//! Baselines, claims and leases: what is written down before anything is changed.
//!
//! Host state = f(baselines, live claims). Applying a claim, dropping it, rolling back half a `prepare`, cleaning up
//! after a crash and two guests released in the wrong order are all one step: recompute a knob from the ledger and
//! write it if it differs.

mod carry_out;
mod combine;
mod error;
mod foreign;
mod gather_pages;
mod knob;
mod open;
mod plan;
mod promises;
mod record;
mod value;

pub use carry_out::Outcome;
pub use error::{LedgerError, Shortage};
pub use knob::{Knob, OnRefusal};
pub use open::{FILE, Ledger, PageEffort};
pub use plan::{Change, Claim, Note, NoteLevel, Plan};
pub use promises::available_pages;
pub use record::{Entry, Lease, Phase, Record};
pub use value::{NodeBinding, PageShare, Value, Want};
