//! Sets of CPU or NUMA node numbers in the kernel's and systemd's formats.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::serde_as_text::serde_as_text;

/// The largest CPU or node number accepted: `CONFIG_NR_CPUS` of the largest distribution kernels is 8192.
const MAX_NUMBER: u32 = 8191;

/// A set of CPU numbers, written as the kernel's cpulist (`0-3,8`); see `bitmap_parselist` in `lib/bitmap-str.c`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuSet(BTreeSet<u32>);

/// A set of NUMA node numbers, in the same format as [`CpuSet`].
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeSet(BTreeSet<u32>);

/// Why a text is no list of numbers.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseListError {
    /// Something that is not a number stands where one is expected.
    #[error("`{0}` is not a number")]
    NotANumber(String),
    /// A range whose end is below its start.
    #[error("the range `{0}` runs backwards")]
    Backwards(String),
    /// A number no kernel has.
    #[error("{0} is beyond {MAX_NUMBER}, the largest number a kernel has")]
    TooLarge(u64),
    /// `^3` with nothing before it that could hold 3.
    #[error("`^{0}` takes away what the list does not hold")]
    TakesAwayNothing(u32),
    /// A word of a bit mask is not hexadecimal.
    #[error("`{0}` is not a hexadecimal mask")]
    NotAMask(String),
}

impl CpuSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a hexadecimal mask as in `/sys/devices/virtual/workqueue/cpumask`: 32-bit words, the highest first,
    /// separated by commas.
    ///
    /// # Errors
    /// A word that is not hexadecimal.
    pub fn from_mask(text: &str) -> Result<Self, ParseListError> {
        let mut set = BTreeSet::new();
        for (index, word) in text.trim().rsplit(',').enumerate() {
            let bits = u32::from_str_radix(word.trim(), 16)
                .map_err(|_| ParseListError::NotAMask(word.to_owned()))?;
            let base = 32 * u32::try_from(index).unwrap_or(u32::MAX / 32);
            set.extend((0..32).filter(|bit| bits & (1 << bit) != 0).map(|bit| base + bit));
        }
        Ok(Self(set))
    }

    /// Writes the set as the kernel's hexadecimal mask, at least one 32-bit word.
    #[must_use]
    pub fn to_mask(&self) -> String {
        let words = self.0.last().map_or(1, |last| last / 32 + 1);
        let mut mask = vec![0_u32; words as usize];
        for cpu in &self.0 {
            mask[(cpu / 32) as usize] |= 1 << (cpu % 32);
        }
        let (first, rest) = mask.split_last().map_or((0, &[][..]), |(last, rest)| (*last, rest));
        let mut text = format!("{first:x}");
        for word in rest.iter().rev() {
            text.push_str(&format!(",{word:08x}"));
        }
        text
    }

    /// Reads systemd's bit mask of `AllowedCPUs`: CPU 0 is bit 0 of byte 0.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut set = BTreeSet::new();
        for (index, byte) in (0_u32..).zip(bytes) {
            set.extend((0..8).filter(|bit| byte & (1 << bit) != 0).map(|bit| index * 8 + bit));
        }
        Self(set)
    }

    /// Writes systemd's bit mask; the empty set is no bytes, which empties the property.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0_u8; self.0.last().map_or(0, |last| last / 8 + 1) as usize];
        for cpu in &self.0 {
            bytes[(cpu / 8) as usize] |= 1 << (cpu % 8);
        }
        bytes
    }
}

macro_rules! number_set {
    ($set:ty) => {
        impl $set {
            /// Whether the set holds no number.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }

            /// How many numbers it holds.
            #[must_use]
            pub fn len(&self) -> usize {
                self.0.len()
            }

            /// Whether it holds this number.
            #[must_use]
            pub fn contains(&self, number: u32) -> bool {
                self.0.contains(&number)
            }

            /// Its numbers, the lowest first.
            pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
                self.0.iter().copied()
            }

            /// What is in either.
            #[must_use]
            pub fn union(&self, other: &Self) -> Self {
                Self(&self.0 | &other.0)
            }

            /// What is in this one and not in the other.
            #[must_use]
            pub fn minus(&self, other: &Self) -> Self {
                Self(&self.0 - &other.0)
            }

            /// What is in both.
            #[must_use]
            pub fn intersection(&self, other: &Self) -> Self {
                Self(&self.0 & &other.0)
            }

            /// Whether both hold a number.
            #[must_use]
            pub fn intersects(&self, other: &Self) -> bool {
                !self.0.is_disjoint(&other.0)
            }

            /// Whether the other holds all of this one.
            #[must_use]
            pub fn is_subset(&self, other: &Self) -> bool {
                self.0.is_subset(&other.0)
            }

            /// Adds a number.
            pub fn insert(&mut self, number: u32) {
                self.0.insert(number);
            }
        }

        impl FromIterator<u32> for $set {
            fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
                Self(numbers.into_iter().collect())
            }
        }

        impl FromStr for $set {
            type Err = ParseListError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                parse_list(text).map(Self)
            }
        }

        impl fmt::Display for $set {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_list(&self.0, f)
            }
        }

        impl fmt::Debug for $set {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($set))
            }
        }

        serde_as_text!($set);
    };
}

