//! `hugepages`: the guest's memory in huge pages, as many and where its XML says.

use std::collections::BTreeMap;

use super::action::Action;
use super::{GuestConfig, Proposal, Situation, Until};
use crate::config::{Hugepages, Key, OnShortage, Section};
use crate::cpuset::NodeSet;
use crate::guest::{MemorySource, PageDemand, Placement};
use crate::host::{HostError, PagePool};
use crate::ledger::{ClaimTerms, NodeBinding, OnRefusal, PagePoolSize, PageShare, Patience, available_pages};
use crate::pages::{MemorySize, PageSize};

const HUGEPAGES: &[&str] = &["hugepages"];
const KEEP_FREE: &[&str] = &["hugepages", "keep_free"];

/// The memory that stays for the host where the YAML does not say: this much, or a tenth of all if that is more.
const LEAST_KEPT_FREE: MemorySize = MemorySize::from_gib(2);

/// How long to try for a guest's pages, and what it means when they cannot be had.
fn terms(config: &Hugepages) -> ClaimTerms {
    let on_refusal = match config.on_shortage {
        OnShortage::Refuse => OnRefusal::Refuse,
        OnShortage::Warn => OnRefusal::Skip,
    };
    let patience = Patience::for_all_together(config.timeout, &["hugepages", "timeout"]);
    ClaimTerms::from(HUGEPAGES).within(patience).on_refusal(on_refusal)
}

impl Action for Hugepages {
    const SECTION: &'static str = "hugepages";
    const KEYS: &'static [Key] = Self::KEYS;

    fn read(file: &mut Section<'_>, _before: &GuestConfig) -> Option<Self> {
        file.section(Self::SECTION, "hugepages: {}").map(Self::read)
    }

    fn propose(&self, situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
        let host = situation.host;
        let demands = match situation.guest.page_demands(host.default_huge_page_size()?) {
            Ok(demands) => demands,
            Err(error) => {
                proposal.refuse(HUGEPAGES, error.to_string(), "fix the guest's XML (`virsh edit`)");
                return Ok(());
            }
        };
        if demands.is_empty() {
            proposal.refuse(
                HUGEPAGES,
                "the guest's XML asks for no huge pages",
                "add <memoryBacking><hugepages/></memoryBacking> (`virsh edit`), or take this section out",
            );
            return Ok(());
        }
        for demand in &demands {
            if !size_is_usable(situation, demand.size, proposal)? {
                return Ok(());
            }
        }
        let shares = share_out(situation, &demands, proposal)?;
        if !proposal.problems.is_empty() {
            return Ok(());
        }
        let mut to_allocate = BTreeMap::<u32, MemorySize>::new();
        for (pool, share) in shares {
            let short = share.reserved.saturating_sub(available_pages(
                situation.record,
                host,
                pool,
                situation.guest.uuid,
            )?);
            let memory = to_allocate.entry(pool.node).or_default();
            *memory = memory.plus(pool.size.times(short));
            proposal.claim(PagePoolSize(pool), share, terms(self));
        }
        check_memory(self, situation, &to_allocate, proposal)
    }
}

/// Whether the host can have pages of this size and libvirt can use them.
fn size_is_usable(
    situation: Situation<'_>,
    size: PageSize,
    proposal: &mut Proposal,
) -> Result<bool, HostError> {
    let (host, guest) = (situation.host, situation.guest);
    let mut sizes = host.huge_page_sizes()?;
    if !host.cpu_has_1gib_pages()? {
        sizes.retain(|size| *size != PageSize::GIB_1);
    }
    if !sizes.contains(&size) {
        let known: Vec<_> = sizes.iter().map(ToString::to_string).collect();
        proposal.refuse(
            HUGEPAGES,
            format!("this host has no huge pages of {size}"),
            format!("it has {}; change <page size=…> in the guest's XML (`virsh edit`)", known.join(", ")),
        );
        return Ok(false);
    }
    if guest.memory_source != MemorySource::Memfd && host.hugetlbfs_mounts(size)?.is_empty() {
        proposal.refuse(
            HUGEPAGES,
            format!("no hugetlbfs with pages of {size} is mounted: libvirt could not use them"),
            format!(
                "mount one (`mount -t hugetlbfs -o pagesize={}K none /dev/hugepages-{0}K`, or in /etc/fstab) \
                 and restart libvirtd, which looks for it only when it starts; or write <source \
                 type='memfd'/> in <memoryBacking>",
                size.kib()
            ),
        );
        return Ok(false);
    }
    Ok(true)
}

