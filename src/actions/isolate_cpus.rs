//! `isolate_cpus`: nothing but the guest runs on its CPUs.

use super::action::Action;
use super::{GuestConfig, Proposal, Situation, Until, cgroup_limits, topology};
use crate::config::{CpuChoice, CpuSharing, IsolateCpus, Key, Section, VfioIrqs};
use crate::cpuset::CpuSet;
use crate::guest::GuestUuid;
use crate::host::{HostError, Interrupt, Irqbalance, KernelThread, TopGroups};
use crate::ledger::{
    DefaultIrqAffinity, GuestInterrupts, IrqAffinity, IrqbalanceBan, KernelThreadCpus, Listed,
    NetworkDevices, Record, UnitCpus, WorkqueueMask,
};

const CPUS: &[&str] = &["isolate_cpus", "cpus"];
const IRQS: &[&str] = &["isolate_cpus", "irqs"];
const WORKQUEUES: &[&str] = &["isolate_cpus", "workqueues"];
const KERNEL_THREADS: &[&str] = &["isolate_cpus", "kernel_threads"];

/// libvirt's slice, which holds the guests themselves.
const MACHINE_SLICE: &str = "machine.slice";

impl Action for IsolateCpus {
    const SECTION: &'static str = "isolate_cpus";
    const KEYS: &'static [Key] = Self::KEYS;

    fn read(file: &mut Section<'_>, _before: &GuestConfig) -> Option<Self> {
        file.section(Self::SECTION, "isolate_cpus: {}").map(Self::read)
    }

    fn propose(&self, situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
        let Some(cpus) = guest_cpus(self, situation, proposal)? else { return Ok(()) };
        check_overlap(self, situation, &cpus, proposal);
        cgroup_limits::check(situation, proposal)?;
        topology::check(situation, &cpus, proposal)?;
        if cpus.is_subset(&situation.host.isolated_cpus()?) {
            proposal.inform(format!(
                "the kernel already isolates CPUs {cpus} (isolcpus=): units and workqueues are left alone"
            ));
        } else {
            if self.units.is_on() {
                confine_units(situation, &cpus, proposal)?;
            }
            if self.workqueues.is_on() {
                move_workqueues(situation, &cpus, proposal)?;
            }
        }
        if self.kernel_threads.is_on() {
            move_kernel_threads(situation, &cpus, proposal)?;
        }
        if self.irqs.is_on() {
            let there_before = move_interrupts(situation, &cpus, proposal)?;
            let devices = match self.vfio_irqs {
                VfioIrqs::Guest => situation.guest.pci_hostdevs.iter().map(|device| device.address).collect(),
                VfioIrqs::Host => Vec::new(),
            };
            proposal.lease.interrupts = Some(GuestInterrupts { cpus: cpus.clone(), devices, there_before });
            if self.vfio_irqs == VfioIrqs::Guest && situation.guest.network_interfaces > 0 {
                proposal.lease.network_devices = NetworkDevices::Awaited;
            }
        }
        Ok(())
    }
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
            // What this host does not have is told below.
            if cpus.is_subset(&situation.host.present_cpus()?) && is_turned_round(cpus, &guest.pinned_cpus())
            {
                refuse_turned_round(cpus, situation, proposal)?;
                return Ok(None);
            }
            if !elsewhere.is_empty() {
                proposal.warn(format!("vCPUs are pinned to CPU {elsewhere}, which is not isolated"));
            }
            cpus.clone()
        }
        CpuChoice::Auto if unpinned.len() == guest.vcpus.running.len() => {
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
                "pin every vCPU that runs with a <vcpupin> in <cputune> (`virsh edit`)",
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
            format!("this host has no CPU {absent}; it has {present}"),
            "take it out of this list, or out of <cputune> in the guest's XML",
        );
        return Ok(None);
    }
    let offline = cpus.minus(&online);
    if !offline.is_empty() {
        proposal.refuse_until(
            Until::CommandsRan,
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
    let cpus = match &config.cpus {
        CpuChoice::Auto => {
            cpus.union(&spare_cpus(config, situation, &online.minus(&cpus).minus(&theirs), proposal))
        }
        CpuChoice::List(_) => cpus,
    };
    note_unpinned_off(situation, proposal);
    Ok(Some(cpus))
}

/// What can be kept for vCPUs that are off, of the CPUs that are left: when they are plugged in, they run there. None
/// of it keeps the guest from its start.
fn spare_cpus(
    config: &IsolateCpus,
    situation: Situation<'_>,
    left: &CpuSet,
    proposal: &mut Proposal,
) -> CpuSet {
    let wanted = situation.guest.spare_cpus();
    if wanted.is_empty() {
        return wanted;
    }
    let shared = match config.shared {
        CpuSharing::Allowed => wanted.clone(),
        CpuSharing::Refused => left.clone(),
    };
    let online = situation.host.online_cpus().unwrap_or_default();
    let spare = wanted.intersection(&shared).intersection(&online);
    let missing = wanted.minus(&spare);
    if !missing.is_empty() {
        proposal.inform(format!(
            "CPU {missing}, to which vCPUs that are off are pinned, is not there or another guest's: they \
             cannot be plugged in"
        ));
    }
    if left.minus(&spare).is_empty() {
        proposal.inform(format!(
            "CPU {spare}, to which vCPUs that are off are pinned, stays with the host: it would have none"
        ));
        return CpuSet::new();
    }
    spare
}

/// Plugging such a vCPU in fails where the guest's control group has no CPU that is not isolated, and breaks the
/// isolation else.
fn note_unpinned_off(situation: Situation<'_>, proposal: &mut Proposal) {
    let off = situation.guest.unpinned_vcpus_off();
    if !off.is_empty() {
        proposal.inform(format!(
            "vCPU {} is off and has no <vcpupin>: plugged in later, it does not run on CPUs of its own",
            list(&off)
        ));
    }
}

/// Whether a list has the host's CPUs: every script with `AllowedCPUs=` lists those, and isolated they would leave the
/// guest's to the host's programs. More vCPUs run outside of such a list than on it.
fn is_turned_round(cpus: &CpuSet, pinned: &CpuSet) -> bool {
    pinned.minus(cpus).len() > pinned.intersection(cpus).len()
}

fn refuse_turned_round(
    cpus: &CpuSet,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let pinned = situation.guest.pinned_cpus();
    let both = pinned.intersection(cpus);
    let runs = if both.is_empty() {
        format!("the guest's XML pins its vCPUs to CPU {pinned}, and to none of these")
    } else {
        format!("the guest's XML pins its vCPUs to CPU {pinned}, and only CPU {both} of that is among these")
    };
    // `lscpu` and scripts of the host name what is left to the host: all others.
    let is_complement = situation.host.online_cpus()?.minus(&pinned).is_subset(cpus);
    let whose =
        if is_complement { "these are the host's CPUs, which stay with it by themselves; " } else { "" };
    proposal.refuse(
        CPUS,
        format!("would keep the host off CPU {cpus}, but {runs}"),
        format!("{whose}did you mean the guest's CPUs {pinned}? Write `cpus: auto`, or `cpus: \"{pinned}\"`"),
    );
    Ok(())
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
        let record = situation.record;
        let cpus = claimed::<UnitCpus>(record, *uuid)
            .union(&claimed::<IrqbalanceBan>(record, *uuid))
            .union(&claimed::<DefaultIrqAffinity>(record, *uuid))
            .union(&claimed::<IrqAffinity>(record, *uuid))
            .union(&claimed::<WorkqueueMask>(record, *uuid))
            .union(&claimed::<KernelThreadCpus>(record, *uuid));
        if !cpus.is_empty() {
            others.push((lease.name.clone(), cpus));
        }
    }
    others
}

