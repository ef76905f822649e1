//! What is unwise about the CPUs a guest is pinned to. None of it refuses a start.

use super::{Proposal, Situation};
use crate::cpuset::CpuSet;
use crate::host::HostError;

pub(super) fn check(
    situation: Situation<'_>,
    cpus: &CpuSet,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    check_siblings(situation, cpus, proposal);
    check_caches(situation, cpus, proposal);
    check_threads_of_qemu(situation, cpus, proposal);
    check_device_nodes(situation, cpus, proposal)
}

/// Two threads of a core share its units and its first caches: a host task on one disturbs the guest on the other.
fn check_siblings(situation: Situation<'_>, cpus: &CpuSet, proposal: &mut Proposal) {
    let mut halves = CpuSet::new();
    for cpu in cpus.iter() {
        let Ok(siblings) = situation.host.thread_siblings(cpu) else { continue };
        halves = halves.union(&siblings.minus(cpus));
    }
    if !halves.is_empty() {
        proposal.warn(format!("CPU {halves} stays with the host but shares a core with the guest's CPUs"));
    }
    if cpus.contains(0) {
        proposal.warn("CPU 0 goes to the guest: some of the kernel's own work cannot be moved off it");
    }
}

fn check_caches(situation: Situation<'_>, cpus: &CpuSet, proposal: &mut Proposal) {
    let mut caches: Vec<CpuSet> = cpus.iter().filter_map(|cpu| situation.host.l3_siblings(cpu)).collect();
    caches.sort_unstable();
    caches.dedup();
    let fits = caches.iter().any(|cache| cache.len() >= cpus.len());
    if caches.len() > 1 && fits {
        let groups: Vec<_> = caches.iter().map(CpuSet::to_string).collect();
        proposal.warn(format!(
            "the guest's CPUs {cpus} are spread over {} last-level caches ({}), though one has room for all",
            caches.len(),
            groups.join(" and ")
        ));
    }
}

fn check_threads_of_qemu(situation: Situation<'_>, cpus: &CpuSet, proposal: &mut Proposal) {
    let guest = situation.guest;
    let Some(emulator) = &guest.emulator_pin else { return };
    let vcpus = guest.pinned_cpus().intersection(cpus);
    if emulator.intersects(&vcpus) {
        proposal.warn(format!(
            "QEMU's own threads are pinned to CPU {}, where vCPUs run (<emulatorpin>)",
            emulator.intersection(&vcpus)
        ));
    }
}

fn check_device_nodes(
    situation: Situation<'_>,
    cpus: &CpuSet,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let nodes = situation.host.nodes_of(cpus)?;
    for device in &situation.guest.pci_hostdevs {
        let Some(node) = situation.host.pci_numa_node(device.address) else { continue };
        if !nodes.contains(node) {
            proposal.warn(format!(
                "device {} is at node {node}, the guest's CPUs are at node {nodes}",
                device.address
            ));
        }
    }
    Ok(())
}
