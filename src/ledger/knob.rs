//! The knobs: one thing on the host each, that can be read and written.

use std::fmt;
use std::str::FromStr;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::value::Value;
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::{
    AllowedCpus, Host, HostError, I2cDev, IrqbalanceSocket, KeeperState, PagePool, Request, ServiceUnit,
    UnitName, Workqueue,
};
use crate::monitor::{MonitorFeature, VcpFeature, VcpValue};

/// What a knob holds that holds nothing.
const NONE: &str = "none";

/// What the knob of a kernel module holds while it is loaded.
pub(crate) const LOADED: &str = "loaded";

/// What the knob of a keeper holds while there is one.
pub(crate) const RUNS: &str = "runs";

/// One thing on the host. They are taken in the order of this list and given back in the reverse one: the keeper before
/// what it holds; a service before the socket that would start it again; pages while all CPUs can still gather them;
/// irqbalance before the interrupts that it would move back; a CPU's preference before the governor that forbids to
/// change it. The guest's commands have their place between the units and the pages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Knob {
    /// The process that lives as long as a guest.
    Keeper(GuestUuid),
    /// The lock on the host's sleep that a guest's keeper holds.
    SleepLock(GuestUuid),
    /// How long any CPU may take to wake up, as a guest's keeper asks the kernel.
    CpuDmaLatency(GuestUuid),
    /// Whether the kernel's module is loaded that gives programs the i2c buses of monitors.
    I2cDev,
    /// What logind does when the lid is closed.
    LidSwitch,
    /// Which of the units that a sleep starts cannot be started.
    SleepMasks,
    /// Whether a service runs.
    Service(ServiceUnit),
    /// Whether a socket, timer or path unit waits to start a service.
    Trigger(ServiceUnit),
    /// A node's pool of pages of one size.
    PagePool(PagePool),
    /// The CPUs irqbalance keeps away from.
    IrqbalanceBan(IrqbalanceSocket),
    /// The CPUs that serve new interrupts.
    DefaultIrqAffinity,
    /// The CPUs that serve one interrupt.
    IrqAffinity {
        /// Its number.
        number: u32,
        /// Its users; another interrupt may get the number later.
        actions: String,
    },
    /// The CPUs of unbound kernel workqueues.
    WorkqueueMask(Workqueue),
    /// The CPUs of a unit and all below it.
    AllowedCpus(UnitName),
    /// A CPU's energy performance preference.
    EnergyPerformancePreference {
        /// The CPU.
        cpu: u32,
    },
    /// A CPU's frequency governor.
    ScalingGovernor {
        /// The CPU.
        cpu: u32,
    },
    /// How long a CPU may take to wake up.
    ResumeLatency {
        /// The CPU.
        cpu: u32,
    },
    /// The CPUs that serve an interrupt of a guest's own device.
    VfioIrqAffinity {
        /// Its number.
        number: u32,
        /// Its users; another interrupt may get the number later.
        actions: String,
    },
    /// What a monitor shows, or another of its features.
    MonitorFeature(MonitorFeature),
}

/// When a knob is taken and given back, seen from a guest's commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is taken before the commands of `prepare` and given back after those of `release`.
    AroundCommands,
    /// It is taken after the commands of `prepare` and given back before those of `release`: no more than a few writes.
    WithinCommands,
}

/// How long a write may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Milliseconds.
    Quick,
    /// Seconds: others get at the ledger meanwhile.
    Slow,
}

/// How several guests' wishes for one knob become one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CombineRule {
    /// Baseline minus all the CPUs claimed.
    MinusCpus,
    /// Baseline plus all the CPUs claimed: a list of CPUs to keep away from.
    PlusCpus,
    /// The claimed word; two different ones are a conflict.
    SameText,
    /// The CPUs claimed, whatever the baseline.
    OnlyCpus,
    /// What is there plus each guest's own share.
    Shares,
    /// What the guest wants that came last.
    LastComer,
}