fn claimed<S: Listed<Want = CpuSet>>(record: &Record, uuid: GuestUuid) -> CpuSet {
    record.claims_of::<S>(uuid).fold(CpuSet::new(), |all, (_, cpus)| all.union(cpus))
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

fn confine_units(situation: Situation<'_>, cpus: &CpuSet, proposal: &mut Proposal) -> Result<(), HostError> {
    if !situation.host.has_systemd() {
        proposal.warn("the host has no systemd: other programs are not kept off the guest's CPUs");
        return Ok(());
    }
    if !situation.host.has_cpuset_v2() {
        proposal.warn(
            "the host has no cpuset controller of cgroup v2: other programs are not kept off the guest's \
             CPUs",
        );
        return Ok(());
    }
    let TopGroups { units, outside_systemd } = situation.host.populated_top_groups()?;
    let of_guest = situation.guest.cgroup_path();
    let spared = [Some(MACHINE_SLICE), of_guest.first().map(String::as_str)];
    for unit in units {
        if !spared.contains(&Some(unit.as_str())) {
            proposal.claim(UnitCpus(unit), cpus.clone(), CPUS);
        }
    }
    if !outside_systemd.is_empty() {
        proposal.warn(format!(
            "the control groups {} are not systemd's: what runs there is not kept off the guest's CPUs",
            outside_systemd.join(", ")
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
        proposal.claim_mask(situation, WorkqueueMask(workqueue), mask, cpus, WORKQUEUES);
    }
    Ok(())
}

/// One that has a single CPU was given that: it works for that one. Unless another guest has left it no more.
fn move_kernel_threads(
    situation: Situation<'_>,
    cpus: &CpuSet,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    for KernelThread { id, name, allowed } in situation.host.movable_kernel_threads()? {
        let setting = KernelThreadCpus { pid: id.pid, start_time: id.start_time, name };
        if allowed.len() > 1 || situation.record.entry(&setting).is_some() {
            proposal.claim_mask(situation, setting, allowed, cpus, KERNEL_THREADS);
        }
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
        Irqbalance::Runs(socket) => proposal.claim(IrqbalanceBan(socket), cpus.clone(), IRQS),
        Irqbalance::Unknown(error) => proposal.warn(format!(
            "irqbalance cannot be asked to keep away from CPUs {cpus}, and may move interrupts there: {error}"
        )),
    }
    proposal.claim_mask(situation, DefaultIrqAffinity, host.default_smp_affinity()?, cpus, IRQS);
    let mut unmoved = Vec::new();
    for Interrupt { number, actions, affinity } in host.movable_interrupts()? {
        if !affinity.intersects(cpus) {
            unmoved.push((number, actions.clone()));
        }
        proposal.claim_mask(situation, IrqAffinity { number, actions }, affinity, cpus, IRQS);
    }
    Ok(unmoved)
}
