//! What a monitor says of itself: the base block of an EDID (VESA E-EDID 1.4, section 3).

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::identity::{EdidIdentity, ManufacturerId};

/// The size of the base block in bytes. Extensions after it say nothing of who the monitor is.
pub const EDID_BLOCK: usize = 128;

/// What every base block begins with (section 3.3).
const HEADER: [u8; 8] = [0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00];

/// Where the four descriptors begin, and how long each is (section 3.10).
const DESCRIPTORS: [usize; 4] = [54, 72, 90, 108];
const DESCRIPTOR: usize = 18;
/// Where a display descriptor's text begins; the four bytes before it are zero but for the tag.
const TEXT: usize = 5;

/// The tags of the descriptors that hold text (section 3.10.3).
const MODEL_NAME: u8 = 0xfc;
const SERIAL_TEXT: u8 = 0xff;

/// Why bytes are no EDID.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum EdidError {
    /// Nothing but zeros, as docks with several outputs answer for a monitor that is not there.
    #[error("it is empty")]
    Empty,
    /// Less than the base block.
    #[error("it has only {0} of {EDID_BLOCK} bytes")]
    Short(usize),
    /// Something else.
    #[error("it does not begin like an EDID")]
    Header,
    /// Damaged on the way, or written wrongly by its maker.
    #[error("its checksum is wrong")]
    Checksum,
    /// The maker is not three letters.
    #[error("its maker is not given as three letters")]
    Manufacturer,
}

/// Reads who a monitor is from its EDID. Whatever follows the base block is ignored.
///
/// # Errors
/// The bytes are no EDID.
pub fn parse_edid(bytes: &[u8]) -> Result<EdidIdentity, EdidError> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Err(EdidError::Empty);
    }
    let block: &[u8; EDID_BLOCK] = bytes.first_chunk().ok_or(EdidError::Short(bytes.len()))?;
    if !block.starts_with(&HEADER) {
        return Err(EdidError::Header);
    }
    if block.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)) != 0 {
        return Err(EdidError::Checksum);
    }
    Ok(EdidIdentity {
        manufacturer: manufacturer(block[8], block[9]).ok_or(EdidError::Manufacturer)?,
        product: u16::from_le_bytes([block[10], block[11]]),
        serial_number: u32::from_le_bytes([block[12], block[13], block[14], block[15]]),
        model: text(block, MODEL_NAME),
        serial: text(block, SERIAL_TEXT),
    })
}

/// Three letters of five bits each, big endian; 1 is `A` (section 3.4.1).
fn manufacturer(high: u8, low: u8) -> Option<ManufacturerId> {
    let bits = u16::from_be_bytes([high, low]);
    let letter = |shift: u16| match (bits >> shift) & 0x1f {
        number @ 1..=26 => u8::try_from(number).ok().map(|number| b'A' + number - 1),
        _ => None,
    };
    ManufacturerId::new([letter(10)?, letter(5)?, letter(0)?])
}