/// What it means when the host refuses a write to a knob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRefusal {
    /// Go on without it, and say so.
    Skip,
    /// The guest must not start.
    Refuse,
}

/// When a value that was written can be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settles {
    /// At once.
    Now,
    /// At once, but what is read is not always what acts: write again rather than trust a value that looks right.
    OutOfSight,
    /// Some time later: until then an older value is read, and what was last written counts.
    Later,
}

impl Knob {
    /// How several guests' wishes become one value.
    #[must_use]
    pub fn rule(&self) -> CombineRule {
        match self {
            Self::PagePool(_) => CombineRule::Shares,
            Self::IrqbalanceBan(_) => CombineRule::PlusCpus,
            Self::DefaultIrqAffinity
            | Self::IrqAffinity { .. }
            | Self::WorkqueueMask(_)
            | Self::AllowedCpus(_) => CombineRule::MinusCpus,
            Self::VfioIrqAffinity { .. } => CombineRule::OnlyCpus,
            Self::MonitorFeature(_) => CombineRule::LastComer,
            Self::Keeper(_)
            | Self::SleepLock(_)
            | Self::CpuDmaLatency(_)
            | Self::I2cDev
            | Self::LidSwitch
            | Self::SleepMasks
            | Self::Service(_)
            | Self::Trigger(_)
            | Self::EnergyPerformancePreference { .. }
            | Self::ScalingGovernor { .. }
            | Self::ResumeLatency { .. } => CombineRule::SameText,
        }
    }

    /// When it is taken and given back, seen from a guest's commands.
    #[must_use]
    pub fn turn(&self) -> Turn {
        match self {
            Self::Keeper(_)
            | Self::SleepLock(_)
            | Self::CpuDmaLatency(_)
            | Self::I2cDev
            | Self::LidSwitch
            | Self::SleepMasks
            | Self::Service(_)
            | Self::Trigger(_)
            | Self::MonitorFeature(_) => Turn::AroundCommands,
            _ => Turn::WithinCommands,
        }
    }

    /// How long it may take to claim it: a service may need its time to stop. Giving it back only asks for its start.
    #[must_use]
    pub fn pace(&self) -> Pace {
        match self {
            Self::Service(_) | Self::Trigger(_) => Pace::Slow,
            _ => Pace::Quick,
        }
    }

    /// Whether a write is several, so that one that was interrupted leaves a value nobody ever wanted.
    #[must_use]
    pub(super) fn is_written_in_parts(&self) -> bool {
        matches!(self, Self::SleepMasks)
    }

    /// Whether it is set again where it is found changed while a guest holds it: what lives in a process that was
    /// killed, what a `daemon-reload` takes away, and interrupts that a driver has put back.
    #[must_use]
    pub fn is_upheld(&self) -> bool {
        matches!(
            self,
            Self::Keeper(_)
                | Self::SleepLock(_)
                | Self::CpuDmaLatency(_)
                | Self::AllowedCpus(_)
                | Self::DefaultIrqAffinity
                | Self::IrqAffinity { .. }
                | Self::VfioIrqAffinity { .. }
        )
    }

    /// When a value that was written can be read again: irqbalance takes its list at its next round, and after a
    /// `daemon-reload` systemd shows a value that the control group does not have yet.
    #[must_use]
    pub fn settles(&self) -> Settles {
        match self {
            Self::AllowedCpus(_) => Settles::OutOfSight,
            Self::IrqbalanceBan(_) => Settles::Later,
            _ => Settles::Now,
        }
    }

