//! The card goes to the guest and comes back.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Life, Machine, pages, soon};
use vfio_hook::gpu::ReturnTo;
use vfio_hook::ledger::{Ledger, LedgerError};
use vfio_hook::lifecycle::{self, LifecycleError};

use super::{CARD, DISPLAY, HOST_DRIVERS, ON_VFIO, PORTS, gamer, machine, machine_with, player};

/// How a guest's life ends for its lease.
type End = fn(&Machine, &Life);

fn assert_handed_over(machine: &Machine) {
    assert_eq!(machine.drivers(), ON_VFIO);
    for function in CARD {
        assert_eq!(machine.attribute(function, "driver_override"), "vfio-pci");
    }
    for address in CARD.iter().chain(&PORTS) {
        assert_eq!(machine.attribute(address, "d3cold_allowed"), "0", "{address}");
        assert_eq!(machine.attribute(address, "power/control"), "on", "{address}");
    }
}

/// That the driver made no DRM device would be evidence against the card; that nobody can look is none.
#[test]
fn what_cannot_be_looked_at_is_no_evidence_against_the_card() {
    let machine = machine();
    let before = machine.files();
    let life = gamer("gpu: {recover: [reset, bus-reset, rescan]}");
    machine.prepare(&life).unwrap();
    machine.faults.refuse_read(format!("{DISPLAY}/drm"), nix::errno::Errno::EIO);
    let outcome = machine.gives_back_within(&life, std::time::Duration::from_secs(20));
    assert!(outcome.notes.iter().all(|note| !note.text.contains("trying")), "{outcome:?}");
    machine.faults.clear();
    machine.assert_is(&before, "given back");
}

/// A driver that begins while all else ends can hang the shutdown.
#[test]
fn nothing_is_bound_back_while_the_host_is_shut_down() {
    let machine = machine();
    let life = gamer("gpu: {}");
    machine.prepare(&life).unwrap();
    machine.started(&life).unwrap();
    let state = machine.path("/simulated/systemd/SystemState");
    fs::create_dir_all(state.parent().unwrap()).unwrap();
    fs::write(&state, "stopping\n").unwrap();
    machine.stopped(&life).unwrap();
    let outcome = machine.release(&life).unwrap();
    assert_eq!(outcome.failures, [""; 0]);
    assert!(outcome.notes.iter().any(|note| note.text.ends_with("it stays with VFIO")), "{outcome:?}");
    assert_eq!(machine.drivers(), ON_VFIO);
    assert!(machine.record().is_none_or(|record| record.leases.is_empty()));
}

#[test]
fn the_whole_card_is_handed_over_and_kept_awake() {
    let machine = machine();
    let before = machine.files();
    let life = gamer("gpu: {}");
    let outcome = machine.prepare(&life).unwrap();
    assert_handed_over(&machine);
    assert_eq!(
        outcome.changes.last().unwrap().to_string(),
        format!("driver of 0000:03:00.{{0,1,2,3}}: {} -> vfio-pci", HOST_DRIVERS.join(", "))
    );
    assert_eq!(machine.record().unwrap().leases[&life.guest.uuid].cards.len(), 1);
    machine.start(&life).unwrap();
    machine.started(&life).unwrap();
    machine.stopped(&life).unwrap();
    assert_handed_over(&machine);
    let outcome = machine.release(&life).unwrap();
    assert_eq!(outcome.failures, [""; 0]);
    machine.assert_is(&before, "released");
}

#[test]
fn every_way_back_leads_to_where_the_card_belongs() {
    for return_to in ReturnTo::ALL {
        let machine = machine();
        let life = gamer(&format!("gpu: {{return_to: {return_to}}}\n"));
        let ends: [(&str, End); 5] = [
            ("released", |machine, life| drop(machine.release(life).unwrap())),
            ("released twice", |machine, life| {
                machine.release(life).unwrap();
                machine.release(life).unwrap();
            }),
            ("stopped and released", |machine, life| {
                machine.stopped(life).unwrap();
                machine.release(life).unwrap();
            }),
            ("undone as stale", |machine, life| {
                let mut host = machine.host();
                let mut ledger = Ledger::open(&mut host, soon()).unwrap();
                ledger.give_back(life.guest.uuid, "unknown", None).unwrap();
            }),
            ("finished by its keeper", |machine, life| {
                lifecycle::finish(&mut machine.host(), life.guest.uuid, "crashed", None, soon()).unwrap();
            }),
        ];
        let mut before = machine.files();
        for (how, end) in ends {
            machine.prepare(&life).unwrap();
            machine.started(&life).unwrap();
            assert_handed_over(&machine);
            end(&machine, &life);
            let context = format!("{return_to}, {how}");
            if *return_to == ReturnTo::Vfio {
                // From now on this is where it was before.
                assert_eq!(machine.drivers(), ON_VFIO, "{context}");
                // And awake.
                let record = machine.record().unwrap();
                assert_eq!((record.leases.len(), record.kept_awake.len()), (0, 1), "{context}");
                assert_handed_over(&machine);
                before = machine.files();
                continue;
            }
            machine.assert_is(&before, &context);
        }
    }
}

