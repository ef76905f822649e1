//! Names that people give to monitors, and to the ways in which some differ from the standard.

use std::fmt;
use std::str::FromStr;

use super::deviation::Deviation;
use super::identity::{EdidIdentity, MonitorPlace};
use super::selector::MonitorSelector;
use crate::given_name::given_name;
use crate::serde_as_text::serde_as_text;

/// A monitor's name in the host's file, such as `desk`: letters, digits, `-` and `_`, a letter first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonitorName(String);

/// A deviation's name, such as `my-lg`: letters, digits, `-` and `_`, a letter first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviationName(String);

/// A deviation that files can name, and the monitors that are known to have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedDeviation {
    /// What a guest's file calls it.
    pub name: DeviationName,
    /// The monitors it is applied to by itself; none where a guest's file has to name it.
    pub monitors: Vec<MonitorSelector>,
    /// How the monitors differ from the standard.
    pub deviation: Deviation,
}

impl MonitorName {
    /// As files have it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl DeviationName {
    /// As files have it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl NamedDeviation {
    /// Whether it is applied to a monitor by itself.
    #[must_use]
    pub fn applies_to(&self, identity: &EdidIdentity, place: &MonitorPlace) -> bool {
        self.monitors.iter().any(|selector| selector.fits(identity, place))
    }
}

impl FromStr for MonitorName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        given_name(text).map(Self)
    }
}

impl FromStr for DeviationName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        given_name(text).map(Self)
    }
}

impl fmt::Display for MonitorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DeviationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(MonitorName);
serde_as_text!(DeviationName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_start_with_a_letter() {
        for name in ["desk", "DP-1", "my_lg", &"x".repeat(32)] {
            assert_eq!(name.parse::<MonitorName>().unwrap().as_str(), name);
            assert_eq!(name.parse::<DeviationName>().unwrap().as_str(), name);
        }
        for wrong in ["", "1", "-x", "LG ULTRAGEAR", "größe", &"x".repeat(33)] {
            assert!(wrong.parse::<MonitorName>().is_err(), "{wrong}");
        }
    }
}
