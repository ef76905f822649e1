//! Addresses of PCI functions and cards.

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

/// All functions of one card, written `0000:0b:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciSlot {
    domain: u32,
    bus: u8,
    slot: u8,
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

    /// The card it is a function of.
    #[must_use]
    pub const fn slot(self) -> PciSlot {
        PciSlot { domain: self.domain, bus: self.bus, slot: self.slot }
    }

    /// Its number on the card.
    #[must_use]
    pub const fn function(self) -> u8 {
        self.function
    }

    /// The function whose routing number (bus, slot and function in 8, 5 and 3 bits) is so much higher, in the same
    /// domain; none beyond its last bus.
    #[must_use]
    pub fn at_distance(self, distance: u32) -> Option<Self> {
        let number = u32::from(self.bus) << 8 | u32::from(self.slot) << 3 | u32::from(self.function);
        let [bus, slot_and_function] = u16::try_from(number.checked_add(distance)?).ok()?.to_be_bytes();
        Self::new(self.domain, bus, slot_and_function >> 3, slot_and_function & 7)
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

impl PciSlot {
    /// All addresses that its functions can have.
    pub fn functions(self) -> impl Iterator<Item = PciAddress> {
        let Self { domain, bus, slot } = self;
        (0..8).map(move |function| PciAddress { domain, bus, slot, function })
    }
}

impl PciSlot {
    /// The card that a person means by a function or a card of theirs, with the domain or without: `0000:0b:00.1`,
    /// `0b:00`.
    ///
    /// # Errors
    /// It is neither.
    pub fn meant_by(text: &str) -> Result<Self, ParsePciError> {
        let in_domain = if text.matches(':').count() == 1 { format!("0000:{text}") } else { text.to_owned() };
        let slot = in_domain.parse::<PciAddress>().map(PciAddress::slot).or_else(|_| in_domain.parse());
        slot.map_err(|_| ParsePciError(text.to_owned()))
    }
}

impl FromStr for PciSlot {
    type Err = ParsePciError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let first: Result<PciAddress, _> = format!("{text}.0").parse();
        first.map(PciAddress::slot).map_err(|_| ParsePciError(text.to_owned()))
    }
}

/// A number of at most eight digits.
fn hexadecimal(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u32> {
    if !digits.contains(&text.len()) {
        return None;
    }
    text.chars().try_fold(0, |number, digit| Some(number << 4 | digit.to_digit(16)?))
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = AddressText::of(self.slot());
        text.push(b'.');
        text.push_hexadecimal(self.function.into(), 1);
        text.fmt(f)
    }
}

impl fmt::Display for PciSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        AddressText::of(*self).fmt(f)
    }
}

/// An address while it is written. Every path of a function has one in it, and the formatter takes 1,300 instructions
/// for the four numbers, most of them for the zeros in front.
struct AddressText {
    /// Room for the longest: `ffffffff:ff:1f.7`.
    bytes: [u8; 16],
    length: usize,
}

impl AddressText {
    fn of(slot: PciSlot) -> Self {
        let mut text = Self { bytes: [0; 16], length: 0 };
        let domain_digits = (u32::BITS - slot.domain.leading_zeros()).div_ceil(4);
        text.push_hexadecimal(slot.domain, domain_digits.max(4));
        for number in [slot.bus, slot.slot] {
            text.push(b':');
            text.push_hexadecimal(number.into(), 2);
        }
        text
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    fn push_hexadecimal(&mut self, number: u32, digits: u32) {
        for digit in (0..digits).rev() {
            self.push(b"0123456789abcdef"[(number >> (4 * digit) & 0xf) as usize]);
        }
    }

    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.bytes[..self.length]).map_err(|_| fmt::Error)?)
    }
}

serde_as_text!(PciAddress);
serde_as_text!(PciSlot);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_meant_by_a_function_or_a_slot_with_or_without_its_domain() {
        let card: PciSlot = "0000:0b:00".parse().unwrap();
        for text in ["0000:0b:00.1", "0000:0b:00", "0b:00.0", "0B:00"] {
            assert_eq!(PciSlot::meant_by(text), Ok(card), "{text}");
        }
        for text in ["", "0b", "0b:00.", "0b:00.8", "0b:00:00:00", "b:00.0", "0b:00.0 ", "-0b:00"] {
            let error = PciSlot::meant_by(text).unwrap_err();
            assert_eq!(error, ParsePciError(text.to_owned()), "{text}");
        }
    }

    #[test]
    fn reads_and_writes_sysfs_names() {
        for text in ["0000:0b:00.1", "0000:00:1f.7", "10000:e1:00.0"] {
            assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), text);
        }
        for domain in [0, 1, 0xffff, 0x1_0000, 0xabcd_ef01, u32::MAX] {
            let address = PciAddress::new(domain, 0xa, 31, 7).unwrap();
            assert_eq!(address.to_string(), format!("{domain:04x}:0a:1f.7"));
            assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn a_card_is_all_functions_of_its_slot() {
        let address: PciAddress = "10000:e1:1f.3".parse().unwrap();
        let slot = address.slot();
        assert_eq!(slot.to_string(), "10000:e1:1f");
        assert_eq!("10000:e1:1f".parse(), Ok(slot));
        assert_eq!(slot.functions().nth(3), Some(address));
        assert!("10000:e1:1f.3".parse::<PciSlot>().is_err());
    }

    #[test]
    fn routing_numbers_go_on_at_the_next_bus() {
        let address = |text: &str| text.parse::<PciAddress>().unwrap();
        for (distance, expected) in [(0, "0001:06:00.1"), (0x80, "0001:06:10.1"), (0x182, "0001:07:10.3")] {
            assert_eq!(address("0001:06:00.1").at_distance(distance), Some(address(expected)));
        }
        assert_eq!(address("0000:ff:1f.0").at_distance(8), None);
        assert_eq!(address("0000:00:00.1").at_distance(u32::MAX), None);
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