    /// What it means when the host refuses this write: interrupts that cannot be moved are normal (EPERM, EIO on older
    /// kernels; ENOSPC when the other CPUs have no vector left).
    #[must_use]
    pub fn on_refusal(&self, error: &HostError) -> OnRefusal {
        let refused = [Errno::EPERM, Errno::EIO, Errno::ENOSPC, Errno::EINVAL];
        let refused = error.raw_os_error().is_some_and(|raw| refused.contains(&Errno::from_raw(raw)));
        match self {
            Self::IrqAffinity { .. } | Self::VfioIrqAffinity { .. } if refused || error.is_absent() => {
                OnRefusal::Skip
            }
            // Without a keeper the guest starts all the same; what needs one says so itself.
            Self::IrqbalanceBan(_) | Self::Keeper(_) | Self::I2cDev => OnRefusal::Skip,
            _ => OnRefusal::Refuse,
        }
    }

    /// What it holds.
    ///
    /// # Errors
    /// It is gone, or does not answer in time.
    pub fn read(&self, host: &Host, deadline: Deadline) -> Result<Value, HostError> {
        Ok(match self {
            Self::Keeper(guest) => match host.keeper(*guest, deadline) {
                Ok(None) => Value::word(NONE),
                // One that hangs is there too, and can be ended.
                Ok(Some(_)) | Err(_) => Value::word(RUNS),
            },
            Self::SleepLock(guest) => held_by_keeper(host, *guest, deadline, |state| state.sleep_lock)?,
            Self::CpuDmaLatency(guest) => held_by_keeper(host, *guest, deadline, |state| {
                state.cpu_dma_latency.map(|micros| micros.to_string())
            })?,
            Self::LidSwitch => Value::Text(host.handle_lid_switch().to_string()),
            Self::SleepMasks => Value::Text(host.sleep_masks().to_string()),
            Self::Service(unit) | Self::Trigger(unit) => {
                Value::Text(host.unit_activity(unit, deadline)?.to_string())
            }
            Self::PagePool(pool) => Value::Pages(host.page_pool(*pool)?.persistent),
            Self::IrqbalanceBan(socket) => Value::Cpus(host.irqbalance_banned_cpus(socket)?),
            Self::DefaultIrqAffinity => Value::Cpus(host.default_smp_affinity()?),
            Self::IrqAffinity { number, actions } | Self::VfioIrqAffinity { number, actions } => {
                let users = host.irq_actions(*number)?;
                let cpus = host.irq_smp_affinity(*number)?;
                if users != *actions {
                    return Err(HostError::gone(format!(
                        "interrupt {number} is now that of `{users}`, no longer that of `{actions}`"
                    )));
                }
                Value::Cpus(cpus)
            }
            Self::WorkqueueMask(workqueue) => Value::Cpus(host.workqueue_cpumask(workqueue)?),
            Self::AllowedCpus(unit) => {
                let mut values = host.allowed_cpus(std::slice::from_ref(unit), deadline)?;
                let AllowedCpus { cpus, drop_in } = values.remove(0);
                Value::AllowedCpus { cpus, drop_in }
            }
            Self::EnergyPerformancePreference { cpu } => {
                text(host.energy_performance_preference(*cpu)?, cpu)?
            }
            Self::ScalingGovernor { cpu } => text(host.scaling_governor(*cpu)?, cpu)?,
            Self::ResumeLatency { cpu } => Value::Text(host.pm_qos_resume_latency(*cpu)?.to_string()),
            Self::I2cDev => match host.i2c_dev() {
                I2cDev::Absent => Value::word(NONE),
                I2cDev::Loaded | I2cDev::BuiltIn => Value::word(LOADED),
            },
            Self::MonitorFeature(feature) => {
                let mut values = host.vcp_features(std::slice::from_ref(feature), deadline);
                self.value_of_vcp(values.remove(0)?)
            }
        })
    }

