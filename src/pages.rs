//! Sizes of memory and of huge pages.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

const KIB: u64 = 1024;

/// An amount of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemorySize(u64);

/// The size of a huge page, in KiB as in `/sys/kernel/mm/hugepages/hugepages-2048kB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PageSize(u64);

/// Why a text is no size.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseSizeError {
    /// No unit, or none of the known ones.
    #[error("`{0}` has no known unit")]
    Unit(String),
    /// The part before the unit is no whole number.
    #[error("`{0}` is not a whole number with a unit")]
    Number(String),
    /// More than 64 bits can hold.
    #[error("`{0}` is too large")]
    TooLarge(String),
}

impl MemorySize {
    /// No memory.
    pub const ZERO: Self = Self(0);

    /// So many bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many KiB, the unit of `/proc/meminfo` and of the XML that libvirt writes.
    #[must_use]
    pub const fn from_kib(kib: u64) -> Self {
        Self(kib.saturating_mul(KIB))
    }

    /// So many GiB.
    #[must_use]
    pub const fn from_gib(gib: u64) -> Self {
        Self::from_kib(gib.saturating_mul(KIB * KIB))
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The sum, at most what 64 bits hold.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, at least nothing.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// How many pages hold it, rounded up.
    #[must_use]
    pub const fn pages(self, size: PageSize) -> u64 {
        self.0.div_ceil(size.bytes())
    }
}

impl PageSize {
    /// 2 MiB.
    pub const MIB_2: Self = Self(2 * KIB);
    /// 1 GiB.
    pub const GIB_1: Self = Self(KIB * KIB);

    /// A page of so many KiB; none of zero.
    #[must_use]
    pub const fn from_kib(kib: u64) -> Option<Self> {
        if kib == 0 { None } else { Some(Self(kib)) }
    }

    /// In KiB.
    #[must_use]
    pub const fn kib(self) -> u64 {
        self.0
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0.saturating_mul(KIB)
    }

    /// The memory of so many pages.
    #[must_use]
    pub const fn times(self, pages: u64) -> MemorySize {
        MemorySize(self.bytes().saturating_mul(pages))
    }
}

impl FromStr for MemorySize {
    type Err = ParseSizeError;

    /// Reads `2GiB`, `512 MiB`, `64KiB`, `4096B`; the binary units only, as decimal ones are always a mistake here.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        if number.is_empty() {
            return Err(ParseSizeError::Number(text.to_owned()));
        }
        let factor = match unit.trim_start() {
            "B" => 1,
            "KiB" => KIB,
            "MiB" => KIB * KIB,
            "GiB" => KIB * KIB * KIB,
            "TiB" => KIB * KIB * KIB * KIB,
            _ => return Err(ParseSizeError::Unit(text.to_owned())),
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| ParseSizeError::TooLarge(text.to_owned()))
    }
}

impl fmt::Display for MemorySize {
    /// In the largest unit that needs no fraction; above 10 of a unit one decimal is near enough.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let mut divisor = 1_u64;
        let mut unit = 0;
        while unit + 1 < UNITS.len() && self.0 >= divisor.saturating_mul(KIB) {
            divisor *= KIB;
            unit += 1;
        }
        let (whole, rest) = (self.0 / divisor, self.0 % divisor);
        let tenths = u128::from(rest) * 10 / u128::from(divisor);
        match tenths {
            0 => write!(f, "{whole} {}", UNITS[unit]),
            _ => write!(f, "{whole}.{tenths} {}", UNITS[unit]),
        }
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        MemorySize(self.bytes()).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_pages_rounded_up() {
        assert_eq!(MemorySize::from_gib(16).pages(PageSize::MIB_2), 8192);
        assert_eq!(MemorySize::from_kib(2049).pages(PageSize::MIB_2), 2);
        assert_eq!(MemorySize::from_gib(3).pages(PageSize::GIB_1), 3);
        assert_eq!(MemorySize::ZERO.pages(PageSize::GIB_1), 0);
    }

    #[test]
    fn reads_sizes_with_units_and_refuses_others() {
        assert_eq!("2GiB".parse(), Ok(MemorySize::from_gib(2)));
        assert_eq!("512 MiB".parse(), Ok(MemorySize::from_kib(512 * 1024)));
        assert_eq!("2G".parse::<MemorySize>(), Err(ParseSizeError::Unit("2G".into())));
        assert_eq!("2048".parse::<MemorySize>(), Err(ParseSizeError::Unit("2048".into())));
        assert_eq!("GiB".parse::<MemorySize>(), Err(ParseSizeError::Number("GiB".into())));
        assert_eq!(
            "99999999999TiB".parse::<MemorySize>(),
            Err(ParseSizeError::TooLarge("99999999999TiB".into()))
        );
    }

    #[test]
    fn prints_for_people() {
        for (size, text) in [
            (MemorySize::from_gib(16), "16 GiB"),
            (MemorySize::from_kib(1536), "1.5 MiB"),
            (MemorySize::from_bytes(100), "100 B"),
            (MemorySize::from_bytes(u64::MAX), "16777215.9 TiB"),
        ] {
            assert_eq!(size.to_string(), text);
        }
        assert_eq!(PageSize::MIB_2.to_string(), "2 MiB");
        assert_eq!(PageSize::GIB_1.to_string(), "1 GiB");
    }
}
