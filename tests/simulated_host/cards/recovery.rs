//! What is tried to bring a card back, step by step.

use std::time::Duration;

use super::{CARD, DISPLAY, HOST_DRIVERS, PORTS, gamer, machine_with};
use crate::support::Machine;

const LOG: &str = "/simulated/pci/log";

fn machine() -> Machine {
    machine_with(&format!(
        "{LOG} =\n\
         {DISPLAY}/reset =\n\
         {DISPLAY}/reset_method = pm\n\
         /simulated/pci/{}/reset_methods = pm\n\
         /sys/bus/pci/slots/4/address = 0000:01:00\n\
         /sys/bus/pci/slots/4/power = 1\n",
        CARD[0]
    ))
}

/// What was done to functions and ports, but for drivers.
fn steps(machine: &Machine) -> Vec<String> {
    let log = machine.get(LOG);
    let is_step =
        |line: &&str| !["driver_override", "bind", "drivers_probe"].iter().any(|word| line.contains(word));
    log.lines().filter(is_step).map(str::to_owned).collect()
}

#[test]
fn each_step_brings_back_what_it_can() {
    let functions: Vec<String> = CARD.iter().rev().map(|function| format!("{function} remove")).collect();
    for (rung, how, expected) in [
        ("reset", "reset", vec!["0000:03:00.0 reset".to_owned()]),
        ("bus-reset", "reset_subordinate", vec!["0000:02:00.0 reset_subordinate".to_owned()]),
        ("rescan", "rescan", [functions.clone(), vec!["0000:02:00.0 rescan".to_owned()]].concat()),
        ("rescan-card", "rescan", vec!["0000:01:00.0 remove".to_owned(), "0000:00:01.1 rescan".to_owned()]),
        (
            "slot-power",
            "power",
            vec![
                "slot 0000:01:00 power 0".to_owned(),
                "0000:01:00.0 remove".to_owned(),
                "slot 0000:01:00 power 1".to_owned(),
            ],
        ),
        ("deep-sleep", "mem", vec!["sleep mem".to_owned()]),
    ] {
        let machine = machine();
        let mut before = machine.files();
        let life = gamer(&format!("gpu: {{recover: [{rung}]}}"));
        machine.prepare(&life).unwrap();
        machine.breaks(CARD[0], &format!("dead until {how}"));
        machine.set(LOG, "");
        let outcome = machine.release(&life).unwrap();
        assert_eq!(steps(&machine), expected, "{rung}: {outcome:#?}");
        let words = format!(
            "graphics card 0000:03:00.{{0,1,2,3}} (1002:73bf, navi-2x) does not come back: trying `{rung}`"
        );
        assert!(outcome.notes.iter().any(|note| note.text == words), "{rung}: {outcome:#?}");
        assert_eq!(machine.drivers(), HOST_DRIVERS, "{rung}");
        machine.heals(CARD[0]);
        machine.set(LOG, "");
        before.insert(LOG.to_owned(), "\n".to_owned());
        machine.assert_is(&before, rung);
    }
}

#[test]
fn each_step_is_tried_once_in_its_order_until_one_helps() {
    let machine = machine();
    let life = gamer("gpu: {recover: [reset, rescan, bus-reset, slot-power]}");
    machine.prepare(&life).unwrap();
    machine.breaks(CARD[0], "dead until reset_subordinate");
    machine.set(LOG, "");
    machine.release(&life).unwrap();
    let steps = steps(&machine);
    assert_eq!(steps[0], "0000:03:00.0 reset");
    assert_eq!(steps.last().unwrap(), "0000:02:00.0 reset_subordinate");
    assert_eq!(steps.len(), 7, "{steps:?}");
    assert_eq!(machine.drivers(), HOST_DRIVERS);
    assert!(!machine.has_ledger());
}

#[test]
fn where_nothing_helps_all_of_it_is_told() {
    let machine = machine();
    let life =
        gamer("gpu: {recover: [reset, bus-reset, rescan, rescan-card, slot-power, host-driver, deep-sleep]}");
    machine.prepare(&life).unwrap();
    let other = crate::support::greedy(&machine, 2, "4-5", 10);
    machine.prepare(&other).unwrap();
    machine.breaks(CARD[0], "dead");
    machine.set(LOG, "");
    let outcome = machine.release(&life).unwrap();
    insta::assert_snapshot!(
        "nothing_helps",
        format!("{}\n\n{}", steps(&machine).join("\n"), machine.quarantine().unwrap().evidence.join("\n"))
    );
    assert_eq!(outcome.failures, [""; 0]);
    // It came back without drivers, and none gets it.
    for function in CARD {
        assert_eq!(machine.driver(function), "");
        assert_eq!(machine.attribute(function, "driver_override"), "none");
    }
    for port in PORTS {
        assert_eq!(machine.driver(port), "pcieport");
    }
}

#[test]
fn functions_that_stay_away_are_in_quarantine_too() {
    let machine = machine();
    let life = gamer("gpu: {recover: [rescan]}");
    machine.prepare(&life).unwrap();
    machine.breaks(CARD[0], "dead\nstays-away");
    // The wait for them has an end.
    machine.gives_back_within(&life, Duration::from_secs(2));
    let evidence = machine.quarantine().unwrap().evidence;
    assert_eq!(
        evidence,
        [
            "0000:03:00.0: config space reads ff",
            "these functions did not come back: 0000:03:00.0",
            "0000:03:00.0: the kernel has no such function",
        ]
    );
    // It is not only gone.
    let error = machine.prepare(&life).unwrap_err().to_string();
    assert!(error.contains("is in quarantine since guest guest1"), "{error}");
    assert_eq!(error.lines().count(), 2, "{error}");
}

#[test]
fn whoever_is_killed_while_a_card_is_found_anew_leaves_no_trace() {
    const AUTOPROBE: &str = "/sys/bus/pci/drivers_autoprobe";
    for nth in 1.. {
        let machine = machine();
        let life = gamer("gpu: {recover: [rescan]}");
        machine.prepare(&life).unwrap();
        machine.breaks(CARD[0], "dead until rescan");
        machine.faults.panic_at_write(nth);
        let killed = machine.until_killed(|| machine.release(&life).unwrap()).is_err();
        machine.faults.clear();
        machine.open_and_close();
        machine.release(&life).unwrap();
        assert_eq!(machine.get(AUTOPROBE), "1", "killed at write {nth}");
        assert!(machine.record().is_none_or(|record| record.leases.is_empty()), "killed at write {nth}");
        if !killed {
            assert!(nth > 20, "only {nth} writes");
            return;
        }
    }
}
