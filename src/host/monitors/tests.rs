//! Finding monitors and talking to them, on hosts in folders.

use std::fs;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::host::i2c_dev::I2cDev;
use crate::host::manifest::lay_out;
use crate::host::simulated::{Faults, SimulatedMonitor};
use crate::monitor::{
    ExtraStep, FeatureControl, MonitorKey, MonitorPlace, Reading, SourceAddress, VcpFeature, make_edid,
};

/// Buses of a mainboard that answer at 0x50 and 0x37, as memory modules do; nothing may be said on them.
const MAINBOARD: &str = "
/sys/module/i2c_dev/initstate = live
/sys/bus/pci/devices/0000:00:14.0/class = 0x0c0500
/sys/devices/pci0000:00/0000:00:14.0/i2c-0/name = SMBus PIIX4 adapter port 0 at 0b00
/sys/bus/i2c/devices/i2c-0 -> ../../../devices/pci0000:00/0000:00:14.0/i2c-0
/sys/bus/pci/devices/0000:00:15.0/class = 0x0c8000
/sys/devices/pci0000:00/0000:00:15.0/i2c-1/name = Synopsys DesignWare I2C adapter
/sys/bus/i2c/devices/i2c-1 -> ../../../devices/pci0000:00/0000:00:15.0/i2c-1
/sys/devices/pci0000:00/0000:03:00.0/i2c-2/name = AMDGPU SMU 0
/sys/bus/i2c/devices/i2c-2 -> ../../../devices/pci0000:00/0000:03:00.0/i2c-2
/sys/devices/pci0000:00/0000:03:00.0/i2c-3/name = an adapter that cannot speak i2c
/sys/bus/i2c/devices/i2c-3 -> ../../../devices/pci0000:00/0000:03:00.0/i2c-3
/simulated/i2c/i2c-3/smbus_only =
/sys/devices/pci0000:00/0000:03:00.0/i2c-30/name = AMDGPU DM i2c OEM bus
/sys/bus/i2c/devices/i2c-30 -> ../../../devices/pci0000:00/0000:03:00.0/i2c-30
/sys/bus/pci/devices/0000:41:00.0/class = 0x030000
/sys/bus/pci/devices/0000:41:00.0/driver -> ../../drivers/nouveau
/sys/devices/pci0000:00/0000:41:00.0/i2c-31/name = sor-0002-0f42
/sys/bus/i2c/devices/i2c-31 -> ../../../devices/pci0000:00/0000:41:00.0/i2c-31
/sys/bus/pci/devices/0000:00:1f.4/class = 0x0c0500
/sys/devices/pci0000:00/0000:00:1f.4/i2c-4/name = a name nobody knows
/sys/bus/i2c/devices/i2c-4 -> ../../../devices/pci0000:00/0000:00:1f.4/i2c-4
";
const UNTOUCHED: [u32; 7] = [0, 1, 2, 3, 4, 30, 31];

struct Machine(TempDir);

impl Machine {
    fn with(monitors: &[SimulatedMonitor]) -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        machine.add(MAINBOARD);
        let edid = crate::host::simulated::digits(&make_edid(&lg().identity));
        for bus in UNTOUCHED {
            let folder = format!("/simulated/i2c/i2c-{bus}");
            let lines = format!("{folder}/log =\n{folder}/features/0x60 = 1\n{folder}/edid = {edid}\n");
            machine.add(&lines);
        }
        monitors.iter().for_each(|monitor| machine.add(&monitor.manifest()));
        machine
    }

    fn add(&self, manifest: &str) {
        lay_out(manifest, self.0.path()).unwrap();
    }

    fn host(&self) -> Host {
        Host::simulated(self.0.path(), &Faults::default())
    }

    fn remove(&self, path: &str) {
        let path = self.0.path().join(path);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.0.path().join(path)).unwrap().trim().to_owned()
    }

    fn found(&self) -> MonitorsFound {
        let found = self.host().monitors(soon()).unwrap();
        for bus in UNTOUCHED {
            assert_eq!(self.text(&format!("simulated/i2c/i2c-{bus}/log")), "", "i2c-{bus} was touched");
        }
        found
    }

    fn get(&self, feature: &MonitorFeature) -> Result<VcpValue, HostError> {
        let mut answers = self.host().vcp_features(std::slice::from_ref(feature), soon());
        assert_eq!(answers.len(), 1);
        answers.remove(0)
    }

    fn set(&self, feature: &MonitorFeature, value: u16) -> Result<(), HostError> {
        self.host().set_vcp_features(&[(feature.clone(), VcpValue(value))], soon()).remove(0)
    }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

