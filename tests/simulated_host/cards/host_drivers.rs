//! The way back to the host's drivers, where one of them does not take what it had: the display decides.

use vfio_hook::ledger::Cleared;

use super::{CARD, HOST_DRIVERS, ON_VFIO, PORTS, USB, gamer, machine, player};
use crate::support::Machine;

const STAYS: &str = "it answers, and stays with VFIO for the next guest";

/// The kernel says so while a function is bound.
fn says_at_bind(machine: &Machine, text: &'static str) {
    let log = machine.path("/dev/kmsg");
    machine.faults.interrupt("/sys/bus/pci/drivers_probe", move || {
        let before = std::fs::read_to_string(&log).unwrap();
        std::fs::write(&log, format!("{}\n4,3000,1,-;{text}\n", before.trim_end())).unwrap();
    });
}

#[test]
fn a_second_function_that_its_driver_refuses_is_a_note() {
    for (index, driver) in [(1, "snd_hda_intel"), (2, "xhci_hcd"), (3, "i2c-designware-pci")] {
        let machine = machine();
        let life = gamer("gpu: {recover: [reset, bus-reset]}");
        machine.prepare(&life).unwrap();
        machine.started(&life).unwrap();
        machine.breaks(CARD[index], &format!("probe-fails {driver}"));
        let outcome = machine.release(&life).unwrap();
        assert_eq!(outcome.failures, [""; 0], "{driver}");
        let words = format!("driver {driver} did not take {}", CARD[index]);
        assert!(outcome.notes.iter().any(|note| note.text.ends_with(&words)), "{driver}: {outcome:#?}");
        assert!(outcome.notes.iter().all(|note| !note.text.contains("trying")), "{driver}: {outcome:#?}");
        assert!(!machine.has_ledger(), "{driver}: {:#?}", machine.record());
        let mut expected = HOST_DRIVERS.map(str::to_owned);
        expected[index].clear();
        assert_eq!(machine.drivers(), expected, "{driver}");
        assert_eq!(machine.attribute(CARD[index], "driver_override"), "(null)", "{driver}");
        // The next guest has all of it, and it comes back as it was found.
        machine.prepare(&life).unwrap();
        assert_eq!(machine.drivers(), ON_VFIO, "{driver}");
        machine.release(&life).unwrap();
        assert_eq!(machine.drivers(), expected, "{driver}");
    }
}

#[test]
fn errors_on_the_bus_during_a_good_bind_are_notes() {
    for line in [
        "pcieport 0000:02:00.0: AER: Uncorrectable (Non-Fatal) error message received",
        "amdgpu 0000:03:00.0:    [14] CmpltTO                (First)",
        "vfio-pci 0000:03:00.0: not ready 2047ms after bus reset; waiting",
    ] {
        let machine = machine();
        let before = machine.files();
        let life = gamer("gpu: {return_to: host-if-clean}");
        machine.prepare(&life).unwrap();
        machine.started(&life).unwrap();
        says_at_bind(&machine, line);
        let outcome = machine.release(&life).unwrap();
        assert!(machine.quarantine().is_none(), "{outcome:#?}");
        assert!(outcome.notes.iter().any(|note| note.text.contains(line)), "{outcome:#?}");
        machine.set("/dev/kmsg", before["/dev/kmsg"].trim_end());
        machine.assert_is(&before, line);
    }
}

/// A start that fails late gives the card back to a driver that takes it only once a boot.
#[test]
fn a_display_that_its_driver_refuses_after_a_failed_start_stays_with_vfio() {
    let machine = machine();
    machine.breaks(CARD[0], "probe-fails amdgpu");
    let life = gamer("gpu: {}");
    machine.prepare(&life).unwrap();
    // libvirt never started QEMU.
    let outcome = machine.release(&life).unwrap();
    assert!(outcome.notes.iter().any(|note| note.text.ends_with(STAYS)), "{outcome:#?}");
    assert_eq!(machine.drivers(), ON_VFIO);
    assert!(!machine.has_ledger());
}

