//! Addresses of PCI functions.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::serde_as_text::serde_as_text;

/// A function on the host's PCI bus, written `0000:0b:00.1` as in `/sys/bus/pci/devices`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    slot: u8,
    function: u8,
}

/// Why a text or four numbers are no PCI address.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is no PCI address (expected something like 0000:0b:00.1)")]
pub struct ParsePciError(String);

impl PciAddress {
    /// An address from its parts; none when the slot is above 31 or the function above 7, as PCI allows no such.
    #[must_use]
    pub const fn new(domain: u32, bus: u8, slot: u8, function: u8) -> Option<Self> {
        if slot > 31 || function > 7 {
            return None;
        }
        Some(Self { domain, bus, slot, function })
    }

    /// The number of its bus.
    #[must_use]
    pub const fn bus(self) -> u8 {
        self.bus
    }
}

impl FromStr for PciAddress {
    type Err = ParsePciError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (domain, rest) = text.split_once(':')?;
            let (bus, rest) = rest.split_once(':')?;
            let (slot, function) = rest.split_once('.')?;
            Self::new(
                hexadecimal(domain, 4..=8)?,
                u8::try_from(hexadecimal(bus, 2..=2)?).ok()?,
                u8::try_from(hexadecimal(slot, 2..=2)?).ok()?,
                u8::try_from(hexadecimal(function, 1..=1)?).ok()?,
            )
        };
        parse().ok_or_else(|| ParsePciError(text.to_owned()))
    }
}

fn hexadecimal(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u32> {
    if !digits.contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(text, 16).ok()
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.slot, self.function)
    }
}

serde_as_text!(PciAddress);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_sysfs_names() {
        for text in ["0000:0b:00.1", "0000:00:1f.7", "10000:e1:00.0"] {
            assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_what_sysfs_has_not() {
        for text in
            ["", "0b:00.1", "0000:0b:20.0", "0000:0b:00.8", "0000:0b:00", "0000:0g:00.0", "0000:0b:00.1 "]
        {
            assert!(text.parse::<PciAddress>().is_err(), "{text:?}");
        }
    }
}
