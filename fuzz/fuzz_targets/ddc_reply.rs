//! A reply of a monitor, after the feature that was asked for; and the same bytes as a request.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vfio_hook::monitor::VcpFeature;
use vfio_hook::monitor::ddc_ci::{feature_reply, parse_feature_reply, parse_request};

/// With a checksum of its own, so that the mutations reach what lies behind it.
fn mended(reply: &[u8]) -> Option<Vec<u8>> {
    let length = 2 + usize::from(reply.get(1)? & 0x7f);
    let mut reply = reply.get(..=length)?.to_vec();
    reply[length] = reply[..length].iter().fold(0x50, |sum, byte| sum ^ byte);
    Some(reply)
}

fn check(reply: &[u8], asked: VcpFeature) {
    if let Ok(value) = parse_feature_reply(reply, asked) {
        assert_eq!(parse_feature_reply(&feature_reply(asked, Some(value)), asked), Ok(value));
    }
    if let Some((request, source)) = parse_request(reply) {
        assert_eq!(request.bytes(source), reply);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((feature, reply)) = bytes.split_first() else { return };
    let asked = VcpFeature(*feature);
    check(reply, asked);
    if let Some(reply) = mended(reply) {
        check(&reply, asked);
    }
});