fn lg() -> SimulatedMonitor {
    SimulatedMonitor::lg("0000:03:00.0", "DP-1", 7)
}

fn dell() -> SimulatedMonitor {
    let mut dell = SimulatedMonitor::lg("0000:03:00.0", "HDMI-A-1", 8);
    dell.identity = EdidOf("DEL", "DELL U2720Q", 4711).into();
    dell.input = VcpValue(0x11);
    dell
}

#[test]
fn a_test_can_fail_and_kill_what_is_set() {
    let machine = Machine::with(&[lg()]);
    let faults = Faults::default();
    let mut host = Host::simulated(machine.0.path(), &faults);
    let orders = [(input_of(&lg()), VcpValue(0x11))];
    let value = || machine.text("simulated/i2c/i2c-7/features/0x60");

    faults.refuse("/simulated/i2c/i2c-7/features/0x60", nix::errno::Errno::EIO);
    assert!(host.set_vcp_features(&orders, soon())[0].as_ref().unwrap_err().is_unanswered());
    assert_eq!((value().as_str(), faults.writes()), ("0x0f", 3), "a write that fails is tried three times");
    faults.clear();

    // The one that waits is hit by what happens to the thread of the bus.
    faults.panic_at_write(1);
    let killed =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| host.set_vcp_features(&orders, soon())));
    assert!(killed.unwrap_err().downcast_ref::<String>().unwrap().starts_with("simulated panic"));
    faults.clear();
    assert_eq!(value(), "0x0f");

    faults.fail_write(1);
    assert!(host.set_vcp_features(&orders, soon())[0].is_ok(), "one failure is not the end");
    assert_eq!(value(), "0x11");
}

struct EdidOf(&'static str, &'static str, u32);

impl From<EdidOf> for crate::monitor::EdidIdentity {
    fn from(EdidOf(maker, model, serial_number): EdidOf) -> Self {
        let manufacturer = maker.parse().unwrap();
        Self { manufacturer, product: 0x41b3, serial_number, model: Some(model.to_owned()), serial: None }
    }
}

fn key(monitor: &SimulatedMonitor) -> MonitorKey {
    let place = MonitorPlace {
        card: Some(monitor.card),
        connector: monitor.connector.clone(),
        adapter: monitor.adapter.clone(),
    };
    MonitorKey { identity: monitor.identity.clone(), place }
}

fn input_of(monitor: &SimulatedMonitor) -> MonitorFeature {
    MonitorFeature { monitor: key(monitor), control: FeatureControl::default() }
}

/// A driver that tells no connector's bus, as NVIDIA's.
fn nvidia() -> SimulatedMonitor {
    let mut monitor = SimulatedMonitor::lg("0000:01:00.0", "DP-3", 11);
    monitor.adapter = "NVIDIA i2c adapter 3 at 1:00.0".to_owned();
    monitor.identity.serial_number = 5;
    monitor
}

const NVIDIA_CONNECTOR: &str = "sys/devices/pci0000:00/0000:01:00.0/drm/card1/card1-DP-3";

#[test]
fn finds_what_connectors_and_adapters_tell_and_touches_nothing_else() {
    let machine = Machine::with(&[lg(), dell(), nvidia()]);
    machine.remove(&format!("{NVIDIA_CONNECTOR}/ddc"));
    let found = machine.found();
    assert_eq!(found.problems, []);
    let all: Vec<_> = found.monitors.iter().map(|found| (found.key.clone(), found.bus)).collect();
    assert_eq!(all, [(key(&lg()), I2cBus(7)), (key(&dell()), I2cBus(8)), (key(&nvidia()), I2cBus(11))]);
}

