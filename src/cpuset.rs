//! Sets of CPU or NUMA node numbers in the kernel's and systemd's formats.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::serde_as_text::serde_as_text;

/// The largest CPU or node number accepted: `CONFIG_NR_CPUS` of the largest distribution kernels is 8192.
const MAX_NUMBER: u32 = 8191;

/// The largest CPU or node number that libvirt reads (`VIR_DOMAIN_CPUMASK_LEN` in `src/conf/domain_conf.h`).
const LIBVIRTS_MAX_NUMBER: u32 = 16_383;

/// The most parts of a list that are read. The longest one that a kernel writes has 4096 (every other CPU); libvirt's
/// exclusions may name each number once more.
const MAX_PARTS: usize = 16_384;

/// A set of CPU numbers, written as the kernel's cpulist (`0-3,8`); see `bitmap_parselist` in `lib/bitmap-str.c`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuSet(Bits);

/// A set of NUMA node numbers, in the same format as [`CpuSet`].
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeSet(Bits);

/// Why a text is no list of numbers.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseListError {
    /// Something that is not a number stands where one is expected.
    #[error("`{0}` is not a number")]
    NotANumber(String),
    /// Nothing stands where a number is expected: `8,9,`, `8-`.
    #[error("a number is missing beside a comma, a dash or a `^`")]
    Missing,
    /// A range whose end is below its start.
    #[error("the range `{0}` runs backwards")]
    Backwards(String),
    /// A number no kernel has.
    #[error("{0} is beyond {MAX_NUMBER}, the largest number a kernel has")]
    TooLarge(u64),
    /// A number that libvirt does not read.
    #[error("{0} is beyond {LIBVIRTS_MAX_NUMBER}, the largest number that libvirt reads")]
    TooLargeForLibvirt(u64),
    /// `^3` with nothing before it that could hold 3.
    #[error("`^{0}` takes away what the list does not hold")]
    TakesAwayNothing(u32),
    /// More parts than any list needs.
    #[error("more than {MAX_PARTS} parts in one list")]
    TooManyParts,
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
        let words = text.trim().rsplit(',').map(|word| {
            u32::from_str_radix(word.trim(), 16).map_err(|_| ParseListError::NotAMask(word.to_owned()))
        });
        let words = words.collect::<Result<Vec<u32>, _>>()?;
        Ok(Self(Bits::from_words(
            words.chunks(2).map(|pair| pair.iter().rev().fold(0, |word, half| word << 32 | u64::from(*half))),
        )))
    }

    /// Writes the set as the kernel's hexadecimal mask, at least one 32-bit word.
    #[must_use]
    pub fn to_mask(&self) -> String {
        let words = self.0.last().map_or(1, |last| last / 32 + 1);
        let mut mask = vec![0_u32; words as usize];
        for cpu in self.0.iter() {
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
        Self(Bits::from_words(
            bytes.chunks(8).map(|word| word.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))),
        ))
    }

    /// Writes systemd's bit mask; the empty set is no bytes, which empties the property.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0_u8; self.0.last().map_or(0, |last| last / 8 + 1) as usize];
        for cpu in self.0.iter() {
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
                self.0.contains(number)
            }

            /// Its numbers, the lowest first.
            pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
                self.0.iter()
            }

            /// What is in either.
            #[must_use]
            pub fn union(&self, other: &Self) -> Self {
                Self(self.0.combine(&other.0, |ours, theirs| ours | theirs))
            }

            /// What is in this one and not in the other.
            #[must_use]
            pub fn minus(&self, other: &Self) -> Self {
                Self(self.0.combine(&other.0, |ours, theirs| ours & !theirs))
            }

            /// What is in both.
            #[must_use]
            pub fn intersection(&self, other: &Self) -> Self {
                Self(self.0.combine(&other.0, |ours, theirs| ours & theirs))
            }

            /// Whether both hold a number.
            #[must_use]
            pub fn intersects(&self, other: &Self) -> bool {
                !self.intersection(other).is_empty()
            }

            /// Whether the other holds all of this one.
            #[must_use]
            pub fn is_subset(&self, other: &Self) -> bool {
                self.minus(other).is_empty()
            }

            /// Reads a list as libvirt reads those of a guest's XML (`virBitmapParseInternal` in `src/util/virbitmap.c`):
            /// as [`str::parse`], but for numbers up to 16383, a comma at the end (`8,9,`), and exclusions of what the
            /// list does not hold (`^0,8-9`).
            ///
            /// # Errors
            /// libvirt would not read it either; an empty text is an empty set.
            pub fn from_libvirt(text: &str) -> Result<Self, ParseListError> {
                parse_libvirts_list(text).map(Self)
            }

            /// Adds a number.
            pub fn insert(&mut self, number: u32) {
                self.0.insert_range(number, number);
            }
        }

        impl FromIterator<u32> for $set {
            fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
                let mut set = Self::default();
                numbers.into_iter().for_each(|number| set.insert(number));
                set
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

/// Numbers as bits, 64 in a word: what a list costs does not depend on how often it names them. The last word is not
/// zero.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct Bits(Vec<u64>);

impl Bits {
    const WORD: u32 = u64::BITS;

    /// The lowest numbers come first.
    fn from_words(words: impl IntoIterator<Item = u64>) -> Self {
        let mut bits = Self(words.into_iter().collect());
        bits.trim();
        bits
    }

    fn trim(&mut self) {
        let used = self.0.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        self.0.truncate(used);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    fn last(&self) -> Option<u32> {
        let last = self.0.last()?;
        let below = u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX / Self::WORD);
        Some(below * Self::WORD + last.ilog2())
    }

    fn contains(&self, number: u32) -> bool {
        let word = self.0.get((number / Self::WORD) as usize).copied().unwrap_or_default();
        word & (1 << (number % Self::WORD)) != 0
    }

    /// The numbers, the lowest first.
    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).step_by(Self::WORD as usize).zip(&self.0).flat_map(|(base, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let lowest = (rest != 0).then(|| base + rest.trailing_zeros());
                rest &= rest.wrapping_sub(1);
                lowest
            })
        })
    }

    fn insert_range(&mut self, first: u32, last: u32) {
        let words = (last / Self::WORD) as usize + 1;
        if self.0.len() < words {
            self.0.resize(words, 0);
        }
        let (first_word, last_word) = (first / Self::WORD, last / Self::WORD);
        for index in first_word..=last_word {
            let from = if index == first_word { first % Self::WORD } else { 0 };
            let to = if index == last_word { last % Self::WORD } else { Self::WORD - 1 };
            self.0[index as usize] |= (u64::MAX >> (Self::WORD - 1 - to)) & (u64::MAX << from);
        }
    }

    /// Whether it was there.
    fn remove(&mut self, number: u32) -> bool {
        let was_there = self.contains(number);
        if was_there {
            self.0[(number / Self::WORD) as usize] &= !(1 << (number % Self::WORD));
            self.trim();
        }
        was_there
    }

    fn combine(&self, other: &Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        let words = self.0.len().max(other.0.len());
        let word = |bits: &Self, index: usize| bits.0.get(index).copied().unwrap_or_default();
        Self::from_words((0..words).map(|index| combine(word(self, index), word(other, index))))
    }
}

