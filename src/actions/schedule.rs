//! `schedule`: how the kernel schedules the guest's threads. They come with QEMU, so that here is only found out whether
//! that can be; the guest's keeper sets it once the guest is up ([`super::late_threads`]).

use super::action::Action;
use super::{GuestConfig, Proposal, Situation};
use crate::config::{CpuChoice, CpuSharing, IsolateCpus, Key, Schedule, Section};
use crate::cpuset::CpuSet;
use crate::host::{HostError, RealTimeLimit};
use crate::ledger::GuestSchedule;
use crate::scheduling::WantedScheduling;

const VCPUS: &[&str] = &["schedule", "vcpus"];
const EMULATOR: &[&str] = &["schedule", "emulator"];
const IO: &[&str] = &["schedule", "io"];

/// The section, and what it needs of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleThreads {
    /// The section itself.
    schedule: Schedule,
    /// What the same file isolates.
    isolate_cpus: Option<IsolateCpus>,
}

impl Action for ScheduleThreads {
    const SECTION: &'static str = "schedule";
    const KEYS: &'static [Key] = Schedule::KEYS;

    fn read(file: &mut Section<'_>, before: &GuestConfig) -> Option<Self> {
        let schedule = Schedule::read(file.section(Self::SECTION, "schedule: {vcpus: {nice: -10}}")?);
        Some(Self { schedule, isolate_cpus: before.isolate_cpus.clone() })
    }

    fn propose(&self, situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
        let Schedule { vcpus, emulator, io } = self.schedule;
        refuse_both(&self.schedule, situation, proposal);
        if io.is_some() && situation.guest.qemu_threads.iothreads == 0 {
            proposal.refuse(
                IO,
                "has no effect: the guest's XML has no <iothreads>",
                "remove it, or give the guest such threads (`virsh edit`)",
            );
        }
        if let Some(WantedScheduling::Fifo(_)) = vcpus {
            self.check_fifo(situation, proposal)?;
        }
        proposal.lease.schedule = Some(GuestSchedule { vcpus, emulator, io });
        Ok(())
    }
}

/// libvirt can do it too; both would get in each other's way.
fn refuse_both(schedule: &Schedule, situation: Situation<'_>, proposal: &mut Proposal) {
    let xml = situation.guest.schedulers;
    for (at, element, is_in_both) in [
        (VCPUS, "<vcpusched>", schedule.vcpus.is_some() && xml.vcpus),
        (IO, "<iothreadsched>", schedule.io.is_some() && xml.io),
        (EMULATOR, "<emulatorsched>", schedule.emulator.is_some() && xml.emulator),
    ] {
        if is_in_both {
            proposal.refuse(
                at,
                format!("the guest's XML has {element} for these threads: libvirt schedules them itself"),
                "keep one of the two: remove this key, or the element (`virsh edit`)",
            );
        }
    }
}

impl ScheduleThreads {
    /// Takes what the guest isolates by now: a group of guests may have that section.
    pub(super) fn look_at(&mut self, isolate_cpus: Option<&IsolateCpus>) {
        self.isolate_cpus = isolate_cpus.cloned();
    }

    /// A real-time thread that does not sleep leaves its CPU to nothing else: nothing else may need it.
    fn check_fifo(&self, situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
        let Some(isolate_cpus) = &self.isolate_cpus else {
            proposal.refuse(
                VCPUS,
                "`fifo` needs isolated CPUs: what else runs there would get no time at all",
                "add `isolate_cpus: {}` to this file, or write `{nice: -10}`",
            );
            return Ok(());
        };
        self.check_host(isolate_cpus, situation, proposal)?;
        let guest = situation.guest;
        let mut taken = CpuSet::new();
        for vcpu in 0..guest.vcpus.max {
            let pin = guest.effective_vcpu_pin(vcpu).cloned().unwrap_or_default();
            if pin.len() != 1 || pin.intersects(&taken) {
                let where_to = match pin.len() {
                    0 => "is pinned to none".to_owned(),
                    1 => format!("shares CPU {pin} with another one"),
                    _ => format!("is pinned to CPUs {pin}"),
                };
                proposal.refuse(
                    VCPUS,
                    format!("`fifo` needs a CPU for each vCPU alone, and vCPU {vcpu} {where_to}"),
                    "give each vCPU a <vcpupin> with one CPU of its own (`virsh edit`)",
                );
                return Ok(());
            }
            taken = taken.union(&pin);
        }
        if let CpuChoice::List(isolated) = &isolate_cpus.cpus
            && !taken.is_subset(isolated)
        {
            proposal.refuse(
                VCPUS,
                format!(
                    "`fifo` needs isolated CPUs, and `isolate_cpus.cpus` leaves out CPU {}",
                    taken.minus(isolated)
                ),
                "write `cpus: auto`, or add them there",
            );
        }
        self.check_others(&taken, situation, proposal);
        Ok(())
    }

