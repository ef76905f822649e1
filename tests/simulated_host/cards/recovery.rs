//! What is tried to bring a card back, step by step.

use std::time::Duration;

use vfio_hook::host::Host;
use vfio_hook::host::simulated::Faults;
use vfio_hook::ledger::{Cleared, Lease, LeaseState, Ledger};

use super::{CARD, DISPLAY, HOST_DRIVERS, ON_VFIO, PORTS, functions, gamer, machine_with, player};
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
    for (step, how, expected) in [
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
        let life = gamer(&format!("gpu: {{recover: [{step}]}}"));
        machine.prepare(&life).unwrap();
        machine.breaks(CARD[0], &format!("dead until {how}"));
        machine.set(LOG, "");
        let outcome = machine.release(&life).unwrap();
        assert_eq!(steps(&machine), expected, "{step}: {outcome:#?}");
        let words = format!(
            "graphics card 0000:03:00.{{0,1,2,3}} (1002:73bf, navi-2x) does not come back: trying `{step}`"
        );
        assert!(outcome.notes.iter().any(|note| note.text == words), "{step}: {outcome:#?}");
        assert_eq!(machine.drivers(), HOST_DRIVERS, "{step}");
        machine.heals(CARD[0]);
        machine.set(LOG, "");
        before.insert(LOG.to_owned(), "\n".to_owned());
        machine.assert_is(&before, step);
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
fn a_kill_while_a_card_is_found_anew_leaves_no_trace() {
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
        // The successor goes on where it was, and does not take what was done for an external change.
        assert_eq!(machine.drivers(), HOST_DRIVERS, "killed at write {nth}");
        assert!(!machine.has_ledger(), "killed at write {nth}");
        if !killed {
            assert!(nth > 20, "only {nth} writes");
            return;
        }
    }
}

#[test]
fn a_kill_while_a_quarantine_is_cleared_leaves_no_trace() {
    for nth in 1.. {
        let machine = machine();
        let life = gamer("gpu: {recover: [rescan]}");
        machine.prepare(&life).unwrap();
        machine.breaks(CARD[0], "dead");
        machine.release(&life).unwrap();
        machine.breaks(CARD[0], "dead until rescan");
        machine.faults.panic_at_write(nth);
        let killed = machine.until_killed(|| machine.clear_quarantine()).is_err();
        machine.faults.clear();
        machine.open_and_close();
        assert_eq!(machine.get("/sys/bus/pci/drivers_autoprobe"), "1", "killed at write {nth}");
        let leases = machine.record().map_or(0, |record| record.leases.len());
        assert_eq!(leases, 0, "killed at write {nth}");
        assert!(!matches!(machine.clear_quarantine(), Cleared::No { .. }), "killed at write {nth}");
        assert_eq!(machine.drivers(), HOST_DRIVERS, "killed at write {nth}");
        assert!(!machine.has_ledger(), "killed at write {nth}");
        if !killed {
            assert!(nth > 20, "only {nth} writes");
            return;
        }
    }
}

#[test]
fn two_do_not_clear_at_the_same_time() {
    let machine = machine();
    let life = gamer("gpu: {recover: [reset]}");
    machine.prepare(&life).unwrap();
    machine.breaks(CARD[0], "dead");
    machine.release(&life).unwrap();
    machine.breaks(CARD[0], "dead until reset");
    let root = machine.root();
    let (tell, told) = std::sync::mpsc::channel();
    machine.faults.interrupt(format!("/sys/bus/pci/devices/{}/reset", CARD[0]), move || {
        let mut host = Host::simulated(&root, &Faults::default());
        let mut ledger = Ledger::open(&mut host, crate::support::soon()).unwrap();
        tell.send(ledger.clear_quarantine(&functions(&CARD)).unwrap_err().to_string()).unwrap();
    });
    assert!(matches!(machine.clear_quarantine(), Cleared::Yes(_)));
    let refused = told.recv().unwrap();
    assert!(refused.starts_with("another `vfio-hook gpu clear` is at work (process "), "{refused}");
    assert!(!machine.has_ledger());
}

/// One command was killed, and a keeper is bringing back what it had taken.
#[test]
fn nobody_clears_beside_the_keeper_of_one_who_was_killed() {
    let machine = machine();
    let life = gamer("gpu: {}");
    machine.prepare(&life).unwrap();
    machine.breaks(CARD[0], "dead");
    machine.release(&life).unwrap();
    let mut record = machine.record().unwrap();
    let mut lease = Lease::preparing("gpu clear", machine.host().this_process());
    lease.phase = LeaseState::GivingBack(machine.host().this_process());
    record.leases.insert("00000000-0000-0000-0000-000000000000".parse().unwrap(), lease);
    machine.keep_one_slot();
    std::fs::write(machine.path("/run/vfio-hook/ledger.json"), record.to_bytes()).unwrap();
    let mut host = machine.host();
    let mut ledger = Ledger::open(&mut host, crate::support::soon()).unwrap();
    let refused = ledger.clear_quarantine(&functions(&CARD)).unwrap_err().to_string();
    assert!(refused.starts_with("another `vfio-hook gpu clear` is at work (process "), "{refused}");
}

