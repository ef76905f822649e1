//! What the log says of an event.

use crate::ledger::{NoteLevel, Outcome};
use crate::log::message_id::{NOT_GIVEN_BACK, QUARANTINED};
use crate::printable::count;

/// Notes and failures one by one, and one entry for all changes.
pub(crate) fn report(event: &str, outcome: &Outcome) {
    for note in &outcome.notes {
        match note.level {
            NoteLevel::Info => crate::log::log_info!("{}", note.text),
            NoteLevel::Warning => crate::log::log_warning!("{}", note.text),
            NoteLevel::Quarantine => tracing::error!(message_id = QUARANTINED, "{}", note.text),
        }
    }
    for failure in &outcome.failures {
        tracing::error!(message_id = NOT_GIVEN_BACK, "{failure}");
    }
    if !outcome.changes.is_empty() {
        let count = count(outcome.changes.len(), "change");
        let changes: String = outcome.changes.iter().map(|change| format!("\n  {change}")).collect();
        crate::log::log_info!("{event}: {count}{changes}");
    }
}
