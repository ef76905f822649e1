//! A write that fails, at every place where a card needs one.

use vfio_hook::ledger::{Cleared, Ledger};

use super::{CARD, USB, functions, machine, player};
use crate::support::{Life, soon};

fn somebody() -> Life {
    let devices: Vec<&str> = CARD.into_iter().chain([USB]).collect();
    let xml = "<memory unit='MiB'>512</memory><on_reboot>destroy</on_reboot>";
    player(1, &devices, xml, "gpu: {}\nservices: {stop: ollama.service}\n")
}

#[test]
fn a_failed_prepare_leaves_nothing_behind() {
    let machine = machine();
    let before = machine.files();
    let life = somebody();
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

/// The card is home, or known not to be; nobody has to do more than clear it.
#[test]
fn after_a_failed_release_the_card_is_home_or_in_quarantine() {
    let machine = machine();
    let before = machine.files();
    let life = somebody();
    let mut quarantined = 0;
    for nth in 1.. {
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
            match ledger.clear_quarantine(&functions).unwrap() {
                Cleared::Yes(_) => quarantined += 1,
                Cleared::NotThere => {}
                Cleared::No { evidence } => panic!("{context}: {evidence:?}"),
            }
        }
        machine.useless_keepers_leave();
        machine.assert_is(&before, &context);
        if !was_reached {
            break;
        }
    }
    assert!(quarantined > 10, "{quarantined}");
}
