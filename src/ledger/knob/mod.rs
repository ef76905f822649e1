//! The knobs: one thing on the host each, that can be read and written.

mod io;
mod words;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::value::Value;
use crate::cpuset::CpuSet;
use crate::guest::GuestUuid;
use crate::host::{
    FirmwareFramebuffer, HostError, IrqbalanceSocket, PagePool, PciAttribute, ServiceUnit, UnitName,
    Workqueue,
};
use crate::monitor::{MonitorFeature, VcpFeature, VcpValue};
use crate::pci::{PciAddress, PciFunctions};

/// What a knob holds that holds nothing.
pub(crate) const NONE: &str = "none";

/// What the knob of a kernel module holds while it is loaded.
pub(crate) const LOADED: &str = "loaded";

/// What the knob of a keeper holds while there is one.
pub(crate) const RUNS: &str = "runs";

/// One thing on the host. They are taken in the order of this list and given back in the reverse one: the keeper before
/// what it holds; a service before the socket that would start it again; pages while all CPUs can still gather them;
/// irqbalance before the interrupts that it would move back; a CPU's preference before the governor that forbids to
/// change it; a card's power before its driver, which would put it to sleep. The guest's commands have their place
/// between the units and the cards.
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
    /// The sessions with a desktop on the host's own seat.
    GraphicalSessions,
    /// The programs that use a card.
    CardUsers(PciFunctions),
    /// Whether a virtual console is shown by a framebuffer.
    VtConsole(u32),
    /// The driver of the framebuffer that the firmware set up.
    FirmwareFramebuffer(FirmwareFramebuffer),
    /// A setting of a PCI function or port.
    PciAttribute {
        /// Which.
        address: PciAddress,
        /// Of what.
        attribute: PciAttribute,
    },
    /// Whether the kernel binds drivers to PCI functions that it finds: not while a card is looked for that is to come
    /// back without one.
    DriversAutoprobe,
    /// The drivers of functions that are handed over together, and the sizes of their BARs.
    PciBindings(PciFunctions),
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
    /// It is taken after the commands of `prepare` and given back before those of `release`, which may take long: by
    /// the guest's keeper.
    Cards,
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
    /// What the one guest wants that has it.
    OneOwner,
    /// It is emptied for the guest, and nothing is put back.
    Emptied,
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
            Self::PciBindings(_) => CombineRule::OneOwner,
            Self::GraphicalSessions | Self::CardUsers(_) => CombineRule::Emptied,
            Self::Keeper(_)
            | Self::SleepLock(_)
            | Self::CpuDmaLatency(_)
            | Self::I2cDev
            | Self::LidSwitch
            | Self::SleepMasks
            | Self::Service(_)
            | Self::Trigger(_)
            | Self::VtConsole(_)
            | Self::FirmwareFramebuffer(_)
            | Self::PciAttribute { .. }
            | Self::DriversAutoprobe
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
            Self::GraphicalSessions
            | Self::CardUsers(_)
            | Self::VtConsole(_)
            | Self::FirmwareFramebuffer(_)
            | Self::PciAttribute { .. }
            | Self::DriversAutoprobe
            | Self::PciBindings(_) => Turn::Cards,
            _ => Turn::WithinCommands,
        }
    }

    /// How long it may take to claim it: a service may need its time to stop. Giving it back only asks for its start.
    #[must_use]
    pub fn pace(&self) -> Pace {
        match self {
            Self::Service(_) | Self::Trigger(_) => Pace::Slow,
            _ if self.turn() == Turn::Cards => Pace::Slow,
            _ => Pace::Quick,
        }
    }

    /// Whether a write is several, so that one that was interrupted leaves a value nobody ever wanted.
    #[must_use]
    pub(super) fn is_written_in_parts(&self) -> bool {
        matches!(self, Self::SleepMasks | Self::PciBindings(_))
    }

    /// Whether what it held before comes back: programs and desktops that had to go do not.
    #[must_use]
    pub fn is_put_back(&self) -> bool {
        self.rule() != CombineRule::Emptied
    }

    /// Whether its guest's keeper, or whoever ends the lease without one, looks after it until it is back: nobody else
    /// touches it.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        matches!(self, Self::MonitorFeature(_)) || self.turn() == Turn::Cards
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
            // Not `power/control`: vfio's driver changes it, and only who has a claim on it puts it back.
            Self::PciAttribute { attribute: PciAttribute::D3coldAllowed, .. }
                if error.stuck_process().is_none() =>
            {
                OnRefusal::Skip
            }
            _ => OnRefusal::Refuse,
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
