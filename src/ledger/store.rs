//! Where the ledger is written down: two slots that are written in turn, in place, in space that was set aside for them.
//!
//! The newest slot that is whole counts. A writer that is killed leaves the other one whole, and a full disk stops no write
//! of what fits into the space that is there: giving back needs none.

use super::error::LedgerError;
use super::format::{Parsed, parse};
use super::record::Record;
use crate::host::{Host, STATE_DIR};

/// The first slot's name in [`STATE_DIR`].
pub const FILE: &str = "ledger.json";

/// The second one's.
pub const SECOND: &str = "ledger-2.json";

/// Where the first one is.
pub const LEDGER_PATH: &str = "/run/vfio-hook/ledger.json";

/// Space is set aside in pieces of this size.
const PIECE: u64 = 64 * 1024;

/// The number of the first ledger that says that something is held.
const FIRST: u64 = 2;

/// How often both slots are read where neither is whole: a writer may be at one after the other just then.
const READS: u32 = 3;

/// The ledger as it was found, and where it is written next.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) record: Option<Record>,
    pub(super) slots: Slots,
}

/// The slot that is written next.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slots {
    /// The number of the newest one; none where there is no ledger.
    newest: Option<u64>,
    next: Slot,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Slot {
    #[default]
    First,
    Second,
}

impl Slot {
    const fn name(self) -> &'static str {
        match self {
            Self::First => FILE,
            Self::Second => SECOND,
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// Reads the newest slot that is whole; no record where there is none.
///
/// # Errors
/// None is whole, or one is of a newer version.
pub(super) fn load(host: &Host) -> Result<Stored, LedgerError> {
    let mut tries = 1;
    loop {
        match load_once(host) {
            Err(LedgerError::Record { .. }) if tries < READS => tries += 1,
            loaded => return loaded,
        }
    }
}

/// Whether there are slots, and they say that nothing is held: who removed them was killed.
///
/// # Errors
/// As of [`load`].
pub(super) fn is_half_removed(host: &Host) -> Result<bool, LedgerError> {
    let is_there = [Slot::First, Slot::Second].iter().any(|slot| host.has_state(slot.name()));
    Ok(is_there && load(host)?.record.is_none())
}

fn load_once(host: &Host) -> Result<Stored, LedgerError> {
    let found = match (read(host, Slot::First), read(host, Slot::Second)) {
        // A newer program's, or one that cannot be read now: it may be the newest.
        (Err(error), _) | (_, Err(error)) if !error.is_damage() => return Err(error),
        (Ok(Some(first)), Ok(Some(second))) if first.sequence > second.sequence => Some((Slot::First, first)),
        (_, Ok(Some(second))) => Some((Slot::Second, second)),
        // One that is not whole was being written; without the first one nothing is held yet.
        (Ok(first), _) => first.map(|first| (Slot::First, first)),
        (Err(error), _) => return Err(error),
    };
    let Some((slot, Parsed { sequence, record })) = found else {
        return Ok(Stored { record: None, slots: Slots::default() });
    };
    let slots = Slots { newest: Some(sequence), next: slot.other() };
    Ok(Stored { record: Some(record).filter(|record| !record.is_empty()), slots })
}

/// None where it is absent.
fn read(host: &Host, slot: Slot) -> Result<Option<Parsed>, LedgerError> {
    let Some(bytes) = host.read_state(slot.name())? else { return Ok(None) };
    match parse(&bytes) {
        Ok(parsed) => Ok(Some(parsed)),
        Err(reason) => Err(LedgerError::Record { path: format!("{STATE_DIR}/{}", slot.name()), reason }),
    }
}

impl Slots {
    /// The number of the newest slot: each store counts it up. None where there is no ledger.
    pub(super) fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// Whether an earlier version of this program wrote what was found: its slots have no numbers.
    pub(super) fn is_of_older_format(&self) -> bool {
        self.newest == Some(0)
    }

    /// Writes the ledger, or removes it where nothing is held.
    pub(super) fn store(&mut self, host: &mut Host, record: &Record) -> Result<(), LedgerError> {
        match (record.is_empty(), self.newest) {
            (true, None) => Ok(()),
            (true, Some(_)) => self.remove(host, record),
            (false, None) => {
                // A writer that is killed in the middle of the first one leaves a whole one that says that nothing is
                // held. Both have their space before the first change: from then on no write needs any.
                *self = Self { newest: Some(0), next: Slot::Second };
                let nothing = Record::empty(record.boot_id.clone());
                let written = self
                    .write(host, &nothing, reserved_for(record))
                    .and_then(|()| self.write(host, record, reserved_for(record)));
                if written.is_err() {
                    // Nothing is changed yet. What cannot be removed either says so.
                    let _ = self.clean_up(host);
                    *self = Self::default();
                }
                written
            }
            (false, Some(_)) => {
                // An earlier version reads the first slot alone, and must not find there what was true before.
                if self.is_of_older_format() {
                    self.write(host, record, reserved_for(record))?;
                }
                self.write(host, record, reserved_for(record))
            }
        }
    }

    fn write(&mut self, host: &mut Host, record: &Record, reserved: u64) -> Result<(), LedgerError> {
        let sequence = self.newest.unwrap_or_default() + 1;
        let mut bytes = record.to_bytes_of(sequence);
        // What an earlier, longer ledger left behind it is blank from now on.
        let size = usize::try_from(host.state_size(self.next.name())?).unwrap_or(usize::MAX);
        if size > bytes.len() {
            bytes.resize(size, b' ');
        }
        let written = host.write_state_slot(self.next.name(), &bytes, reserved);
        if written.is_err() && sequence > FIRST {
            // No more space can be set aside: what there is may do.
            host.write_state_slot(self.next.name(), &bytes, 0)?;
        } else {
            written?;
        }
        *self = Self { newest: Some(sequence), next: self.next.other() };
        Ok(())
    }

    fn remove(&mut self, host: &mut Host, nothing: &Record) -> Result<(), LedgerError> {
        self.write(host, nothing, 0)?;
        host.remove_replacements();
        self.clean_up(host)
    }

    /// Removes slots of which the newest that is whole says that nothing is held: that one last.
    pub(super) fn clean_up(&mut self, host: &mut Host) -> Result<(), LedgerError> {
        for slot in [self.next, self.next.other()] {
            if host.has_state(slot.name()) {
                host.remove_state_file(slot.name())?;
            }
        }
        *self = Self::default();
        Ok(())
    }

    /// Keeps the newest slot under another name, and removes the other one.
    pub(super) fn archive(&mut self, host: &mut Host, archived: &str) -> Result<(), LedgerError> {
        host.remove_state_file(self.next.name())?;
        host.archive_state(self.next.other().name(), archived)?;
        *self = Self::default();
        Ok(())
    }
}

/// Twice what is written now: what is under way takes more, and no step of giving back as much as that.
fn reserved_for(record: &Record) -> u64 {
    (record.to_bytes_of(u64::MAX).len() as u64 * 2).next_multiple_of(PIECE)
}
