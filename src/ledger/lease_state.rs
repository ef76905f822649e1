//! How far a guest with a lease has come. A lease changes its state in this file alone.

use serde::{Deserialize, Serialize};

use super::cards::CardUsage;
use super::record::{Lease, Purpose};
use crate::host::ProcessId;

/// How far a guest with a lease has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseState {
    /// This process is taking what the guest needs; when it is dead, it failed.
    Preparing(ProcessId),
    /// All is taken, QEMU may start.
    Prepared,
    /// QEMU runs and has its memory.
    Started,
    /// This process is giving back what it holds; when it is dead, the next event or the keeper has to.
    GivingBack(ProcessId),
    /// It was given back, all but what the host refused: its keeper tries that again, and so do its next event and
    /// `vfio-hook undo`. Events of other guests do not.
    Unfinished,
}

impl Lease {
    /// This process is taking what the guest needs, or goes on with it.
    pub(super) fn begin_taking(&mut self, by: ProcessId) {
        self.phase = LeaseState::Preparing(by);
    }

    /// All is taken.
    pub(super) fn end_taking(&mut self) {
        self.phase = LeaseState::Prepared;
    }

    /// A guest that starts takes over what was held for it by hand.
    pub(super) fn begin_adoption(&mut self, by: ProcessId) {
        self.begin_taking(by);
        self.purpose = Purpose::Start;
    }

    /// QEMU has its memory. Nothing changes where it is known, or where the lease is being given back.
    pub(super) fn note_start(&mut self) {
        if self.phase == LeaseState::Prepared {
            self.phase = LeaseState::Started;
            for card in &mut self.cards {
                card.usage = CardUsage::ByGuest;
            }
        }
    }

    /// This process is giving back what the guest holds.
    pub(super) fn begin_giving_back(&mut self, by: ProcessId) {
        self.phase = LeaseState::GivingBack(by);
    }

    /// All was given back but what the host refused.
    pub(super) fn leave_unfinished(&mut self) {
        self.phase = LeaseState::Unfinished;
    }
}
