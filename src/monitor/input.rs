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
    /// As files have it.
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

/// An input that a number without `0x` stands for where all numbers are hexadecimal, as in many guides and in tools such
/// as VFIO-Tools: `12` is 0x12 there, and 0x0c here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HexadecimalInput {
    /// What the number means there, to be written to the monitor.
    pub value: VcpValue,
    /// Its name, where MCCS has one.
    pub name: Option<&'static str>,
    /// What the number is in decimal, if it is one.
    pub decimal: Option<VcpValue>,
}

/// What LG's own feature 0xf4 has for HDMI and DisplayPort (<https://github.com/rockowitz/ddcutil/issues/100>).
const OF_LG: [VcpValue; 4] = [VcpValue(0x90), VcpValue(0x91), VcpValue(0xd0), VcpValue(0xd1)];

/// The HDMI, DisplayPort or USB-C input that a number without `0x` may mean; none where it is the same in decimal, or no
/// such input in hexadecimal.
#[must_use]
pub fn hexadecimal_input(bare: &str) -> Option<HexadecimalInput> {
    let is_bare = (1..=2).contains(&bare.len()) && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
    let value = is_bare.then(|| u16::from_str_radix(bare, 16).ok())?.map(VcpValue)?;
    let decimal = bare.parse().ok().map(VcpValue);
    let name = input_name(value);
    let of_standard =
        name.is_some_and(|name| ["hdmi-", "dp-", "usb-c"].iter().any(|kind| name.starts_with(kind)));
    let is_ambiguous = decimal != Some(value) && (of_standard || OF_LG.contains(&value));
    is_ambiguous.then_some(HexadecimalInput { value, name, decimal })
}

impl HexadecimalInput {
    /// What is wrong with such a number.
    #[must_use]
    pub fn problem(&self, bare: &str) -> String {
        let input = self.name.map_or_else(String::new, |name| format!(", {name},"));
        match self.decimal {
            Some(decimal) => {
                format!("`{bare}` is {decimal} in decimal, and {}{input} in hexadecimal", self.value)
            }
            None => format!("`{bare}` is no number: one in hexadecimal begins with `0x`"),
        }
    }

    /// What to write in its place.
    #[must_use]
    pub fn help(&self) -> String {
        let name = self.name.map_or_else(String::new, |name| format!(" or `{name}`"));
        let decimal =
            self.decimal.map_or_else(String::new, |decimal| format!(", or `{decimal}` if that is meant"));
        format!("write `{}`{name}{decimal}", self.value)
    }
}

serde_as_text!(InputName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_mean_an_input_in_hexadecimal_are_known() {
        for (bare, meant) in [
            ("0f", Some((0x0f, Some("dp-1")))),
            ("F", Some((0x0f, Some("dp-1")))),
            ("10", Some((0x10, Some("dp-2")))),
            ("11", Some((0x11, Some("hdmi-1")))),
            ("12", Some((0x12, Some("hdmi-2")))),
            ("1b", Some((0x1b, Some("usb-c")))),
            ("90", Some((0x90, None))),
            ("91", Some((0x91, None))),
            ("d1", Some((0xd1, None))),
            ("0x12", None),
            ("9", None),
            ("05", None),
            ("15", None),
            ("16", None),
            ("17", None),
            ("18", None),
            ("012", None),
            ("", None),
            ("xy", None),
            ("-1", None),
        ] {
            let found = hexadecimal_input(bare).map(|input| (input.value.0, input.name));
            assert_eq!(found, meant, "{bare:?}");
        }
    }
}
