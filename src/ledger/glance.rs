//! A look at the ledger by those who change nothing: what it holds, and whether a process is at work on it.

use std::time::Duration;

use super::any_entry::AnyEntry;
use super::error::LedgerError;
use super::lease_state::LeaseState;
use super::open::{LOCK, Ledger};
use super::record::Record;
use crate::deadline::Deadline;
use crate::host::Host;

/// How long the lock is waited for: a process that has it longer is at work. An event that only looks has it for a millisecond.
const GLANCE: Duration = Duration::from_millis(50);

/// The ledger as it stands.
#[derive(Clone, Debug)]
pub struct Glance {
    /// What it holds.
    pub record: Record,
    /// Who is changing it.
    pub writer: Writer,
}

/// Whether the ledger is being changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// A process has it locked.
    AtWork,
    /// Nobody: what is open in it is left over, or waits for a process that is noted at a lease.
    Nobody,
}

impl Ledger<'_> {
    /// As [`Self::peek`], and whether the ledger is locked. Those who want the lock wait a moment longer for it.
    ///
    /// # Errors
    /// It is damaged or of a newer version.
    pub fn glance(host: &Host) -> Result<Option<Glance>, LedgerError> {
        // Held until the ledger is read: what is open in it then is not just being written.
        let shared = host.share_state_lock(LOCK, Deadline::after(GLANCE))?;
        let writer = if shared.is_some() { Writer::Nobody } else { Writer::AtWork };
        Ok(Self::peek(host)?.map(|record| Glance { record, writer }))
    }
}

impl Glance {
    /// Whether a process that lives is about to settle an entry that is not at rest.
    #[must_use]
    pub fn is_under_way(&self, entry: &dyn AnyEntry, host: &Host) -> bool {
        let is_for_nobody = entry.beneficiary().is_none();
        self.writer == Writer::AtWork || (is_for_nobody && !self.giving_back(host).is_empty())
    }

    /// The numbers of the processes that are giving leases back.
    #[must_use]
    pub fn giving_back(&self, host: &Host) -> Vec<i32> {
        let of_lease = |phase| match phase {
            LeaseState::GivingBack(by) if host.is_alive(by) => Some(by.pid),
            _ => None,
        };
        let mut processes: Vec<i32> =
            self.record.leases.values().filter_map(|lease| of_lease(lease.phase)).collect();
        processes.sort_unstable();
        processes.dedup();
        processes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::testing::{Machine, soon};

    #[test]
    fn tells_whether_somebody_has_it_locked() {
        let machine = Machine::new();
        let host = machine.host();
        assert!(Ledger::glance(&host).unwrap().is_none());
        machine.lease_nothing();
        let writer = || Ledger::glance(&host).unwrap().unwrap().writer;
        assert_eq!(writer(), Writer::Nobody);
        let mut other = machine.host();
        let ledger = Ledger::open(&mut other, soon()).unwrap();
        assert_eq!(writer(), Writer::AtWork);
        drop(ledger);
        assert_eq!(writer(), Writer::Nobody);
        std::fs::remove_file(machine.path("/run/vfio-hook/lock")).unwrap();
        assert_eq!(writer(), Writer::Nobody);
    }
}
