//! Making room for memory that is not in huge pages: files are written back, caches dropped, nodes compacted. Nothing of
//! it can be given back, and none of it refuses a start.

use std::fmt;
use std::time::Instant;

use super::carry_out::Outcome;
use super::claim::{ClaimTerms, Patience};
use super::error::LedgerError;
use super::executor::RepairKind;
use super::open::Ledger;
use super::plan::Note;
use crate::cpuset::NodeSet;
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::{Host, HostError};
use crate::pages::MemorySize;

/// What is dropped, one after the other, until enough is free: the page cache, then the caches of names and inodes
/// (`drop_caches` in the kernel's `Documentation/admin-guide/sysctl/vm.rst`).
const CACHES: [&str; 2] = ["1", "2"];

/// What a guest wants to have done to the machine that is no setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlannedRepair {
    /// Room is made for its memory.
    MakeRoom(RoomForMemory),
}

/// Room for memory that is not in huge pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomForMemory {
    /// How much is to be free.
    pub wanted: MemorySize,
    /// The nodes that it comes from.
    pub nodes: NodeSet,
    /// How it is done.
    pub terms: ClaimTerms,
}

/// What came of it.
struct Freed {
    before: MemorySize,
    after: MemorySize,
    failures: Vec<HostError>,
}

impl fmt::Display for PlannedRepair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::MakeRoom(RoomForMemory { wanted, nodes, terms }) = self;
        write!(
            f,
            "room for {wanted} of memory: files are written back and caches dropped where less is free, node {nodes} \
             is compacted"
        )?;
        match &terms.patience {
            Some(Patience { time, .. }) => write!(f, ", within {} s", time.as_secs_f32()),
            None => Ok(()),
        }
    }
}

impl Ledger<'_> {
    /// Makes the repairs of a plan. What the machine refuses is told.
    pub(super) fn make_repairs(
        &mut self,
        uuid: GuestUuid,
        repairs: Vec<PlannedRepair>,
        outcome: &mut Outcome,
    ) -> Result<(), LedgerError> {
        for repair in repairs {
            let PlannedRepair::MakeRoom(room) = repair;
            self.make_room_for_memory(uuid, &room, outcome)?;
        }
        Ok(())
    }

    fn make_room_for_memory(
        &mut self,
        uuid: GuestUuid,
        room: &RoomForMemory,
        outcome: &mut Outcome,
    ) -> Result<(), LedgerError> {
        let RoomForMemory { wanted, nodes, terms } = room;
        let began = Instant::now();
        let freed = self.repair(uuid, RepairKind::FreeMemory(*wanted), |host, end| {
            let patience = terms.patience.as_ref().map(|patience| Deadline::after(patience.time));
            make_room(host, *wanted, nodes, patience.map_or(end, |patience| patience.earlier(end)))
        })?;
        if !self.record.leases.contains_key(&uuid) {
            return Err(LedgerError::GivenBack);
        }
        let Freed { before, after, failures } =
            freed.map_err(|error| LedgerError::from(error).asked_by(terms))?;
        for error in failures {
            let help = terms.help(&error).map(|help| format!(" ({help})")).unwrap_or_default();
            outcome.notes.push(Note::warning(format!("making room for memory: {error}{help}")));
        }
        outcome.notes.push(if after < *wanted {
            Note::warning(format!(
                "the guest needs {wanted} of memory, and {after} are free: the host may swap while it starts"
            ))
        } else {
            Note::info(format!(
                "made room for {wanted} of memory in {:.1} s: {before} were free, {after} are",
                began.elapsed().as_secs_f64()
            ))
        });
        Ok(())
    }
}

/// Caches are of use to the host: they go only where less is free than the guest needs.
fn make_room(
    host: &mut Host,
    wanted: MemorySize,
    nodes: &NodeSet,
    deadline: Deadline,
) -> Result<Freed, HostError> {
    let before = host.mem_free()?;
    let mut failures = Vec::new();
    if before < wanted {
        // What was not written back yet is not dropped.
        failures.extend(host.sync_files(deadline).err());
    }
    for caches in CACHES {
        if host.mem_free()? < wanted {
            let path = host.drop_caches_path();
            failures.extend(host.write_bounded(&path, caches, deadline).err());
        }
    }
    for node in nodes.iter() {
        let path = host.compact_path(node);
        failures.extend(host.write_bounded(&path, "1", deadline).err());
    }
    Ok(Freed { before, after: host.mem_free()?, failures })
}
