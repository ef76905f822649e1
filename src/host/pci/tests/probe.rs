//! The probe, with each defect.

use nix::errno::Errno;

use super::*;

fn probe(machine: &Machine) -> ProbeReport {
    let host = machine.host();
    let expected: Vec<Expected> = EXPECTED
        .iter()
        .zip(card())
        .map(|(id, address)| Expected { address, id: id.parse().unwrap() })
        .collect();
    let ports: Vec<PciAddress> =
        ["0000:02:00.0", "0000:01:00.0", "0000:00:01.1"].into_iter().map(address).collect();
    host.probe_pci(&expected, &ports, soon()).unwrap()
}

const EXPECTED: [&str; 4] = ["1002:73bf", "1002:ab28", "1002:73a6", "1002:73a4"];

fn health(report: &ProbeReport) -> Vec<&Health> {
    report.functions.values().map(|probed| &probed.health).collect()
}

#[test]
fn a_card_that_is_well_answers() {
    let machine = Machine::new();
    let report = probe(&machine);
    assert!(report.is_fit_for_host_driver());
    assert_eq!(report.evidence(), [""; 0]);
    assert_eq!(report.ports.len(), 3);
    assert_eq!(health(&report), [&Health::Answers; 4]);
    let display = &report.functions[&card()[0]];
    assert_eq!(display.link, Some(Link { generation: 4, width: 16 }));
    assert_eq!(display.power_state, PowerState::D0);
    let again: ProbeReport = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(again, report);
    assert_eq!(
        Expected::from(&machine.host().pci_function(card()[0]).unwrap()).id,
        EXPECTED[0].parse().unwrap()
    );
}

#[test]
fn one_function_off_the_bus_is_named() {
    let machine = Machine::new();
    machine.fault("0000:03:00.1", "dead");
    let report = probe(&machine);
    assert_eq!(report.evidence(), ["0000:03:00.1: config space reads ff"]);
    assert!(!report.all_answer());
    assert!(report.functions[&card()[0]].health.is_well());
}

#[test]
fn below_a_dead_port_nothing_is_asked() {
    let machine = Machine::new();
    machine.fault("0000:01:00.0", "dead");
    machine.fault("0000:03:00.0", "config-hangs");
    let report = probe(&machine);
    assert_eq!(
        report.evidence(),
        [
            "port 0000:01:00.0: config space reads ff",
            "port 0000:02:00.0: port 0000:01:00.0 above it does not answer",
            "0000:03:00.0: port 0000:01:00.0 above it does not answer",
            "0000:03:00.1: port 0000:01:00.0 above it does not answer",
            "0000:03:00.2: port 0000:01:00.0 above it does not answer",
            "0000:03:00.3: port 0000:01:00.0 above it does not answer",
        ]
    );
    assert!(report.ports[&address("0000:00:01.1")].health.is_well());
    assert_eq!(report.stuck, None);
}

#[test]
fn a_link_that_is_down_counts_where_nothing_answers_below() {
    let machine = Machine::new();
    let path = "/sys/bus/pci/devices/0000:02:00.0/config";
    let mut config = machine.get(path);
    // The upper byte of link status: without the bit that says that the link is up.
    config.replace_range(0x77 * 2..0x78 * 2, "11");
    machine.set(path, &config);
    assert!(probe(&machine).all_answer(), "some ports never report it as up");
    machine.set("/sys/bus/pci/devices/0000:03:00.0/config", &"ff".repeat(256));
    let evidence = "0000:03:00.0: config space reads ff; port 0000:02:00.0 reports its link as down";
    assert_eq!(probe(&machine).evidence(), [evidence]);
}

#[test]
fn another_card_in_its_place_is_noticed() {
    let machine = Machine::new();
    let path = "/sys/bus/pci/devices/0000:03:00.0/config";
    let config = machine.get(path).replacen("0210bf73", "de108422", 1);
    machine.set(path, &config);
    assert_eq!(probe(&machine).evidence(), ["0000:03:00.0: it says it is 10de:2284, not 1002:73bf"]);
}

#[test]
fn what_the_kernel_no_longer_has_is_absent() {
    let machine = Machine::new();
    machine.echo("/sys/bus/pci/devices/0000:03:00.3/remove", "1");
    let report = probe(&machine);
    assert_eq!(report.evidence(), ["0000:03:00.3: the kernel has no such function"]);
    assert_eq!(health(&report)[3], &Health::Absent);
}

#[test]
fn what_hangs_leaves_the_rest_unanswered() {
    let machine = Machine::new();
    machine.fault("0000:03:00.2", "config-hangs 4711");
    let report = probe(&machine);
    assert_eq!(health(&report)[..2], [&Health::Answers; 2]);
    assert_eq!(health(&report)[2..], [&Health::TimedOut; 2]);
    assert_eq!(report.stuck.map(|process| process.pid), Some(4711));
    assert_eq!(
        report.evidence().last().unwrap(),
        "process 4711 hangs in the kernel since it read config space"
    );
}

#[test]
fn bars_without_a_place_are_no_place_for_a_hosts_driver() {
    let machine = Machine::new();
    let path = "/sys/bus/pci/devices/0000:03:00.0/resource";
    let placed = machine.get(path);
    let unset = placed.replacen(
        "0x0000007800000000 0x0000007bffffffff 0x000000000014220c",
        "0x0 0x3ffffffff 0x2014220c",
        1,
    );
    assert_ne!(unset, placed);
    machine.set(path, &unset);
    let report = probe(&machine);
    assert!(report.all_answer());
    assert!(!report.is_fit_for_host_driver());
    assert_eq!(report.evidence(), ["0000:03:00.0: BAR 0 has no place"]);
    let gone = placed.replacen("0x0000007800000000 0x0000007bffffffff 0x000000000014220c", "0x0 0x0 0x0", 1);
    machine.set(path, &gone);
    assert_eq!(probe(&machine).evidence(), ["0000:03:00.0: BAR 0 has no place"]);
}

#[test]
fn a_virtual_function_needs_no_model_and_no_bars() {
    let machine = Machine::new();
    machine.add("/sys/bus/pci/devices/0000:03:00.1/physfn -> ../0000:03:00.0");
    let path = "/sys/bus/pci/devices/0000:03:00.1/config";
    let config = machine.get(path);
    machine.set(path, &format!("ffffffff{}", &config[8..]));
    machine.set("/sys/bus/pci/devices/0000:03:00.1/resource", &"0x0 0x0 0x0\n".repeat(7));
    assert_eq!(probe(&machine).evidence(), [""; 0]);
}

#[test]
fn what_this_process_lacks_says_nothing_of_a_card() {
    let machine = Machine::new();
    let expected: Vec<Expected> = EXPECTED
        .iter()
        .zip(card())
        .map(|(id, address)| Expected { address, id: id.parse().unwrap() })
        .collect();
    for (errno, says_something) in
        [(Errno::EMFILE, false), (Errno::ENFILE, false), (Errno::ENOMEM, false), (Errno::EIO, true)]
    {
        machine.faults.refuse_read("/sys/bus/pci/devices/0000:03:00.1/config", errno);
        let report = machine.host().probe_pci(&expected, &[], soon());
        assert_eq!(report.is_ok(), says_something, "{errno}: {report:?}");
        if let Ok(report) = report {
            assert!(matches!(report.functions[&card()[1]].health, Health::Dead(_)));
        }
    }
}
