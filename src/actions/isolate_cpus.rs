//! `isolate_cpus`: nothing but the guest runs on its CPUs, and they run as fast as asked.

use super::{Proposal, Situation, cpu_speed, topology};
use crate::config::{CpuChoice, CpuSharing, IsolateCpus, VfioIrqs};
use crate::cpuset::CpuSet;
use crate::host::{HostError, Interrupt, Irqbalance, TopGroups};
use crate::ledger::{GuestInterrupts, Knob, Want};

const CPUS: &[&str] = &["isolate_cpus", "cpus"];

/// libvirt's slice, which holds the guests themselves.
const MACHINE_SLICE: &str = "machine.slice";

pub(super) fn propose(
    config: &IsolateCpus,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let Some(cpus) = guest_cpus(config, situation, proposal)? else { return Ok(()) };
    check_overlap(config, situation, &cpus, proposal);
    check_machine_slice(situation, proposal)?;
    topology::check(situation, &cpus, proposal)?;
    if cpus.is_subset(&situation.host.isolated_cpus()?) {
        proposal.inform(format!(
            "the kernel already isolates CPUs {cpus} (isolcpus=): units and workqueues are left alone"
        ));
    } else {
        confine_units(situation, &cpus, proposal)?;
        if config.workqueues.is_on() {
            move_workqueues(situation, &cpus, proposal)?;
        }
    }
    if config.irqs.is_on() {
        let there_before = move_interrupts(situation, &cpus, proposal)?;
        let devices = match config.vfio_irqs {
            VfioIrqs::Guest => situation.guest.pci_hostdevs.iter().map(|device| device.address).collect(),
            VfioIrqs::Host => Vec::new(),
        };
        proposal.interrupts = Some(GuestInterrupts { cpus: cpus.clone(), devices, there_before });
    }
    cpu_speed::propose(config, situation, &cpus, proposal)
}

