//! What a line of the kernel's log says of a device: one row of the table `kernel_lines.yaml`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::line_pattern::LinePattern;
use super::named_enum;
use crate::given_name::given_name;
use crate::serde_as_text::serde_as_text;

/// A row's name, such as `reset-gave-up`: letters, digits, `-` and `_`, a letter first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelLineName(String);

/// What a line means for the device that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing is wrong.
    Harmless,
    /// The device works again: wedged lines before it no longer hold.
    Recovered,
    /// Something is odd; the device may work all the same.
    Suspicious,
    /// The device does not work until something resets it.
    Wedged,
}

/// A release of the kernel, such as `6.6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelVersion {
    /// The number before the point.
    pub major: u32,
    /// The number after it.
    pub minor: u32,
}

/// A kind of line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelLine {
    /// What `kernel_lines` in host.yaml calls it.
    pub name: KernelLineName,
    /// How it looks; one of them is enough.
    pub patterns: Vec<LinePattern>,
    /// How bad it is.
    pub severity: Severity,
    /// What it means, with the device as `it`.
    pub meaning: String,
    /// What a person can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// The first kernel that prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<KernelVersion>,
    /// The last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<KernelVersion>,
    /// Where this is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Such a line, as the kernel prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<String>,
    /// A line that looks much like it and is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near_miss: Option<String>,
}

impl KernelLineName {
    /// As files have it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Severity {
    /// All there are, the mildest first.
    pub const ALL: &'static [Self] = &[Self::Harmless, Self::Recovered, Self::Suspicious, Self::Wedged];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Harmless => "harmless",
            Self::Recovered => "recovered",
            Self::Suspicious => "suspicious",
            Self::Wedged => "wedged",
        }
    }

    /// Whether it is evidence against a device.
    #[must_use]
    pub const fn is_trouble(self) -> bool {
        matches!(self, Self::Suspicious | Self::Wedged)
    }
}

named_enum!(Severity, "severity of a kernel-log pattern");

impl KernelVersion {
    /// The release in a text such as `6.12.57+deb13-amd64` (`/proc/sys/kernel/osrelease`); none where it does not begin
    /// with two numbers.
    #[must_use]
    pub fn of_release(release: &str) -> Option<Self> {
        let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse().ok());
        Some(Self { major: numbers.next()?, minor: numbers.next()? })
    }
}

impl KernelLine {
    /// Whether a line of the kernel's log is such a one.
    #[must_use]
    pub fn fits(&self, line: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.fits(line))
    }

    /// The row without what only its writer needs: the ledger holds it as long as a guest has a card.
    #[must_use]
    pub fn for_ledger(&self) -> Self {
        Self { since: None, until: None, source: None, example: None, near_miss: None, ..self.clone() }
    }
}

impl FromStr for KernelLineName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        given_name(text).map(Self)
    }
}

impl fmt::Display for KernelLineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(KernelLineName);

impl FromStr for KernelVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (major, minor) = text.split_once('.')?;
            Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
        };
        parse().ok_or_else(|| format!("`{text}` is no release of the kernel (expected something like 6.6)"))
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

serde_as_text!(KernelVersion);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_told_from_the_kernels_name_for_itself() {
        let version = |text| KernelVersion::of_release(text).map(|version| version.to_string());
        assert_eq!(version("6.12.57+deb13-amd64").as_deref(), Some("6.12"));
        assert_eq!(version("6.6-rc1").as_deref(), Some("6.6"));
        assert_eq!(version("next").as_deref(), None);
        let parsed = |text: &str| text.parse::<KernelVersion>();
        assert!(parsed("6.10").unwrap() > parsed("6.6").unwrap());
        assert!(parsed("6").is_err() && parsed("6.x").is_err());
    }

    #[test]
    fn wedged_is_the_worst() {
        assert!(Severity::ALL.is_sorted());
        assert!(Severity::Wedged.is_trouble() && Severity::Suspicious.is_trouble());
        assert!(!Severity::Recovered.is_trouble() && !Severity::Harmless.is_trouble());
    }
}
