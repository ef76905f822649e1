//! Features of a monitor and their values, as MCCS numbers them (Monitor Control Command Set: "VCP codes").

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::serde_as_text::serde_as_text;

/// The number of a feature, written `0x60`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VcpFeature(pub u8);

/// The value of a feature that is no table, written `0x0f`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VcpValue(pub u16);

/// Why a text is no number of the size that is asked for.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{text}` is no number from 0 to {most:#x}")]
pub struct ParseVcpError {
    text: String,
    most: u16,
}

impl VcpFeature {
    /// Input source (MCCS 2.2a, table "Miscellaneous functions").
    pub const INPUT_SOURCE: Self = Self(0x60);
    /// Power mode: 1 on, 2 standby, 3 suspend, 4 off, 5 off by the button.
    pub const POWER_MODE: Self = Self(0xd6);
}

impl fmt::Display for VcpFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

impl fmt::Display for VcpValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

impl FromStr for VcpFeature {
    type Err = ParseVcpError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = number(text, u16::from(u8::MAX))?;
        Ok(Self(u8::try_from(number).unwrap_or(u8::MAX)))
    }
}

impl FromStr for VcpValue {
    type Err = ParseVcpError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        number(text, u16::MAX).map(Self)
    }
}

/// A number, in hexadecimal if it begins with `0x`.
fn number(text: &str, most: u16) -> Result<u16, ParseVcpError> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let digits = hexadecimal.unwrap_or(text);
    let error = || ParseVcpError { text: text.to_owned(), most };
    // `from_str_radix` would take a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(error());
    }
    let radix = if hexadecimal.is_some() { 16 } else { 10 };
    u16::from_str_radix(digits, radix).ok().filter(|number| *number <= most).ok_or_else(error)
}

serde_as_text!(VcpFeature);
serde_as_text!(VcpValue);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_numbers() {
        assert_eq!("0x60".parse(), Ok(VcpFeature::INPUT_SOURCE));
        assert_eq!("96".parse(), Ok(VcpFeature::INPUT_SOURCE));
        assert_eq!("0xF000".parse(), Ok(VcpValue(0xf000)));
        assert_eq!(VcpValue(15).to_string(), "0x0f");
        assert_eq!(VcpValue(0xf000).to_string(), "0xf000");
        for wrong in ["", "0x", "+1", "0x+1", "256", "ff", "0x100", "-1", " 1"] {
            assert!(wrong.parse::<VcpFeature>().is_err(), "{wrong}");
        }
        let error = "65536".parse::<VcpValue>().unwrap_err();
        assert_eq!(error.to_string(), "`65536` is no number from 0 to 0xffff");
    }
}