/// The CPUs to isolate; none when they make no sense, which the proposal then says.
fn guest_cpus(
    config: &IsolateCpus,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<Option<CpuSet>, HostError> {
    let guest = situation.guest;
    let unpinned = guest.unpinned_vcpus();
    let cpus = match &config.cpus {
        CpuChoice::List(cpus) => {
            if !unpinned.is_empty() {
                proposal.warn(format!(
                    "vCPUs without a <vcpupin> ({}) run on any CPU, not only on the isolated ones",
                    list(&unpinned)
                ));
            }
            let elsewhere = guest.pinned_cpus().minus(cpus);
            if !elsewhere.is_empty() {
                proposal.warn(format!("vCPUs are pinned to CPU {elsewhere}, which is not isolated"));
            }
            cpus.clone()
        }
        CpuChoice::Auto if unpinned.len() == guest.vcpus.max as usize => {
            proposal.refuse(
                CPUS,
                "isolates none: the guest's XML pins no vCPU",
                "add <vcpupin> elements to <cputune> (`virsh edit`), or list the CPUs here",
            );
            return Ok(None);
        }
        CpuChoice::Auto if !unpinned.is_empty() => {
            proposal.refuse(
                CPUS,
                format!("the guest's XML does not pin vCPU {}: it would run on any CPU", list(&unpinned)),
                "pin every vCPU with a <vcpupin> in <cputune> (`virsh edit`)",
            );
            return Ok(None);
        }
        CpuChoice::Auto => guest.pinned_cpus(),
    };
    let (present, online) = (situation.host.present_cpus()?, situation.host.online_cpus()?);
    let absent = cpus.minus(&present);
    if !absent.is_empty() {
        proposal.refuse(
            CPUS,
            format!("CPU {absent} does not exist on this host, which has {present}"),
            "take it out of this list, or out of <cputune> in the guest's XML",
        );
        return Ok(None);
    }
    let offline = cpus.minus(&online);
    if !offline.is_empty() {
        proposal.refuse(
            CPUS,
            format!("CPU {offline} is offline"),
            format!(
                "`echo 1 > /sys/devices/system/cpu/cpu{}/online` brings it back",
                offline.iter().next().unwrap_or(0)
            ),
        );
        return Ok(None);
    }
    let others = claimed_by_others(situation);
    let theirs = others.iter().fold(CpuSet::new(), |all, (_, cpus)| all.union(cpus));
    if online.minus(&cpus).minus(&theirs).is_empty() {
        let holders: String =
            others.iter().map(|(name, cpus)| format!(", and guest {name} has {cpus}")).collect();
        proposal.refuse(
            CPUS,
            format!("isolates CPUs {cpus} of {online}{holders}: none is left for the host itself"),
            "leave at least one core to the host",
        );
        return Ok(None);
    }
    Ok(Some(cpus))
}

fn list(numbers: &[u32]) -> String {
    numbers.iter().copied().collect::<CpuSet>().to_string()
}

/// The CPUs that other guests isolate, with their names.
fn claimed_by_others(situation: Situation<'_>) -> Vec<(String, CpuSet)> {
    let mut others = Vec::new();
    for (uuid, lease) in &situation.record.leases {
        if *uuid == situation.guest.uuid {
            continue;
        }
        let wants = situation.record.entries_of(*uuid).filter_map(|entry| entry.claims.get(uuid));
        let cpus = wants.fold(CpuSet::new(), |all, want| match want {
            Want::Cpus(cpus) => all.union(cpus),
            _ => all,
        });
        if !cpus.is_empty() {
            others.push((lease.name.clone(), cpus));
        }
    }
    others
}

fn check_overlap(config: &IsolateCpus, situation: Situation<'_>, cpus: &CpuSet, proposal: &mut Proposal) {
    for (name, theirs) in claimed_by_others(situation) {
        let both = theirs.intersection(cpus);
        if both.is_empty() {
            continue;
        }
        match config.shared {
            CpuSharing::Allowed => proposal.warn(format!("CPU {both} is also that of guest {name}")),
            CpuSharing::Refused => proposal.refuse(
                CPUS,
                format!("CPU {both} already belongs to guest {name}"),
                format!("shut {name} down, pin the guests to different CPUs, or write `shared: true`"),
            ),
        }
    }
}

/// libvirt fails with "Invalid argument" when it pins to a CPU that the guests' slice does not have.
fn check_machine_slice(situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
    let slice = guests_slice(situation);
    let Some(effective) = situation.host.cpuset_cpus_effective(&slice)? else { return Ok(()) };
    let guest = situation.guest;
    let pins = guest.iothread_pins.values().chain(&guest.emulator_pin);
    let pins = pins.fold(guest.pinned_cpus(), |all, pins| all.union(pins));
    let outside = pins.minus(&effective);
    if !outside.is_empty() {
        proposal.refuse(
            CPUS,
            format!("{slice} may only use CPUs {effective}, but the guest's XML pins to CPU {outside}"),
            format!("`systemctl set-property {slice} AllowedCPUs=` takes the limit away"),
        );
    }
    Ok(())
}

/// The slice at the top of the tree that holds this guest: `/machine` of `<resource><partition>` is `machine.slice`.
fn guests_slice(situation: Situation<'_>) -> String {
    let partition = situation.guest.partition.as_deref().unwrap_or("/machine");
    let top = partition.trim_start_matches('/').split('/').next().unwrap_or("machine");
    if top.contains('.') { top.to_owned() } else { format!("{top}.slice") }
}

fn confine_units(situation: Situation<'_>, cpus: &CpuSet, proposal: &mut Proposal) -> Result<(), HostError> {
    if !situation.host.has_systemd() {
        proposal.warn("the host has no systemd: other programs are not kept off the guest's CPUs");
        return Ok(());
    }
    if !situation.host.has_cpuset_v2() {
        proposal.warn(
            "the host has no cpuset controller of cgroup v2: other programs are not kept off the guest's CPUs",
        );
        return Ok(());
    }
    let TopGroups { units, foreign } = situation.host.populated_top_groups()?;
    let spared = [MACHINE_SLICE.to_owned(), guests_slice(situation)];
    for unit in units {
        if !spared.contains(&unit.as_str().to_owned()) {
            proposal.claim(Knob::AllowedCpus(unit), Want::Cpus(cpus.clone()));
        }
    }
    if !foreign.is_empty() {
        proposal.warn(format!(
            "the control groups {} are not systemd's: what runs there is not kept off the guest's CPUs",
            foreign.join(", ")
        ));
    }
    Ok(())
}

fn move_workqueues(
    situation: Situation<'_>,
    cpus: &CpuSet,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    for workqueue in situation.host.workqueues() {
        let mask = situation.host.workqueue_cpumask(&workqueue)?;
        proposal.claim_mask(situation, Knob::WorkqueueMask(workqueue), mask, cpus);
    }
    Ok(())
}

/// Returns those that need not move.
fn move_interrupts(
    situation: Situation<'_>,
    cpus: &CpuSet,
    proposal: &mut Proposal,
) -> Result<Vec<(u32, String)>, HostError> {
    let host = situation.host;
    match host.irqbalance(situation.deadline) {
        Irqbalance::Absent => {}
        Irqbalance::Runs(socket) => proposal.claim(Knob::IrqbalanceBan(socket), Want::Cpus(cpus.clone())),
        Irqbalance::Unknown(error) => proposal.warn(format!(
            "irqbalance cannot be asked to keep away from CPUs {cpus}, and may move interrupts there: {error}"
        )),
    }
    proposal.claim_mask(situation, Knob::DefaultIrqAffinity, host.default_smp_affinity()?, cpus);
    let mut unmoved = Vec::new();
    for Interrupt { number, actions, affinity } in host.movable_interrupts()? {
        if !affinity.intersects(cpus) {
            unmoved.push((number, actions.clone()));
        }
        proposal.claim_mask(situation, Knob::IrqAffinity { number, actions }, affinity, cpus);
    }
    Ok(unmoved)
}
