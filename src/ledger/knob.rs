//! The knobs: one thing on the host each, that can be read and written.

use std::fmt;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::value::Value;
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::host::{AllowedCpus, Host, HostError, IrqbalanceSocket, PagePool, UnitName, Workqueue};

/// One thing on the host. They are taken in the order of this list and given back in the reverse one: pages while all
/// CPUs can still gather them; irqbalance before the interrupts that it would move back; a CPU's preference before the
/// governor that forbids to change it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Knob {
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
    /// What is there plus each guest's own share.
    Shares,
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
            Self::EnergyPerformancePreference { .. }
            | Self::ScalingGovernor { .. }
            | Self::ResumeLatency { .. } => CombineRule::SameText,
        }
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
            Self::IrqAffinity { .. } if refused || error.is_absent() => OnRefusal::Skip,
            Self::IrqbalanceBan(_) => OnRefusal::Skip,
            _ => OnRefusal::Refuse,
        }
    }

    /// What it holds.
    ///
    /// # Errors
    /// It is gone, or does not answer in time.
    pub fn read(&self, host: &Host, deadline: Deadline) -> Result<Value, HostError> {
        Ok(match self {
            Self::PagePool(pool) => Value::Pages(host.page_pool(*pool)?.persistent),
            Self::IrqbalanceBan(socket) => Value::Cpus(host.irqbalance_banned_cpus(socket)?),
            Self::DefaultIrqAffinity => Value::Cpus(host.default_smp_affinity()?),
            Self::IrqAffinity { number, actions } => {
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
        })
    }

    /// What it holds right after a write: whose interrupt it is was looked at before.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn read_back(&self, host: &Host, deadline: Deadline) -> Result<Value, HostError> {
        match self {
            Self::IrqAffinity { number, .. } => Ok(Value::Cpus(host.irq_smp_affinity(*number)?)),
            _ => self.read(host, deadline),
        }
    }

    /// Makes it hold a value.
    ///
    /// # Errors
    /// The host refuses, or does not answer in time.
    pub(super) fn write(&self, host: &mut Host, value: &Value, deadline: Deadline) -> Result<(), HostError> {
        match (self, value) {
            (Self::PagePool(pool), Value::Pages(pages)) => host.set_nr_hugepages(*pool, *pages),
            (Self::IrqbalanceBan(socket), Value::Cpus(cpus)) => host.set_irqbalance_banned_cpus(socket, cpus),
            (Self::DefaultIrqAffinity, Value::Cpus(cpus)) => host.set_default_smp_affinity(cpus),
            (Self::IrqAffinity { number, .. }, Value::Cpus(cpus)) => host.set_irq_smp_affinity(*number, cpus),
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

    /// Wraps a set of CPUs as this knob holds it while it is claimed.
    #[must_use]
    pub(super) fn value_of_cpus(&self, cpus: CpuSet) -> Value {
        match self {
            Self::AllowedCpus(_) => Value::AllowedCpus { cpus, drop_in: crate::host::DropIn::Present },
            _ => Value::Cpus(cpus),
        }
    }
}

fn text(value: Option<String>, cpu: &u32) -> Result<Value, HostError> {
    value
        .map(Value::Text)
        .ok_or_else(|| HostError::gone(format!("CPU {cpu} has no frequency scaling any more")))
}

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PagePool(pool) => pool.fmt(f),
            Self::IrqbalanceBan(_) => f.write_str("CPUs banned in irqbalance"),
            Self::DefaultIrqAffinity => f.write_str("CPUs of new interrupts"),
            Self::IrqAffinity { number, actions } if actions.is_empty() => write!(f, "CPUs of IRQ {number}"),
            Self::IrqAffinity { number, actions } => write!(f, "CPUs of IRQ {number} ({actions})"),
            Self::WorkqueueMask(workqueue) => write!(f, "CPUs of {workqueue}"),
            Self::AllowedCpus(unit) => write!(f, "AllowedCPUs of {unit}"),
            Self::EnergyPerformancePreference { cpu } => write!(f, "energy preference of CPU {cpu}"),
            Self::ScalingGovernor { cpu } => write!(f, "governor of CPU {cpu}"),
            Self::ResumeLatency { cpu } => write!(f, "resume latency of CPU {cpu}"),
        }
    }
}
