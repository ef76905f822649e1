//! Repairs: what is done to the machine and is no setting, since it has no value to be given back.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::deadline::Deadline;
use crate::gpu::RecoveryStep;
use crate::guest::GuestUuid;
use crate::host::{Host, ProcessId};
use crate::ledger::error::LedgerError;
use crate::ledger::open::Ledger;
use crate::pages::{MemorySize, PageSize};
use crate::wall_clock::seconds_since_1970;

/// A repair that is under way, or that its process was killed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// What is done.
    pub kind: RepairKind,
    /// The process that does it.
    pub by: ProcessId,
    /// Since when, in seconds since 1970.
    pub since: u64,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RepairKind {
    /// Caches are dropped and memory is compacted, for huge pages of this size.
    MakeRoom(PageSize),
    /// A card that does not answer is woken up.
    WakeCard {
        /// The card's name, for people.
        card: String,
        /// The step of the recovery.
        step: RecoveryStep,
    },
    /// Files are written back, caches are dropped and memory is compacted, for memory that is not in huge pages: for so
    /// much of it.
    FreeMemory(MemorySize),
    /// One of a newer version, kept as it was written.
    #[serde(untagged)]
    Unknown(Json),
}

impl fmt::Display for RepairKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeRoom(size) => write!(f, "making room for huge pages of {size}"),
            Self::WakeCard { card, step } => write!(f, "`{step}` of {card}"),
            Self::FreeMemory(wanted) => write!(f, "making room for {wanted} of memory"),
            Self::Unknown(_) => f.write_str("a repair of a newer version of this program"),
        }
    }
}

impl Ledger<'_> {
    /// Makes a repair for a guest, while others get at the ledger. The guest's lease says so meanwhile; it goes on saying
    /// so if this process is killed.
    pub(in crate::ledger) fn repair<T>(
        &mut self,
        uuid: GuestUuid,
        kind: RepairKind,
        work: impl FnOnce(&mut Host, Deadline) -> T,
    ) -> Result<T, LedgerError> {
        let by = self.host.this_process();
        if let Some(lease) = self.record.leases.get_mut(&uuid) {
            lease.repair = Some(Repair { kind, by, since: seconds_since_1970() });
        }
        let result = self.released(work)?;
        // The file says so from the next store on.
        if let Some(lease) = self.record.leases.get_mut(&uuid) {
            lease.repair = None;
        }
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_read_as_it_was_written_and_one_of_a_newer_version_is_kept() {
        for (text, words) in [
            (r#"{"make-room":2048}"#, "making room for huge pages of 2 MiB"),
            (r#"{"wake-card":{"card":"RX 6800","step":"rescan"}}"#, "`rescan` of RX 6800"),
            (r#"{"free-memory":1073741824}"#, "making room for 1 GiB of memory"),
            (r#"{"polish":{"twice":true}}"#, "a repair of a newer version of this program"),
        ] {
            let kind: RepairKind = serde_json::from_str(text).unwrap();
            assert_eq!(
                (kind.to_string().as_str(), serde_json::to_string(&kind).unwrap().as_str()),
                (words, text)
            );
        }
    }
}