impl Ord for Bits {
    /// As lists of numbers.
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl PartialOrd for Bits {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Reads `0-3,8` and libvirt's `0-7,^3`; blanks around the parts and an empty text are allowed, as the kernel prints
/// them.
fn parse_list(text: &str) -> Result<Bits, ParseListError> {
    let mut set = Bits::default();
    let text = text.trim();
    if text.is_empty() {
        return Ok(set);
    }
    for (number, part) in text.split(',').enumerate() {
        if number == MAX_PARTS {
            return Err(ParseListError::TooManyParts);
        }
        let part = part.trim();
        if let Some(excluded) = part.strip_prefix('^') {
            let excluded = parse_number(excluded)?;
            if !set.remove(excluded) {
                return Err(ParseListError::TakesAwayNothing(excluded));
            }
        } else if let Some((start, end)) = part.split_once('-') {
            let (start, end) = (parse_number(start)?, parse_number(end)?);
            if end < start {
                return Err(ParseListError::Backwards(part.to_owned()));
            }
            set.insert_range(start, end);
        } else {
            let number = parse_number(part)?;
            set.insert_range(number, number);
        }
    }
    Ok(set)
}

/// Blanks may stand after each number and around a dash, not after `^`. What the loop takes off the text is what libvirt
/// goes past in it.
fn parse_libvirts_list(text: &str) -> Result<Bits, ParseListError> {
    let mut set = Bits::default();
    let mut rest = text.trim_ascii_start();
    for _ in 0..MAX_PARTS {
        if rest.is_empty() {
            return Ok(set);
        }
        let (part, after) = rest.split_once(',').unwrap_or((rest, ""));
        rest = after.trim_ascii_start();
        if let Some(excluded) = part.strip_prefix('^') {
            if excluded.starts_with(|character: char| character.is_ascii_whitespace()) {
                return Err(ParseListError::NotANumber(excluded.to_owned()));
            }
            set.remove(parse_libvirts_number(excluded)?);
        } else if let Some((start, end)) = part.split_once('-') {
            let (start, end) = (parse_libvirts_number(start)?, parse_libvirts_number(end)?);
            if end < start {
                return Err(ParseListError::Backwards(part.to_owned()));
            }
            set.insert_range(start, end);
        } else {
            let number = parse_libvirts_number(part)?;
            set.insert_range(number, number);
        }
    }
    if rest.is_empty() { Ok(set) } else { Err(ParseListError::TooManyParts) }
}

fn parse_number(text: &str) -> Result<u32, ParseListError> {
    parse_number_up_to(MAX_NUMBER, text, ParseListError::TooLarge)
}

fn parse_libvirts_number(text: &str) -> Result<u32, ParseListError> {
    parse_number_up_to(LIBVIRTS_MAX_NUMBER, text, ParseListError::TooLargeForLibvirt)
}

fn parse_number_up_to(
    most: u32,
    text: &str,
    too_large: fn(u64) -> ParseListError,
) -> Result<u32, ParseListError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(ParseListError::Missing);
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParseListError::NotANumber(text.to_owned()));
    }
    let number: u64 = text.parse().unwrap_or(u64::MAX);
    u32::try_from(number).ok().filter(|number| *number <= most).ok_or(too_large(number))
}