number_set!(CpuSet);
number_set!(NodeSet);

/// Reads `0-3,8` and libvirt's `0-7,^3`; blanks around the parts and an empty text are allowed, as the kernel prints
/// them.
fn parse_list(text: &str) -> Result<BTreeSet<u32>, ParseListError> {
    let mut set = BTreeSet::new();
    let text = text.trim();
    if text.is_empty() {
        return Ok(set);
    }
    for part in text.split(',') {
        let part = part.trim();
        if let Some(excluded) = part.strip_prefix('^') {
            let excluded = parse_number(excluded)?;
            if !set.remove(&excluded) {
                return Err(ParseListError::TakesAwayNothing(excluded));
            }
        } else if let Some((start, end)) = part.split_once('-') {
            let (start, end) = (parse_number(start)?, parse_number(end)?);
            if end < start {
                return Err(ParseListError::Backwards(part.to_owned()));
            }
            set.extend(start..=end);
        } else {
            set.insert(parse_number(part)?);
        }
    }
    Ok(set)
}

fn parse_number(text: &str) -> Result<u32, ParseListError> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParseListError::NotANumber(text.to_owned()));
    }
    let number: u64 = text.parse().unwrap_or(u64::MAX);
    u32::try_from(number).ok().filter(|number| *number <= MAX_NUMBER).ok_or(ParseListError::TooLarge(number))
}

fn write_list(set: &BTreeSet<u32>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut numbers = set.iter().copied().peekable();
    let mut separator = "";
    while let Some(start) = numbers.next() {
        let mut end = start;
        while numbers.next_if_eq(&(end + 1)).is_some() {
            end += 1;
        }
        match end - start {
            0 => write!(f, "{separator}{start}")?,
            _ => write!(f, "{separator}{start}-{end}")?,
        }
        separator = ",";
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_kernel_and_libvirt_write() {
        for (text, numbers) in [
            ("", &[][..]),
            ("\n", &[]),
            ("3\n", &[3]),
            ("0-2,5", &[0, 1, 2, 5]),
            ("0-3,^1", &[0, 2, 3]),
            (" 1 , 4 - 5 ", &[1, 4, 5]),
        ] {
            let set: CpuSet = text.parse().unwrap();
            assert_eq!(set.iter().collect::<Vec<_>>(), numbers, "{text:?}");
        }
    }

    #[test]
    fn says_why_a_text_is_no_list() {
        for (text, reason) in [
            ("0-x", "`x` is not a number"),
            ("0,,2", "`` is not a number"),
            ("-3", "`` is not a number"),
            ("+3", "`+3` is not a number"),
            ("5-2", "the range `5-2` runs backwards"),
            ("99999", "99999 is beyond 8191, the largest number a kernel has"),
            (
                "0-99999999999999999999",
                "18446744073709551615 is beyond 8191, the largest number a kernel has",
            ),
            ("1,^2", "`^2` takes away what the list does not hold"),
        ] {
            assert_eq!(text.parse::<CpuSet>().unwrap_err().to_string(), reason, "{text:?}");
        }
    }

    #[test]
    fn reads_and_writes_hexadecimal_masks() {
        for (mask, list) in [("ff", "0-7"), ("1,00000003", "0-1,32"), ("0", ""), ("80000000,00000000", "63")]
        {
            assert_eq!(CpuSet::from_mask(mask).unwrap().to_string(), list);
            assert_eq!(list.parse::<CpuSet>().unwrap().to_mask(), mask);
        }
        assert_eq!(CpuSet::from_mask("00000000,000000ff\n").unwrap().to_string(), "0-7");
        assert!(CpuSet::from_mask("xyz").is_err());
    }

    proptest! {
        #[test]
        fn every_format_returns_what_it_was_given(numbers in proptest::collection::btree_set(0_u32..300, 0..40)) {
            let set = CpuSet(numbers);
            prop_assert_eq!(&set.to_string().parse::<CpuSet>().unwrap(), &set);
            prop_assert_eq!(&CpuSet::from_mask(&set.to_mask()).unwrap(), &set);
            prop_assert_eq!(&CpuSet::from_bytes(&set.to_bytes()), &set);
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = text.parse::<CpuSet>();
            let _ = CpuSet::from_mask(&text);
        }
    }
}
