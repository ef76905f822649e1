//! `free_memory`: room for the memory of a guest that is not in huge pages.
//!
//! With VFIO, QEMU needs all of a guest's memory at once: it is pinned when the guest starts. The kernel makes room for it
//! page by page, while QEMU waits; here that is done before, in two steps and within a time.

use std::time::Duration;

use super::action::Action;
use super::{GuestConfig, Proposal, Situation};
use crate::config::{Key, Section, Timeout};
use crate::cpuset::NodeSet;
use crate::guest::Guest;
use crate::host::HostError;
use crate::ledger::{ClaimTerms, Patience, PlannedRepair, RoomForMemory};
use crate::pages::MemorySize;

const FREE_MEMORY: &[&str] = &["free_memory"];

/// Chosen, not measured: `hugepages` has 20 s for several rounds of this, and here is one.
const TIMEOUT: Timeout = Timeout::during_prepare(Duration::from_secs(10));

/// How memory is freed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeMemory {
    /// How long all of it may take.
    pub timeout: Duration,
}

impl Action for FreeMemory {
    const SECTION: &'static str = "free_memory";
    const KEYS: &'static [Key] = &[Key::new(
        "timeout",
        "`1s` to `50s`",
        "`10s`",
        "how long it may take; `virsh start` takes that much longer at most",
    )];

    fn read(file: &mut Section<'_>, _before: &GuestConfig) -> Option<Self> {
        let mut section = file.section(Self::SECTION, "free_memory: {}")?;
        let timeout = section.value("timeout", |node| TIMEOUT.read(node)).unwrap_or(TIMEOUT.default);
        section.finish();
        Some(Self { timeout })
    }

    fn propose(&self, situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
        let (guest, host) = (situation.guest, situation.host);
        let demands = match guest.page_demands(host.default_huge_page_size()?) {
            Ok(demands) => demands,
            Err(error) => {
                proposal.refuse(FREE_MEMORY, error.to_string(), "fix the guest's XML (`virsh edit`)");
                return Ok(());
            }
        };
        let in_huge_pages = demands.iter().map(|demand| demand.size.times(demand.pages));
        let wanted = in_huge_pages.fold(guest.memory, MemorySize::minus);
        if wanted == MemorySize::ZERO {
            proposal.refuse(
                FREE_MEMORY,
                "has no effect: all of the guest's memory is in huge pages",
                "remove the section: `hugepages` makes room for them itself",
            );
            return Ok(());
        }
        let total = host.mem_total()?;
        if wanted > total {
            proposal.refuse(
                FREE_MEMORY,
                format!("the guest needs {wanted} of memory, the host has {total} in all"),
                "give the guest less <memory> (`virsh edit`), or remove the section",
            );
            return Ok(());
        }
        let patience = Patience::for_all_together(self.timeout, &["free_memory", "timeout"]);
        proposal.repairs.push(PlannedRepair::MakeRoom(RoomForMemory {
            wanted,
            nodes: nodes(situation)?,
            terms: ClaimTerms::from(FREE_MEMORY).within(patience),
        }));
        Ok(())
    }
}

/// The host's nodes that the guest's memory comes from: those that the XML names, else those of its CPUs, else all.
fn nodes(situation: Situation<'_>) -> Result<NodeSet, HostError> {
    let Guest { memnodes, numa_memory, .. } = situation.guest;
    let general = numa_memory.iter().filter_map(|memory| memory.nodes.as_ref());
    let named = memnodes.iter().map(|memnode| &memnode.nodes).chain(general);
    let named = named.fold(NodeSet::default(), |all, nodes| all.union(nodes));
    let all = situation.host.memory_nodes()?;
    let candidates = [named, situation.host.nodes_of(&situation.guest.pinned_cpus())?];
    let there = candidates.iter().map(|nodes| nodes.intersection(&all)).find(|nodes| !nodes.is_empty());
    Ok(there.unwrap_or(all))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read(text: &str) -> Result<FreeMemory, String> {
        let config = GuestConfig::parse(Path::new("x.yaml"), text).map_err(|errors| errors.to_string())?;
        Ok(config.free_memory.unwrap())
    }

    #[test]
    fn its_time_has_a_default_and_bounds() {
        assert_eq!(read("free_memory:\n"), Ok(FreeMemory { timeout: Duration::from_secs(10) }));
        assert_eq!(read("free_memory: {timeout: 3s}"), Ok(FreeMemory { timeout: Duration::from_secs(3) }));
        let error = read("free_memory: {timeout: 51s}").unwrap_err();
        assert!(error.starts_with("x.yaml:1:24: `free_memory.timeout`: not between 1s and 50s"), "{error}");
        let error = read("free_memory: {timout: 5s}").unwrap_err();
        assert!(error.contains("did you mean `timeout`?"), "{error}");
    }
}
