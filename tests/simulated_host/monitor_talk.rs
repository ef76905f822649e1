//! How often monitors are talked to: each conversation is a risk on a card whose driver is not of the best, and takes time.

use std::time::Duration;

use vfio_hook::host::simulated::SimulatedMonitor;
use vfio_hook::ledger::Try;
use vfio_hook::lifecycle;
use vfio_hook::monitor::{FeatureControl, MonitorFeature};

use crate::support::{Machine, guest, life, soon};

const YAML: &str =
    "switch_input: {monitor: {serial: 104NTAB1X234}, guest: hdmi-1, delay: 0s, on_failure: refuse}\n";

/// A second bus of the monitor on `DP-1`, and one that nothing is connected to, as amdgpu has them.
const OF_AMDGPU: &str = "
/sys/devices/pci0000:00/0000:03:00.0/drm/card3/card3-DP-1/i2c-9/name = AMDGPU DM aux hw bus 0
/sys/bus/i2c/devices/i2c-9 -> ../../../devices/pci0000:00/0000:03:00.0/drm/card3/card3-DP-1/i2c-9
/simulated/i2c/i2c-9/saves = 0
/sys/devices/pci0000:00/0000:03:00.0/i2c-10/name = AMDGPU DM i2c hw bus 3
/sys/bus/i2c/devices/i2c-10 -> ../../../devices/pci0000:00/0000:03:00.0/i2c-10
/simulated/i2c/i2c-10/saves = 0
";

fn machine(monitors: &[SimulatedMonitor], lines: &str) -> Machine {
    let monitors: String = monitors.iter().map(SimulatedMonitor::manifest).collect();
    Machine::with("two-nodes", &format!("/sys/module/i2c_dev/initstate = live\n{monitors}{lines}"))
}

fn lg() -> SimulatedMonitor {
    SimulatedMonitor::lg("0000:03:00.0", "DP-1", 7)
}

/// Two that belong to no connector, as NVIDIA's driver has them.
fn of_nvidia() -> [SimulatedMonitor; 2] {
    let mut one = SimulatedMonitor::lg("0000:01:00.0", "DP-3", 11);
    one.connector = None;
    let mut other = SimulatedMonitor { bus: vfio_hook::host::I2cBus(12), ..one.clone() };
    other.adapter = "NVIDIA i2c adapter 4 at 1:00.0".to_owned();
    other.identity.serial = Some("104NTAB1X235".to_owned());
    [one, other]
}

/// The conversations of each step of a guest's life.
fn of_a_life(machine: &Machine) -> String {
    let life = life(guest(1, "2-3", ""), YAML);
    let uuid = life.guest.uuid;
    let mut counts = Vec::new();
    let mut count = |step: &str| {
        assert!(machine.faults.most_conversations_on_a_card() <= 1, "{step}");
        counts.push(format!("{step} {}", machine.faults.conversations()));
        machine.faults.clear();
    };
    let follow = |attempt| {
        lifecycle::follow_monitors(&mut machine.host(), uuid, Duration::ZERO, attempt, soon()).unwrap();
    };
    machine.faults.clear();
    machine.prepare(&life).unwrap();
    count("prepare");
    lifecycle::note_monitors(&mut machine.host(), uuid, soon()).unwrap();
    count("note");
    machine.qemu_runs(uuid);
    machine.started(&life).unwrap();
    count("started");
    follow(Try::Another);
    count("switch");
    follow(Try::Another);
    count("look");
    follow(Try::Last);
    count("last look");
    machine.qemu_is_gone();
    machine.stopped(&life).unwrap();
    count("stopped");
    lifecycle::return_monitors(&mut machine.host(), uuid, Try::Another, soon()).unwrap();
    count("return");
    machine.release(&life).unwrap();
    count("release");
    counts.join(", ")
}

/// What `vfio-hook monitors` does.
fn of_a_list(machine: &Machine) -> usize {
    machine.faults.clear();
    let host = machine.host();
    let found = host.monitors(soon()).unwrap();
    let control = FeatureControl::default();
    let features: Vec<MonitorFeature> =
        found.monitors.iter().map(|found| MonitorFeature { monitor: found.key.clone(), control }).collect();
    assert!(host.vcp_features(&features, soon()).iter().all(Result::is_ok));
    machine.faults.conversations()
}

#[test]
fn a_monitor_that_the_kernel_knows_is_asked_only_for_its_input() {
    let machine = machine(&[lg()], "");
    assert_eq!(of_a_list(&machine), 1);
    insta::assert_snapshot!(of_a_life(&machine), @"prepare 1, note 1, started 0, switch 2, look 1, last look 1, stopped 0, return 2, release 0");
}

#[test]
fn of_two_buses_of_a_connector_one_is_found_out_once() {
    let machine = machine(&[lg()], OF_AMDGPU);
    assert_eq!(of_a_list(&machine), 3, "no EDID on the first, the EDID on the second, and the input");
    insta::assert_snapshot!(of_a_life(&machine), @"prepare 3, note 1, started 0, switch 2, look 1, last look 1, stopped 0, return 2, release 0");
}

#[test]
fn who_is_at_the_end_of_a_bus_is_asked_once_in_a_step() {
    let machine = machine(&of_nvidia(), "");
    assert_eq!(of_a_list(&machine), 4, "an EDID and an input of each");
    insta::assert_snapshot!(of_a_life(&machine), @"prepare 3, note 1, started 0, switch 2, look 1, last look 1, stopped 0, return 2, release 0");
}

#[test]
fn what_is_not_relied_on_is_not_asked() {
    let mut hp = lg();
    hp.identity.manufacturer = "HWP".parse().unwrap();
    hp.identity.model = Some("HP Z27n".to_owned());
    let machine = machine(&[hp], "");
    insta::assert_snapshot!(of_a_life(&machine), @"prepare 1, note 1, started 0, switch 1, look 0, last look 0, stopped 0, return 1, release 0");
}