#[test]
fn without_a_prepare_there_is_nothing_to_release() {
    let machine = machine();
    let before = machine.files();
    let life = gamer("gpu: {}");
    machine.stopped(&life).unwrap();
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn what_fails_after_the_card_was_taken_brings_it_back() {
    let xml = format!("{}<on_reboot>destroy</on_reboot>", pages(100));
    for return_to in ReturnTo::ALL {
        let machine = machine();
        // Fragmented to the end: found out while gathering.
        machine.set("/sys/devices/system/node/node0/simulated_contiguous_kB", "0");
        machine.set("/sys/devices/system/node/node0/simulated_fragmented_kB", "0");
        let before = machine.files();
        let life =
            player(1, &CARD, &xml, &format!("gpu: {{return_to: {return_to}}}\nhugepages: {{timeout: 1s}}\n"));
        machine.prepare(&life).unwrap_err();
        // Wherever it goes after a guest: no guest has had it.
        let context = return_to.to_string();
        machine.assert_is(&before, &context);
        machine.release(&life).unwrap();
        machine.assert_is(&before, &context);
    }
}

#[test]
fn commands_run_around_the_card() {
    let machine = machine_with("/bin/sh =\n");
    fs::set_permissions(machine.path("/bin/sh"), fs::Permissions::from_mode(0o755)).unwrap();
    let before = machine.files();
    let yaml = "gpu: {}\nrun: [{when: prepare, command: [/bin/sh, -c, first], on_failure: refuse}, {when: release, command: [/bin/sh, -c, last]}]\n";
    let life = gamer(yaml);
    let forget = |files: &[&str]| files.iter().for_each(|file| fs::remove_file(machine.path(file)).unwrap());
    // One that fails is in time: nothing was touched.
    fs::write(machine.path("/simulated_failing_command"), "prepare").unwrap();
    let error = machine.prepare(&life).unwrap_err();
    assert!(matches!(error, LifecycleError::Ledger(LedgerError::Command { .. })), "{error}");
    forget(&["/simulated_failing_command", "/simulated_commands"]);
    machine.assert_is(&before, "refused");
    // Those of `release` find the card where it was before.
    machine.prepare(&life).unwrap();
    assert_handed_over(&machine);
    machine.faults.interrupt("/simulated_commands", {
        let there = machine.path(&format!("/sys/bus/pci/drivers/amdgpu/{}", CARD[0]));
        move || assert!(there.exists())
    });
    machine.release(&life).unwrap();
    forget(&["/simulated_commands"]);
    machine.assert_is(&before, "released");
}

#[test]
fn a_card_that_was_with_vfio_stays_there() {
    for return_to in ReturnTo::ALL {
        let machine = machine();
        machine.gives_card_to_vfio();
        let before = machine.files();
        let life = gamer(&format!("gpu: {{return_to: {return_to}}}\n"));
        machine.prepare(&life).unwrap();
        machine.release(&life).unwrap();
        machine.assert_is(&before, &return_to.to_string());
    }
}

#[test]
fn a_card_that_a_person_took_meanwhile_is_left_alone() {
    let machine = machine();
    let life = gamer("gpu: {}");
    machine.prepare(&life).unwrap();
    let kernel = vfio_hook::host::simulated::SimulatedKernel::new(machine.root(), machine.faults.clone());
    kernel.write("/sys/bus/pci/drivers/vfio-pci/unbind", CARD[3]).unwrap();
    let outcome = machine.release(&life).unwrap();
    assert_eq!(machine.drivers(), ["vfio-pci", "vfio-pci", "vfio-pci", ""]);
    assert!(!machine.has_ledger());
    let words = "driver of 0000:03:00.{0,1,2,3} was changed from outside, from vfio-pci to vfio-pci, vfio-pci, \
                 vfio-pci, none: left alone";
    assert!(outcome.notes.iter().any(|note| note.text == words), "{:?}", outcome.notes);
}

/// As every card of several functions has it.
#[test]
fn a_reset_that_the_kernel_lists_and_does_not_take_back_is_no_failure() {
    let machine = machine_with(&format!(
        "{DISPLAY}/reset_method = pm bus\n/simulated/pci/{}/reset_methods = pm device_specific\n\
         /sys/module/vendor_reset/initstate = live\n",
        CARD[0]
    ));
    let life = gamer("gpu: {reset_method: [device_specific]}");
    machine.prepare(&life).unwrap();
    assert_eq!(machine.attribute(CARD[0], "reset_method"), "device_specific");
    machine.started(&life).unwrap();
    let outcome = machine.release(&life).unwrap();
    assert_eq!(outcome.failures, [""; 0]);
    assert_eq!(machine.attribute(CARD[0], "reset_method"), "pm");
    assert!(!machine.has_ledger());
}