#[test]
fn an_adapter_without_a_connector_is_a_place_too() {
    let mut alone = nvidia();
    alone.connector = None;
    let machine = Machine::with(&[alone.clone()]);
    assert_eq!(machine.found().monitors, [MonitorFound { key: key(&alone), bus: I2cBus(11) }]);
    assert_eq!(key(&alone).to_string(), "LG ULTRAGEAR on NVIDIA i2c adapter 3 at 1:00.0");
    assert_eq!(machine.get(&input_of(&alone)).unwrap(), VcpValue(0x0f));
}

#[test]
fn a_displayport_has_its_own_bus_before_that_of_the_pins() {
    let machine = Machine::with(&[lg()]);
    // The link leads to bus 7; bus 9 lies below the connector, and the monitor is there.
    machine.add(
        "/sys/devices/pci0000:00/0000:03:00.0/drm/card3/card3-DP-1/drm_dp_aux0/i2c-9/name = aux\n\
         /sys/bus/i2c/devices/i2c-9 -> ../../../devices/pci0000:00/0000:03:00.0/drm/card3/card3-DP-1/drm_dp_aux0/i2c-9\n",
    );
    fs::rename(machine.0.path().join("simulated/i2c/i2c-7"), machine.0.path().join("simulated/i2c/i2c-9"))
        .unwrap();
    machine.add("/simulated/i2c/i2c-7/log =\n");
    assert_eq!(machine.found().monitors[0].bus, I2cBus(9));
    assert_eq!(machine.get(&input_of(&lg())).unwrap(), VcpValue(0x0f), "found by who it is");
}

