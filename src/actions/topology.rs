//! What is unwise about the CPUs a guest is pinned to. None of it refuses a start.

use std::collections::BTreeMap;

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
    check_threads_of_qemu(situation, cpus, proposal)?;
    check_balance(situation, proposal)?;
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

/// QEMU's own threads disturb vCPUs like any other program, and all who read the disks wait where a vCPU holds them up.
fn check_threads_of_qemu(
    situation: Situation<'_>,
    cpus: &CpuSet,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let guest = situation.guest;
    let threads = &guest.qemu_threads;
    let vcpus = guest.pinned_cpus().intersection(cpus);
    match (&threads.emulator_pin, &guest.vcpus.cpuset) {
        (Some(emulator), _) if emulator.intersects(&vcpus) => proposal.warn(format!(
            "QEMU's own threads are pinned to CPU {}, where vCPUs run (<emulatorpin>)",
            emulator.intersection(&vcpus)
        )),
        (Some(_), _) => {}
        (None, inherited) => {
            // Without any pin, libvirt gives a thread all CPUs but those of isolcpus=
            // (`qemuProcessGetAllCpuAffinity` in `src/qemu/qemu_process.c`).
            let anywhere = situation.host.online_cpus()?.minus(&situation.host.isolated_cpus()?);
            let both = inherited.as_ref().unwrap_or(&anywhere).intersection(cpus);
            let why =
                if inherited.is_some() { "<vcpu cpuset=…> holds for them too" } else { "no <emulatorpin>" };
            let others = if threads.unpinned_iothreads() > 0 { " and I/O threads" } else { "" };
            if !both.is_empty() {
                proposal.inform(format!(
                    "QEMU's own threads{others} may run on the guest's CPU {both}: {why}; \
                     <emulatorpin cpuset='{}'/> in <cputune> keeps them off it",
                    anywhere.minus(cpus)
                ));
            }
        }
    }
    for (iothread, pin) in &threads.iothread_pins {
        if pin.intersects(&vcpus) {
            proposal.warn(format!(
                "I/O thread {iothread} is pinned to CPU {}, where vCPUs run (<iothreadpin>)",
                pin.intersection(&vcpus)
            ));
        }
    }
    Ok(())
}

/// The scheduler does not balance on CPUs of isolcpus=: a thread stays on the first one that it may use, and all threads
/// with that list stay there together.
fn check_balance(situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
    let guest = situation.guest;
    let isolated = situation.host.isolated_cpus()?;
    let mut threads: BTreeMap<CpuSet, Vec<String>> = BTreeMap::new();
    let vcpus = guest.vcpus.running.iter().filter_map(|vcpu| Some((vcpu, guest.effective_vcpu_pin(*vcpu)?)));
    let mut pinned: BTreeMap<&CpuSet, CpuSet> = BTreeMap::new();
    for (vcpu, pin) in vcpus {
        pinned.entry(pin).or_default().insert(*vcpu);
    }
    for (pin, vcpus) in pinned {
        threads.entry(pin.clone()).or_default().push(format!("vCPU {vcpus}"));
    }
    if let Some(pin) = guest.effective_emulator_pin() {
        threads.entry(pin.clone()).or_default().push("QEMU's own threads".to_owned());
    }
    for (iothread, pin) in &guest.qemu_threads.iothread_pins {
        threads.entry(pin.clone()).or_default().push(format!("I/O thread {iothread}"));
    }
    for (pin, threads) in threads {
        let both = pin.intersection(&isolated);
        if both.len() > 1 {
            proposal.warn(format!(
                "{}: pinned to CPUs {pin}, of which the kernel does not balance {both} (isolcpus=), so that \
                 one CPU does all the work; pin each to one CPU",
                threads.join(", ")
            ));
        }
    }
    Ok(())
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
            proposal.warn(format!("device {device} is at node {node}, the guest's CPUs are at node {nodes}"));
        }
    }
    Ok(())
}
