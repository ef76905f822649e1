//! The bytes of DDC/CI (VESA DDC/CI 1.1): requests as a monitor wants them, and what it answers.
//!
//! Written here because the ready-made framing knows one source address only. What is inside the frames is the crate
//! `ddc`'s.

use std::fmt;

use ddc::commands::{Command, CommandResult, GetVcpFeature, SaveCurrentSettings, SetVcpFeature};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::deviation::SourceAddress;
use super::vcp::{VcpFeature, VcpValue};

/// The i2c address a monitor answers at.
pub const DDC_CI_ADDRESS: u8 = 0x37;

/// How a write to [`DDC_CI_ADDRESS`] looks on the wire: a monitor's name for itself, and where checksums of requests
/// begin.
const MONITOR: u8 = DDC_CI_ADDRESS << 1;

/// The address that checksums of replies begin with, whatever source address the request had.
const REPLY_SEED: u8 = 0x50;

/// Marks the length byte.
const LENGTH: u8 = 0x80;

/// "VCP feature reply", and its length.
const FEATURE_REPLY: u8 = 0x02;
const FEATURE_REPLY_LENGTH: usize = 8;

/// So many bytes a reply to "get VCP feature" has: address, length, the reply, a checksum.
pub const FEATURE_REPLY_BYTES: usize = FEATURE_REPLY_LENGTH + 3;

/// "I do not know this feature".
const UNSUPPORTED: u8 = 0x01;

/// What a monitor is asked or told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DdcRequest {
    /// What the value of a feature is.
    Get(VcpFeature),
    /// That a feature takes this value.
    Set(VcpFeature, VcpValue),
    /// To keep what was set when it is switched off.
    SaveCurrentSettings,
}

/// Why a reply tells no value.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplyError {
    /// A reply without content: "not yet", or "I have nothing to say about this".
    #[error("the monitor answers, but without a value")]
    Null,
    /// It does not know the feature.
    #[error("the monitor does not know this feature")]
    Unsupported,
    /// Fewer bytes than announced.
    #[error("the answer is cut short")]
    Short,
    /// Nothing but zeros: what many buses read when nobody speaks.
    #[error("the answer is empty")]
    Empty,
    /// Damaged on the way.
    #[error("the answer's checksum is wrong")]
    Checksum,
    /// Something else than what was asked for.
    #[error("the answer is to another question")]
    OtherQuestion,
}

impl DdcRequest {
    /// The bytes to write to [`DDC_CI_ADDRESS`].
    #[must_use]
    pub fn bytes(self, source: SourceAddress) -> Vec<u8> {
        match self {
            Self::Get(VcpFeature(code)) => frame(&GetVcpFeature::new(code), source),
            Self::Set(VcpFeature(code), VcpValue(value)) => frame(&SetVcpFeature::new(code, value), source),
            Self::SaveCurrentSettings => frame(&SaveCurrentSettings, source),
        }
    }
}

impl fmt::Display for DdcRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get(feature) => write!(f, "get feature {feature}"),
            Self::Set(feature, value) => write!(f, "set feature {feature} to {value}"),
            Self::SaveCurrentSettings => f.write_str("save current settings"),
        }
    }
}

fn frame(command: &impl Command, source: SourceAddress) -> Vec<u8> {
    // None of the three commands is longer than four bytes, and encoding them cannot fail.
    let mut payload = [0; 4];
    let length = command.encode(&mut payload).unwrap_or(0).min(payload.len());
    let mut bytes = vec![source.0, LENGTH | u8::try_from(length).unwrap_or(0)];
    bytes.extend_from_slice(&payload[..length]);
    bytes.push(checksum(MONITOR, &bytes));
    bytes
}

fn checksum(seed: u8, bytes: &[u8]) -> u8 {
    bytes.iter().fold(seed, |sum, byte| sum ^ byte)
}