/// What a kernel of today does with a card that it finds anew, where the host's driver for it is loaded.
#[test]
fn a_card_that_is_not_to_go_to_the_host_is_not_found_anew_by_an_old_kernel() {
    for (release, return_to, drivers) in [
        ("6.12.57+deb13-amd64", "host", Some(HOST_DRIVERS)),
        ("6.12.57+deb13-amd64", "host-if-clean", None),
        ("6.12.57+deb13-amd64", "vfio", None),
        ("6.19.1-amd64", "host", Some(HOST_DRIVERS)),
        ("6.19.1-amd64", "host-if-clean", Some(ON_VFIO)),
        ("6.19.1-amd64", "vfio", Some(ON_VFIO)),
    ] {
        let machine = machine();
        machine.set("/proc/sys/kernel/osrelease", release);
        let life = gamer(&format!("gpu: {{return_to: {return_to}, recover: [rescan]}}"));
        machine.prepare(&life).unwrap();
        machine.started(&life).unwrap();
        machine.breaks(CARD[0], "dead until rescan");
        machine.set(LOG, "");
        let outcome = machine.release(&life).unwrap();
        let context = format!("{release}, {return_to}: {outcome:#?}");
        match drivers {
            Some(drivers) => {
                assert_eq!(machine.drivers(), drivers, "{context}");
                let words = "it came back only after `rescan`";
                assert!(outcome.notes.iter().any(|note| note.text.contains(words)), "{context}");
            }
            None => {
                let evidence = machine.quarantine().unwrap().evidence;
                let words = "this kernel would give the card to amdgpu, i2c-designware-pci, snd_hda_intel, xhci_hcd as \
                             soon as it finds it";
                assert_eq!(evidence[1], words, "{context}");
                assert_eq!(steps(&machine), [""; 0], "{context}");
            }
        }
    }
}

/// Programs of the host open a card as soon as its driver has it.
#[test]
fn a_card_that_the_kernel_gave_back_by_itself_may_be_used_at_once() {
    let machine = machine();
    let life = gamer("gpu: {recover: [rescan]}");
    machine.prepare(&life).unwrap();
    machine.started(&life).unwrap();
    machine.breaks(CARD[0], "dead until rescan");
    let desktop = super::process(904, "kwin_wayland", "/user.slice", "/dev/dri/card1");
    let root = machine.root();
    machine.faults.interrupt("/sys/bus/pci/devices/0000:02:00.0/pci_bus/0000:03/rescan", move || {
        vfio_hook::host::manifest::lay_out(&desktop, &root).unwrap();
    });
    let outcome = machine.release(&life).unwrap();
    assert_eq!(machine.drivers(), HOST_DRIVERS, "{outcome:#?}");
    assert!(machine.path("/proc/904").exists());
    assert_eq!(machine.quarantine(), None, "{outcome:#?}");
}

#[test]
fn what_would_take_others_along_is_not_done() {
    // The sound of the processor's graphics is the guest's; the graphics is the host's, and both are on one slot.
    const SOUND: &str = "0000:0e:00.1";
    for (step, words) in [
        ("slot-power", "there is more than the card: 0000:0e:00.0"),
        ("rescan-card", "has no switch of its own"),
    ] {
        let machine = machine_with(&format!(
            "{LOG} =\n/sys/bus/pci/slots/9/address = 0000:0e:00\n/sys/bus/pci/slots/9/power = 1\n"
        ));
        let life = player(
            1,
            &[CARD.as_slice(), &[SOUND]].concat(),
            "<memory unit='MiB'>512</memory><on_reboot>destroy</on_reboot>",
            &format!("gpu: {{recover: [{step}]}}"),
        );
        machine.prepare(&life).unwrap();
        machine.started(&life).unwrap();
        machine.breaks(SOUND, "dead");
        machine.set(LOG, "");
        machine.release(&life).unwrap();
        let record = machine.record().unwrap();
        let lost = record.quarantine_of(&functions(&[SOUND])).unwrap();
        assert!(lost.evidence.iter().any(|line| line.contains(words)), "{step}: {:?}", lost.evidence);
        assert_eq!(steps(&machine), [""; 0], "{step}");
    }
}

#[test]
fn a_card_that_was_dead_before_the_guest_is_recovered_when_it_is_cleared() {
    let machine = machine();
    machine.gives_card_to_vfio();
    machine.breaks(CARD[0], "dead until reset");
    machine.prepare(&gamer("gpu: {recover: [reset]}")).unwrap_err();
    machine.set(LOG, "");
    let Cleared::Yes(_) = machine.clear_quarantine() else { panic!("not cleared") };
    assert_eq!(steps(&machine), ["0000:03:00.0 reset"]);
    assert_eq!(machine.drivers(), ON_VFIO);
    assert!(!machine.has_ledger());
}
