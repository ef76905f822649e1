//! What the ledger says of the keeper's guest, and when it is read again where it says nothing.
//!
//! A ledger that cannot be read (damaged, of a newer version, no descriptor left, an error of the file system) does not
//! say that the guest holds nothing. Until it can be read again the keeper keeps what it holds, and gives nothing back.

use std::time::{Duration, Instant};

use super::RETRY;
use crate::guest::GuestUuid;
use crate::host::Host;
use crate::ledger::{Lease, Ledger, LedgerError, Record};

/// The longest pause between two tries to read a ledger that cannot be read.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What the ledger says of a guest.
#[derive(Debug)]
pub(super) enum LeaseView {
    /// It holds nothing.
    Nothing,
    /// It holds a lease, in this ledger.
    Held(Box<HeldLease>),
    /// It cannot be told.
    Unknown,
}

/// A guest's lease, and the ledger that it stands in.
#[derive(Debug)]
pub(super) struct HeldLease {
    pub(super) record: Record,
    pub(super) lease: Lease,
}

/// Reads the ledger for one guest.
#[derive(Debug)]
pub(super) struct LedgerView {
    guest: GuestUuid,
    /// While it cannot be read: the pause before the next try, and when that is.
    unread: Option<(Duration, Instant)>,
}

impl LedgerView {
    pub(super) fn new(guest: GuestUuid) -> Self {
        Self { guest, unread: None }
    }

    /// Whether it could not be read last.
    pub(super) fn is_unknown(&self) -> bool {
        self.unread.is_some()
    }

    /// When it is to be read again.
    pub(super) fn read_again_at(&self) -> Option<Instant> {
        self.unread.map(|(_, at)| at)
    }

    /// What it says. That it cannot be read is said once, and so is that it can again.
    pub(super) fn read(&mut self, host: &Host, now: Instant) -> LeaseView {
        match Ledger::peek(host) {
            Ok(record) => {
                if self.unread.take().is_some() {
                    crate::log::log_info!("the ledger can be read again");
                }
                self.lease(record)
            }
            Err(error) => {
                self.is_unreadable(&error, now);
                LeaseView::Unknown
            }
        }
    }

    fn lease(&self, record: Option<Record>) -> LeaseView {
        let lease = |record: &Record| record.leases.get(&self.guest).cloned();
        match record.and_then(|record| lease(&record).map(|lease| HeldLease { record, lease })) {
            Some(held) => LeaseView::Held(Box::new(held)),
            None => LeaseView::Nothing,
        }
    }

    fn is_unreadable(&mut self, error: &LedgerError, now: Instant) {
        let pause = match self.unread {
            // Read between two tries: a hook has asked.
            Some((_, at)) if at > now => return,
            Some((pause, _)) => (pause * 2).min(LONGEST_PAUSE),
            None => {
                crate::log::log_error!(
                    "{error}; until the ledger can be read, the guest keeps what it holds, and nothing is given back"
                );
                RETRY
            }
        };
        self.unread = Some((pause, now + pause));
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;
    use crate::host::simulated::Faults;
    use crate::ledger::FILE;

    #[test]
    fn one_that_cannot_be_read_is_read_again_after_growing_pauses() {
        let root = tempfile::tempdir().unwrap();
        let faults = Faults::default();
        let host = Host::simulated(root.path(), &faults);
        let mut view = LedgerView::new(GuestUuid::from_bytes([1; 16]));
        let start = Instant::now();
        assert!(matches!(view.read(&host, start), LeaseView::Nothing));
        faults.refuse_read(format!("/run/vfio-hook/{FILE}"), Errno::EMFILE);
        let (mut now, mut pauses) = (start, Vec::new());
        for _ in 0..7 {
            assert!(matches!(view.read(&host, now), LeaseView::Unknown));
            let again = view.read_again_at().unwrap();
            // A request in between changes nothing.
            assert!(matches!(view.read(&host, again - Duration::from_secs(1)), LeaseView::Unknown));
            assert_eq!(view.read_again_at(), Some(again));
            pauses.push((again - now).as_secs());
            now = again;
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
        faults.clear();
        assert!(view.is_unknown());
        assert!(matches!(view.read(&host, now), LeaseView::Nothing));
        assert!(!view.is_unknown());
    }
}