/// Reads a reply to "get VCP feature". What a bus delivers beyond its end is ignored.
///
/// Of the input source only the low byte counts, as in ddcutil: MCCS gives it one byte, and some monitors leave
/// something else in the other.
///
/// # Errors
/// The reply tells no value of this feature.
pub fn parse_feature_reply(bytes: &[u8], asked: VcpFeature) -> Result<VcpValue, ReplyError> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Err(ReplyError::Empty);
    }
    let [source, length, rest @ ..] = bytes else { return Err(ReplyError::Short) };
    if *source != MONITOR || length & LENGTH == 0 {
        return Err(ReplyError::OtherQuestion);
    }
    let length = usize::from(length & !LENGTH);
    let (payload, sum) =
        (rest.get(..length).ok_or(ReplyError::Short)?, rest.get(length).ok_or(ReplyError::Short)?);
    if checksum(REPLY_SEED, &bytes[..2 + length]) != *sum {
        return Err(ReplyError::Checksum);
    }
    match payload {
        [] => Err(ReplyError::Null),
        [FEATURE_REPLY, result, code, ..] if payload.len() == FEATURE_REPLY_LENGTH && *code == asked.0 => {
            if *result == UNSUPPORTED {
                return Err(ReplyError::Unsupported);
            }
            let value = ddc::VcpValue::decode(payload).map_err(|_| ReplyError::OtherQuestion)?;
            let high = if asked == VcpFeature::INPUT_SOURCE { 0 } else { value.sh };
            Ok(VcpValue(u16::from_be_bytes([high, value.sl])))
        }
        _ => Err(ReplyError::OtherQuestion),
    }
}

/// A reply to "get VCP feature" as a monitor frames it, for simulated hosts and for tests: a value and the highest
/// one, none where the feature is unknown.
#[must_use]
pub fn feature_reply(feature: VcpFeature, value: Option<VcpValue>) -> Vec<u8> {
    let result = if value.is_some() { 0 } else { UNSUPPORTED };
    let [high, low] = value.unwrap_or(VcpValue(0)).0.to_be_bytes();
    let mut bytes = vec![MONITOR, LENGTH | 8, FEATURE_REPLY, result, feature.0, 0, 0xff, 0xff, high, low];
    bytes.push(checksum(REPLY_SEED, &bytes));
    bytes
}

/// A reply without content, padded to the length of a feature reply as buses deliver it.
#[must_use]
pub fn null_reply() -> Vec<u8> {
    let mut bytes = vec![MONITOR, LENGTH];
    bytes.push(checksum(REPLY_SEED, &bytes));
    bytes.resize(FEATURE_REPLY_BYTES, 0);
    bytes
}

