//! Where the host's programs and the kernel's own work may run.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::host::{AllowedCpus, DropIn, Host, HostError, IrqbalanceSocket, UnitName, Workqueue};
use crate::ledger::rule::{MinusCpus, OfCpus, PlusCpus};
use crate::ledger::setting::{OnRefusal, Phase, Place, ReadBack, Reconciling, Setting, Traits};

/// CPUs in words, for a setting that holds some: no CPU is a value too.
macro_rules! cpus_in_words {
    () => {
        fn show(cpus: &CpuSet) -> String {
            if cpus.is_empty() { "(none)".to_owned() } else { cpus.to_string() }
        }

        fn describe(cpus: &CpuSet) -> String {
            format!("CPUs {cpus}")
        }
    };
}

pub(super) use cpus_in_words;

/// The CPUs irqbalance keeps away from. It takes its list at its next round: until then it says the older one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IrqbalanceBan(pub IrqbalanceSocket);

impl fmt::Display for IrqbalanceBan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CPUs banned in irqbalance")
    }
}

impl Setting for IrqbalanceBan {
    type Value = CpuSet;
    type Want = CpuSet;
    type Rule = PlusCpus;

    fn place(&self) -> Place {
        Place::Irqbalance
    }

    fn traits(&self) -> Traits {
        Traits { read_back: ReadBack::Later, ..Traits::of_peer(Phase::WithinCommands) }
    }

    fn read(&self, host: &Host, deadline: Deadline) -> Result<CpuSet, HostError> {
        host.irqbalance_banned_cpus(&self.0, deadline)
    }

    fn write(&self, host: &mut Host, cpus: &CpuSet, deadline: Deadline) -> Result<(), HostError> {
        host.set_irqbalance_banned_cpus(&self.0, cpus, deadline)
    }

    fn on_refusal(&self, _error: &HostError) -> OnRefusal {
        OnRefusal::Skip
    }

    cpus_in_words!();
}

/// The CPUs of unbound kernel workqueues.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkqueueMask(pub Workqueue);

impl fmt::Display for WorkqueueMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPUs of {}", self.0)
    }
}

impl Setting for WorkqueueMask {
    type Value = CpuSet;
    type Want = CpuSet;
    type Rule = MinusCpus;

    fn place(&self) -> Place {
        Place::Workqueues
    }

    fn traits(&self) -> Traits {
        Traits { reconciling: Reconciling::OldValuesOfCpus, ..Traits::of(Phase::WithinCommands) }
    }

    fn read(&self, host: &Host, _deadline: Deadline) -> Result<CpuSet, HostError> {
        host.workqueue_cpumask(&self.0)
    }

    fn write(&self, host: &mut Host, cpus: &CpuSet, _deadline: Deadline) -> Result<(), HostError> {
        host.set_workqueue_cpumask(&self.0, cpus)
    }

    cpus_in_words!();
}

/// The CPUs of a unit and all below it (`AllowedCPUs`). After a `daemon-reload` systemd shows a value that the control
/// group does not have yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnitCpus(pub UnitName);

impl fmt::Display for UnitCpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AllowedCPUs of {}", self.0)
    }
}

impl OfCpus for AllowedCpus {
    fn cpus(&self) -> &CpuSet {
        &self.cpus
    }

    fn claimed(cpus: CpuSet) -> Self {
        Self { cpus, drop_in: DropIn::Present }
    }

    /// A unit for which nothing is set may use all.
    fn meant<'a>(&'a self, online: &'a CpuSet) -> &'a CpuSet {
        if self.cpus.is_empty() { online } else { &self.cpus }
    }
}

impl Setting for UnitCpus {
    type Value = AllowedCpus;
    type Want = CpuSet;
    type Rule = MinusCpus;

    fn place(&self) -> Place {
        Place::Units
    }

    fn traits(&self) -> Traits {
        Traits {
            read_back: ReadBack::Untrusted,
            reconciling: Reconciling::OldValues,
            ..Traits::of_peer(Phase::WithinCommands)
        }
    }

    fn read(&self, host: &Host, deadline: Deadline) -> Result<AllowedCpus, HostError> {
        Ok(host.allowed_cpus(std::slice::from_ref(&self.0), deadline)?.remove(0))
    }

    fn write(&self, host: &mut Host, value: &AllowedCpus, deadline: Deadline) -> Result<(), HostError> {
        host.set_allowed_cpus(&self.0, value, deadline)
    }

    /// A file that systemd leaves behind does not count.
    fn is_same(left: &AllowedCpus, right: &AllowedCpus) -> bool {
        left.cpus == right.cpus
    }

    fn describe(cpus: &CpuSet) -> String {
        format!("CPUs {cpus}")
    }
}
