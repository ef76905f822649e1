//! An EDID as a monitor, a dock or a damaged cable delivers it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vfio_hook::monitor::{EDID_BLOCK, make_edid, parse_edid};

/// With a header and a checksum of its own, so that the mutations reach what lies behind them.
fn mended(bytes: &[u8]) -> Option<[u8; EDID_BLOCK]> {
    let mut block: [u8; EDID_BLOCK] = *bytes.first_chunk()?;
    block[..8].copy_from_slice(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
    let sum = block[..EDID_BLOCK - 1].iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    block[EDID_BLOCK - 1] = sum.wrapping_neg();
    Some(block)
}

fn check(bytes: &[u8]) {
    let Ok(identity) = parse_edid(bytes) else { return };
    for text in [&identity.model, &identity.serial].into_iter().flatten() {
        assert!(!text.is_empty() && text.len() <= 13 && text.trim() == text, "{text:?}");
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text:?}");
    }
    assert_eq!(parse_edid(&make_edid(&identity)).as_ref(), Ok(&identity));
    assert!(!identity.to_string().contains(char::is_control));
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    if let Some(block) = mended(bytes) {
        check(&block);
    }
});
