//! Where interrupts are served.

use std::fmt;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::cpus::cpus_in_words;
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::host::{Host, HostError};
use crate::ledger::rule::{MinusCpus, OnlyCpus};
use crate::ledger::setting::{Absence, OnRefusal, Phase, Place, Reconciling, Setting, Traits};

const TRAITS: Traits = Traits { reconciling: Reconciling::Always, ..Traits::of(Phase::WithinCommands) };

/// The CPUs that serve new interrupts (`/proc/irq/default_smp_affinity`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DefaultIrqAffinity;

impl fmt::Display for DefaultIrqAffinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CPUs of new interrupts")
    }
}

impl Setting for DefaultIrqAffinity {
    type Value = CpuSet;
    type Want = CpuSet;
    type Rule = MinusCpus;

    fn place(&self) -> Place {
        Place::NewInterrupts
    }

    fn traits(&self) -> Traits {
        TRAITS
    }

    fn read(&self, host: &Host, _deadline: Deadline) -> Result<CpuSet, HostError> {
        host.default_smp_affinity()
    }

    fn write(&self, host: &mut Host, cpus: &CpuSet, _deadline: Deadline) -> Result<(), HostError> {
        host.set_default_smp_affinity(cpus)
    }

    cpus_in_words!();
}

/// The CPUs that serve one interrupt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IrqAffinity {
    /// Its number.
    pub number: u32,
    /// Its users; another interrupt may get the number later.
    pub actions: String,
}

/// The CPUs that serve an interrupt of a guest's own device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VfioIrqAffinity {
    /// Its number.
    pub number: u32,
    /// Its users; another interrupt may get the number later.
    pub actions: String,
}

macro_rules! interrupt {
    ($type:ident at $place:ident, $rule:ident, $absence:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.actions.as_str() {
                    "" => write!(f, "CPUs of IRQ {}", self.number),
                    actions => write!(f, "CPUs of IRQ {} ({actions})", self.number),
                }
            }
        }

        impl Setting for $type {
            type Value = CpuSet;
            type Want = CpuSet;
            type Rule = $rule;

            fn place(&self) -> Place {
                Place::$place
            }

            fn traits(&self) -> Traits {
                Traits { absence: Absence::$absence, ..TRAITS }
            }

            fn read(&self, host: &Host, _deadline: Deadline) -> Result<CpuSet, HostError> {
                let Self { number, actions } = self;
                let users = host.irq_actions(*number)?;
                let cpus = host.irq_smp_affinity(*number)?;
                if users != *actions {
                    return Err(HostError::gone(format!(
                        "interrupt {number} is now that of `{users}`, no longer that of `{actions}`"
                    )));
                }
                Ok(cpus)
            }

            /// Whose interrupt it is was looked at before.
            fn read_back(&self, host: &Host, _deadline: Deadline) -> Result<CpuSet, HostError> {
                host.irq_smp_affinity(self.number)
            }

            fn write(&self, host: &mut Host, cpus: &CpuSet, _deadline: Deadline) -> Result<(), HostError> {
                host.set_irq_smp_affinity(self.number, cpus)
            }

            /// `migrate_one_irq` in `kernel/irq/cpuhotplug.c` gives it to all that are left, and leaves it there.
            fn needs_one_of(cpus: &CpuSet) -> Option<&CpuSet> {
                Some(cpus)
            }

            /// Interrupts that cannot be moved are normal: EPERM, EIO on older kernels; ENOSPC when the other CPUs have
            /// no vector left.
            fn on_refusal(&self, error: &HostError) -> OnRefusal {
                let refused = [Errno::EPERM, Errno::EIO, Errno::ENOSPC, Errno::EINVAL];
                let errno = error.raw_os_error().map(Errno::from_raw);
                match errno.is_some_and(|errno| refused.contains(&errno)) || error.is_absent() {
                    true => OnRefusal::Skip,
                    false => OnRefusal::Refuse,
                }
            }

            cpus_in_words!();
        }
    };
}

interrupt!(IrqAffinity at Interrupts, MinusCpus, Forgotten);
interrupt!(VfioIrqAffinity at DeviceInterrupts, OnlyCpus, Expected);