#[test]
fn reads_the_edid_where_the_kernel_has_none() {
    let machine = Machine::with(&[lg()]);
    machine.add("/sys/devices/pci0000:00/0000:03:00.0/drm/card3/card3-DP-1/edid =\n");
    assert_eq!(machine.found().monitors, [MonitorFound { key: key(&lg()), bus: I2cBus(7) }]);
    machine.remove("simulated/i2c/i2c-7/edid");
    insta::assert_snapshot!(problems(&machine), @"
    who is connected to DP-1 is not known: its EDID cannot be used: it is empty
    help: -
    ");
}

fn problems(machine: &Machine) -> String {
    let found = machine.found();
    let texts =
        found.problems.iter().map(|problem| format!("{problem}\nhelp: {}", problem.help().unwrap_or("-")));
    texts.collect::<Vec<_>>().join("\n")
}

#[test]
fn says_that_the_module_is_missing() {
    let machine = Machine::with(&[lg(), nvidia()]);
    machine.remove(&format!("{NVIDIA_CONNECTOR}/ddc"));
    let mut host = machine.host();
    assert_eq!(host.unload_i2c_dev().unwrap(), crate::host::Unloaded::Gone);
    assert_eq!(host.i2c_dev(), I2cDev::Absent);
    assert!(!machine.0.path().join("sys/module/i2c_dev").exists());
    insta::assert_snapshot!(problems(&machine), @"
    LG ULTRAGEAR is connected to DP-3, but no i2c bus is known that leads to it
    help: drivers that are not part of the kernel may offer no bus for it; NVIDIA's may need NVreg_RegistryDwords=RMUseSwI2c=0x01;RMI2cSpeed=100
    no i2c bus can be opened: the kernel module i2c-dev is not loaded
    help: load it: modprobe i2c-dev
    ");
    let error = machine.get(&input_of(&lg())).unwrap_err();
    assert!(!error.is_absent() && !error.is_unanswered());
    assert_eq!(error.help(), Some("load it: modprobe i2c-dev"));
    host.load_i2c_dev(soon()).unwrap();
    assert_eq!(host.i2c_dev(), I2cDev::Loaded);
    assert_eq!(machine.get(&input_of(&lg())).unwrap(), VcpValue(0x0f));
}

#[test]
fn says_what_may_not_be_opened() {
    let machine = Machine::with(&[lg(), dell()]);
    machine.add("/simulated/i2c/i2c-{7..8}/not_permitted =\n");
    insta::assert_snapshot!(problems(&machine), @"
    no permission to open /dev/i2c-7, /dev/i2c-8
    help: run it as root, or join the group i2c
    ");
    assert_eq!(machine.found().monitors.len(), 2, "the kernel tells who they are");
    insta::assert_snapshot!(machine.get(&input_of(&lg())).unwrap_err(), @"failed to read input of LG ULTRAGEAR on DP-1 over i2c-7: no permission to open it");
}

#[test]
fn a_bus_that_hangs_costs_the_others_nothing() {
    let machine = Machine::with(&[lg(), dell()]);
    machine.add("/simulated/i2c/i2c-8/hangs =\n");
    let (host, begin) = (machine.host(), Instant::now());
    let deadline = Deadline::after(Duration::from_millis(400));
    let answers = host.vcp_features(&[input_of(&dell()), input_of(&lg())], deadline);
    assert_eq!(answers[1].as_ref().unwrap(), &VcpValue(0x0f));
    let error = answers[0].as_ref().unwrap_err();
    assert!(error.is_unanswered());
    insta::assert_snapshot!(error, @"failed to read input of DELL U2720Q on HDMI-A-1 over i2c-8: the bus hangs: the kernel does not come back from it");
    assert!(begin.elapsed() < Duration::from_secs(2));
    // It is not touched again as long as it does.
    let again = Instant::now();
    assert!(host.vcp_features(&[input_of(&dell())], soon())[0].is_err());
    assert!(again.elapsed() < Duration::from_secs(1));
}

#[test]
fn reads_and_sets_in_the_order_given() {
    let machine = Machine::with(&[lg(), dell()]);
    machine.add("/simulated/i2c/i2c-7/features/0x10 = 0x0132\n");
    let brightness =
        MonitorFeature { control: FeatureControl::standard(VcpFeature(0x10)), ..input_of(&lg()) };
    let (lg, dell) = (input_of(&lg()), input_of(&dell()));
    let orders = [(lg.clone(), 0x11), (dell.clone(), 0x0f), (lg.clone(), 0x12), (brightness.clone(), 0x64)];
    let orders = orders.map(|(feature, value)| (feature, VcpValue(value)));
    assert!(machine.host().set_vcp_features(&orders, soon()).iter().all(Result::is_ok));
    let answers = machine.host().vcp_features(&[dell, brightness, lg], soon());
    let answers: Vec<u16> = answers.into_iter().map(|answer| answer.unwrap().0).collect();
    assert_eq!(answers, [0x0f, 0x64, 0x12]);
}

#[test]
fn asks_again_when_that_can_help() {
    let machine = Machine::with(&[lg()]);
    let input = input_of(&lg());
    for (fault, times) in [("silent", 2), ("nulls", 9), ("garbles", 9)] {
        machine.add(&format!("/simulated/i2c/i2c-7/{fault} = {times}\n"));
        assert_eq!(machine.get(&input).unwrap(), VcpValue(0x0f), "{fault}");
    }
    machine.add("/simulated/i2c/i2c-7/silent = 2\n");
    machine.set(&input, 0x11).unwrap();
    assert_eq!(machine.text("simulated/i2c/i2c-7/features/0x60"), "0x11");
}

#[test]
fn says_how_a_monitor_does_not_answer() {
    let machine = Machine::with(&[lg()]);
    let (input, unknown) = (input_of(&lg()), FeatureControl::standard(VcpFeature(0xe7)));
    let mut texts = Vec::new();
    for (fault, times) in [("silent", 99), ("nulls", 10), ("garbles", 10)] {
        machine.add(&format!("/simulated/i2c/i2c-7/{fault} = {times}\n"));
        let error = machine.get(&input).unwrap_err();
        assert_eq!((error.is_unanswered(), error.is_absent()), (fault != "nulls", false), "{error}");
        texts.push(format!("{error}\nhelp: {}", error.help().unwrap_or("-")));
        machine.add(&format!("/simulated/i2c/i2c-7/{fault} = 0\n"));
    }
    let error = machine.get(&MonitorFeature { control: unknown, ..input.clone() }).unwrap_err();
    assert!(error.is_unreadable_feature());
    texts.push(error.to_string());
    let control = FeatureControl { reading: Reading::WriteOnly, ..unknown };
    let error = machine.get(&MonitorFeature { control, ..input }).unwrap_err();
    assert!(error.is_unreadable_feature());
    texts.push(error.to_string());
    insta::assert_snapshot!(texts.join("\n"), @"
    failed to read input of LG ULTRAGEAR on DP-1 over i2c-7: the monitor does not answer (No such device or address (os error 6))
    help: many monitors answer only on the input that is active; DDC/CI can also be turned off in the monitor's own menu
    failed to read input of LG ULTRAGEAR on DP-1 over i2c-7: the monitor answers, but never with a value
    help: DDC/CI can be turned off in the monitor's own menu; some monitors switch their inputs by a feature of their maker's
    failed to read input of LG ULTRAGEAR on DP-1 over i2c-7: the answer's checksum is wrong, even when asked again
    help: many monitors answer only on the input that is active; DDC/CI can also be turned off in the monitor's own menu
    failed to read feature 0xe7 of LG ULTRAGEAR on DP-1 over i2c-7: the monitor does not know this feature
    failed to read feature 0xe7 of LG ULTRAGEAR on DP-1: this feature can be set but not read on this monitor
    ");
}

#[test]
fn an_lg_is_told_as_it_wants_it() {
    let machine = Machine::with(&[lg()]);
    machine.add("/simulated/i2c/i2c-7/features/0xf4@0x50 = 0xd0\n/simulated/i2c/i2c-7/reads_first =\n");
    let mut control = FeatureControl {
        source_address: SourceAddress(0x50),
        save_settings: ExtraStep::Make,
        reading: Reading::WriteOnly,
        ..FeatureControl::standard(VcpFeature(0xf4))
    };
    let feature = |control| MonitorFeature { control, ..input_of(&lg()) };
    let value = || machine.text("simulated/i2c/i2c-7/features/0xf4@0x50");
    machine.set(&feature(control), 0x90).unwrap();
    assert_eq!(value(), "0xd0", "it ignores what comes first on a handle");
    control.read_first = ExtraStep::Make;
    machine.set(&feature(control), 0x90).unwrap();
    assert_eq!(value(), "0x90");
    assert_eq!(machine.text("simulated/i2c/i2c-7/saves"), "2");
}

#[test]
fn answers_only_on_its_active_input() {
    let machine = Machine::with(&[lg()]);
    machine.add("/simulated/i2c/i2c-7/active_input = 0x0f\n");
    machine.set(&input_of(&lg()), 0x11).unwrap();
    assert!(machine.get(&input_of(&lg())).unwrap_err().is_unanswered());
    machine.add("/simulated/i2c/i2c-7/active_input = 0x11\n/simulated/i2c/i2c-7/bounces_to = 0x0f\n");
    machine.set(&input_of(&lg()), 0x12).unwrap();
    assert_eq!(machine.text("simulated/i2c/i2c-7/features/0x60"), "0x0f");
}

#[test]
fn a_monitor_is_found_again_under_another_number() {
    let machine = Machine::with(&[SimulatedMonitor { bus: I2cBus(5), ..lg() }]);
    assert_eq!(machine.get(&input_of(&lg())).unwrap(), VcpValue(0x0f));
    let moved = SimulatedMonitor { bus: I2cBus(6), ..SimulatedMonitor::lg("0000:03:00.0", "DP-2", 6) };
    let machine = Machine::with(&[moved]);
    assert_eq!(machine.get(&input_of(&lg())).unwrap(), VcpValue(0x0f), "also on another connector");
}

#[test]
fn of_twins_the_one_at_the_place_is_meant() {
    let mut twin = SimulatedMonitor::lg("0000:03:00.0", "DP-2", 8);
    twin.input = VcpValue(0x11);
    let mut third = SimulatedMonitor::lg("0000:03:00.0", "DP-3", 9);
    third.input = VcpValue(0x12);
    let machine = Machine::with(&[lg(), twin.clone()]);
    assert_eq!(machine.get(&input_of(&twin)).unwrap(), VcpValue(0x11));
    assert_eq!(machine.get(&input_of(&lg())).unwrap(), VcpValue(0x0f));
    assert!(machine.get(&input_of(&third)).unwrap_err().is_absent(), "none of the two is the third");
}

#[test]
fn one_that_sleeps_is_where_it_was_unless_another_is_there() {
    let machine = Machine::with(&[lg(), dell()]);
    let connector = "/sys/devices/pci0000:00/0000:03:00.0/drm/card3/card3-DP-1";
    machine.add(&format!("{connector}/status = disconnected\n{connector}/edid =\n"));
    machine.remove("simulated/i2c/i2c-7/edid");
    assert_eq!(machine.found().monitors.len(), 1);
    machine.set(&input_of(&lg()), 0x11).unwrap();
    assert_eq!(machine.text("simulated/i2c/i2c-7/features/0x60"), "0x11");
    // A dock answers for it with zeros.
    machine.add(&format!("/simulated/i2c/i2c-7/edid = {}\n", "00".repeat(128)));
    machine.set(&input_of(&lg()), 0x12).unwrap();

    let another = crate::host::simulated::digits(&make_edid(&EdidOf("BNQ", "BenQ", 1).into()));
    machine.add(&format!("/simulated/i2c/i2c-7/edid = {another}\n"));
    let error = machine.set(&input_of(&lg()), 0x0f).unwrap_err();
    assert!(error.is_absent());
    insta::assert_snapshot!(error, @"failed to set input of LG ULTRAGEAR on DP-1: no such monitor is there");
    assert_eq!(machine.text("simulated/i2c/i2c-7/features/0x60"), "0x12");
}

#[test]
fn one_whose_place_is_taken_is_not_there_even_if_the_bus_says_nothing() {
    let mut other = dell();
    (other.connector, other.bus, other.adapter) = (lg().connector, lg().bus, lg().adapter);
    let machine = Machine::with(&[other]);
    machine.remove("simulated/i2c/i2c-7/edid");
    assert!(machine.set(&input_of(&lg()), 0x11).unwrap_err().is_absent());
    assert_eq!(machine.text("simulated/i2c/i2c-7/features/0x60"), "0x11", "what the other one had before");
    assert!(machine.set(&input_of(&lg()), 0x12).unwrap_err().is_absent());
    assert_eq!(machine.text("simulated/i2c/i2c-7/features/0x60"), "0x11");
}

#[test]
fn a_bus_that_hangs_leaves_time_to_find_the_others() {
    let machine = Machine::with(&[lg(), nvidia()]);
    machine.remove(&format!("{NVIDIA_CONNECTOR}/ddc"));
    machine.add("/simulated/i2c/i2c-11/hangs =\n");
    // Found under another number only by looking at all of them.
    let mut moved = lg();
    moved.adapter = "AMDGPU DM aux hw bus 1".to_owned();
    let host = machine.host();
    let deadline = Deadline::after(Duration::from_secs(1));
    assert_eq!(host.vcp_features(&[input_of(&moved)], deadline)[0].as_ref().unwrap(), &VcpValue(0x0f));
    let found = host.monitors(Deadline::after(Duration::from_secs(1))).unwrap();
    assert_eq!(found.monitors.len(), 1);
    assert!(found.problems.contains(&MonitorProblem::Hangs(I2cBus(11))), "{:?}", found.problems);
}

#[test]
fn what_only_looks_like_the_bus_of_a_monitor_is_never_talked_to() {
    // A monitor has to be looked for on each bus that may lead to one: no connector tells its own.
    let mut loose = lg();
    loose.connector = None;
    let machine = Machine::with(&[loose.clone()]);
    assert_eq!(machine.found().monitors.len(), 1);
    machine.set(&input_of(&loose), 0x11).unwrap();
    let mut away = loose;
    away.adapter = "AMDGPU DM i2c OEM bus".to_owned();
    away.identity.serial_number = 4712;
    assert!(machine.set(&input_of(&away), 0x11).unwrap_err().is_absent(), "not even where a ledger says so");
    machine.found();
}

#[test]
fn monitors_of_a_card_are_asked_one_after_the_other() {
    // A bus counts as hanging after its part of the time, and the card's next one is then asked beside it: not where the
    // machine is only busy.
    let soon = || Deadline::after(Duration::from_secs(120));
    let faults = Faults::default();
    let monitors: Vec<SimulatedMonitor> = (7..15)
        .map(|bus| {
            let card = if bus < 11 { "0000:03:00.0" } else { "0000:01:00.0" };
            let mut monitor = SimulatedMonitor::lg(card, &format!("DP-{bus}"), bus);
            monitor.identity.serial = Some(format!("S{bus}"));
            if bus % 2 == 0 {
                monitor.connector = None;
            }
            monitor
        })
        .collect();
    let machine = Machine::with(&monitors);
    (7..15).for_each(|bus| machine.add(&format!("/simulated/i2c/i2c-{bus}/slow = 5\n")));
    let mut host = Host::simulated(machine.0.path(), &faults);
    let orders: Vec<_> = monitors.iter().map(|monitor| (input_of(monitor), VcpValue(0x11))).collect();
    let asked: Vec<MonitorFeature> = orders.iter().map(|(feature, _)| feature.clone()).collect();
    host.monitors(soon()).unwrap();
    let set = host.set_and_read_vcp_features(&orders, soon());
    assert!(set.into_iter().all(|answer| answer.unwrap() == Some(VcpValue(0x11))));
    assert!(host.vcp_features(&asked, soon()).into_iter().all(|answer| answer.unwrap() == VcpValue(0x11)));
    // Another process beside this one.
    let other = Host::simulated(machine.0.path(), &faults);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| other.vcp_features(&asked, soon()));
        assert!(host.vcp_features(&asked, soon()).iter().all(Result::is_ok));
        assert!(other.join().unwrap().iter().all(Result::is_ok));
    });
    assert_eq!((faults.conversations(), faults.most_conversations_on_a_card()), (32, 1));
}

#[test]
fn who_keeps_a_monitor_or_its_card_is_named() {
    let machine = Machine::with(&[lg(), dell()]);
    let said = |feature: &MonitorFeature| {
        let deadline = Deadline::after(Duration::from_millis(500));
        let error =
            machine.host().vcp_features(std::slice::from_ref(feature), deadline).remove(0).unwrap_err();
        format!("{error}\nhelp: {}", error.help().unwrap())
    };
    // The card's lowest bus is that of its power controller.
    machine.add("/simulated/i2c/i2c-2/locked = 4711 ddcutil runs\n");
    insta::assert_snapshot!(said(&input_of(&dell())), @"
    failed to read input of DELL U2720Q on HDMI-A-1 over i2c-8: ddcutil (process 4711) keeps the buses of its graphics card locked
    help: it is free again when that program ends
    ");
    machine.remove("simulated/i2c/i2c-2/locked");
    machine.add("/simulated/i2c/i2c-8/locked = 4711 ddcutil hangs\n");
    insta::assert_snapshot!(said(&input_of(&dell())), @"
    failed to read input of DELL U2720Q on HDMI-A-1 over i2c-8: ddcutil (process 4711) keeps the bus locked, and hangs in the kernel
    help: the kernel log (dmesg) may say why; only a driver loaded anew or a reboot frees it
    ");
    assert_eq!(machine.get(&input_of(&lg())).unwrap(), VcpValue(0x0f));
}
