//! Sizes of resizable BARs.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::pages::{MemorySize, ParseSizeError};
use crate::serde_as_text::serde_as_text;

const MIB: u64 = 1024 * 1024;

/// 512 GiB, the largest size of the resizable BAR capability before PCI Express 5.0; larger ones no card has.
const LARGEST: u8 = 19;

/// The size of a resizable BAR: a power of two from 1 MiB to 512 GiB, written `256 MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BarSize {
    log2_mib: u8,
}

/// Why a text or an amount is no size of a BAR.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseBarSizeError {
    /// No amount of memory.
    #[error(transparent)]
    Size(#[from] ParseSizeError),
    /// Not one that a BAR can have.
    #[error("a BAR has a power of two from 1 MiB to 512 GiB, not {0}")]
    Unfit(MemorySize),
}

impl BarSize {
    /// The size that `resourceN_resize` has as this number: 2 to the power of so many, in MiB. None above 512 GiB.
    #[must_use]
    pub const fn from_log2_mib(log2_mib: u8) -> Option<Self> {
        if log2_mib > LARGEST { None } else { Some(Self { log2_mib }) }
    }

    /// The number that `resourceN_resize` takes for it.
    #[must_use]
    pub const fn log2_mib(self) -> u8 {
        self.log2_mib
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        MIB << self.log2_mib
    }
}

impl TryFrom<MemorySize> for BarSize {
    type Error = ParseBarSizeError;

    fn try_from(size: MemorySize) -> Result<Self, Self::Error> {
        let is_power = size.bytes() >= MIB && size.bytes().is_power_of_two();
        let log2_mib = is_power.then(|| u8::try_from((size.bytes() / MIB).ilog2()).ok()).flatten();
        log2_mib.and_then(Self::from_log2_mib).ok_or(ParseBarSizeError::Unfit(size))
    }
}

impl FromStr for BarSize {
    type Err = ParseBarSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<MemorySize>()?.try_into()
    }
}

impl fmt::Display for BarSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        MemorySize::from_bytes(self.bytes()).fmt(f)
    }
}

serde_as_text!(BarSize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_of_the_kernel_comes_back() {
        for log2_mib in 0..=LARGEST {
            let size = BarSize::from_log2_mib(log2_mib).unwrap();
            assert_eq!(size.to_string().parse(), Ok(size));
            assert_eq!(serde_json::to_string(&size).unwrap(), format!("\"{size}\""));
        }
        assert_eq!(BarSize::from_log2_mib(LARGEST + 1), None);
    }

    #[test]
    fn is_the_kernels_number() {
        for (text, log2_mib, bytes) in [
            ("1 MiB", 0, MIB),
            ("256MiB", 8, 256 * MIB),
            ("16 GiB", 14, 16 * 1024 * MIB),
            ("512GiB", 19, 1 << 39),
        ] {
            let size: BarSize = text.parse().unwrap();
            assert_eq!((size.log2_mib(), size.bytes()), (log2_mib, bytes), "{text}");
        }
    }

    #[test]
    fn refuses_what_no_bar_has() {
        for (text, reason) in [
            ("12GiB", "a BAR has a power of two from 1 MiB to 512 GiB, not 12 GiB"),
            ("512KiB", "a BAR has a power of two from 1 MiB to 512 GiB, not 512 KiB"),
            ("1TiB", "a BAR has a power of two from 1 MiB to 512 GiB, not 1 TiB"),
            ("0GiB", "a BAR has a power of two from 1 MiB to 512 GiB, not 0 B"),
            ("256", "`256` has no known unit"),
        ] {
            assert_eq!(text.parse::<BarSize>().unwrap_err().to_string(), reason);
        }
    }
}
