//! A write that fails, at every place where a card needs one.

use super::{CARD, USB, machine, player};
use crate::support::Life;

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
