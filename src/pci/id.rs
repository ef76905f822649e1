//! What a PCI function is: its model and its class.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::serde_as_text::serde_as_text;

/// A model, written `1002:73bf`: the vendor's number and the vendor's number for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciId {
    /// `vendor`, as the PCI SIG gives it out.
    pub vendor: u16,
    /// `device`.
    pub device: u16,
}

/// Why a text is no model.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is no PCI model (expected something like 1002:73bf)")]
pub struct ParsePciIdError(String);

impl PciId {
    /// AMD's graphics, which came from ATI.
    pub const AMD: u16 = 0x1002;

    /// What AMD's processors and chipsets have beside graphics.
    pub const AMD_PLATFORM: u16 = 0x1022;
}

impl FromStr for PciId {
    type Err = ParsePciIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |digits: &str| {
            let is_plain = digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            is_plain.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
        };
        let parse = || {
            let (vendor, device) = text.split_once(':')?;
            Some(Self { vendor: number(vendor)?, device: number(device)? })
        };
        parse().ok_or_else(|| ParsePciIdError(text.to_owned()))
    }
}

impl fmt::Display for PciId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

serde_as_text!(PciId);

/// The 24 bits of `class` in sysfs: base class, subclass and programming interface, as the PCI code and ID assignment
/// specification has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciClass(pub u32);

impl PciClass {
    /// Base class 03: VGA, XGA, 3D and other display controllers.
    #[must_use]
    pub const fn is_display(self) -> bool {
        self.0 >> 16 == 0x03
    }

    /// Subclass 04 of base class 06: PCI to PCI bridges, which ports and switches are.
    #[must_use]
    pub const fn is_bridge(self) -> bool {
        self.0 >> 8 == 0x0604
    }

    /// Base class 06: bridges of any kind, which are no device that a guest could have.
    #[must_use]
    pub const fn is_bridge_of_any_kind(self) -> bool {
        self.0 >> 16 == 0x06
    }

    /// Subclass 80 of base class 10, as the security processor of AMD's processors has; no graphics card has one.
    #[must_use]
    pub const fn is_encryption(self) -> bool {
        self.0 >> 8 == 0x1080
    }

    /// Base class 01, controllers of drives; subclasses 03 of base class 0c, USB, and 05 of base class 08, memory cards.
    #[must_use]
    pub const fn may_have_drives(self) -> bool {
        self.0 >> 16 == 0x01 || matches!(self.0 >> 8, 0x0c03 | 0x0805)
    }

    /// Subclasses 01 (audio) and 03 (HD audio) of base class 04.
    #[must_use]
    pub const fn is_sound(self) -> bool {
        matches!(self.0 >> 8, 0x0401 | 0x0403)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_two_numbers_of_four_digits() {
        let id: PciId = "1002:73bf".parse().unwrap();
        assert_eq!((id.vendor, id.device, id.to_string().as_str()), (PciId::AMD, 0x73bf, "1002:73bf"));
        for text in ["", "1002", "1002:", "1002:73bff", "1002:+3bf", "0x1002:0x73bf", "1002:73bf "] {
            assert!(text.parse::<PciId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn classes_tell_displays_from_sound_and_bridges() {
        let kind =
            |class| (PciClass(class).is_display(), PciClass(class).is_sound(), PciClass(class).is_bridge());
        assert_eq!(kind(0x030000), (true, false, false));
        assert_eq!(kind(0x030200), (true, false, false));
        assert_eq!(kind(0x040300), (false, true, false));
        assert_eq!(kind(0x060400), (false, false, true));
        assert_eq!(kind(0x060000), (false, false, false));
        assert!(PciClass(0x060100).is_bridge_of_any_kind() && !PciClass(0x0c0330).is_bridge_of_any_kind());
        assert!(PciClass(0x108000).is_encryption() && !PciClass(0x100000).is_encryption());
    }
}
