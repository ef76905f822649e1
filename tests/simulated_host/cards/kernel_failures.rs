//! The kernel fails ("oops") in what was done to a card, and keeps the card locked; or a signal ends the process that did
//! it, which says nothing of the card.

use std::time::Duration;

use vfio_hook::ledger::{Cleared, StuckKind};

use super::wedged::{LOG, forget_log, logging};
use super::{CARD, HOST_DRIVERS, PORTS, gamer};
use crate::support::{Machine, greedy};

const SAID: &str = "the kernel failed in it: BUG: kernel NULL pointer dereference, address: 0000000000000008";

/// What the kernel did until it failed, and then no more.
fn assert_quarantined(machine: &Machine, last: &str, context: &str) {
    let log = machine.get(LOG);
    assert_eq!(log.lines().last(), Some(last), "{context}: {log}");
    let quarantine = machine.quarantine().unwrap_or_else(|| panic!("{context}: no quarantine"));
    let stuck = quarantine.terms.stuck.as_ref().unwrap_or_else(|| panic!("{context}: {quarantine:#?}"));
    assert_eq!(stuck.kind, StuckKind::KernelFailed, "{context}");
    assert!(stuck.what.ends_with(SAID), "{context}: {}", stuck.what);
    let record = machine.record().unwrap();
    assert!(record.leases.is_empty(), "{context}");

    let error = machine.prepare(&gamer("gpu: {}")).unwrap_err().to_string();
    assert!(error.contains(SAID) && error.contains("reboot the host"), "{context}: {error}");
    let other = greedy(machine, 2, "4-5", 10);
    machine.prepare(&other).unwrap();
    machine.release(&other).unwrap();
    machine.release(&gamer("gpu: {}")).unwrap();
    machine.open_and_close();
    let Cleared::No { evidence } = machine.clear_quarantine() else { panic!("{context}: cleared") };
    assert_eq!(evidence.join("\n"), stuck.what, "{context}");
    assert_eq!(machine.get(LOG), log, "{context}: the card was touched");
}

#[test]
fn a_kernel_that_fails_before_the_guest_is_quoted_and_left_alone() {
    for (index, fault, last) in [
        (0, "unbind-oopses amdgpu", "unbind amdgpu"),
        (1, "unbind-oopses snd_hda_intel", "unbind snd_hda_intel"),
        (0, "probe-oopses vfio-pci", "drivers_probe"),
        (2, "probe-oopses", "drivers_probe"),
    ] {
        let machine = logging();
        let context = format!("{} {fault}", CARD[index]);
        machine.breaks(CARD[index], fault);
        let error = machine.prepare(&gamer("gpu: {}")).unwrap_err();
        let words = error.to_string();
        assert!(words.ends_with(SAID), "{context}: {words}");
        let help = error.help().unwrap();
        assert!(help.contains("reboot the host") && help.contains("return_to: vfio"), "{context}: {help}");
        machine.release(&gamer("gpu: {}")).unwrap();
        assert_quarantined(&machine, &format!("{} {last}", CARD[index]), &context);
    }
}

#[test]
fn a_kernel_that_fails_after_the_guest_is_quoted_and_left_alone() {
    for (index, fault, last) in [
        (0, "unbind-oopses vfio-pci", "unbind vfio-pci"),
        (3, "unbind-oopses", "unbind vfio-pci"),
        (0, "probe-oopses amdgpu", "drivers_probe"),
        (1, "probe-oopses snd_hda_intel", "drivers_probe"),
        (0, "dead\nremove-oopses", "remove"),
    ] {
        let machine = logging();
        let life = gamer("gpu: {recover: [reset, rescan, bus-reset]}");
        machine.prepare(&life).unwrap();
        machine.started(&life).unwrap();
        forget_log(&machine);
        let context = format!("{} {fault}", CARD[index]);
        machine.breaks(CARD[index], fault);
        let outcome = machine.release(&life).unwrap();
        let told = |words: &str| outcome.notes.iter().any(|note| note.text.contains(words));
        assert!(told(SAID) && told("reboot the host"), "{context}: {outcome:#?}");
        assert_quarantined(&machine, &format!("{} {last}", CARD[index]), &context);
    }
}

