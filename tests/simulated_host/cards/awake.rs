//! A card that stays with VFIO after its guest stays awake: the card itself holds its power settings, until a driver of the
//! host has it.

use vfio_hook::host::simulated::SimulatedKernel;
use vfio_hook::ledger::Cleared;

use super::{CARD, HOST_DRIVERS, ON_VFIO, PORTS, gamer, machine};
use crate::support::{Life, Machine, greedy};

/// Something that opens the ledger.
type Event = fn(&Machine);

fn assert_awake(machine: &Machine, context: &str) {
    let record = machine.record().unwrap_or_else(|| panic!("{context}: no ledger"));
    assert_eq!(record.kept_awake.len(), 1, "{context}");
    assert!(record.leases.is_empty(), "{context}");
    for address in CARD.iter().chain(&PORTS) {
        assert_eq!(machine.attribute(address, "d3cold_allowed"), "0", "{context}: {address}");
        assert_eq!(machine.attribute(address, "power/control"), "on", "{context}: {address}");
    }
    assert_eq!(machine.drivers(), ON_VFIO, "{context}");
}

fn has_its_life(machine: &Machine, life: &Life) -> vfio_hook::ledger::Outcome {
    machine.prepare(life).unwrap();
    machine.started(life).unwrap();
    machine.release(life).unwrap()
}

/// A person takes the card from VFIO.
fn host_takes(machine: &Machine) {
    let kernel = SimulatedKernel::new(machine.root(), machine.faults.clone());
    for function in CARD {
        kernel.write(format!("/sys/bus/pci/devices/{function}/driver_override"), "\n").unwrap();
        kernel.write("/sys/bus/pci/drivers/vfio-pci/unbind", function).unwrap();
        kernel.write("/sys/bus/pci/drivers_probe", function).unwrap();
    }
    assert_eq!(machine.drivers(), HOST_DRIVERS);
}

#[test]
fn it_stays_awake_from_guest_to_guest_until_a_driver_of_the_host_has_it() {
    let machine = machine();
    let before = machine.files();
    let life = gamer("gpu: {return_to: vfio}");
    let outcome = has_its_life(&machine, &life);
    let words = "stays with VFIO, and awake until a driver of the host has it";
    assert!(outcome.notes.iter().any(|note| note.text.ends_with(words)), "{outcome:#?}");
    assert_awake(&machine, "first");
    let first = machine.files();
    let outcome = has_its_life(&machine, &life);
    assert!(outcome.notes.iter().all(|note| !note.text.ends_with(words)), "{outcome:#?}");
    assert_awake(&machine, "second");
    machine.open_and_close();
    machine.release(&life).unwrap();
    let other = greedy(&machine, 2, "4-5", 10);
    machine.prepare(&other).unwrap();
    machine.release(&other).unwrap();
    assert_awake(&machine, "others");
    crate::support::assert_same(&machine.files(), &first, "others");
    host_takes(&machine);
    machine.open_and_close();
    machine.assert_is(&before, "with the host");
}

#[test]
fn any_event_lets_it_sleep_once_the_host_has_it() {
    let ways: [(&str, Event); 3] = [
        ("another guest's prepare", |machine| {
            let other = greedy(machine, 2, "4-5", 10);
            machine.prepare(&other).unwrap();
            machine.release(&other).unwrap();
        }),
        ("a release of nothing", |machine| drop(machine.release(&gamer("gpu: {}")).unwrap())),
        ("undo", |machine| drop(machine.open_and_close())),
    ];
    for (how, event) in ways {
        let machine = machine();
        let before = machine.files();
        has_its_life(&machine, &gamer("gpu: {return_to: vfio}"));
        host_takes(&machine);
        if how == "a release of nothing" {
            // It has no lease: the event ends before the ledger is opened.
            event(&machine);
            machine.open_and_close();
        } else {
            event(&machine);
        }
        machine.assert_is(&before, how);
    }
}

/// The driver of the host set them meanwhile: they are its own.
#[test]
fn what_the_hosts_driver_chose_stays() {
    let machine = machine();
    let before = machine.files();
    has_its_life(&machine, &gamer("gpu: {return_to: vfio}"));
    host_takes(&machine);
    machine.set(&format!("/sys/bus/pci/devices/{}/power/control", CARD[0]), "auto");
    machine.open_and_close();
    assert!(!machine.has_ledger());
    assert_eq!(machine.attribute(CARD[0], "power/control"), "auto");
    assert_eq!(machine.attribute(CARD[0], "d3cold_allowed"), "1");
    assert_eq!(before.len(), machine.files().len());
}

