//! A guest's UUID, by which its lease is kept.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::serde_as_text::serde_as_text;

use crate::printable::excerpt;

/// A guest's UUID. Unlike its name it is always safe to print, and to build a file name from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestUuid([u8; 16]);

/// Why a text is no UUID.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{}` is no UUID", excerpt(.0, 64))]
pub struct ParseUuidError(String);

impl GuestUuid {
    /// A UUID from its bytes, in the order they are written.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes, in the order they are written.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl FromStr for GuestUuid {
    type Err = ParseUuidError;

    /// As liberal as libvirt's `virUUIDParse`: any case, blanks around, dashes and spaces anywhere between the bytes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text.trim_ascii().as_bytes()).map(Self).ok_or_else(|| ParseUuidError(text.to_owned()))
    }
}

fn parse(mut text: &[u8]) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    for byte in &mut bytes {
        while let [b'-' | b' ', rest @ ..] = text {
            text = rest;
        }
        let [high, low, rest @ ..] = text else { return None };
        *byte = hexadecimal_digit(*high)? << 4 | hexadecimal_digit(*low)?;
        text = rest;
    }
    text.is_empty().then_some(bytes)
}

fn hexadecimal_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

impl fmt::Display for GuestUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for GuestUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestUuid({self})")
    }
}

serde_as_text!(GuestUuid);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_libvirt_reads() {
        for text in [
            "c0ffee00-1111-4222-8333-44445555666f",
            "C0FFEE00-1111-4222-8333-44445555666F",
            "c0ffee0011114222833344445555666f",
            "\n  c0-ff-ee00 1111-4222--8333-44445555666f\n",
        ] {
            let uuid: GuestUuid = text.parse().unwrap();
            assert_eq!(uuid.to_string(), "c0ffee00-1111-4222-8333-44445555666f", "{text:?}");
        }
    }

    #[test]
    fn refuses_what_libvirt_refuses() {
        for text in [
            "",
            "c0ffee00-1111-4222-8333-44445555666",
            "c0ffee00-1111-4222-8333-44445555666f0",
            "c0ffee00-1111-4222-8333-44445555666f-",
            "c-0ffee00-1111-4222-8333-44445555666f",
            "g0ffee00-1111-4222-8333-44445555666f",
            "{c0ffee00-1111-4222-8333-44445555666f}",
        ] {
            assert!(text.parse::<GuestUuid>().is_err(), "{text:?}");
        }
        assert_eq!("a\nb".parse::<GuestUuid>().unwrap_err().to_string(), r"`a\nb` is no UUID");
    }

    #[test]
    fn keys_a_map_in_json() {
        let leases = BTreeMap::from([(GuestUuid::from_bytes([0xab; 16]), 1)]);
        let json = serde_json::to_string(&leases).unwrap();
        assert_eq!(json, r#"{"abababab-abab-abab-abab-abababababab":1}"#);
        assert_eq!(serde_json::from_str::<BTreeMap<GuestUuid, i32>>(&json).unwrap(), leases);
    }

    proptest! {
        #[test]
        fn what_it_writes_it_reads(bytes in any::<[u8; 16]>()) {
            let uuid = GuestUuid::from_bytes(bytes);
            prop_assert_eq!(uuid.to_string().parse(), Ok(uuid));
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = text.parse::<GuestUuid>();
        }
    }
}
