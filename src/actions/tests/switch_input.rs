//! The section `switch_input`.

use super::*;
use crate::monitor::{InputName, MonitorSelector, VcpFeature, VcpValue};

fn monitors(text: &str) -> Vec<MonitorSwitch> {
    parse(&format!("switch_input: {text}")).unwrap().switch_input.unwrap().monitors
}

fn monitor(text: &str) -> MonitorSwitch {
    match monitors(text).as_slice() {
        [monitor] => monitor.clone(),
        other => panic!("no single monitor: {other:?}"),
    }
}

pub(super) fn model(name: &str) -> MonitorSelector {
    MonitorSelector { model: Some(name.to_owned()), ..MonitorSelector::default() }
}

pub(super) fn input(name: &str) -> InputChoice {
    InputChoice::Named(name.parse::<InputName>().unwrap())
}

fn selector(text: &str) -> MonitorSelector {
    match monitor(&format!("{{monitor: {text}, guest: dp-1}}")).monitor {
        MonitorChoice::Selector(selector) => selector,
        MonitorChoice::Named(name) => panic!("selected by its name: {name}"),
    }
}

#[test]
fn one_monitor_or_a_list_is_switched() {
    let short = monitor("{monitor: {model: X}, guest: hdmi-1}");
    assert_eq!(
        short,
        MonitorSwitch {
            monitor: MonitorChoice::Selector(model("X")),
            guest: Some(input("hdmi-1")),
            host: HostInput::Previous,
            delay: Duration::from_secs(3),
            set: Vec::new(),
            sharing: MonitorSharing::Refused,
            deviation: None,
            on_failure: OnUnreachable::Warn,
        }
    );
    assert_eq!(monitor("[{guest: hdmi-1, host: previous, monitor: {model: X}, shared: false}]"), short);
    let two = monitors("[{monitor: desk, guest: usb-c}, {monitor: {model: X}, guest: hdmi-1}]");
    assert_eq!(two[0].monitor, MonitorChoice::Named("desk".parse().unwrap()));
    assert_eq!(two[1], short);
}

#[test]
fn monitors_are_selected_by_what_is_known_of_them() {
    assert_eq!(
        selector("{manufacturer: GSM, model: ' LG ULTRAGEAR ', serial: 123ABC, connector: HDMI-A-1}"),
        MonitorSelector {
            manufacturer: Some("GSM".parse().unwrap()),
            model: Some("LG ULTRAGEAR".to_owned()),
            serial: Some("123ABC".to_owned()),
            connector: Some("HDMI-A-1".parse().unwrap()),
        }
    );
    for (written, serial) in [
        ("12345", "12345"),
        ("00123", "00123"),
        ("\"0x1\"", "0x1"),
        ("18446744073709551616", "18446744073709551616"),
    ] {
        assert_eq!(selector(&format!("{{serial: {written}}}")).serial.as_deref(), Some(serial), "{written}");
    }
}

#[test]
fn inputs_have_names_or_values() {
    for (written, value) in [("17", 0x11), ("0x11", 0x11), ("\"0x11\"", 0x11), ("0xffff", 0xffff), ("0", 0)] {
        let guest = monitor(&format!("{{monitor: desk, guest: {written}, host: 0x0F}}")).guest;
        assert_eq!(guest, Some(InputChoice::Raw(VcpValue(value))), "{written}");
    }
    // What is no name of the standard's, a deviation may have.
    assert_eq!(monitor("{monitor: desk, guest: hdmi-1, host: pbp}").host, HostInput::Input(input("pbp")));
}

/// Guides and other tools leave the `0x` out: 12 is hdmi-2 there.
#[test]
fn a_number_that_is_another_input_in_hexadecimal_is_refused() {
    let help = [
        ("12", "write `0x12` or `hdmi-2`, or `0x0c` if that is meant"),
        ("\"12\"", "write `0x12` or `hdmi-2`, or `0x0c` if that is meant"),
        ("11 # HDMI", "write `0x11` or `hdmi-1`, or `0x0b` if that is meant"),
        ("10", "write `0x10` or `dp-2`, or `0x0a` if that is meant"),
        ("0f", "write `0x0f` or `dp-1`"),
        ("0F", "write `0x0f` or `dp-1`"),
        ("90", "write `0x90`, or `0x5a` if that is meant"),
    ];
    for (written, help) in help {
        for text in [
            format!("switch_input:\n  monitor: desk\n  guest: {written}\n"),
            format!("switch_input:\n- monitor: desk\n  guest: vga-1\n  host: {written}\n"),
            format!(
                "switch_input: [{{monitor: desk,guest: {},host: vga-1}}]\n",
                written.replace(" # HDMI", "")
            ),
        ] {
            let mistakes = mistakes(&text);
            assert_eq!(mistakes.len(), 1, "{text}: {mistakes:?}");
            assert!(mistakes[0].ends_with(&format!("({help})")), "{text}: {mistakes:?}");
        }
    }
    assert_eq!(
        mistakes("switch_input: {monitor: desk, guest: 12, host: 0x0d}"),
        [
            "1:38: `switch_input.guest`: `12` is 0x0c in decimal, and 0x12, hdmi-2, in hexadecimal (write `0x12` or `hdmi-2`, \
          or `0x0c` if that is meant)"
        ]
    );
    for (written, value) in
        [("0x0c", 0x0c), ("0x0A", 0x0a), ("0x12", 0x12), ("9", 9), ("15", 15), ("18", 18), ("0x5a", 90)]
    {
        let guest = monitor(&format!("{{monitor: desk, guest: {written}}}")).guest;
        assert_eq!(guest, Some(InputChoice::Raw(VcpValue(value))), "{written}");
    }
    // The value of another feature is none of an input.
    assert_eq!(monitor("{monitor: desk, set: {0x10: 12}}").set, [(VcpFeature(0x10), VcpValue(12))]);
}

