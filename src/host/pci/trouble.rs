//! What goes wrong with PCI functions, beyond a file that cannot be written.

use thiserror::Error;

use super::DriverName;
use crate::pci::BarSize;
use crate::pci::{PciAddress, listed};

/// A PCI function that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PciTrouble {
    /// The driver's `probe` failed, or it does not know the function.
    #[error("driver {driver} did not take {function}")]
    NotTaken {
        /// The function at fault.
        function: PciAddress,
        /// The driver that was meant to.
        driver: DriverName,
    },
    /// Another driver was faster, or knows the function too.
    #[error("driver {driver} took {function}, not {wanted}")]
    TakenByAnother {
        /// The function at fault.
        function: PciAddress,
        /// Who has it.
        driver: DriverName,
        /// The driver that was meant to.
        wanted: DriverName,
    },
    /// It was unbound, and yet a driver has it.
    #[error("driver {driver} has {function} again after it was unbound")]
    BoundAgain {
        /// The function at fault.
        function: PciAddress,
        /// Who has it.
        driver: DriverName,
    },
    /// The kernel has no such driver.
    #[error("this kernel has no driver {0}")]
    NoDriver(DriverName),
    /// The BAR cannot have that size.
    #[error("BAR {bar} of {function} cannot be {wanted}: {reason}{}", .put_back.as_deref().unwrap_or_default())]
    BarSize {
        /// The function at fault.
        function: PciAddress,
        /// Which of its BARs.
        bar: u8,
        /// The size that was wanted.
        wanted: BarSize,
        /// The reason of the refusal.
        reason: BarReason,
        /// What became of the old sizes, where they could not be put back.
        put_back: Option<String>,
    },
    /// It cannot be reset by itself.
    #[error("{0} cannot be reset by itself")]
    NoReset(PciAddress),
    /// The kernel cannot reset what is below a port.
    #[error("this kernel cannot reset what is below {0}")]
    NoSubordinateReset(PciAddress),
    /// There is more below a port than what is to be reset or taken away.
    #[error("below {port} there is more than the card: {}", listed(.others))]
    Others {
        /// The port above them.
        port: PciAddress,
        /// What there is.
        others: Vec<PciAddress>,
    },
    /// The card has no switch that could be found anew.
    #[error("the card of {0} has no switch of its own")]
    NoOwnSwitch(PciAddress),
    /// It is part of the processor: there is nothing between them that could be reset.
    #[error("{0} has no port above it")]
    NoPort(PciAddress),
    /// The kernel gives a function that it finds to a driver before it can be looked at.
    #[error("this kernel would give the card to {} as soon as it finds it", .0.join(", "))]
    BoundWhenFound(Vec<String>),
    /// Nothing can cut the power of the slot.
    #[error("no slot with a power switch holds {0}")]
    NoSlotPower(PciAddress),
    /// The host cannot sleep so that its cards lose power.
    #[error("this host has no deep sleep (`/sys/power/mem_sleep` is `{0}`)")]
    NoDeepSleep(String),
    /// Another program set the alarm clock that would wake the host up.
    #[error("the alarm of /sys/class/rtc/rtc0 is set already, for {0} (seconds since 1970)")]
    AlarmTaken(String),
    /// They did not come back.
    #[error("these functions did not come back: {}", listed(.0))]
    NotBack(Vec<PciAddress>),
}

/// Why a BAR cannot have a size.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BarReason {
    /// The function has no such resizable BAR.
    #[error("it cannot be resized")]
    NotResizable,
    /// The function does not offer it.
    #[error("the function does not offer this size")]
    NotOffered,
    /// The window of a port above is too small.
    #[error("the ports above have no room for it")]
    NoRoom,
    /// The kernel said yes, and yet it has another size.
    #[error("it is {0} after the change")]
    StayedAt(BarSize),
    /// The kernel said yes, and yet it has no place.
    #[error("it has no place after the change")]
    NotPlaced,
}

impl PciTrouble {
    /// What a person can do about it at the machine. What the configuration can do, the layers above know.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::NotTaken { .. } => Some("the kernel's log says why: `journalctl -k -b`"),
            Self::TakenByAnother { .. } | Self::BoundAgain { .. } => {
                Some("is there a udev rule, driverctl or another hook that binds it?")
            }
            Self::NoDriver(_) => Some("load its module, or install the package of the kernel that has it"),
            Self::BarSize { reason: BarReason::NotResizable, .. } => {
                Some("`lspci -vv` shows which are resizable")
            }
            Self::BarSize { reason: BarReason::NotOffered, .. } => {
                Some("`lspci -vv` shows the sizes it offers as `BAR n: current size: ..., supported: ...`")
            }
            Self::BarSize { .. } => {
                Some("switch on `Above 4G decoding` and `Resizable BAR` in the firmware's setup")
            }
            Self::NoReset(_) => {
                Some("its `reset_method` lists how it can be reset; there is none, or it is empty")
            }
            Self::NoSubordinateReset(_) => {
                Some("`reset_subordinate` came with Linux 6.13; some older kernels of distributions have it")
            }
            Self::BoundWhenFound(_) => {
                Some("Linux 6.19 and later let it be looked at first (`drivers_autoprobe`)")
            }
            Self::NoDeepSleep(_) => {
                Some("some firmware has it as `S3` or `Linux sleep` among its power settings")
            }
            Self::AlarmTaken(_) => Some("`echo 0 > /sys/class/rtc/rtc0/wakealarm` clears it"),
            Self::NotBack(_) => {
                Some("a host that is switched off and on again finds them; a warm reboot may not")
            }
            Self::Others { .. } | Self::NoPort(_) | Self::NoOwnSwitch(_) | Self::NoSlotPower(_) => None,
        }
    }
}