/// The text of the first descriptor with this tag. It ends at a line feed and is padded with spaces; what is no
/// printable ASCII (the standard's code page is 437) is left out.
fn text(block: &[u8; EDID_BLOCK], tag: u8) -> Option<String> {
    let descriptors = DESCRIPTORS.iter().map(|start| &block[*start..*start + DESCRIPTOR]);
    let mut fitting = descriptors.filter(|descriptor| descriptor[..TEXT] == [0, 0, 0, tag, 0]);
    let bytes = &fitting.next()?[TEXT..];
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or(bytes);
    let is_printable = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    let printable: String = line.iter().copied().filter(is_printable).map(char::from).collect();
    let trimmed = printable.trim();
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

/// The base block of a monitor with this identity, for simulated hosts and for tests. Texts are cut after 13
/// characters, as the standard has it.
#[must_use]
pub fn make_edid(identity: &EdidIdentity) -> [u8; EDID_BLOCK] {
    let mut block = [0; EDID_BLOCK];
    block[..8].copy_from_slice(&HEADER);
    let letters = identity.manufacturer.to_string();
    let bits = letters.bytes().fold(0_u16, |bits, letter| bits << 5 | u16::from(letter - b'A' + 1));
    block[8..10].copy_from_slice(&bits.to_be_bytes());
    block[10..12].copy_from_slice(&identity.product.to_le_bytes());
    block[12..16].copy_from_slice(&identity.serial_number.to_le_bytes());
    // Week 20 of 2021, EDID 1.4, a digital input.
    block[16..21].copy_from_slice(&[20, 31, 1, 4, 0xb5]);
    // A detailed timing comes first; this one is 1920x1080 at 60 Hz.
    block[54..72].copy_from_slice(&[
        0x02, 0x3a, 0x80, 0x18, 0x71, 0x38, 0x2d, 0x40, 0x58, 0x2c, 0x45, 0x00, 0x56, 0x50, 0x21, 0x00, 0x00,
        0x1e,
    ]);
    let texts = [(MODEL_NAME, &identity.model), (SERIAL_TEXT, &identity.serial)];
    for (start, (tag, text)) in DESCRIPTORS[1..].iter().zip(texts) {
        let Some(text) = text else { continue };
        let descriptor = &mut block[*start..*start + DESCRIPTOR];
        descriptor[3] = tag;
        descriptor[TEXT..].fill(b' ');
        let room = descriptor.len() - TEXT;
        let padded = text.bytes().chain([b'\n']).take(room);
        descriptor[TEXT..].iter_mut().zip(padded).for_each(|(place, byte)| *place = byte);
    }
    let sum = block.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    block[EDID_BLOCK - 1] = sum.wrapping_neg();
    block
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ultragear() -> EdidIdentity {
        EdidIdentity {
            manufacturer: "GSM".parse().unwrap(),
            product: 0x5bbf,
            serial_number: 0x0001_64d3,
            model: Some("LG ULTRAGEAR".to_owned()),
            serial: Some("104NTAB1X234".to_owned()),
        }
    }

    fn with(change: impl Fn(&mut [u8; EDID_BLOCK])) -> Vec<u8> {
        let mut block = make_edid(&ultragear());
        change(&mut block);
        let sum = block[..127].iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
        block[127] = sum.wrapping_neg();
        block.to_vec()
    }

    #[test]
    fn reads_who_a_monitor_is() {
        let bytes = with(|_| ());
        assert_eq!(bytes[8..12], [0x1e, 0x6d, 0xbf, 0x5b], "LG's own bytes");
        assert_eq!(parse_edid(&bytes), Ok(ultragear()));
    }

    #[test]
    fn ignores_extensions_that_are_there_missing_or_damaged() {
        for extensions in [vec![], vec![0; 128], vec![0xff; 128], vec![2, 3, 4]] {
            let bytes = [with(|block| block[126] = 1), extensions].concat();
            assert_eq!(parse_edid(&bytes), Ok(ultragear()));
        }
    }

    #[test]
    fn texts_are_trimmed_and_made_printable() {
        for (bytes, model) in [
            (b"DELL U2720Q\n ", Some("DELL U2720Q")),
            (b"LG ULTRAGEAR+", Some("LG ULTRAGEAR+")),
            (b"BenQ \x82\x1b[2J \n ", Some("BenQ [2J")),
            (b"\n            ", None),
            (b"             ", None),
            (b"\0\0\0\0\0\0\0\0\0\0\0\0\0", None),
        ] {
            let bytes = with(|block| block[77..90].copy_from_slice(bytes));
            assert_eq!(parse_edid(&bytes).unwrap().model.as_deref(), model);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let mut damaged = with(|_| ());
        damaged[12] ^= 1;
        for (bytes, error) in [
            (vec![], EdidError::Empty),
            (vec![0; 128], EdidError::Empty),
            (vec![0; 256], EdidError::Empty),
            (HEADER.to_vec(), EdidError::Short(8)),
            (vec![0xff; 128], EdidError::Header),
            (damaged, EdidError::Checksum),
            (with(|block| block[8..10].fill(0)), EdidError::Manufacturer),
            (with(|block| block[8..10].fill(0xff)), EdidError::Manufacturer),
        ] {
            assert_eq!(parse_edid(&bytes), Err(error));
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_edid(&bytes);
        }

        #[test]
        fn what_is_made_is_read(
            letters in "[A-Z]{3}",
            product: u16,
            serial_number: u32,
            model in prop::option::of("[!-~]([ -~]{0,11}[!-~])?"),
            serial in prop::option::of("[!-~]{1,13}"),
        ) {
            let manufacturer = letters.parse().unwrap();
            let identity = EdidIdentity { manufacturer, product, serial_number, model, serial };
            prop_assert_eq!(parse_edid(&make_edid(&identity)), Ok(identity));
        }

        #[test]
        fn one_wrong_bit_is_seen(byte in 0..EDID_BLOCK, bit in 0..8_u8) {
            let mut block = make_edid(&ultragear());
            block[byte] ^= 1_u8 << bit;
            prop_assert!(parse_edid(&block).is_err());
        }
    }
}
