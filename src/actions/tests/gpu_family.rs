//! What is known of graphics cards: the families that are built in, and those of the host's file.

use std::collections::BTreeSet;

use super::host::{HOST, host_mistakes, parse_host};
use super::*;
use crate::gpu::{GuestReboot, IdRange, Integration, Robustness, VendorReset};
use crate::pci::PciId;

fn id(text: &str) -> PciId {
    text.parse().unwrap()
}

/// The name of the family that a model belongs to.
fn family(host: &HostConfig, model: &str) -> String {
    host.family_of(id(model)).name.to_string()
}

#[test]
fn the_built_in_ones_can_be_read() {
    let text = include_str!("../../gpu/families.yaml");
    if let Err(errors) = HostConfig::parse(Path::new("families.yaml"), text) {
        panic!("{}", errors.render(Style::Plain));
    }
    assert!(built_in_gpu_families().len() >= 12);
}

#[test]
fn no_model_is_in_two_of_them_and_each_has_a_source() {
    let families = built_in_gpu_families();
    let mut narrow: Vec<(&str, IdRange)> = Vec::new();
    let mut names = BTreeSet::new();
    for family in families {
        assert!(names.insert(family.name.as_str()), "{} twice", family.name);
        assert!(!family.ids.is_empty(), "{} has no models", family.name);
        assert!(!family.sources.is_empty(), "{} has no source", family.name);
        for source in &family.sources {
            assert!(source.starts_with("https://"), "{}: {source}", family.name);
        }
        let is_broad = family.ids.iter().any(|range| range.is_whole_vendor());
        for range in family.ids.iter().filter(|_| !is_broad) {
            if let Some((other, _)) = narrow.iter().find(|(_, other)| other.meets(*range)) {
                panic!("{range} is in {other} and in {}", family.name);
            }
            narrow.push((family.name.as_str(), *range));
        }
    }
    let is_broad = |family: &crate::gpu::Family| family.ids.iter().any(|range| range.is_whole_vendor());
    assert!(families.is_sorted_by_key(is_broad), "an entry for all that a vendor makes hides one behind it");
}

#[test]
fn cards_are_found_by_their_models() {
    let host = HostConfig::default();
    for (model, name) in [
        ("1002:67df", "polaris"),
        ("1002:699f", "polaris"),
        ("1002:687f", "vega-10"),
        ("1002:66af", "vega-20"),
        ("1002:731f", "navi-1x"),
        ("1002:73bf", "navi-2x"),
        ("1002:73df", "navi-2x"),
        ("1002:73ff", "navi-2x"),
        ("1002:743f", "navi-2x"),
        ("1002:744c", "navi-3x"),
        ("1002:747e", "navi-3x"),
        ("1002:7480", "navi-3x"),
        ("1002:7550", "navi-4x"),
        ("1002:7590", "navi-4x"),
        ("1002:164e", "amd-apu"),
        ("1002:13c0", "amd-apu"),
        ("1002:74a1", "instinct"),
        ("1002:67b1", "hawaii"),
        ("1002:6938", "tonga"),
        ("1002:6929", "tonga"),
        ("1002:7300", "fiji"),
        ("1002:694c", "vega-m"),
        ("1002:69af", "vega-12"),
        ("1002:1586", "strix-halo"),
        ("1002:13fe", "amd-apu"),
        ("1002:130f", "amd-apu"),
        ("1002:9874", "amd-apu"),
        ("1002:98e4", "amd-apu"),
        ("1002:990c", "amd-apu"),
        ("1002:6610", "unknown-amd"),
        ("1002:ffff", "unknown-amd"),
        ("10de:2684", "nvidia"),
        ("10de:2b85", "nvidia-blackwell"),
        ("10de:2bb1", "nvidia-blackwell"),
        ("10de:2c05", "nvidia-blackwell"),
        ("10de:2d04", "nvidia-blackwell"),
        ("10de:2f04", "nvidia-blackwell"),
        ("10de:2330", "nvidia"),
        ("8086:56a0", "intel-card"),
        ("8086:e20b", "intel-card"),
        ("8086:4680", "intel"),
        ("1a03:2000", "unknown"),
    ] {
        assert_eq!(family(&host, model), name, "{model}");
    }
}

#[test]
fn amds_cards_are_not_rebooted_unless_the_file_says_so() {
    let host = HostConfig::default();
    let reboot = |model: &str| host.family_of(id(model)).guest_reboot();
    for model in ["1002:67df", "1002:731f", "1002:73bf", "1002:7550", "1002:164e", "1002:0001", "10de:2c05"] {
        assert_eq!(reboot(model), GuestReboot::Restart, "{model}");
    }
    for model in ["10de:2684", "8086:56a0", "1a03:2000"] {
        assert_eq!(reboot(model), GuestReboot::Allow, "{model}");
    }
}

#[test]
fn a_processors_graphics_are_no_card_of_their_own() {
    let host =
        parse_host("gpu_families: {mine: {ids: \"1002:73bf\", reboot: fine, integrated: true}}").unwrap();
    let integrated = |model: &str| host.family_of(id(model)).integration == Integration::Integrated;
    assert!(["1002:164e", "1002:1586", "1002:130f", "8086:4680", "1002:73bf"].into_iter().all(integrated));
    assert!(!["1002:694c", "1002:73df", "1002:ffff", "10de:2c05", "8086:56a0"].into_iter().any(integrated));
    // What a bus reset does to the host's USB beside it is no advice.
    for family in built_in_gpu_families() {
        let resets = family.resets.as_deref().unwrap_or_default();
        let is_integrated = family.integration == Integration::Integrated;
        assert!(!is_integrated || !resets.starts_with("the bus reset"), "{}: {resets}", family.name);
    }
    let unknown = host.family_of(id("1002:ffff")).resets.clone().unwrap();
    assert!(unknown.contains("none where it is a part of the processor"), "{unknown}");
}

