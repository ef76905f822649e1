//! What fuzzing begins with, read as what it is: a short pass of `tests/fuzz`, which goes on from here for as long as
//! it is let.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use vfio_hook::monitor::ddc_ci::parse_feature_reply;
use vfio_hook::monitor::{VcpFeature, parse_edid};

/// A line for each seed of a target, in the order of their names.
fn read_seeds(target: &str, read: impl Fn(&[u8]) -> String) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds: Vec<_> = fs::read_dir(folder).unwrap().map(|seed| seed.unwrap().path()).collect();
    seeds.sort_unstable();
    let mut lines = String::new();
    for seed in seeds {
        let name = seed.file_name().unwrap().to_str().unwrap();
        writeln!(lines, "{name}: {}", read(&fs::read(&seed).unwrap())).unwrap();
    }
    lines
}

#[test]
fn edids() {
    let lines = read_seeds("edid", |bytes| match parse_edid(bytes) {
        Ok(identity) => serde_json::to_string(&identity).unwrap(),
        Err(error) => error.to_string(),
    });
    insta::assert_snapshot!(lines);
}

#[test]
fn replies_of_monitors() {
    let lines = read_seeds("ddc_reply", |bytes| {
        let (feature, reply) = bytes.split_first().unwrap();
        match parse_feature_reply(reply, VcpFeature(*feature)) {
            Ok(value) => format!("feature {} is {value}", VcpFeature(*feature)),
            Err(error) => error.to_string(),
        }
    });
    insta::assert_snapshot!(lines);
}
