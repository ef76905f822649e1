//! Which models an entry about graphics cards means.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::pci::PciId;
use crate::serde_as_text::serde_as_text;

/// Models of one vendor: `1002:7550`, `1002:73a0-73bf`, or all of them, `1002:*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdRange {
    vendor: u16,
    first: u16,
    last: u16,
}

/// Why a text names no models.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseIdRangeError {
    /// Not in one of the three forms.
    #[error("`{0}` names no PCI models (expected something like 1002:7550, 1002:73a0-73bf or 1002:*)")]
    Form(String),
    /// Its end comes before its start.
    #[error("the range `{0}` runs backwards")]
    Backwards(String),
}

impl IdRange {
    /// Whether a model is among them.
    #[must_use]
    pub const fn contains(self, id: PciId) -> bool {
        self.vendor == id.vendor && self.first <= id.device && id.device <= self.last
    }

    /// Whether all models of the other one are among them.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.vendor == other.vendor && self.first <= other.first && other.last <= self.last
    }

    /// Whether the two have a model in common.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.vendor == other.vendor && self.first <= other.last && other.first <= self.last
    }

    /// Whether it is all that a vendor makes.
    #[must_use]
    pub const fn is_whole_vendor(self) -> bool {
        self.first == 0 && self.last == u16::MAX
    }
}

impl FromStr for IdRange {
    type Err = ParseIdRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            if let Some(vendor) = text.strip_suffix(":*") {
                let PciId { vendor, .. } = format!("{vendor}:0000").parse().ok()?;
                return Some(Self { vendor, first: 0, last: u16::MAX });
            }
            let (first, last) = text.split_once('-').unwrap_or((text, ""));
            let PciId { vendor, device: first } = first.parse().ok()?;
            let last = match last {
                "" if text.contains('-') => return None,
                "" => first,
                last => format!("0000:{last}").parse::<PciId>().ok()?.device,
            };
            Some(Self { vendor, first, last })
        };
        let range = parse().ok_or_else(|| ParseIdRangeError::Form(text.to_owned()))?;
        if range.first > range.last {
            return Err(ParseIdRangeError::Backwards(text.to_owned()));
        }
        Ok(range)
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vendor, first, last } = *self;
        if self.is_whole_vendor() {
            write!(f, "{vendor:04x}:*")
        } else if first == last {
            write!(f, "{vendor:04x}:{first:04x}")
        } else {
            write!(f, "{vendor:04x}:{first:04x}-{last:04x}")
        }
    }
}

serde_as_text!(IdRange);

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> IdRange {
        text.parse().unwrap()
    }

    #[test]
    fn the_three_forms_come_back() {
        for text in ["1002:7550", "1002:73a0-73bf", "10de:*"] {
            assert_eq!(range(text).to_string(), text);
        }
        assert_eq!(range("1002:73A0-73BF").to_string(), "1002:73a0-73bf");
        assert_eq!(range("1002:7550-7550").to_string(), "1002:7550");
    }

    #[test]
    fn says_why_a_text_names_no_models() {
        for text in ["", "1002", "1002:", "*", "*:*", "1002:73a0-", "1002:73a0-1002:73bf", "1002:73a*", "x:*"]
        {
            assert_eq!(text.parse::<IdRange>(), Err(ParseIdRangeError::Form(text.to_owned())));
        }
        let backwards = "1002:73bf-73a0".parse::<IdRange>().unwrap_err();
        assert_eq!(backwards.to_string(), "the range `1002:73bf-73a0` runs backwards");
    }

    #[test]
    fn knows_its_models() {
        let id = |text: &str| text.parse::<PciId>().unwrap();
        let navi = range("1002:73a0-73bf");
        assert!(navi.contains(id("1002:73a0")) && navi.contains(id("1002:73bf")));
        assert!(!navi.contains(id("1002:739f")) && !navi.contains(id("1002:73c0")));
        assert!(!navi.contains(id("10de:73a0")));
        assert!(range("1002:*").covers(navi) && !navi.covers(range("1002:*")) && navi.covers(navi));
        assert!(navi.meets(range("1002:73bf-73ff")) && !navi.meets(range("1002:73c0-73ff")));
        assert!(!navi.meets(range("10de:*")));
    }
}
