//! Who a monitor is, and where it is connected.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::pci::PciAddress;
use crate::printable::printable;
use crate::serde_as_text::serde_as_text;

/// Three letters that the UEFI forum gave to a maker, such as `GSM` for LG.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManufacturerId([u8; 3]);

/// What a monitor says of itself (VESA E-EDID 1.4, sections 3.4 and 3.10.3).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdidIdentity {
    /// Its maker.
    pub manufacturer: ManufacturerId,
    /// The maker's number for the model.
    pub product: u16,
    /// A serial number; 0 where there is none, and the same on every monitor of some makers.
    pub serial_number: u32,
    /// The model's name (descriptor 0xfc).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The serial number as printed on the back (descriptor 0xff).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
}

/// The name of a connector, as in `/sys/class/drm/card0-DP-1`: `DP-1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectorName(String);

/// Where a monitor is connected, in words that stay the same when drivers come and go; numbers of cards and i2c buses
/// do not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorPlace {
    /// The graphics card, where it is a PCI device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<PciAddress>,
    /// The connector, where the driver tells which bus belongs to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector: Option<ConnectorName>,
    /// The name of the i2c adapter, as in its `name` attribute.
    pub adapter: String,
}

/// A monitor and its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorKey {
    /// The identity that its EDID gives.
    pub identity: EdidIdentity,
    /// Where it is connected.
    pub place: MonitorPlace,
}

impl ManufacturerId {
    /// The letters, upper case.
    #[must_use]
    pub fn new(letters: [u8; 3]) -> Option<Self> {
        letters.iter().all(u8::is_ascii_uppercase).then_some(Self(letters))
    }
}

impl fmt::Display for ManufacturerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|letter| write!(f, "{}", char::from(*letter)))
    }
}

impl FromStr for ManufacturerId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let letters = <[u8; 3]>::try_from(text.as_bytes()).ok();
        letters.and_then(Self::new).ok_or_else(|| format!("`{text}` is not three capital letters"))
    }
}

impl ConnectorName {
    /// As sysfs has it, without the card: `DP-1`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ConnectorName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.len() <= 32
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if is_name { Ok(Self(text.to_owned())) } else { Err(format!("`{text}` is no name of a connector")) }
    }
}

impl fmt::Display for ConnectorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for EdidIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.model {
            Some(model) => f.write_str(&printable(model)),
            None => write!(f, "{} {:04x}", self.manufacturer, self.product),
        }
    }
}

impl fmt::Display for MonitorPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.connector {
            Some(connector) => connector.fmt(f),
            None => f.write_str(&printable(&self.adapter)),
        }
    }
}

impl MonitorKey {
    /// All that can tell it from others.
    #[must_use]
    pub fn in_full(&self) -> String {
        let identity = &self.identity;
        let serial = match &identity.serial {
            Some(serial) => format!(", serial {}", printable(serial)),
            None if identity.serial_number != 0 => format!(", serial {}", identity.serial_number),
            None => String::new(),
        };
        format!("{}: {} {identity}{serial}", self.place, identity.manufacturer)
    }
}

impl fmt::Display for MonitorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.identity, self.place)
    }
}

serde_as_text!(ManufacturerId);
serde_as_text!(ConnectorName);