#[test]
fn never_lets_it_sleep_also_where_an_earlier_guest_did_not() {
    let machine = machine();
    for first in ["gpu: {return_to: vfio, keep_awake: never}", "gpu: {return_to: vfio}"] {
        has_its_life(&machine, &gamer(first));
        let life = gamer("gpu: {return_to: vfio, keep_awake: never}");
        has_its_life(&machine, &life);
        assert!(!machine.has_ledger(), "{first}: {:#?}", machine.record());
        assert_eq!(machine.drivers(), ON_VFIO);
        for address in CARD.iter().chain(&PORTS) {
            assert_eq!(machine.attribute(address, "d3cold_allowed"), "1", "{first}: {address}");
        }
    }
}

#[test]
fn a_card_that_was_with_vfio_before_stays_awake_after_its_guest_only() {
    let machine = machine();
    machine.gives_card_to_vfio();
    let before = machine.files();
    // No guest had it.
    let life = gamer("gpu: {}");
    machine.prepare(&life).unwrap();
    machine.release(&life).unwrap();
    machine.assert_is(&before, "no guest had it");
    has_its_life(&machine, &life);
    assert_awake(&machine, "a guest had it");
}

#[test]
fn a_card_that_the_host_does_not_take_stays_awake() {
    let machine = machine();
    machine.prepare(&gamer("gpu: {}")).unwrap();
    machine.started(&gamer("gpu: {}")).unwrap();
    machine.breaks(CARD[0], "probe-fails amdgpu");
    machine.release(&gamer("gpu: {}")).unwrap();
    assert_awake(&machine, "not taken");
}

/// A function that is found anew has forgotten its settings.
#[test]
fn a_card_that_was_found_anew_is_kept_awake_again() {
    let machine = machine();
    machine.set("/proc/sys/kernel/osrelease", "6.19.1");
    let life = gamer("gpu: {return_to: vfio, recover: [rescan]}");
    machine.prepare(&life).unwrap();
    machine.started(&life).unwrap();
    machine.breaks(CARD[0], "dead until rescan");
    machine.release(&life).unwrap();
    assert!(machine.quarantine().is_none());
    assert_awake(&machine, "found anew");
}

#[test]
fn a_quarantine_ends_in_the_same_way() {
    for return_to in ["vfio", "host"] {
        let machine = machine();
        let before = machine.files();
        let life = gamer(&format!("gpu: {{return_to: {return_to}}}"));
        if return_to == "vfio" {
            has_its_life(&machine, &life);
        }
        machine.prepare(&life).unwrap();
        machine.started(&life).unwrap();
        machine.breaks(CARD[0], "dead");
        machine.release(&life).unwrap();
        machine.open_and_close();
        for address in CARD.iter().chain(&PORTS) {
            assert_eq!(machine.attribute(address, "d3cold_allowed"), "0", "{return_to}: {address}");
        }
        machine.heals(CARD[0]);
        assert!(matches!(machine.clear_quarantine(), Cleared::Yes(_)));
        if return_to == "vfio" {
            assert_awake(&machine, "cleared");
            host_takes(&machine);
            machine.open_and_close();
        }
        machine.assert_is(&before, return_to);
    }
}

#[test]
fn a_card_that_is_gone_is_kept_awake_no_more() {
    let machine = machine();
    has_its_life(&machine, &gamer("gpu: {return_to: vfio}"));
    let kernel = SimulatedKernel::new(machine.root(), machine.faults.clone());
    for function in CARD {
        kernel.write(format!("/sys/bus/pci/devices/{function}/remove"), "1").unwrap();
    }
    machine.open_and_close();
    assert!(!machine.has_ledger(), "{:#?}", machine.record());
    for port in PORTS {
        assert_eq!(machine.attribute(port, "d3cold_allowed"), "1");
    }
}

#[test]
fn killed_at_any_write_it_is_held_once_and_let_go_whole() {
    for nth in 1.. {
        let machine = machine();
        let before = machine.files();
        let life = gamer("gpu: {return_to: vfio}");
        machine.prepare(&life).unwrap();
        machine.started(&life).unwrap();
        machine.faults.panic_at_write(nth);
        let outcome = machine.until_killed(|| machine.release(&life).unwrap());
        machine.faults.clear();
        machine.open_and_close();
        machine.release(&life).unwrap();
        assert_awake(&machine, &format!("killed at write {nth} of release"));
        host_takes(&machine);
        machine.faults.panic_at_write(nth);
        let slept = machine.until_killed(|| machine.open_and_close());
        machine.faults.clear();
        machine.open_and_close();
        machine.assert_is(&before, &format!("killed at write {nth} of letting it sleep"));
        if outcome.is_ok() && slept.is_ok() {
            assert!(nth > 10, "{nth}");
            break;
        }
    }
}
