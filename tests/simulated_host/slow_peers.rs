//! Peers that take their time to answer: others get at the ledger meanwhile, and what they do there counts.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use vfio_hook::deadline::Deadline;
use vfio_hook::host::Host;
use vfio_hook::host::simulated::Faults;
use vfio_hook::lifecycle;

use crate::support::{Life, Machine, guest, life};

/// A unit of a user whose service manager answers late.
const UNIT: &str = "/simulated/systemd-of-1000/player.service/ActiveState";
const STOPPED: &str = "services: {stop: [{unit: player.service, user: alice}]}\n";

/// A wait for the ledger ends soon.
fn at_once() -> Deadline {
    Deadline::after(Duration::from_millis(300))
}

/// Before the next answer about the unit arrives, another process does something on the same machine.
fn meanwhile(machine: &Machine, what: impl FnOnce(&mut Host) + Send + 'static) {
    let root: PathBuf = machine.root();
    machine.faults.delay_answer(UNIT, move || what(&mut Host::simulated(&root, &Faults::default())));
}

fn one() -> Life {
    life(guest(1, "2-3", ""), STOPPED)
}

/// Another guest is prepared while the unit is asked for.
fn other_is_prepared(machine: &Machine) -> Life {
    let other = || life(guest(2, "4-5", ""), "isolate_cpus: {}\n");
    let comes = other();
    meanwhile(machine, move |host| {
        lifecycle::prepare(host, Some(&comes.loaded), &comes.guest, b"", at_once()).unwrap();
    });
    other()
}

#[test]
fn a_prepare_that_waits_for_an_answer_keeps_nobody_from_the_ledger() {
    let machine = Machine::new("two-nodes");
    let (before, one) = (machine.files(), one());
    let other = other_is_prepared(&machine);
    machine.prepare(&one).unwrap();
    assert_eq!(machine.get(UNIT), "inactive");
    assert!(machine.record().unwrap().leases.contains_key(&other.guest.uuid));
    machine.release(&one).unwrap();
    machine.release(&other).unwrap();
    machine.assert_is(&before, "both are gone");
}

#[test]
fn nor_does_a_release() {
    let machine = Machine::new("two-nodes");
    let (before, one) = (machine.files(), one());
    machine.prepare(&one).unwrap();
    let other = other_is_prepared(&machine);
    machine.release(&one).unwrap();
    assert_eq!(machine.get(UNIT), "active");
    assert!(machine.record().unwrap().leases.contains_key(&other.guest.uuid));
    machine.release(&other).unwrap();
    machine.assert_is(&before, "both are gone");
}

/// The unit was seen to be stopped, for a guest that ends before the answer arrives.
#[test]
fn an_answer_from_before_another_guest_ended_counts_for_nothing() {
    let machine = Machine::new("two-nodes");
    let (before, one) = (machine.files(), one());
    let other = life(guest(2, "4-5", ""), STOPPED);
    machine.prepare(&other).unwrap();
    let uuid = other.guest.uuid;
    meanwhile(&machine, move |host| {
        drop(lifecycle::release(host, uuid, "shutdown", at_once()).unwrap());
    });
    machine.prepare(&one).unwrap();
    assert_eq!(machine.get(UNIT), "inactive");
    machine.release(&one).unwrap();
    machine.assert_is(&before, "both are gone");
}

/// Nothing is owed to a unit that systemd forgot when it stopped.
#[test]
fn a_unit_that_is_gone_with_its_stop_is_settled() {
    for user in ["", ", user: alice"] {
        let machine = Machine::new("two-nodes");
        let one =
            life(guest(1, "2-3", ""), &format!("services: {{stop: [{{unit: ollama.service{user}}}]}}\n"));
        let folder = match user {
            "" => "/simulated/systemd/ollama.service",
            _ => "/simulated/systemd-of-1000/ollama.service",
        };
        fs::create_dir_all(machine.path(folder)).unwrap();
        fs::write(machine.path(&format!("{folder}/ActiveState")), "active\n").unwrap();
        machine.prepare(&one).unwrap();
        fs::remove_dir_all(machine.path(folder)).unwrap();
        let outcome = machine.release(&one).unwrap();
        assert_eq!(outcome.failures, Vec::<String>::new(), "{user}");
        let said = outcome.notes.iter().filter(|note| note.text.contains("is gone, nothing to give back"));
        assert_eq!(said.count(), 1, "{:?}", outcome.notes);
        assert!(!machine.path(vfio_hook::ledger::LEDGER_PATH).exists(), "{user}");
    }
}
