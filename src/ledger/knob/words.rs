//! The knobs in words.

use std::fmt;

use super::Knob;

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
            Self::GraphicalSessions => f.write_str("desktops"),
            Self::CardUsers(functions) => write!(f, "users of {functions}"),
            Self::VtConsole(number) => write!(f, "text console vtcon{number}"),
            Self::FirmwareFramebuffer(framebuffer) => write!(f, "driver of {framebuffer}"),
            Self::PciAttribute { address, attribute } => write!(f, "{attribute} of {address}"),
            Self::DriversAutoprobe => f.write_str("drivers_autoprobe of PCI"),
            Self::PciBindings(functions) => write!(f, "driver of {functions}"),
            Self::I2cDev => f.write_str("kernel module i2c-dev"),
            Self::MonitorFeature(feature) => feature.fmt(f),
        }
    }
}
