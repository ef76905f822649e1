//! A write that fails, at every place where a card needs one.

use vfio_hook::ledger::{Cleared, Ledger};

use super::{CARD, USB, functions, machine, player};
use crate::support::{Life, soon};

fn with_a_service() -> Life {
    let devices: Vec<&str> = CARD.into_iter().chain([USB]).collect();
    let xml = "<memory unit='MiB'>512</memory><on_reboot>destroy</on_reboot>";
    player(1, &devices, xml, "gpu: {}\nservices: {stop: ollama.service}\n")
}

#[test]
fn a_failed_prepare_leaves_nothing_behind() {
    let machine = machine();
    let before = machine.files();
    let life = with_a_service();
    let mut refused = 0;
    for nth in 1.. {
        machine.faults.fail_write(nth);
        let result = machine.prepare(&life);
        let was_reached = machine.faults.writes() >= nth;
        machine.faults.clear();
        let context = format!("write {nth} of prepare failed: {result:?}");
        match result {
            Err(_) => refused += 1,
            Ok(outcome) => {
                assert!(outcome.failures.is_empty());
                machine.release(&life).unwrap();
            }
        }
        machine.useless_keepers_leave();
        machine.assert_is(&before, &context);
        if !was_reached {
            break;
        }
    }
    assert!(refused > 20, "{refused}");
}

/// The card is home, with VFIO for the next guest, or known to be neither; nobody has to do more than clear it.
#[test]
fn after_a_failed_release_the_card_is_home_or_with_vfio() {
    let life = with_a_service();
    let mut left_to_guests = 0;
    for nth in 1.. {
        let machine = machine();
        let before = machine.files();
        machine.prepare(&life).unwrap();
        machine.faults.fail_write(nth);
        let result = machine.release(&life);
        let was_reached = machine.faults.writes() >= nth;
        machine.faults.clear();
        let context = format!("write {nth} of release failed: {result:?}");
        // The writer lives on in this test.
        machine.forget_processes();
        machine.open_and_close();
        machine.release(&life).unwrap();
        machine.open_and_close();
        for functions in [functions(&CARD), functions(&[USB])] {
            let mut host = machine.host();
            let mut ledger = Ledger::open(&mut host, soon()).unwrap();
            if let Cleared::No { evidence } = ledger.clear_quarantine(&functions).unwrap() {
                panic!("{context}: {evidence:?}");
            }
        }
        machine.useless_keepers_leave();
        let is_with_vfio =
            |functions: &[&str]| functions.iter().all(|function| machine.driver(function) == "vfio-pci");
        if is_with_vfio(&CARD) || is_with_vfio(&[USB]) {
            left_to_guests += 1;
            assert!(!machine.has_ledger(), "{context}: {:#?}", machine.record());
        } else if CARD[1..].iter().any(|function| machine.driver(function).is_empty()) {
            // A second function whose bind failed is told, and no more.
            assert_eq!(machine.driver(CARD[0]), "amdgpu", "{context}");
            let notes = result.unwrap().notes;
            assert!(notes.iter().any(|note| note.text.contains("drivers_probe")), "{notes:#?}");
            assert!(!machine.has_ledger());
        } else {
            machine.assert_is(&before, &context);
        }
        if !was_reached {
            break;
        }
    }
    assert!(left_to_guests > 5, "{left_to_guests}");
}
