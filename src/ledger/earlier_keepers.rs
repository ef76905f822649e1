//! Keepers of an earlier version of this program, which cannot read what this one writes: each gets a successor before the
//! first ledger in the new format is stored.

use super::error::LedgerError;
use super::lease_state::LeaseState;
use super::open::Ledger;
use super::plan::Note;
use super::settings::{CpuDmaLatency, KeeperProcess, SleepLock};
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::HostError;
use crate::keeper_protocol::Generation;

impl Ledger<'_> {
    /// Replaces keepers of earlier versions: those of all guests before a ledger of an older format is written anew, else
    /// that of the guest whose event this is. What cannot be replaced now is ended with its guest at the latest.
    ///
    /// # Errors
    /// One is giving a lease back just now, and has to be able to read the ledger until it is done.
    pub(super) fn replace_earlier_keepers(&mut self) -> Result<(), LedgerError> {
        let guests: Vec<GuestUuid> = if self.is_of_older_format() {
            self.record.leases.keys().copied().collect()
        } else {
            self.event_of.into_iter().collect()
        };
        let earlier: Vec<(GuestUuid, Vec<Generation>)> = guests
            .into_iter()
            .map(|uuid| (uuid, self.host.earlier_keepers(uuid)))
            .filter(|(_, earlier)| !earlier.is_empty())
            .collect();
        for (uuid, _) in &earlier {
            let Some(lease) = self.record.leases.get(uuid) else { continue };
            if self.is_of_older_format()
                && matches!(lease.phase, LeaseState::GivingBack(by) if self.host.is_alive(by))
            {
                return Err(LedgerError::EarlierVersionAtWork(lease.name.clone()));
            }
        }
        let deadline = self.half_of_the_time();
        for (uuid, earlier) in earlier {
            let Some(name) = self.record.leases.get(&uuid).map(|lease| lease.name.clone()) else { continue };
            let replaced = self.start_successor(uuid, deadline).and_then(|()| {
                earlier.into_iter().try_for_each(|generation| self.stop_keeper_of(uuid, generation, deadline))
            });
            self.recovered.notes.push(match replaced {
                Ok(()) => {
                    Note::info(format!("the keeper of guest {name} was of an earlier version: replaced"))
                }
                Err(error) => Note::warning(format!(
                    "the keeper of guest {name} is of an earlier version and was not replaced: {error}"
                )),
            });
        }
        Ok(())
    }

    /// The successor holds what the ledger says that its predecessor holds: nothing is announced, for no value changes.
    fn start_successor(&mut self, uuid: GuestUuid, deadline: Deadline) -> Result<(), HostError> {
        if self.record.entry(&KeeperProcess(uuid)).is_none() {
            return Ok(());
        }
        if !self.host.has_keeper(uuid) {
            self.start_keeper(uuid, deadline)?;
        }
        self.execute_again(&SleepLock(uuid), deadline)?;
        self.execute_again(&CpuDmaLatency(uuid), deadline)
    }
}
