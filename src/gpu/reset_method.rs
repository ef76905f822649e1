//! The kernel's ways to reset a function.

use super::named_enum;

/// One of the names in a function's `reset_method` (`pci_reset_fn_methods` in the kernel's `drivers/pci/pci.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResetMethod {
    /// Code for this very device: the kernel's own, or that of the module vendor-reset.
    DeviceSpecific,
    /// The firmware's `_RST`.
    Acpi,
    /// The function level reset of PCI Express.
    Flr,
    /// The function level reset of the capability "advanced features".
    AfFlr,
    /// From D0 to D3hot and back.
    Pm,
    /// The secondary bus reset, where the function is alone on its bus.
    Bus,
    /// The same below a port of CXL.
    CxlBus,
}

impl ResetMethod {
    /// All there are, in the order in which the kernel tries them.
    pub const ALL: &'static [Self] =
        &[Self::DeviceSpecific, Self::Acpi, Self::Flr, Self::AfFlr, Self::Pm, Self::Bus, Self::CxlBus];

    /// The kernel's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeviceSpecific => "device_specific",
            Self::Acpi => "acpi",
            Self::Flr => "flr",
            Self::AfFlr => "af_flr",
            Self::Pm => "pm",
            Self::Bus => "bus",
            Self::CxlBus => "cxl_bus",
        }
    }
}

named_enum!(ResetMethod, "way to reset a function");
