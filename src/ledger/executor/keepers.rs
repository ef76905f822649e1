//! What keepers are asked for.

use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::HostError;
use crate::keeper_protocol::{CommandBatch, CommandFailure, Generation, KeeperState, Request};
use crate::ledger::error::LedgerError;
use crate::ledger::open::Ledger;

/// What came of commands that a keeper was to run.
pub(in crate::ledger) enum BatchEnd {
    /// It ran them; these failed.
    Ran(Vec<CommandFailure>),
    /// There is no keeper that could: none began.
    NotBegun(HostError),
    /// It does not say: they may have begun.
    Lost(HostError),
}

impl Ledger<'_> {
    /// Starts a guest's keeper anew: the one that the ledger knows of has ended, or is of an earlier version.
    pub(in crate::ledger) fn start_keeper(
        &mut self,
        uuid: GuestUuid,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        self.host.0.start_keeper(uuid, deadline)
    }

    /// Ends a guest's keeper of an earlier version.
    pub(in crate::ledger) fn stop_keeper_of(
        &mut self,
        uuid: GuestUuid,
        generation: Generation,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        self.host.0.stop_keeper_of(uuid, generation, deadline)
    }

    /// Asks a guest's keeper for something that it does at once.
    pub(in crate::ledger) fn ask_keeper(
        &mut self,
        uuid: GuestUuid,
        request: &Request,
        deadline: Deadline,
    ) -> Result<KeeperState, HostError> {
        self.host.0.ask_keeper(uuid, request, deadline)
    }

    /// Has a guest's keeper run commands, and waits for their end while others get at the ledger.
    pub(in crate::ledger) fn run_batch(
        &mut self,
        uuid: GuestUuid,
        batch: CommandBatch,
    ) -> Result<BatchEnd, LedgerError> {
        self.released(|host, deadline| {
            if let Err(error) = host.ensure_keeper(uuid, deadline) {
                return BatchEnd::NotBegun(error);
            }
            match host.run_commands(uuid, batch, deadline) {
                Ok(failures) => BatchEnd::Ran(failures),
                Err(error) => BatchEnd::Lost(error),
            }
        })
    }

    /// Has a guest's keeper run commands, and does not wait for their end.
    pub(in crate::ledger) fn start_batch(
        &mut self,
        uuid: GuestUuid,
        batch: CommandBatch,
    ) -> Result<(), HostError> {
        self.host.0.ensure_keeper(uuid, self.deadline)?;
        self.host.0.run_commands(uuid, batch, self.deadline).map(drop)
    }

    /// Removes the socket that a killed keeper leaves behind.
    pub(in crate::ledger) fn forget_dead_keeper(&mut self, uuid: GuestUuid) {
        self.host.0.forget_dead_keeper(uuid);
    }
}
