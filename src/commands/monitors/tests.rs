//! What people see of monitors, on hosts in folders.

use std::fs;
use std::time::Duration;

use tempfile::TempDir;

use super::learn::{Person, learn, lines, selector};
use super::*;
use crate::host::manifest::lay_out;
use crate::host::simulated::{Faults, SimulatedMonitor};
use crate::host::{I2cBus, MonitorsFound};

fn machine(monitors: &[SimulatedMonitor]) -> (TempDir, Host) {
    let folder = tempfile::tempdir().unwrap();
    lay_out("/sys/module/i2c_dev/initstate = live\n", folder.path()).unwrap();
    monitors.iter().for_each(|monitor| lay_out(&monitor.manifest(), folder.path()).unwrap());
    let host = Host::simulated(folder.path(), &Faults::default());
    (folder, host)
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

fn lg() -> SimulatedMonitor {
    SimulatedMonitor::lg("0000:03:00.0", "DP-1", 7)
}

fn samsung() -> SimulatedMonitor {
    let mut samsung = SimulatedMonitor::lg("0000:01:00.0", "HDMI-A-1", 12);
    samsung.identity.manufacturer = "SAM".parse().unwrap();
    samsung.identity.model = Some("U32H750".to_owned());
    samsung.identity.serial = None;
    samsung.input = crate::monitor::VcpValue(0x05);
    samsung
}

fn nameless() -> SimulatedMonitor {
    let mut nameless = SimulatedMonitor::lg("0000:01:00.0", "DVI-D-1", 13);
    nameless.identity.serial_number = 0;
    (nameless.identity.model, nameless.identity.serial) = (None, None);
    nameless
}

fn found(host: &Host) -> MonitorsFound {
    host.monitors(soon()).unwrap()
}

#[test]
fn shows_all_of_them_with_their_inputs_and_problems() {
    let (folder, host) = machine(&[lg(), samsung(), nameless()]);
    lay_out("/simulated/i2c/i2c-13/silent = 99\n", folder.path()).unwrap();
    let text = |host: &Host| list::lines(&list::view(host, soon()).unwrap()).join("\n");
    insta::assert_snapshot!(text(&host), @"
    CONNECTOR  BUS     MAKER  MODEL         SERIAL        INPUT
    DVI-D-1    i2c-13  GSM    -             -             ?
    HDMI-A-1   i2c-12  SAM    U32H750       91347         hdmi-1 (0x05)
    DP-1       i2c-7   GSM    LG ULTRAGEAR  104NTAB1X234  dp-1 (0x0f)
    warning: failed to read input of GSM 5bbf on DVI-D-1 over i2c-13: the monitor does not answer (No such device or address (os error 6))
    help: many monitors answer only on the input that is active; DDC/CI can also be turned off in the monitor's own menu
    ");
    fs::remove_dir_all(folder.path().join("sys/module")).unwrap();
    insta::assert_snapshot!(text(&host), @"
    CONNECTOR  BUS     MAKER  MODEL         SERIAL        INPUT
    DVI-D-1    i2c-13  GSM    -             -             ?
    HDMI-A-1   i2c-12  SAM    U32H750       91347         ?
    DP-1       i2c-7   GSM    LG ULTRAGEAR  104NTAB1X234  ?
    warning: no i2c bus can be opened: the kernel module i2c-dev is not loaded
    help: load it: modprobe i2c-dev
    ");
    let (_folder, empty) = machine(&[]);
    assert_eq!(text(&empty), "no monitor was found");
}

#[test]
fn programs_read_the_same() {
    let (_folder, host) = machine(&[samsung()]);
    let json = serde_json::to_string_pretty(&list::view(&host, soon()).unwrap()).unwrap();
    insta::assert_snapshot!(json, @r#"
    {
      "monitors": [
        {
          "connector": "HDMI-A-1",
          "bus": "i2c-12",
          "manufacturer": "SAM",
          "model": "U32H750",
          "serial": "91347",
          "input": "hdmi-1",
          "value": "0x05"
        }
      ],
      "problems": []
    }
    "#);
}

#[test]
fn a_monitor_is_meant_by_what_is_known_of_it() {
    let (_folder, host) = machine(&[lg(), samsung(), nameless()]);
    let found = found(&host);
    let chosen = |wanted: &str| choose::one(&host, &found, Some(wanted)).unwrap().bus;
    for wanted in ["DP-1", "dp-1", "LG ULTRAGEAR", "lg", "104NTAB1X234", "104"] {
        assert_eq!(chosen(wanted), I2cBus(7), "{wanted}");
    }
    for wanted in ["HDMI", "u32h750"] {
        assert_eq!(chosen(wanted), I2cBus(12), "{wanted}");
    }
    assert_eq!(chosen("DVI"), I2cBus(13));
    let refused = |wanted: Option<&str>| choose::one(&host, &found, wanted).unwrap_err().to_string();
    insta::assert_snapshot!(refused(Some("BenQ")), @"
    no monitor fits `BenQ`
    help: there is GSM 5bbf on DVI-D-1, U32H750 on HDMI-A-1 (serial 91347), LG ULTRAGEAR on DP-1 (serial 104NTAB1X234)
    ");
    insta::assert_snapshot!(refused(Some("d")), @"
    2 monitors fit `d`
    help: there is GSM 5bbf on DVI-D-1, LG ULTRAGEAR on DP-1 (serial 104NTAB1X234)
    ");
    insta::assert_snapshot!(refused(None), @"
    there are 3 monitors: say which
    help: there is GSM 5bbf on DVI-D-1, U32H750 on HDMI-A-1 (serial 91347), LG ULTRAGEAR on DP-1 (serial 104NTAB1X234)
    ");
}

#[test]
fn switches_by_name_and_by_number() {
    let (folder, mut host) = machine(&[lg(), samsung()]);
    let mut set = |monitor: &str, input: &str| {
        set::carry_out(&mut host, monitor, input, soon()).map(|switched| set::line(&switched))
    };
    assert_eq!(set("DP-1", "hdmi-1").unwrap(), "LG ULTRAGEAR on DP-1: dp-1 (0x0f) -> hdmi-1 (0x11)");
    assert_eq!(set("DP-1", "0x77").unwrap(), "LG ULTRAGEAR on DP-1: hdmi-1 (0x11) -> 0x77");
    assert_eq!(set("u32", "HDMI-2").unwrap(), "U32H750 on HDMI-A-1: hdmi-1 (0x05) -> hdmi-2 (0x06)");
    let value =
        |bus: &str| fs::read_to_string(folder.path().join(format!("simulated/i2c/{bus}/features/0x60")));
    assert_eq!((value("i2c-7").unwrap().trim(), value("i2c-12").unwrap().trim()), ("0x77", "0x06"));
    insta::assert_snapshot!(set("DP-1", "hdmi").unwrap_err(), @"
    no input is called `hdmi`
    help: one of vga-1, vga-2, dvi-1, dvi-2, composite-1, composite-2, s-video-1, s-video-2, tuner-1, tuner-2, tuner-3, component-1, component-2, component-3, dp-1, dp-2, hdmi-1, hdmi-2, usb-c, or a number such as 0x11
    ");
    insta::assert_snapshot!(set("DP-1", "12").unwrap_err(), @"
    `12` is 0x0c in decimal, and 0x12, hdmi-2, in hexadecimal
    help: write `0x12` or `hdmi-2`, or `0x0c` if that is meant
    ");
    insta::assert_snapshot!(set("DP-1", "0f").unwrap_err(), @"
    `0f` is no number: one in hexadecimal begins with `0x`
    help: write `0x0f` or `dp-1`
    ");
    insta::assert_snapshot!(set("DP-1", "0x12345").unwrap_err(), @"`0x12345` is no number from 0 to 0xffff");
}

/// A lesson in which things happen to the folder while the person waits.
fn lesson(monitors: &[SimulatedMonitor], steps: &[(&str, Person)]) -> String {
    let (folder, host) = machine(monitors);
    let found = found(&host);
    let mut steps = steps.iter();
    let lesson = learn(&host, &found, &found.monitors[0], soon(), &mut || {
        let Some((manifest, person)) = steps.next() else { return Person::PressedEnter };
        lay_out(manifest, folder.path()).unwrap();
        *person
    });
    lines(&lesson.unwrap()).join("\n")
}

#[test]
fn learns_what_to_write() {
    let hdmi_1 = "/simulated/i2c/i2c-7/features/0x60 = 0x11\n";
    let hdmi_2 = "/simulated/i2c/i2c-7/features/0x60 = 0x12\n";
    let maker = "/simulated/i2c/i2c-7/features/0x60 = 0x90\n";
    let asleep = "/simulated/i2c/i2c-7/active_input = 0\n";
    // The menu steps over the first to the second.
    insta::assert_snapshot!(
        lesson(&[lg()], &[("", Person::Waits), (hdmi_1, Person::Waits), (hdmi_2, Person::Waits), ("", Person::Waits)]),
        @r#"
    LG ULTRAGEAR on DP-1: dp-1 (0x0f) -> hdmi-2 (0x12)

    switch_input:
      - monitor: { model: "LG ULTRAGEAR" }
        guest: hdmi-2
        host: dp-1
    "#
    );
    insta::assert_snapshot!(lesson(&[lg()], &[(maker, Person::PressedEnter)]), @r#"
    LG ULTRAGEAR on DP-1: dp-1 (0x0f) -> 0x90

    switch_input:
      - monitor: { model: "LG ULTRAGEAR" }
        guest: 0x90
        host: dp-1
    "#);
    insta::assert_snapshot!(lesson(&[lg()], &[]), @"
    LG ULTRAGEAR on DP-1: dp-1 (0x0f), and it did not change
    help: it may tell the same for all inputs, or switch by a feature of its maker's
    ");
    insta::assert_snapshot!(lesson(&[lg()], &[(asleep, Person::Waits)]), @"
    LG ULTRAGEAR on DP-1: dp-1 (0x0f), and then nothing: failed to read input of LG ULTRAGEAR on DP-1 over i2c-7: the monitor does not answer (No such device or address (os error 6))
    help: it does not answer while another input is shown; try names with `vfio-hook monitors set`
    ");
}

#[test]
fn writes_down_what_tells_a_monitor_from_the_others() {
    let selectors = |monitors: &[SimulatedMonitor]| -> Vec<String> {
        let (_folder, host) = machine(monitors);
        let found = found(&host);
        found.monitors.iter().map(|monitor| selector(&found, monitor)).collect()
    };
    let mut brother = SimulatedMonitor::lg("0000:03:00.0", "DP-2", 8);
    brother.identity.serial = Some("A \"1\"".to_owned());
    assert_eq!(selectors(&[lg(), samsung()]), ["model: \"U32H750\"", "model: \"LG ULTRAGEAR\""]);
    assert_eq!(selectors(&[lg(), brother]), ["serial: \"104NTAB1X234\"", "serial: \"A \\\"1\\\"\""]);
    let twin = SimulatedMonitor::lg("0000:03:00.0", "DP-2", 8);
    assert_eq!(selectors(&[lg(), twin]), ["connector: DP-1", "connector: DP-2"]);
    let mut alone = nameless();
    alone.connector = None;
    assert_eq!(selectors(&[alone]), ["manufacturer: GSM"]);
}