#[test]
fn features_have_numbers() {
    let power = VcpFeature::POWER_MODE;
    for key in ["0xD6", "\"0xD6\"", "214", "0xd6"] {
        let set = monitor(&format!("{{monitor: desk, set: {{{key}: 1, 0x10: 0x64}}}}")).set;
        assert_eq!(set, [(power, VcpValue(1)), (VcpFeature(0x10), VcpValue(100))], "{key}");
    }
}

#[test]
fn the_delay_has_bounds() {
    for (delay, good) in [("0s", true), ("60s", true), ("1min", true), ("61s", false), ("0", false)] {
        let text = format!("switch_input: {{monitor: desk, guest: dp-1, delay: {delay}}}");
        assert_eq!(parse(&text).is_ok(), good, "{delay}");
    }
}

#[test]
fn says_what_is_wrong_and_where() {
    assert_eq!(
        mistakes(
            "\
switch_input:
  - monitor: LG ULTRAGEAR
    guest: HDMI-1
    host: previus
    delay: 2min
    shared: true
    on_failure: refused
  - monitor: {}
    guest: 0x10000
    host: hdmi 2
    deviation: LG F4
  - monitor: {modell: X}
    guest: previous
    shared: lst
  - guest: dp-1
    delay: 5
  - monitor: [desk]
    guest: 1.5
    inputs: {}
  - desk
"
        ),
        [
            "2:14: `switch_input.monitor`: expected a monitor's name in host.yaml, or keys and values, found `LG ULTRAGEAR` \
             (a monitor without a name is selected like this: `monitor: {model: \"LG ULTRAGEAR\"}`)",
            "3:12: `switch_input.guest`: expected an input's name, found `HDMI-1` (did you mean `hdmi-1`?)",
            "4:11: `switch_input.host`: expected an input or `previous`, found `previus` (did you mean `previous`?)",
            "5:12: `switch_input.delay`: not between 0s and 60s (the guest's picture is there sooner; without a delay \
             it is 3s)",
            "6:13: `switch_input.shared`: expected `last` or `false`, found `true` (with `last` the guest that was \
             started last has the monitor)",
            "7:17: `switch_input.on_failure`: expected `warn` or `refuse`, found `refused` (did you mean `refuse`?)",
            "8:14: `switch_input.monitor`: nothing is said of the monitor (give `manufacturer`, `model`, `serial` or \
             `connector`: for example `{model: \"LG ULTRAGEAR\"}`)",
            "9:12: `switch_input.guest`: `65536` is no number from 0 to 0xffff",
            "10:11: `switch_input.host`: expected an input's name, found `hdmi 2` (did you mean `hdmi-2`?)",
            "11:16: `switch_input.deviation`: expected a deviation's name, found `LG F4` (letters, digits, `-` and `_`, \
             a letter first, at most 32 of them)",
            "12:15: unknown key `modell` in `switch_input.monitor` (did you mean `model`? allowed here: `manufacturer`, \
             `model`, `serial` or `connector`)",
            "13:12: `switch_input.guest`: expected an input's name or value, found `previous` (`previous` is for `host` \
             alone)",
            "14:13: `switch_input.shared`: expected `last` or `false`, found `lst` (did you mean `last`?)",
            "15:5: `switch_input.monitor` is missing (say which: `monitor: {model: \"LG ULTRAGEAR\"}`; `vfio-hook \
             monitors` shows those there are)",
            "16:12: `switch_input.delay`: 5 has no unit (add a unit: for example `5s`)",
            "17:14: `switch_input.monitor`: expected a monitor's name, found a list (letters, digits, `-` and `_`, a \
             letter first, at most 32 of them)",
            "18:12: `switch_input.guest`: expected an input's name or value, found the number 1.5 (for example \
             `hdmi-1`, or `0x11`)",
            "19:5: unknown key `inputs` in `switch_input` (allowed here: `monitor`, `guest`, `host`, `delay`, `set`, \
             `shared`, `deviation` or `on_failure`)",
            "20:5: `switch_input`: expected keys and values, found `desk` (for example \
             `{monitor: {model: \"LG ULTRAGEAR\"}, guest: hdmi-1}`)",
        ]
    );
}