    /// What it holds right after a write: whose interrupt it is was looked at before.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn read_back(&self, host: &Host, deadline: Deadline) -> Result<Value, HostError> {
        match self {
            Self::IrqAffinity { number, .. } | Self::VfioIrqAffinity { number, .. } => {
                Ok(Value::Cpus(host.irq_smp_affinity(*number)?))
            }
            _ => self.read(host, deadline),
        }
    }

    /// Makes it hold a value.
    ///
    /// # Errors
    /// The host refuses, or does not answer in time.
    pub(super) fn write(&self, host: &mut Host, value: &Value, deadline: Deadline) -> Result<(), HostError> {
        match (self, value) {
            (Self::Keeper(guest), Value::Text(word)) => match word.as_str() {
                RUNS => host.start_keeper(*guest, deadline),
                _ => host.stop_keeper(*guest, deadline),
            },
            (Self::SleepLock(guest), Value::Text(what)) => {
                ask_to_hold(host, *guest, Request::SleepLock(something(what)), deadline)
            }
            (Self::CpuDmaLatency(guest), Value::Text(micros)) => {
                let micros = something(micros)
                    .map(|micros| micros.parse())
                    .transpose()
                    .map_err(|reason| HostError::content("/dev/cpu_dma_latency".as_ref(), reason))?;
                ask_to_hold(host, *guest, Request::CpuDmaLatency(micros), deadline)
            }
            (Self::LidSwitch, Value::Text(word)) => host.set_handle_lid_switch(parsed(word)?, deadline),
            (Self::SleepMasks, Value::Text(word)) => host.set_sleep_masks(&parsed(word)?, deadline),
            (Self::Service(unit) | Self::Trigger(unit), Value::Text(word)) => {
                host.set_unit_activity(unit, parsed(word)?, deadline)
            }
            (Self::PagePool(pool), Value::Pages(pages)) => host.set_nr_hugepages(*pool, *pages),
            (Self::IrqbalanceBan(socket), Value::Cpus(cpus)) => host.set_irqbalance_banned_cpus(socket, cpus),
            (Self::DefaultIrqAffinity, Value::Cpus(cpus)) => host.set_default_smp_affinity(cpus),
            (Self::IrqAffinity { number, .. } | Self::VfioIrqAffinity { number, .. }, Value::Cpus(cpus)) => {
                host.set_irq_smp_affinity(*number, cpus)
            }
            (Self::WorkqueueMask(workqueue), Value::Cpus(cpus)) => {
                host.set_workqueue_cpumask(workqueue, cpus)
            }
            (Self::AllowedCpus(unit), Value::AllowedCpus { cpus, drop_in }) => {
                let value = AllowedCpus { cpus: cpus.clone(), drop_in: *drop_in };
                host.set_allowed_cpus(unit, &value, deadline)
            }
            (Self::EnergyPerformancePreference { cpu }, Value::Text(text)) => {
                host.set_energy_performance_preference(*cpu, text)
            }
            (Self::ScalingGovernor { cpu }, Value::Text(text)) => host.set_scaling_governor(*cpu, text),
            (Self::ResumeLatency { cpu }, Value::Text(text)) => {
                let latency = text
                    .parse()
                    .map_err(|reason| HostError::content("pm_qos_resume_latency_us".as_ref(), reason))?;
                host.set_pm_qos_resume_latency(*cpu, latency)
            }
            (Self::I2cDev, Value::Text(word)) => match word.as_str() {
                LOADED => host.load_i2c_dev(deadline),
                _ => host.unload_i2c_dev().map(drop),
            },
            (Self::MonitorFeature(feature), Value::Input(value) | Value::Vcp(value)) => {
                host.set_vcp_features(&[(feature.clone(), *value)], deadline).remove(0)
            }
            (knob, value) => Err(HostError::content(
                "the ledger".as_ref(),
                format!("{knob} cannot hold `{value}`; the ledger is damaged"),
            )),
        }
    }

    /// Why this knob's value is what it is, for the CPUs a unit may use when nothing was set before.
    #[must_use]
    pub(super) fn unset_means_all(&self) -> bool {
        matches!(self, Self::AllowedCpus(_))
    }

    /// Wraps the value of a monitor's feature as this knob holds it.
    #[must_use]
    pub(crate) fn value_of_vcp(&self, value: VcpValue) -> Value {
        match self {
            Self::MonitorFeature(feature) if feature.control.feature == VcpFeature::INPUT_SOURCE => {
                Value::Input(value)
            }
            _ => Value::Vcp(value),
        }
    }

    /// Wraps a set of CPUs as this knob holds it while it is claimed.
    #[must_use]
    pub(super) fn value_of_cpus(&self, cpus: CpuSet) -> Value {
        match self {
            Self::AllowedCpus(_) => Value::AllowedCpus { cpus, drop_in: crate::host::DropIn::Present },
            _ => Value::Cpus(cpus),
        }
    }
}