#[test]
fn another_device_that_its_driver_refuses_stays_with_vfio_too() {
    let machine = machine();
    let devices: Vec<&str> = CARD.into_iter().chain([USB]).collect();
    let life =
        player(1, &devices, "<memory unit='MiB'>512</memory><on_reboot>destroy</on_reboot>", "gpu: {}");
    machine.prepare(&life).unwrap();
    machine.started(&life).unwrap();
    machine.breaks(USB, "probe-fails xhci_hcd");
    let outcome = machine.release(&life).unwrap();
    assert!(outcome.notes.iter().any(|note| note.text.ends_with(STAYS)), "{outcome:#?}");
    assert_eq!(machine.driver(USB), "vfio-pci");
    assert_eq!(machine.drivers(), HOST_DRIVERS);
    assert!(!machine.has_ledger());
}

#[test]
fn the_recovery_steps_are_tried_before_a_card_is_left_to_guests() {
    let machine = machine();
    let life = gamer("gpu: {recover: [bus-reset, host-driver]}");
    machine.prepare(&life).unwrap();
    machine.started(&life).unwrap();
    machine.breaks(CARD[0], "probe-fails amdgpu");
    let outcome = machine.release(&life).unwrap();
    let tried = outcome.notes.iter().filter(|note| note.text.contains("trying")).count();
    assert_eq!(tried, 2, "{outcome:#?}");
    assert!(outcome.notes.iter().any(|note| note.text.ends_with(STAYS)), "{outcome:#?}");
    assert_eq!(machine.drivers(), ON_VFIO);
}

/// What the driver left does not answer any more: nobody may have it.
#[test]
fn a_card_that_dies_while_the_hosts_driver_tries_is_in_quarantine() {
    let machine = machine();
    let life = gamer("gpu: {}");
    machine.prepare(&life).unwrap();
    machine.started(&life).unwrap();
    let fault = machine.path(&format!("/simulated/pci/{}/fault", CARD[0]));
    machine.faults.interrupt("/sys/bus/pci/drivers_probe", move || {
        std::fs::create_dir_all(fault.parent().unwrap()).unwrap();
        std::fs::write(fault, "dead\n").unwrap();
    });
    machine.release(&life).unwrap();
    let quarantine = machine.quarantine().unwrap();
    assert!(quarantine.evidence.iter().any(|line| line.contains("config space reads ff")), "{quarantine:#?}");
    machine.heals(CARD[0]);
    assert!(matches!(machine.clear_quarantine(), Cleared::Yes(_)));
}

#[test]
fn a_cleared_card_that_the_host_does_not_take_is_for_guests() {
    for fault in ["probe-fails amdgpu", "probe-fails snd_hda_intel"] {
        let machine = machine();
        let life = gamer("gpu: {}");
        machine.prepare(&life).unwrap();
        machine.started(&life).unwrap();
        machine.breaks(PORTS[0], "dead");
        machine.release(&life).unwrap();
        assert!(machine.quarantine().is_some());
        machine.heals(PORTS[0]);
        let index = usize::from(fault.contains("snd"));
        machine.breaks(CARD[index], fault);
        let Cleared::Yes(outcome) = machine.clear_quarantine() else { panic!("{fault}: not cleared") };
        assert!(outcome.notes.iter().any(|note| note.text.contains("did not take")), "{fault}: {outcome:#?}");
        // What stays with VFIO holds its power settings itself.
        assert_eq!(machine.has_ledger(), index == 0, "{fault}: {:#?}", machine.record());
        assert!(machine.quarantine().is_none(), "{fault}");
        if index == 0 {
            assert_eq!(machine.drivers(), ON_VFIO);
        } else {
            assert_eq!(machine.driver(CARD[0]), "amdgpu");
        }
    }
}
