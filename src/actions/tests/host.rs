//! The host's file, and guests' files in its light.

use super::switch_input::{input, model};
use super::*;
use crate::log_level::LogLevel;
use crate::monitor::{
    Deviation, DeviationName, EdidIdentity, ExtraStep, FeatureControl, MonitorPlace, MonitorSelector,
    NamedDeviation, Reading, SourceAddress, VcpFeature, VcpValue,
};

pub(super) const HOST: &str = "\
monitors:
  desk: {model: LG ULTRAGEAR, serial: 123ABC}
  tv: {connector: HDMI-A-1}
deviations:
  my-lg:
    monitors: [{manufacturer: GSM, model: LG ULTRAGEAR}]
    feature: 0xF4
    source_address: 0x50
    inputs: {hdmi-1: 0x90, dp-1: 0xd0}
    read_first: true
    save_settings: true
    reading: write-only
  pbp-dell:
    inputs: {pbp: 0xf000}
gpu_families:
  my-card:
    ids: [\"1002:7550\", \"1002:73a0-73bf\"]
    reboot: fine
    vendor_reset: supported
    host_driver: fragile
    resets: the bus reset
    driver_reset: mode 1
    fails: nothing yet
    note: mine
    source: https://example.org
kernel_lines:
  ring-test: {severity: suspicious}
  my-line:
    pattern: [\"my * line\", \"another ** line\"]
    severity: wedged
    meaning: it says so
    fix: read it
    since: \"6.6\"
    until: \"6.12\"
    source: https://example.org
    example: \"amdgpu 0000:03:00.0: my own line\"
    near_miss: a line
";

pub(super) fn parse_host(text: &str) -> Result<HostConfig, ConfigErrors> {
    HostConfig::parse(Path::new("/etc/vfio-hook/host.yaml"), text)
}

pub(super) fn host_mistakes(text: &str) -> Vec<String> {
    listed(&parse_host(text).unwrap_err())
}

/// What is wrong with the section `switch_input` of a guest's file on a host with this file.
fn mistakes_on(host: &HostConfig, text: &str) -> Vec<String> {
    let source = ConfigSource::new(FILE, text);
    let config = GuestConfig::read(&source).unwrap_or_else(|errors| panic!("{errors}"));
    let switches = config.switch_input.unwrap();
    source.check_against(&switches, host).map_or_else(Vec::new, |errors| listed(&errors))
}

fn name(text: &str) -> DeviationName {
    text.parse().unwrap()
}

#[test]
fn the_journal_gets_what_the_file_says() {
    assert_eq!(parse_host("log: debug").unwrap().log, LogLevel::Debug);
    assert_eq!(parse_host("monitors: {a: {model: X}}").unwrap().log, LogLevel::Info);
    assert_eq!(
        host_mistakes("log: verbose"),
        ["1:6: `log`: expected `error`, `warn`, `info` or `debug`, found `verbose`"]
    );
}

fn lg() -> EdidIdentity {
    EdidIdentity {
        manufacturer: "GSM".parse().unwrap(),
        product: 1,
        serial_number: 0,
        model: Some("LG UltraGear".to_owned()),
        serial: None,
    }
}

fn place() -> MonitorPlace {
    MonitorPlace { card: None, connector: None, adapter: "i2c".to_owned() }
}

#[test]
fn reads_every_key() {
    let host = parse_host(HOST).unwrap();
    let desk = MonitorSelector { serial: Some("123ABC".to_owned()), ..model("LG ULTRAGEAR") };
    let tv = MonitorSelector { connector: Some("HDMI-A-1".parse().unwrap()), ..MonitorSelector::default() };
    let expected = [("desk".parse().unwrap(), desk), ("tv".parse().unwrap(), tv)];
    assert_eq!(host.monitors, expected.into());
    let lg = Deviation {
        control: FeatureControl {
            feature: VcpFeature(0xf4),
            source_address: SourceAddress(0x50),
            read_first: ExtraStep::Make,
            save_settings: ExtraStep::Make,
            reading: Reading::WriteOnly,
        },
        inputs: [("hdmi-1".parse().unwrap(), VcpValue(0x90)), ("dp-1".parse().unwrap(), VcpValue(0xd0))]
            .into(),
        ..Deviation::default()
    };
    let dell =
        Deviation { inputs: [("pbp".parse().unwrap(), VcpValue(0xf000))].into(), ..Deviation::default() };
    let selector = MonitorSelector { manufacturer: Some("GSM".parse().unwrap()), ..model("LG ULTRAGEAR") };
    assert_eq!(
        host.deviations,
        [
            NamedDeviation { name: name("my-lg"), monitors: vec![selector], deviation: lg },
            NamedDeviation { name: name("pbp-dell"), monitors: Vec::new(), deviation: dell },
        ]
    );
    assert_eq!(
        parse_host("deviations: {x: {monitors: {model: X}, inputs: {a: 1}}}").unwrap().monitors.len(),
        0
    );
}

#[test]
fn deviations_are_found_by_name_and_by_monitor() {
    let built_in = |text: &str| NamedDeviation {
        name: name(text),
        monitors: vec![model("LG ULTRAGEAR")],
        deviation: Deviation::default(),
    };
    let host = parse_host(HOST).unwrap().with_built_in([built_in("my-lg"), built_in("lg-f4")]);
    let names: Vec<&str> = host.deviations.iter().map(|each| each.name.as_str()).collect();
    assert_eq!(names, ["my-lg", "pbp-dell", "lg-f4"]);
    assert_eq!(host.deviation_for(&lg(), &place()).unwrap(), &host.deviations[0]);
    assert_eq!(host.deviation_named(&name("lg-f4")).unwrap(), &host.deviations[2]);
    assert_eq!(host.deviation_named(&name("none")), None);
    let other = EdidIdentity { model: Some("U2414H".to_owned()), ..lg() };
    assert_eq!(host.deviation_for(&other, &place()), None);
    assert_eq!(HostConfig::default().deviation_for(&lg(), &place()), None);
}

#[test]
fn says_what_is_wrong_and_where() {
    assert_eq!(
        host_mistakes(
            "\
monitor:
  desk: {model: X}
monitors:
  my desk: {model: X}
  a: {}
  b: LG
  c:
  1: {model: X}
deviations:
  empty:
    monitors: {model: X}
  wrong:
    feature: 0x100
    source_address: x
    inputs: {HDMI-1: 1, previous: 2, dp-1: 0x10000}
    read_first: yes
    reading: unreliabel
    timing: slow
  none: {}
  list: {monitors: [], inputs: {}}
"
        ),
        [
            "1:1: unknown section `monitor` (did you mean `monitors`? allowed here: `monitors`, `deviations`, \
             `gpu_families`, `kernel_lines` or `log`)",
            "4:3: `monitors`: expected a monitor's name, found `my desk` (letters, digits, `-` and `_`, a letter first, \
             at most 32 of them)",
            "5:6: `monitors.a`: nothing is said of the monitor (give `manufacturer`, `model`, `serial` or `connector`: \
             for example `{model: \"LG ULTRAGEAR\"}`)",
            "6:6: `monitors.b`: expected keys and values, found `LG` (for example `{model: \"LG ULTRAGEAR\"}`)",
            "7:3: `monitors.c` has no value (write one after the colon, or remove the key)",
            "8:3: `monitors`: expected a monitor's name, found the number 1 (letters, digits, `-` and `_`, a letter \
             first, at most 32 of them)",
            "11:5: `deviations.empty`: has no effect: nothing in it differs from the standard (for example \
             `{inputs: {hdmi-1: 0x90}}`)",
            "13:14: `deviations.wrong.feature`: `256` is no number from 0 to 0xff",
            "14:21: `deviations.wrong.source_address`: expected an address from 0 to 0xff, found `x` (for example \
             `0x11` or `17`)",
            "15:14: `deviations.wrong.inputs`: expected an input's name, found `HDMI-1` (did you mean `hdmi-1`?)",
            "15:25: `deviations.wrong.inputs`: `previous` is no name: it stands for the input that was active (take \
             another)",
            "15:44: `deviations.wrong.inputs.dp-1`: `65536` is no number from 0 to 0xffff",
            "16:17: `deviations.wrong.read_first`: expected `true` or `false`, found `yes` (write `true`)",
            "17:14: `deviations.wrong.reading`: expected `reliable`, `unreliable` or `write-only`, found `unreliabel` \
             (did you mean `unreliable`?)",
            "18:5: unknown key `timing` in `deviations.wrong` (allowed here: `monitors`, `feature`, `source_address`, \
             `read_first`, `save_settings`, `reading` or `inputs`)",
            "19:9: `deviations.none`: has no effect: nothing in it differs from the standard (for example \
             `{inputs: {hdmi-1: 0x90}}`)",
            "20:20: `deviations.list.monitors`: is applied to no monitor: the list is empty (fill it, or remove the \
             key)",
            "20:32: `deviations.list.inputs`: names no input (fill it, for example `{hdmi-1: 0x90}`, or remove the \
             key)",
        ]
    );
}

#[test]
fn shows_people_what_is_wrong() {
    for (name, text) in [
        ("host_without_section", "# later\n"),
        ("host_with_sections_of_a_guest", "hugepages: {}\n"),
        ("host_names_no_monitor", "monitors: {}\n"),
        ("host_with_two_of_a_name", "monitors:\n  desk: {model: X}\n  desk: {model: Y}\n"),
    ] {
        let rendered = parse_host(text).unwrap_err().render(Style::Plain);
        insta::with_settings!({ description => text, omit_expression => true, snapshot_path => "../snapshots" }, {
            insta::assert_snapshot!(name, rendered);
        });
    }
}

#[test]
fn names_of_a_guests_file_are_looked_up() {
    let host = parse_host(HOST).unwrap();
    assert_eq!(
        mistakes_on(
            &host,
            "\
switch_input:
  - {monitor: dsk, guest: hdmi-1, deviation: my-gl}
  - {monitor: DP-1, guest: hdmi1, host: displayport-2}
  - {monitor: wall, guest: scart, deviation: my-lg, host: dp-1}
  - {monitor: tv, guest: hdmi-1, deviation: huawei}
  - {monitor: {model: X}, guest: pbp}
  - {monitor: {model: Y}, guest: pbp, deviation: pbp-dell}
  - {monitor: {model: Z}, guest: scart}
"
        ),
        [
            "2:15: host.yaml names no monitor `dsk` (did you mean `desk`? named there: `desk` or `tv`)",
            "2:46: no deviation is called `my-gl` (did you mean `my-lg`? known: `my-lg` or `pbp-dell`)",
            "3:15: host.yaml names no monitor `DP-1` (did you mean `monitor: {connector: DP-1}`?)",
            "3:28: no input is called `hdmi1` (did you mean `hdmi-1`?)",
            "3:41: no input is called `displayport-2` (did you mean `dp-2`?)",
            "4:15: host.yaml names no monitor `wall` (named there: `desk` or `tv`; or select it here: \
             `monitor: {model: \"LG ULTRAGEAR\"}`)",
            "4:28: no input is called `scart` (known: `dp-1` or `hdmi-1`; or the input's value, for example `0x11`)",
            "5:45: no deviation is called `huawei` (known: `my-lg` or `pbp-dell`; others are described in host.yaml)",
            "6:34: no input is called `pbp` (that of `pbp-dell` is: add `deviation: pbp-dell`)",
            "8:34: no input is called `scart` (known: `component-1`, `component-2`, `component-3`, `composite-1`, \
             `composite-2`, `dp-1`, `dp-2`, `dvi-1`, `dvi-2`, `hdmi-1`, `hdmi-2`, `s-video-1`, `s-video-2`, `tuner-1`, \
             `tuner-2`, `tuner-3`, `usb-c`, `vga-1` or `vga-2`; or the input's value, for example `0x11`)",
        ]
    );
    assert_eq!(
        mistakes_on(
            &HostConfig::default(),
            "switch_input:\n  {monitor: desk, guest: hdmi-1, deviation: lg}\n"
        ),
        [
            "2:13: host.yaml names no monitor `desk` (name it there, or select it here: \
             `monitor: {model: \"LG ULTRAGEAR\"}`)",
            "2:45: no deviation is called `lg` (describe it in host.yaml, or remove the key)",
        ]
    );
}

#[test]
fn what_a_deviation_does_not_allow_is_told() {
    let host = parse_host(HOST).unwrap();
    assert_eq!(
        mistakes_on(
            &host,
            "\
switch_input:
  - {monitor: desk, guest: hdmi-1, deviation: my-lg}
  - {monitor: tv, guest: hdmi-1, host: 0x90, deviation: my-lg, set: {0xF4: 1}}
  - {monitor: {serial: 123ABC, model: lg ultragear}, guest: usb-c}
"
        ),
        [
            "2:5: this monitor does not tell which input was active (name the host's input, for example `host: dp-1`)",
            "3:40: this is the guest's input (name the host's, or `previous`)",
            "3:69: 0xf4 is the input of this monitor (name it with `guest` and `host`)",
            "4:15: this is the monitor of entry 1 too: model lg ultragear, serial 123ABC (keep one of the two)",
        ]
    );
}

#[test]
fn inputs_have_the_values_of_the_deviation() {
    let host = parse_host(HOST).unwrap();
    let text = "switch_input: {monitor: desk, guest: hdmi-1, host: dp-1}";
    let section = parse(text).unwrap().switch_input.unwrap();
    let resolved = section.resolve(&host).unwrap();
    let [switch] = resolved.as_slice() else { panic!("{resolved:?}") };
    assert_eq!((switch.number, switch.deviation), (0, None));
    assert_eq!(switch.selector, &host.monitors[&"desk".parse().unwrap()]);
    assert_eq!(switch.switch.guest, Some(input("hdmi-1")));
    let values = |guest, host| InputValues { guest: Some(VcpValue(guest)), host: Some(VcpValue(host)) };
    assert_eq!(switch.input_values(&Deviation::default()), Ok(values(0x11, 0x0f)));
    assert_eq!(switch.input_values(&host.deviations[0].deviation), Ok(values(0x90, 0xd0)));
    let mut other = host.deviations[0].deviation.clone();
    other.inputs.remove(&"dp-1".parse().unwrap());
    let unresolved = switch.input_values(&other).unwrap_err();
    assert_eq!(unresolved[0].path.steps().collect::<Vec<_>>(), ["switch_input", "0", "host"]);
}

#[test]
fn an_input_of_a_deviation_is_no_number_that_is_another_in_hexadecimal() {
    for (written, help) in [
        ("12", "write `0x12` or `hdmi-2`, or `0x0c` if that is meant"),
        ("0f", "write `0x0f` or `dp-1`"),
        ("90", "write `0x90`, or `0x5a` if that is meant"),
        ("\"d0\"", "write `0xd0`"),
    ] {
        let mistakes = host_mistakes(&format!("deviations: {{mine: {{inputs: {{hdmi-2: {written}}}}}}}\n"));
        assert!(
            mistakes.len() == 1 && mistakes[0].ends_with(&format!("({help})")),
            "{written}: {mistakes:?}"
        );
    }
    for written in ["0x0c", "0x90", "15", "6"] {
        assert!(
            parse_host(&format!("deviations: {{mine: {{inputs: {{hdmi-2: {written}}}}}}}\n")).is_ok(),
            "{written}"
        );
    }
}

#[test]
fn an_input_whose_value_differs_among_a_makers_monitors_has_to_be_given() {
    let host = HostConfig::default().with_built_in(crate::monitor::built_in_deviations());
    let mistakes = |input: &str| {
        mistakes_on(
            &host,
            &format!("switch_input: {{monitor: {{model: X}}, deviation: samsung, guest: {input}}}\n"),
        )
    };
    assert_eq!(
        mistakes("dp-1"),
        [
            "1:64: the value of `dp-1` differs among these monitors, and is not known of this one (write the monitor's own \
          value: `vfio-hook monitors learn` shows it while you switch with its buttons)"
        ]
    );
    for known in ["hdmi-1", "hdmi-2", "0x09"] {
        assert_eq!(mistakes(known), [""; 0], "{known}");
    }
}

#[test]
fn the_words_of_guests_files_help_here_too() {
    let models = "`lspci -nn` shows them in brackets: a model has its vendor, a colon and its own number";
    let what = "models such as \"1002:7550\", \"1002:73a0-73bf\" or \"1002:*\"";
    let ids = |ids: &str| host_mistakes(&format!("gpu_families: {{x: {{ids: {ids}, reboot: fine}}}}\n"));
    assert_eq!(
        ids("[\"1002\", \"navi\"]"),
        [
            format!(
                "1:26: `gpu_families.x.ids`: expected {what}, found `1002` (all models of that vendor are \"1002:*\")"
            ),
            format!("1:34: `gpu_families.x.ids`: expected {what}, found `navi` ({models})"),
        ]
    );
    assert_eq!(
        host_mistakes("monitors: {desk: {bus: 5}}\n"),
        [
            "1:19: unknown key `bus` in `monitors.desk` (numbers of displays and buses change: give `manufacturer`, \
             `model`, `serial` or `connector`, which `vfio-hook monitors` shows)"
        ]
    );
}