#[test]
fn a_kernel_that_fails_in_a_reset_ends_the_recovery() {
    let machine = logging();
    let life = gamer("gpu: {recover: [bus-reset, rescan]}");
    machine.prepare(&life).unwrap();
    machine.started(&life).unwrap();
    machine.breaks(CARD[0], "dead");
    machine.breaks(PORTS[0], "reset-oopses");
    let outcome = machine.release(&life).unwrap();
    assert!(outcome.notes.iter().all(|note| !note.text.contains("`rescan`")), "{outcome:#?}");
    assert_quarantined(&machine, &format!("{} reset_subordinate", PORTS[0]), "a port");
}

/// Of an administrator, or for lack of memory.
#[test]
fn a_writer_that_a_signal_ended_refuses_the_start_and_no_more() {
    for fault in ["unbind-is-killed amdgpu", "probe-is-killed vfio-pci"] {
        let machine = logging();
        let before = machine.files();
        machine.breaks(CARD[0], fault);
        let faults = machine.path(&format!("/simulated/pci/{}/fault", CARD[0]));
        let error = machine.prepare(&gamer("gpu: {}")).unwrap_err().to_string();
        assert!(error.ends_with("the process that did it was ended by SIGKILL"), "{fault}: {error}");
        assert!(machine.quarantine().is_none(), "{fault}");
        assert_eq!(machine.drivers(), HOST_DRIVERS, "{fault}");
        std::fs::remove_file(faults).unwrap();
        machine.set(LOG, "");
        machine.assert_is(&before, fault);
    }
}

#[test]
fn a_writer_that_a_signal_ended_on_the_way_back_is_followed_by_another() {
    for fault in ["unbind-is-killed vfio-pci", "probe-is-killed amdgpu"] {
        let machine = logging();
        let before = machine.files();
        let life = gamer("gpu: {recover: [reset]}");
        machine.prepare(&life).unwrap();
        machine.started(&life).unwrap();
        machine.breaks(CARD[0], fault);
        let path = machine.path(&format!("/simulated/pci/{}/fault", CARD[0]));
        let healer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            std::fs::remove_file(path).unwrap();
        });
        let outcome = machine.release(&life).unwrap();
        healer.join().unwrap();
        assert!(machine.quarantine().is_none(), "{fault}: {outcome:#?}");
        assert!(outcome.notes.iter().all(|note| !note.text.contains("trying")), "{fault}: {outcome:#?}");
        machine.set(LOG, "");
        machine.assert_is(&before, fault);
    }
}

/// As NVIDIA's driver does while any program has the card.
#[test]
fn a_kernel_that_hangs_and_says_why_is_quoted() {
    let machine = logging();
    let mut hanging = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    machine.breaks(CARD[0], &format!("unbind-hangs amdgpu {}", hanging.id()));
    let log = machine.get("/dev/kmsg");
    let path = machine.path("/dev/kmsg");
    let line = "NVRM: Attempting to remove device 0000:03:00.0 with non-zero usage count!";
    machine.faults.interrupt("/sys/bus/pci/drivers/amdgpu/unbind", move || {
        std::fs::write(&path, format!("{log}\n3,9000,9999,-;{line}\n")).unwrap();
    });
    let error = machine.prepare(&gamer("gpu: {}")).unwrap_err().to_string();
    assert!(error.ends_with(&format!("; it says: {line}")), "{error}");
    let quarantine = machine.quarantine().unwrap();
    assert!(quarantine.evidence[0].ends_with(line), "{quarantine:#?}");
    hanging.kill().unwrap();
    hanging.wait().unwrap();
}