/// Which pool gives how many pages: what is free is used first, the rest is spread evenly.
fn share_out(
    situation: Situation<'_>,
    demands: &[PageDemand],
    proposal: &mut Proposal,
) -> Result<BTreeMap<PagePool, PageShare>, HostError> {
    let all_nodes = situation.host.memory_nodes()?;
    let mut shares = BTreeMap::<PagePool, PageShare>::new();
    // Bound memory first: what may come from anywhere takes what the bound memory leaves.
    let (bound, movable): (Vec<_>, Vec<_>) =
        demands.iter().partition(|demand| matches!(demand.placement, Placement::Strict(_)));
    for demand in bound.into_iter().chain(movable) {
        let (nodes, binding) = match &demand.placement {
            Placement::Strict(nodes) if !nodes.is_subset(&all_nodes) => {
                proposal.refuse(
                    HUGEPAGES,
                    format!("the guest's XML binds memory to node {nodes}, but the host has {all_nodes}"),
                    "change <numatune> in the guest's XML (`virsh edit`)",
                );
                break;
            }
            Placement::Strict(nodes) if nodes.len() == 1 => (nodes.clone(), NodeBinding::Bound),
            Placement::Strict(nodes) => (nodes.clone(), NodeBinding::Movable),
            Placement::Prefer(_) | Placement::Anywhere => (all_nodes.clone(), NodeBinding::Movable),
        };
        let preferred = match &demand.placement {
            Placement::Prefer(preferred) => preferred.intersection(&nodes),
            Placement::Strict(_) => nodes.clone(),
            // Nothing in the XML says where: beside the vCPUs is where QEMU looks first, and where it is fastest.
            Placement::Anywhere => {
                situation.host.nodes_of(&situation.guest.pinned_cpus())?.intersection(&nodes)
            }
        };
        spread(situation, demand, &nodes, &preferred, binding, &mut shares)?;
    }
    Ok(shares)
}

fn spread(
    situation: Situation<'_>,
    demand: &PageDemand,
    nodes: &NodeSet,
    preferred: &NodeSet,
    binding: NodeBinding,
    shares: &mut BTreeMap<PagePool, PageShare>,
) -> Result<(), HostError> {
    let mut left = demand.pages;
    let mut reserve = |shares: &mut BTreeMap<PagePool, PageShare>, node: u32, pages: u64| {
        let pool = PagePool { node, size: demand.size };
        let share = shares.entry(pool).or_insert(PageShare::new(0, binding));
        share.reserved += pages;
        // A pool that also serves bound memory must not lose that share to another node.
        if binding == NodeBinding::Bound {
            share.binding = NodeBinding::Bound;
        }
        left -= pages;
        left
    };
    let preferred_first = preferred.iter().chain(nodes.minus(preferred).iter()).collect::<Vec<_>>();
    for node in &preferred_first {
        let pool = PagePool { node: *node, size: demand.size };
        let taken = shares.get(&pool).map_or(0, |share| share.reserved);
        let free = available_pages(situation.record, situation.host, pool, situation.guest.uuid)?;
        let remaining = reserve(shares, *node, 0);
        reserve(shares, *node, remaining.min(free.saturating_sub(taken)));
    }
    let targets: Vec<u32> =
        if preferred.is_empty() { nodes.iter().collect() } else { preferred.iter().collect() };
    for (index, node) in targets.iter().enumerate() {
        let remaining = reserve(shares, *node, 0);
        reserve(shares, *node, remaining / (targets.len() - index) as u64);
    }
    Ok(())
}

/// Refuses before the host starts to swap: what has to be made must be there, and something must stay for the host.
fn check_memory(
    config: &Hugepages,
    situation: Situation<'_>,
    to_allocate: &BTreeMap<u32, MemorySize>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let host = situation.host;
    let wanted = to_allocate.values().fold(MemorySize::ZERO, |all, memory| all.plus(*memory));
    if wanted == MemorySize::ZERO {
        return Ok(());
    }
    let (total, available) = (host.mem_total()?, host.mem_available()?);
    let tenth = MemorySize::from_bytes(total.bytes() / 10);
    let kept = config.keep_free.unwrap_or(LEAST_KEPT_FREE.max(tenth));
    if wanted > total {
        proposal.refuse(
            HUGEPAGES,
            format!("the guest needs {wanted} more in huge pages, the host has {total} in all"),
            "give the guest less <memory> (`virsh edit`)",
        );
    } else if wanted.plus(kept) > available {
        proposal.refuse_until(
            Until::UnitsStopped,
            KEEP_FREE,
            format!(
                "the guest needs {wanted} more in huge pages; of {available} available, {kept} stay for the \
                 host"
            ),
            "close programs, give the guest less <memory>, or keep less free with `keep_free`",
        );
    } else {
        for (node, wanted) in to_allocate {
            let there = host.node_mem_available(*node)?;
            if *wanted > there {
                proposal.warn(format!(
                    "node {node} has {there} to make {wanted} of huge pages of; some may have to come from \
                     elsewhere"
                ));
            }
        }
    }
    Ok(())
}