fn write_list(set: &Bits, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut numbers = set.iter().peekable();
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
    use std::collections::BTreeSet;
    use std::time::{Duration, Instant};

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
            ("0,,2", "a number is missing beside a comma, a dash or a `^`"),
            ("-3", "a number is missing beside a comma, a dash or a `^`"),
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

    /// Each as libvirt 11.3's `virBitmapParse` takes it.
    #[test]
    fn reads_lists_as_libvirt_does() {
        for (text, list) in [
            ("", ""),
            ("8,9,", "8-9"),
            ("8,9, ", "8-9"),
            ("^0,8-9", "8-9"),
            ("0-3,^1,^1", "0,2-3"),
            ("^16383", ""),
            (" 1 , 4 - 5\n", "1,4-5"),
            ("007", "7"),
            ("16383", "16383"),
        ] {
            assert_eq!(CpuSet::from_libvirt(text).unwrap().to_string(), list, "{text:?}");
        }
        for (text, reason) in [
            (",8", "a number is missing beside a comma, a dash or a `^`"),
            ("8,,9", "a number is missing beside a comma, a dash or a `^`"),
            ("8,9,,", "a number is missing beside a comma, a dash or a `^`"),
            ("^ 3", "` 3` is not a number"),
            ("^3-5", "`3-5` is not a number"),
            ("^", "a number is missing beside a comma, a dash or a `^`"),
            ("1 2", "`1 2` is not a number"),
            ("0x1", "`0x1` is not a number"),
            ("-3", "a number is missing beside a comma, a dash or a `^`"),
            ("5-2", "the range `5-2` runs backwards"),
            ("16384", "16384 is beyond 16383, the largest number that libvirt reads"),
            ("^16384", "16384 is beyond 16383, the largest number that libvirt reads"),
        ] {
            assert_eq!(CpuSet::from_libvirt(text).unwrap_err().to_string(), reason, "{text:?}");
        }
        let parts = vec!["0-16383"; MAX_PARTS].join(",");
        assert_eq!(CpuSet::from_libvirt(&parts).unwrap().len(), 16_384);
        assert_eq!(CpuSet::from_libvirt(&format!("{parts},1")), Err(ParseListError::TooManyParts));
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

    #[test]
    fn a_list_costs_no_more_for_naming_everything_each_time() {
        let began = Instant::now();
        let all = vec!["0-8191"; MAX_PARTS].join(",");
        assert_eq!(all.parse::<CpuSet>().unwrap().len(), 8192);
        let exclusions: Vec<String> = (0..8192).map(|number| format!("^{number}")).collect();
        assert!(format!("0-8191,{}", exclusions.join(",")).parse::<CpuSet>().unwrap().is_empty());
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());

        let error = format!("{all},0").parse::<CpuSet>().unwrap_err();
        assert_eq!(error.to_string(), "more than 16384 parts in one list");
        // Every other CPU of the largest kernel.
        let longest: CpuSet = (0..8192).step_by(2).collect();
        assert_eq!(longest.to_string().parse::<CpuSet>().unwrap(), longest);
    }

    proptest! {
        #[test]
        fn sets_are_as_sets_of_the_standard_library(
            first in proptest::collection::btree_set(0_u32..200, 0..40),
            second in proptest::collection::btree_set(0_u32..200, 0..40),
            number in 0_u32..200,
        ) {
            let set = |numbers: &BTreeSet<u32>| numbers.iter().copied().collect::<CpuSet>();
            let (a, b) = (set(&first), set(&second));
            prop_assert_eq!(a.iter().collect::<BTreeSet<_>>(), first.clone());
            prop_assert_eq!(a.len(), first.len());
            prop_assert_eq!(a.is_empty(), first.is_empty());
            prop_assert_eq!(a.contains(number), first.contains(&number));
            prop_assert_eq!(a.union(&b), set(&(&first | &second)));
            prop_assert_eq!(a.minus(&b), set(&(&first - &second)));
            prop_assert_eq!(a.intersection(&b), set(&(&first & &second)));
            prop_assert_eq!(a.intersects(&b), !first.is_disjoint(&second));
            prop_assert_eq!(a.is_subset(&b), first.is_subset(&second));
            prop_assert_eq!(a.cmp(&b), first.cmp(&second));
            prop_assert_eq!(a == b, first == second);
        }

        #[test]
        fn every_format_returns_what_it_was_given(numbers in proptest::collection::btree_set(0_u32..300, 0..40)) {
            let set: CpuSet = numbers.into_iter().collect();
            prop_assert_eq!(&set.to_string().parse::<CpuSet>().unwrap(), &set);
            prop_assert_eq!(&CpuSet::from_mask(&set.to_mask()).unwrap(), &set);
            prop_assert_eq!(&CpuSet::from_bytes(&set.to_bytes()), &set);
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = text.parse::<CpuSet>();
            let _ = CpuSet::from_libvirt(&text);
            let _ = CpuSet::from_mask(&text);
        }
    }
}
