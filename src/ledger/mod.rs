//! Baselines, claims and leases: what is written down before anything is changed.
//!
//! Host state = f(baselines, live claims). Applying a claim, dropping it, rolling back half a `prepare`, cleaning up
//! after a crash and two guests released in the wrong order are all one step: recompute a setting from the ledger and
//! write it if it differs.

mod any_entry;
mod cards;
mod carry_out;
mod claim;
mod commands;
mod earlier_keepers;
mod entry;
mod error;
mod executor;
mod format;
mod format_3;
mod gather_pages;
mod give_back;
mod give_back_slowly;
mod glance;
mod guest_schedule;
mod lease_state;
mod monitors;
mod network_devices;
mod new_interrupts;
mod open;
mod page_reservations;
mod plan;
mod recompute;
mod record;
mod remedy;
mod room_for_memory;
mod rule;
mod run_commands;
mod setting;
mod settings;
mod store;
#[cfg(test)]
pub(crate) mod testing;
mod unrecorded;

pub use any_entry::AnyEntry;
pub use cards::{
    CardHealth, CardKind, CardTerms, CardUsage, Cleared, KeptAwake, Quarantine, StuckKind, StuckOperation,
    kept_awake_by,
};
pub use carry_out::Outcome;
pub use claim::{Claim, ClaimTerms, Clock, Patience};
pub use commands::{Commands, PendingUndo, Progress};
pub use entry::{Change, Entry, Seen, SeenState};
pub use error::{GivenUp, LedgerError, Shortage};
pub use executor::{Repair, RepairKind};
pub use give_back::AT_THE_END;
pub use glance::{Glance, Writer};
pub use guest_schedule::GuestSchedule;
pub use lease_state::LeaseState;
pub use monitors::{MonitorWish, Tried, Try};
pub use network_devices::awaited_devices;
pub use open::Ledger;
pub use page_reservations::available_pages;
pub use plan::{Extent, Note, NoteLevel, Plan};
pub use record::{Basis, GuestInterrupts, Lease, NetworkDevices, Purpose, Record, Sameness};
pub use remedy::remedy;
pub use room_for_memory::{PlannedRepair, RoomForMemory};
pub use run_commands::CommandNews;
pub use setting::{Occasion, OnRefusal, Peer, Phase as SettingPhase, Place, Setting};
pub use settings::*;
pub use store::{FILE, LEDGER_PATH, SECOND};