    fn check_host(
        &self,
        isolate_cpus: &IsolateCpus,
        situation: Situation<'_>,
        proposal: &mut Proposal,
    ) -> Result<(), HostError> {
        let host = situation.host;
        if isolate_cpus.shared == CpuSharing::Allowed {
            proposal.refuse(
                VCPUS,
                "`fifo` needs CPUs that no other guest has, and `isolate_cpus.shared` allows that",
                "remove `shared`, or write `{nice: -10}`",
            );
        }
        let is_isolated = situation.guest.pinned_cpus().is_subset(&host.isolated_cpus()?);
        let can_isolate = host.has_systemd() && host.has_cpuset_v2();
        if !is_isolated && !can_isolate {
            proposal.refuse(
                VCPUS,
                "`fifo` needs isolated CPUs, and nothing keeps other programs off them on this host: that \
                 takes systemd and cgroup v2, or `isolcpus=` on the kernel's command line",
                "write `{nice: -10}`",
            );
        }
        match host.real_time_limit()? {
            Some(RealTimeLimit { runtime_us: 0, .. }) => proposal.refuse(
                VCPUS,
                "this host gives real-time threads no time at all: sched_rt_runtime_us is 0",
                "`sysctl kernel.sched_rt_runtime_us=950000`, the kernel's default, or -1 for no limit",
            ),
            Some(RealTimeLimit { runtime_us, period_us }) => proposal.inform(format!(
                "a vCPU that does not sleep may be held up for {} ms of each {} ms: sched_rt_runtime_us \
                 limits real-time threads, and -1 takes the limit away",
                (period_us - runtime_us) / 1000,
                period_us / 1000,
            )),
            None => {}
        }
        Ok(())
    }

    /// QEMU's other threads must not be on the vCPUs' CPUs: they would never run there, and the guest waits for them.
    fn check_others(&self, taken: &CpuSet, situation: Situation<'_>, proposal: &mut Proposal) {
        let guest = situation.guest;
        let emulator = guest.qemu_threads.emulator_pin.as_ref().or(guest.vcpus.cpuset.as_ref());
        let there = || match emulator {
            None => "has no <emulatorpin>: it may run on any CPU".to_owned(),
            Some(pin) => format!("is pinned to CPU {}, which a vCPU has", pin.intersection(taken)),
        };
        if emulator.is_none_or(|pin| pin.intersects(taken)) {
            proposal.refuse(
                VCPUS,
                format!(
                    "`fifo` leaves no time to QEMU's main thread on the CPUs of vCPUs, and that {}",
                    there()
                ),
                "pin it to the host's CPUs with an <emulatorpin> in <cputune> (`virsh edit`)",
            );
        }
        for thread in 1..=guest.qemu_threads.iothreads {
            // libvirt numbers them so where `<iothreadids>` does not; pins of other numbers are looked at below.
            if !guest.qemu_threads.iothread_pins.contains_key(&thread)
                && guest.qemu_threads.iothread_pins.len() < guest.qemu_threads.iothreads as usize
            {
                proposal.refuse(
                    VCPUS,
                    format!(
                        "`fifo` leaves no time to others on the CPUs of vCPUs, and iothread {thread} has no \
                         pin"
                    ),
                    "give each iothread an <iothreadpin> to the host's CPUs (`virsh edit`)",
                );
                return;
            }
        }
        for (thread, pin) in &guest.qemu_threads.iothread_pins {
            if pin.intersects(taken) {
                proposal.refuse(
                    VCPUS,
                    format!(
                        "`fifo` leaves no time to others on the CPUs of vCPUs, and iothread {thread} is \
                         pinned to CPU {}",
                        pin.intersection(taken)
                    ),
                    "pin it to the host's CPUs (`virsh edit`)",
                );
            }
        }
    }
}
