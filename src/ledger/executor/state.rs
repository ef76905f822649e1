//! The ledger's own files: what is written and removed in `/run/vfio-hook`.

use std::time::Instant;

use crate::guest::GuestUuid;
use crate::host::{Host, STATE_DIR, xml_file};
use crate::ledger::error::LedgerError;
use crate::ledger::open::{LOCK, Ledger};
use crate::ledger::plan::Note;
use crate::ledger::record::Record;
use crate::ledger::store::{self, FILE, Slots, Stored};

impl Ledger<'_> {
    /// Writes the ledger, or removes its file where nobody holds anything.
    pub(in crate::ledger) fn store(&mut self) -> Result<(), LedgerError> {
        self.slots.store(self.host.0, &self.record)
    }

    /// Lets others at the ledger.
    pub(super) fn unlock(&mut self) {
        self.lock = None;
    }

    /// Whether nobody else gets at the ledger.
    pub(in crate::ledger) fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// Takes the lock again where it was given up, with what the others made of the ledger.
    pub(in crate::ledger) fn relock(&mut self) -> Result<(), LedgerError> {
        if self.lock.is_none() {
            self.lock = Some(self.host.0.lock_state(LOCK, self.deadline)?);
            (self.record, self.slots) = load_for_this_boot(self.host.0, &mut self.recovered.notes)?;
            self.locked_since = Instant::now();
            self.turns += 1;
        }
        Ok(())
    }

    /// Keeps the guest's XML until its lease is gone.
    ///
    /// # Errors
    /// `/run` cannot be written.
    pub fn keep_xml(&mut self, uuid: GuestUuid, xml: &[u8]) -> Result<(), LedgerError> {
        Ok(self.host.0.replace_state(&xml_file(uuid), xml)?)
    }

    /// Removes it.
    pub(in crate::ledger) fn forget_xml(&mut self, uuid: GuestUuid) -> Result<(), LedgerError> {
        Ok(self.host.0.remove_state_file(&xml_file(uuid))?)
    }
}

/// A ledger of another boot describes values that are gone: it is kept aside and never acted on.
pub(in crate::ledger) fn load_for_this_boot(
    host: &mut Host,
    notes: &mut Vec<Note>,
) -> Result<(Record, Slots), LedgerError> {
    let boot_id = host.boot_id()?;
    let Stored { record, mut slots } = store::load(host)?;
    match record {
        Some(record) if record.boot_id == boot_id => Ok((record, slots)),
        Some(record) => {
            let archived = format!("{FILE}.{}", printable_boot_id(&record.boot_id));
            slots.archive(host, &archived)?;
            notes.push(Note::warning(format!(
                "the ledger was of another boot; kept as {STATE_DIR}/{archived}"
            )));
            Ok((Record::empty(boot_id), slots))
        }
        None => {
            slots.clean_up(host)?;
            Ok((Record::empty(boot_id), slots))
        }
    }
}

/// A boot id read from a file becomes part of a file name.
fn printable_boot_id(boot_id: &str) -> String {
    boot_id.chars().filter(|c| c.is_ascii_hexdigit() || *c == '-').take(36).collect()
}