#[test]
fn says_what_is_wrong_with_a_selector_and_where() {
    assert_eq!(
        mistakes(
            "\
switch_input:
  - guest: dp-1
    monitor:
      manufacturer: gsm
      model: 27E1
      serial: \"\"
      connector: card1-HDMI-1
  - {guest: dp-1, monitor: {manufacturer: LG, model: [X], serial: , connector: DP 1}}
"
        ),
        [
            "4:21: `switch_input.monitor.manufacturer`: expected a manufacturer's three letters, found `gsm` (did you \
             mean `GSM`?)",
            "5:14: `switch_input.monitor.model`: expected a model's name, found the number 270 (put quotes around it)",
            "6:15: `switch_input.monitor.serial`: expected a serial number, found `` (`vfio-hook monitors` shows it)",
            "7:18: `switch_input.monitor.connector`: expected a connector's name, found `card1-HDMI-1` (did you mean \
             `HDMI-A-1`?)",
            "8:43: `switch_input.monitor.manufacturer`: expected a manufacturer's three letters, found `LG` \
             (`vfio-hook monitors` shows them: for example `GSM` for LG)",
            "8:54: `switch_input.monitor.model`: expected a model's name, found a list (put quotes around it)",
            "8:59: `switch_input.monitor.serial` has no value (write one after the colon, or remove the key)",
            "8:80: `switch_input.monitor.connector`: expected a connector's name, found `DP 1` (`ls /sys/class/drm` \
             shows them behind the name of the card: for example `DP-1`)",
        ]
    );
}

#[test]
fn says_what_is_wrong_with_features_and_where() {
    assert_eq!(
        mistakes(
            "\
switch_input:
  - monitor: desk
    set:
      0x60: 0x11
      0x100: 1
      brightness: 50
      0x10: full
      0xd6: 1
      214: 2
      \"0xD6\": 3
      0x12:
      0x04: 1
      0x14: 65536
      a: 1
      a: 2
  - {monitor: tv, set: {}}
  - {monitor: wall, set: [0xD6, 1]}
"
        ),
        [
            "4:7: `switch_input.set`: 0x60 is the input (name it with `guest` and `host`)",
            "5:7: `switch_input.set`: `256` is no number from 0 to 0xff",
            "6:7: `switch_input.set`: expected a feature's number from 0 to 0xff, found `brightness` (for example \
             `0x11` or `17`)",
            "7:13: `switch_input.set.0x10`: expected a value from 0 to 0xffff, found `full` (for example `0x11` or \
             `17`)",
            "9:7: `switch_input.set.0xd6` stands here for the second time (keep one of the two)",
            "10:7: `switch_input.set.0xd6` stands here for the second time (keep one of the two)",
            "11:7: `switch_input.set.0x12` has no value (write one after the colon, or remove the key)",
            "12:7: `switch_input.set`: 0x04 puts settings back, which nothing can undo after the guest (remove it)",
            "13:13: `switch_input.set.0x14`: `65536` is no number from 0 to 0xffff",
            "14:7: `switch_input.set`: expected a feature's number from 0 to 0xff, found `a` (for example `0x11` or \
             `17`)",
            "15:7: the key `a` stands here for the second time (keep one of the two)",
            "15:7: `switch_input.set`: expected a feature's number from 0 to 0xff, found `a` (for example `0x11` or \
             `17`)",
            "16:24: `switch_input.set`: sets nothing (fill it, for example `{0xD6: 1}`, or remove the key)",
            "17:26: `switch_input.set`: expected keys and values, found a list (for example `{0xD6: 1}`)",
        ]
    );
}

#[test]
fn switches_something() {
    assert_eq!(
        mistakes("switch_input: []"),
        ["1:15: `switch_input`: switches nothing: the list is empty (fill it, or remove the key)"]
    );
    assert_eq!(
        mistakes(
            "\
switch_input:
  - {monitor: a}
  - {monitor: b, set: {0x10: 1}, host: dp-1, deviation: lg}
  - {monitor: c, guest: dp-1, host: dp-1}
  - {monitor: d, guest: 0x0f, host: 15}
"
        ),
        [
            "2:5: `switch_input`: has no effect: nothing is switched (add the input that the guest is on, for example \
             `guest: hdmi-1`)",
            "3:40: `switch_input.host`: has no effect without `guest` (add `guest`, or remove the key)",
            "3:57: `switch_input.deviation`: has no effect without `guest` (add `guest`, or remove the key)",
            "4:37: `switch_input.host`: this is the guest's input (name the host's, or `previous`)",
            "5:37: `switch_input.host`: this is the guest's input (name the host's, or `previous`)",
        ]
    );
}

#[test]
fn no_monitor_is_switched_twice() {
    let twice = "this monitor stands here for the second time (keep one of the two)";
    assert_eq!(
        mistakes(
            "\
switch_input:
  - {guest: dp-1, monitor: {model: LG ultragear, serial: 1}}
  - {guest: dp-1, monitor: {model: LG ultragear}}
  - {guest: dp-1, monitor: {serial: 1, model: LG UltraGear}}
  - {guest: dp-1, monitor: desk}
  - {guest: dp-2, monitor: desk}
"
        ),
        [format!("4:28: `switch_input.monitor`: {twice}"), format!("6:28: `switch_input.monitor`: {twice}")]
    );
}
