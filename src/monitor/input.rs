//! The inputs of a monitor, by name.

use std::fmt;
use std::str::FromStr;

use crate::serde_as_text::serde_as_text;

use super::vcp::VcpValue;

/// The values of feature 0x60 that MCCS 2.2a names, and 0x1b, which many monitors use for USB-C.
const STANDARD: [(&str, VcpValue); 19] = [
    ("vga-1", VcpValue(0x01)),
    ("vga-2", VcpValue(0x02)),
    ("dvi-1", VcpValue(0x03)),
    ("dvi-2", VcpValue(0x04)),
    ("composite-1", VcpValue(0x05)),
    ("composite-2", VcpValue(0x06)),
    ("s-video-1", VcpValue(0x07)),
    ("s-video-2", VcpValue(0x08)),
    ("tuner-1", VcpValue(0x09)),
    ("tuner-2", VcpValue(0x0a)),
    ("tuner-3", VcpValue(0x0b)),
    ("component-1", VcpValue(0x0c)),
    ("component-2", VcpValue(0x0d)),
    ("component-3", VcpValue(0x0e)),
    ("dp-1", VcpValue(0x0f)),
    ("dp-2", VcpValue(0x10)),
    ("hdmi-1", VcpValue(0x11)),
    ("hdmi-2", VcpValue(0x12)),
    ("usb-c", VcpValue(0x1b)),
];

/// An input's name: lower-case letters, digits and `-`, such as `hdmi-1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InputName(String);

impl InputName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value that stands for it in feature 0x60, if MCCS names it.
    #[must_use]
    pub fn standard_value(&self) -> Option<VcpValue> {
        standard_inputs().find(|(name, _)| *name == self.0).map(|(_, value)| value)
    }
}

impl FromStr for InputName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.len() <= 32
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if is_name { Ok(Self(text.to_owned())) } else { Err(format!("`{text}` is no name of an input")) }
    }
}

impl fmt::Display for InputName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The names of MCCS and their values.
pub fn standard_inputs() -> impl Iterator<Item = (&'static str, VcpValue)> {
    STANDARD.iter().copied()
}

/// The name MCCS has for a value of feature 0x60. Some monitors put something else into the high byte.
#[must_use]
pub fn input_name(value: VcpValue) -> Option<&'static str> {
    standard_inputs().find(|(_, standard)| *standard == value).map(|(name, _)| name)
}

serde_as_text!(InputName);