/// Reads a request as a monitor does: what it asks, and as whom the host speaks. None where it is no such request.
#[must_use]
pub fn parse_request(bytes: &[u8]) -> Option<(DdcRequest, SourceAddress)> {
    let (sum, framed) = bytes.split_last()?;
    let [source, length, payload @ ..] = framed else { return None };
    if usize::from(length ^ LENGTH) != payload.len() || checksum(MONITOR, framed) != *sum {
        return None;
    }
    let request = match *payload {
        [0x01, code] => DdcRequest::Get(VcpFeature(code)),
        [0x03, code, high, low] => {
            DdcRequest::Set(VcpFeature(code), VcpValue(u16::from_be_bytes([high, low])))
        }
        [0x0c] => DdcRequest::SaveCurrentSettings,
        _ => return None,
    };
    Some((request, SourceAddress(*source)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INPUT: VcpFeature = VcpFeature::INPUT_SOURCE;
    const LG: VcpFeature = VcpFeature(0xf4);

    #[test]
    fn requests_are_the_standards() {
        for (request, source, bytes) in [
            (DdcRequest::Get(VcpFeature(0x10)), 0x51, &[0x51, 0x82, 0x01, 0x10, 0xac][..]),
            (DdcRequest::Set(INPUT, VcpValue(0x0f)), 0x51, &[0x51, 0x84, 0x03, 0x60, 0x00, 0x0f, 0xd7]),
            // What ddcutil sends to an LG with `--i2c-source-addr=x50 setvcp xf4 x90` (ddcutil#100).
            (DdcRequest::Set(LG, VcpValue(0x90)), 0x50, &[0x50, 0x84, 0x03, 0xf4, 0x00, 0x90, 0xdd]),
            (DdcRequest::SaveCurrentSettings, 0x51, &[0x51, 0x81, 0x0c, 0xb2]),
        ] {
            let source = SourceAddress(source);
            assert_eq!(request.bytes(source), bytes, "{request}");
            assert_eq!(parse_request(bytes), Some((request, source)));
        }
    }

    #[test]
    fn replies_tell_the_value() {
        let reply = [0x6e, 0x88, 0x02, 0x00, 0x60, 0x00, 0x00, 0x12, 0x00, 0x11, 0xd7];
        assert_eq!(parse_feature_reply(&reply, INPUT), Ok(VcpValue(0x11)));
        let with_more = [&reply[..], &[0xff; 5]].concat();
        assert_eq!(parse_feature_reply(&with_more, INPUT), Ok(VcpValue(0x11)));
    }

    #[test]
    fn the_high_byte_counts_but_not_of_the_input() {
        let value = Some(VcpValue(0x0311));
        assert_eq!(parse_feature_reply(&feature_reply(INPUT, value), INPUT), Ok(VcpValue(0x11)));
        assert_eq!(parse_feature_reply(&feature_reply(LG, value), LG), Ok(VcpValue(0x0311)));
    }

    #[test]
    fn says_what_is_wrong_with_a_reply() {
        let good = feature_reply(INPUT, Some(VcpValue(0x11)));
        let changed = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            let last = bytes.len() - 1;
            bytes[last] = checksum(REPLY_SEED, &bytes[..last]);
            bytes
        };
        let mut damaged = good.clone();
        damaged[9] ^= 1;
        for (bytes, error) in [
            (vec![0x6e, 0x80, 0xbe], ReplyError::Null),
            (null_reply(), ReplyError::Null),
            (feature_reply(INPUT, None), ReplyError::Unsupported),
            (damaged, ReplyError::Checksum),
            (vec![], ReplyError::Empty),
            (vec![0; 11], ReplyError::Empty),
            (vec![0x6e], ReplyError::Short),
            (good[..5].to_vec(), ReplyError::Short),
            (good[..10].to_vec(), ReplyError::Short),
            (feature_reply(LG, Some(VcpValue(0x11))), ReplyError::OtherQuestion),
            (changed(0, 0x51), ReplyError::OtherQuestion),
            (changed(1, 0x08), ReplyError::OtherQuestion),
            (changed(2, 0xe3), ReplyError::OtherQuestion),
            (changed(3, 0x07), ReplyError::OtherQuestion),
            (vec![0xff; 11], ReplyError::OtherQuestion),
        ] {
            assert_eq!(parse_feature_reply(&bytes, INPUT), Err(error), "{bytes:02x?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64), code: u8) {
            let _ = parse_feature_reply(&bytes, VcpFeature(code));
            let _ = parse_request(&bytes);
        }

        #[test]
        fn what_is_framed_is_read(code: u8, value: u16, source: u8) {
            let (feature, value, source) = (VcpFeature(code), VcpValue(value), SourceAddress(source));
            for request in [DdcRequest::Get(feature), DdcRequest::Set(feature, value)] {
                prop_assert_eq!(parse_request(&request.bytes(source)), Some((request, source)));
            }
            let mask = if feature == INPUT { 0xff } else { 0xffff };
            let read = parse_feature_reply(&feature_reply(feature, Some(value)), feature);
            prop_assert_eq!(read, Ok(VcpValue(value.0 & mask)));
        }

        #[test]
        fn one_wrong_bit_is_seen(value: u16, byte in 0..FEATURE_REPLY_BYTES, bit in 0..8_u8) {
            let mut reply = feature_reply(INPUT, Some(VcpValue(value)));
            reply[byte] ^= 1_u8 << bit;
            prop_assert!(parse_feature_reply(&reply, INPUT).is_err());
        }
    }
}
