//! How a monitor differs from the standard.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::identity::MonitorKey;
use super::input::{InputName, input_name};
use super::vcp::{VcpFeature, VcpValue};
use crate::serde_as_text::serde_as_text;

/// The address that the host names as its own in a request (DDC/CI 1.1, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceAddress(pub u8);

/// How far what a monitor says of a feature can be relied on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading {
    /// It says what it does.
    #[default]
    Reliable,
    /// It answers, but what it says after a change may be something else: nothing is verified by it.
    Unreliable,
    /// It does not answer to reads of this feature.
    WriteOnly,
}

/// Whether a step is made that the standard does not ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtraStep {
    /// The standard asks for no such step.
    #[default]
    Skip,
    /// The monitor needs it.
    Make,
}

/// How one feature of a monitor is read and set. The default is the standard's way, for the input source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureControl {
    /// The feature.
    pub feature: VcpFeature,
    /// The source address that requests for it carry.
    pub source_address: SourceAddress,
    /// Whether feature 0x60 is read before a write, on the same handle: some ignore the first write otherwise.
    pub read_first: ExtraStep,
    /// Whether "save current settings" follows a write.
    pub save_settings: ExtraStep,
    /// What reads of it are worth.
    pub reading: Reading,
}

/// How a monitor switches its inputs. The default is the standard's way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deviation {
    /// The feature that switches inputs.
    pub control: FeatureControl,
    /// Names of inputs that have other values than the standard's, or that it does not have.
    pub inputs: BTreeMap<InputName, VcpValue>,
    /// Names for which the monitor has another value than the standard's, which is not known.
    pub not_known: BTreeSet<InputName>,
}

/// One feature of one monitor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorFeature {
    /// The monitor that deviates.
    pub monitor: MonitorKey,
    /// Which feature, and how it is reached.
    pub control: FeatureControl,
}

impl SourceAddress {
    /// What the standard has for a host: 0x51.
    pub const HOST: Self = Self(0x51);
}

impl FeatureControl {
    /// A feature that is read and set as the standard has it.
    #[must_use]
    pub fn standard(feature: VcpFeature) -> Self {
        Self {
            feature,
            source_address: SourceAddress::HOST,
            read_first: ExtraStep::Skip,
            save_settings: ExtraStep::Skip,
            reading: Reading::Reliable,
        }
    }
}

impl Default for FeatureControl {
    fn default() -> Self {
        Self::standard(VcpFeature::INPUT_SOURCE)
    }
}

impl Deviation {
    /// The value that stands for an input, if the name is known.
    #[must_use]
    pub fn value_of(&self, input: &InputName) -> Option<VcpValue> {
        let is_standard = self.control.feature == VcpFeature::INPUT_SOURCE && !self.not_known.contains(input);
        self.inputs.get(input).copied().or_else(|| is_standard.then(|| input.standard_value()).flatten())
    }

    /// The name of the input that a value stands for, if there is one.
    #[must_use]
    pub fn name_of(&self, value: VcpValue) -> Option<String> {
        let own = self.inputs.iter().find(|(_, own)| **own == value).map(|(name, _)| name.to_string());
        let is_standard = self.control.feature == VcpFeature::INPUT_SOURCE;
        let standard = || input_name(value).filter(|_| is_standard).map(str::to_owned);
        // A name that has another value here is not given to this one.
        let is_free =
            |name: &String| !self.inputs.keys().chain(&self.not_known).any(|own| own.as_str() == name);
        own.or_else(|| standard().filter(is_free))
    }
}

impl fmt::Display for MonitorFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.control.feature {
            VcpFeature::INPUT_SOURCE => write!(f, "input of {}", self.monitor),
            feature => write!(f, "feature {feature} of {}", self.monitor),
        }
    }
}

impl fmt::Display for SourceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

impl FromStr for SourceAddress {
    type Err = super::vcp::ParseVcpError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The same kind of number.
        text.parse().map(|VcpFeature(number)| Self(number))
    }
}

serde_as_text!(SourceAddress);