#[test]
fn vendor_reset_is_offered_only_where_it_knows_the_card() {
    let host = HostConfig::default();
    let known = |model: &str| host.family_of(id(model)).vendor_reset == VendorReset::Supported;
    assert!(["1002:67df", "1002:687f", "1002:66af", "1002:738c", "1002:7360"].into_iter().all(known));
    assert!(!["1002:73bf", "1002:744c", "1002:7550", "1002:1638", "10de:2684"].into_iter().any(known));
}

#[test]
fn those_of_the_hosts_file_come_first() {
    let host = parse_host(HOST).unwrap();
    let mine = host.family_of(id("1002:7550"));
    assert_eq!(mine.name.as_str(), "my-card");
    assert_eq!((mine.reboot, mine.host_driver), (Robustness::Fine, Robustness::Fragile));
    assert_eq!(mine.vendor_reset, VendorReset::Supported);
    assert_eq!(mine.guest_reboot(), GuestReboot::Allow);
    assert_eq!(mine.sources, ["https://example.org"]);
    let words = [&mine.resets, &mine.driver_reset, &mine.fails, &mine.note].map(|words| words.as_deref());
    assert_eq!(words, [Some("the bus reset"), Some("mode 1"), Some("nothing yet"), Some("mine")]);
    assert_eq!(family(&host, "1002:73a5"), "my-card");
    assert_eq!(family(&host, "1002:7590"), "navi-4x");

    let all = parse_host("gpu_families: {mine: {ids: \"1002:*\", reboot: fine}}").unwrap();
    assert_eq!(family(&all, "1002:73bf"), "mine");
    assert_eq!(family(&all, "10de:2684"), "nvidia");
}

#[test]
fn says_what_is_wrong_and_where() {
    assert_eq!(
        host_mistakes(
            "\
gpu_families:
  nothing: {}
  numbers: {ids: [7550, \"744c\", 1002:73bf-73a0, 1002:73x0, 0x1002], reboot: fragil}
  broad: {ids: \"1002:*\", reboot: fragile}
  narrow: {ids: [\"1002:7550\", \"10de:2684\"], reboot: fine, note: 5, fails: \"a\\nb\", resets: \"\"}
  my card: {ids: \"10de:1\", reboot: fine}
  other: {ids: [], reboot: fine, vendor_reset: true, host-driver: fine, source: []}
"
        ),
        [
            "2:12: `gpu_families.nothing.ids` is missing (name the models: `ids: [\"1002:7550\"]`; `lspci -nn` shows them)",
            "2:12: `gpu_families.nothing.reboot` is missing (say what a reboot of the guest does to a card: `reboot: fine` or \
             `reboot: fragile`)",
            "3:19: `gpu_families.numbers.ids`: expected models such as \"1002:7550\", \"1002:73a0-73bf\" or \"1002:*\", found the \
             number 7550 (`lspci -nn` shows them in brackets; put quotes around them)",
            "3:25: `gpu_families.numbers.ids`: expected models such as \"1002:7550\", \"1002:73a0-73bf\" or \"1002:*\", found `744c` \
             (with the vendor: \"1002:744c\")",
            "3:33: `gpu_families.numbers.ids`: the range `1002:73bf-73a0` runs backwards (the lower number comes first)",
            "3:49: `gpu_families.numbers.ids`: expected models such as \"1002:7550\", \"1002:73a0-73bf\" or \"1002:*\", found \
             `1002:73x0` (`lspci -nn` shows them in brackets)",
            "3:60: `gpu_families.numbers.ids`: expected models such as \"1002:7550\", \"1002:73a0-73bf\" or \"1002:*\", found the \
             number 4098 (`lspci -nn` shows them in brackets; put quotes around them)",
            "3:77: `gpu_families.numbers.reboot`: expected `fine` or `fragile`, found `fragil` (did you mean `fragile`?)",
            "5:18: `gpu_families.narrow.ids`: `1002:7550` has no effect: `1002:*` stands before it (the first one holds: \
             remove this one, or change the order)",
            "5:65: `gpu_families.narrow.note`: expected a text, found the number 5 (put quotes around it)",
            "5:75: `gpu_families.narrow.fails`: expected a text, found `a\\nb` (one line of at most 1000 letters)",
            "5:91: `gpu_families.narrow.resets`: expected a text, found `` (one line of at most 1000 letters)",
            "6:3: `gpu_families`: expected a family's name, found `my card` (letters, digits, `-` and `_`, a letter first, at \
             most 32 of them)",
            "7:16: `gpu_families.other.ids`: is applied to no card: the list is empty (fill it, or remove the key)",
            "7:48: `gpu_families.other.vendor_reset`: expected `supported` or `unsupported`, found `true`",
            "7:54: unknown key `host-driver` in `gpu_families.other` (did you mean `host_driver`? allowed here: `ids`, \
             `reboot`, `vendor_reset`, `host_driver`, `integrated`, `resets`, `driver_reset`, `fails`, `note` or `source`)",
            "7:81: `gpu_families.other.source`: names no source: the list is empty (fill it, or remove the key)",
        ]
    );
    assert_eq!(
        host_mistakes("gpu_families: {}"),
        [
            "1:15: `gpu_families`: names no family (fill it, for example `{my-card: {ids: [\"1002:7550\"], reboot: fine}}`, \
          or remove the key)"
        ]
    );
}
