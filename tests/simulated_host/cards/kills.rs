//! The program is killed before every write that a card needs.

use super::{CARD, HOST_DRIVERS, ON_VFIO, USB, machine, player};
use vfio_hook::ledger::Cleared;

use crate::support::{Killed, Life, Machine, guest, life};

fn kill_at<T>(machine: &Machine, nth: usize, what: impl FnOnce() -> T) -> Result<T, Killed> {
    machine.faults.panic_at_write(nth);
    let outcome = machine.until_killed(what);
    machine.faults.clear();
    outcome
}

/// A player with a card, a USB controller and a service to stop.
fn with_a_service() -> Life {
    let devices: Vec<&str> = CARD.into_iter().chain([USB]).collect();
    let xml = "<memory unit='MiB'>512</memory><on_reboot>destroy</on_reboot>";
    player(1, &devices, xml, "gpu: {}\nservices: {stop: ollama.service}\n")
}

fn settle(machine: &Machine, life: &Life, nth: usize) {
    match nth % 4 {
        0 => drop(machine.open_and_close()),
        1 => {
            machine.prepare(life).unwrap();
            assert_eq!(machine.drivers(), ON_VFIO);
            machine.release(life).unwrap();
        }
        2 => drop(machine.release(life).unwrap()),
        _ => {
            let other = other();
            machine.prepare(&other).unwrap();
            machine.release(&other).unwrap();
            machine.keeper_finishes(life);
        }
    }
}

/// Another guest, without a card.
fn other() -> Life {
    life(guest(2, "4-5", ""), "isolate_cpus: {}")
}

#[test]
fn a_killed_prepare_is_undone_by_the_next_process() {
    let machine = machine();
    let before = machine.files();
    let life = with_a_service();
    for nth in 1.. {
        let outcome = kill_at(&machine, nth, || machine.prepare(&life).unwrap());
        if outcome.is_ok() {
            machine.release(&life).unwrap();
            assert!(nth > 40, "{nth}");
            break;
        }
        settle(&machine, &life, nth);
        machine.assert_is(&before, &format!("killed at write {nth} of prepare"));
    }
}

#[test]
fn a_killed_release_is_finished_by_the_next_process() {
    let machine = machine();
    let before = machine.files();
    let life = with_a_service();
    for nth in 1.. {
        machine.prepare(&life).unwrap();
        let outcome = kill_at(&machine, nth, || machine.release(&life).unwrap());
        settle(&machine, &life, nth);
        machine.release(&life).unwrap();
        machine.assert_is(&before, &format!("killed at write {nth} of release"));
        if outcome.is_ok() {
            assert!(nth > 40, "{nth}");
            break;
        }
    }
}

#[test]
fn a_killed_settler_is_settled() {
    let machine = machine();
    let before = machine.files();
    let life = with_a_service();
    // While the settings are made, and while they are put back.
    for first in 23..29 {
        for second in 1..20 {
            kill_at(&machine, first, || machine.prepare(&life).unwrap()).unwrap_err();
            let settled = kill_at(&machine, second, || settle(&machine, &life, first + second));
            machine.open_and_close();
            machine.release(&life).unwrap();
            machine.release(&other()).unwrap();
            machine.assert_is(&before, &format!("killed at {first}, then at {second}"));
            if settled.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn a_panic_in_the_same_process_is_undone_by_its_own_release() {
    let machine = machine();
    let before = machine.files();
    let life = with_a_service();
    for nth in 1.. {
        machine.faults.panic_at_write(nth);
        let outcome =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| machine.prepare(&life).unwrap()));
        machine.faults.clear();
        machine.release(&life).unwrap();
        machine.assert_is(&before, &format!("panicked at write {nth}"));
        if outcome.is_ok() {
            break;
        }
    }
}

#[test]
fn a_card_that_was_to_stay_with_vfio_is_in_one_of_both_places() {
    let xml = "<memory unit='MiB'>512</memory><on_reboot>destroy</on_reboot>";
    for nth in 1.. {
        let machine = machine();
        let before = machine.files();
        let life = player(1, &CARD, xml, "gpu: {return_to: vfio}");
        let outcome = kill_at(&machine, nth, || machine.prepare(&life).unwrap());
        machine.open_and_close();
        machine.release(&life).unwrap();
        assert!(!machine.has_ledger(), "{nth}");
        if machine.drivers() == HOST_DRIVERS {
            machine.assert_is(&before, &format!("killed at write {nth}"));
        } else {
            assert_eq!(machine.drivers(), ON_VFIO, "{nth}");
        }
        if outcome.is_ok() {
            break;
        }
    }
}

#[test]
fn a_killed_release_of_a_card_that_does_not_come_back_ends_in_quarantine() {
    for (function, fault) in [(CARD[1], "dead"), (CARD[0], "dead")] {
        let machine = machine();
        let before = machine.files();
        let life = with_a_service();
        for nth in 1.. {
            let context = format!("{fault}, killed at write {nth} of release");
            machine.prepare(&life).unwrap();
            machine.breaks(function, fault);
            let outcome = kill_at(&machine, nth, || machine.release(&life).unwrap());
            machine.open_and_close();
            machine.release(&life).unwrap();
            machine.open_and_close();
            let record = machine.record().unwrap();
            assert_eq!(record.quarantines.len(), 1, "{context}");
            assert!(record.leases.is_empty(), "{context}");
            let kept = |driver: &String| driver.is_empty() || driver == "vfio-pci";
            assert!(machine.drivers().iter().all(kept), "{context}: {:?}", machine.drivers());
            machine.heals(function);
            assert!(matches!(machine.clear_quarantine(), Cleared::Yes(_)), "{context}");
            machine.assert_is(&before, &context);
            if outcome.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn a_killed_release_of_a_card_that_the_host_does_not_take_leaves_it_to_guests() {
    for nth in 1.. {
        let machine = machine();
        let life = with_a_service();
        machine.prepare(&life).unwrap();
        machine.breaks(CARD[0], "probe-fails amdgpu");
        let context = format!("killed at write {nth} of release");
        let outcome = kill_at(&machine, nth, || machine.release(&life).unwrap());
        settle_without_prepare(&machine, &life, nth);
        machine.release(&life).unwrap();
        assert!(!machine.has_ledger(), "{context}: {:#?}", machine.record());
        assert_eq!(machine.drivers(), ON_VFIO, "{context}");
        assert_eq!(machine.driver(USB), "xhci_hcd", "{context}");
        if outcome.is_ok() {
            assert!(nth > 40, "{nth}");
            break;
        }
    }
}

fn settle_without_prepare(machine: &Machine, life: &Life, nth: usize) {
    match nth % 2 {
        0 => drop(machine.open_and_close()),
        _ => drop(machine.release(life).unwrap()),
    }
}

#[test]
fn a_killed_clear_is_made_again() {
    let machine = machine();
    let before = machine.files();
    let life = with_a_service();
    for nth in 1.. {
        let context = format!("killed at write {nth} of clear");
        machine.prepare(&life).unwrap();
        machine.breaks(CARD[0], "dead");
        machine.release(&life).unwrap();
        machine.heals(CARD[0]);
        let outcome = kill_at(&machine, nth, || machine.clear_quarantine());
        machine.open_and_close();
        assert!(!matches!(machine.clear_quarantine(), Cleared::No { .. }), "{context}");
        machine.assert_is(&before, &context);
        if outcome.is_ok() {
            break;
        }
    }
}