/// What a keeper holds; nothing where there is no keeper. What one that hangs holds goes when that is ended.
fn held_by_keeper(
    host: &Host,
    guest: GuestUuid,
    deadline: Deadline,
    what: impl Fn(KeeperState) -> Option<String>,
) -> Result<Value, HostError> {
    let keeper = host.keeper(guest, deadline).map_err(|error| HostError::gone(error.to_string()))?;
    let held = keeper.and_then(what);
    Ok(held.map_or_else(|| Value::word(NONE), Value::Text))
}

/// Asks a keeper to hold something, or nothing: that is what a keeper that is gone does anyway.
fn ask_to_hold(
    host: &mut Host,
    guest: GuestUuid,
    request: Request,
    deadline: Deadline,
) -> Result<(), HostError> {
    let is_nothing = matches!(request, Request::SleepLock(None) | Request::CpuDmaLatency(None));
    if is_nothing && host.keeper(guest, deadline)?.is_none() {
        return Ok(());
    }
    host.ask_keeper(guest, &request, deadline).map(drop)
}

fn something(word: &str) -> Option<String> {
    (word != NONE).then(|| word.to_owned())
}

fn parsed<T: FromStr<Err: fmt::Display>>(word: &str) -> Result<T, HostError> {
    word.parse().map_err(|reason| HostError::content("the ledger".as_ref(), reason))
}

fn text(value: Option<String>, cpu: &u32) -> Result<Value, HostError> {
    value
        .map(Value::Text)
        .ok_or_else(|| HostError::gone(format!("CPU {cpu} has no frequency scaling any more")))
}

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keeper(_) => f.write_str("keeper"),
            Self::SleepLock(_) => f.write_str("sleep lock"),
            Self::CpuDmaLatency(_) => f.write_str("cpu_dma_latency"),
            Self::LidSwitch => f.write_str("lid switch"),
            Self::SleepMasks => f.write_str("masked sleep units"),
            Self::Service(unit) | Self::Trigger(unit) => unit.fmt(f),
            Self::PagePool(pool) => pool.fmt(f),
            Self::IrqbalanceBan(_) => f.write_str("CPUs banned in irqbalance"),
            Self::DefaultIrqAffinity => f.write_str("CPUs of new interrupts"),
            Self::IrqAffinity { number, actions } if actions.is_empty() => write!(f, "CPUs of IRQ {number}"),
            Self::IrqAffinity { number, actions } | Self::VfioIrqAffinity { number, actions } => {
                write!(f, "CPUs of IRQ {number} ({actions})")
            }
            Self::WorkqueueMask(workqueue) => write!(f, "CPUs of {workqueue}"),
            Self::AllowedCpus(unit) => write!(f, "AllowedCPUs of {unit}"),
            Self::EnergyPerformancePreference { cpu } => write!(f, "energy preference of CPU {cpu}"),
            Self::ScalingGovernor { cpu } => write!(f, "governor of CPU {cpu}"),
            Self::ResumeLatency { cpu } => write!(f, "resume latency of CPU {cpu}"),
            Self::I2cDev => f.write_str("kernel module i2c-dev"),
            Self::MonitorFeature(feature) => feature.fmt(f),
        }
    }
}
