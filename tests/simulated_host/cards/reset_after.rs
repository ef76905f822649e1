//! A card that is reset after each guest, whatever its state.

use super::wedged::{LOG, forget_log};
use super::{CARD, DISPLAY, HOST_DRIVERS, ON_VFIO, gamer, machine_with};
use crate::support::{Machine, greedy};

fn machine() -> Machine {
    machine_with(&format!(
        "{LOG} =\n{DISPLAY}/reset =\n{DISPLAY}/reset_method = pm\n/simulated/pci/{}/reset_methods = pm\n",
        CARD[0]
    ))
}

fn resets(machine: &Machine) -> Vec<String> {
    let log = machine.get(LOG);
    let is_reset = |line: &&str| line.contains("reset") || line.contains("sleep");
    log.lines().filter(is_reset).map(str::to_owned).collect()
}

#[test]
fn the_steps_are_done_in_their_order_while_vfio_has_it() {
    for (return_to, drivers) in [("host", HOST_DRIVERS), ("vfio", ON_VFIO)] {
        let machine = machine();
        let yaml = format!("gpu: {{return_to: {return_to}, reset_after: [bus-reset, reset, deep-sleep]}}");
        let life = gamer(&yaml);
        machine.prepare(&life).unwrap();
        machine.started(&life).unwrap();
        forget_log(&machine);
        let outcome = machine.release(&life).unwrap();
        assert_eq!(outcome.failures, [""; 0], "{return_to}");
        assert_eq!(
            resets(&machine),
            ["0000:02:00.0 reset_subordinate", "0000:03:00.0 reset", "sleep mem"],
            "{return_to}: {outcome:#?}"
        );
        // The host's drivers come after it.
        let log = machine.get(LOG);
        let last_reset = log.lines().position(|line| line.contains("sleep")).unwrap();
        let first_bind = log.lines().position(|line| line.contains("drivers_probe"));
        assert!(first_bind.is_none_or(|bind| bind > last_reset), "{return_to}: {log}");
        assert_eq!(machine.drivers(), drivers, "{return_to}");
        assert!(outcome.notes.iter().all(|note| !note.text.contains("trying")), "{return_to}: {outcome:#?}");
    }
}

#[test]
fn a_start_that_failed_resets_nothing() {
    let machine = machine();
    let before = machine.files();
    let life = gamer("gpu: {reset_after: [bus-reset]}");
    machine.prepare(&life).unwrap();
    machine.release(&life).unwrap();
    assert_eq!(resets(&machine), [""; 0]);
    machine.set(LOG, before[LOG].trim_end());
    machine.assert_is(&before, "released");
}

#[test]
fn a_step_that_cannot_be_done_is_told_and_the_card_comes_home() {
    let machine = machine();
    let life = gamer("gpu: {reset_after: [deep-sleep, slot-power, bus-reset]}");
    machine.prepare(&life).unwrap();
    machine.started(&life).unwrap();
    let other = greedy(&machine, 2, "4-5", 10);
    machine.prepare(&other).unwrap();
    forget_log(&machine);
    let outcome = machine.release(&life).unwrap();
    for words in
        ["`deep-sleep` cannot be done: no deep sleep while other guests run", "`slot-power` cannot be done: "]
    {
        assert!(outcome.notes.iter().any(|note| note.text.contains(words)), "{words}: {outcome:#?}");
    }
    assert_eq!(resets(&machine), ["0000:02:00.0 reset_subordinate"]);
    assert_eq!(machine.drivers(), HOST_DRIVERS);
    machine.release(&other).unwrap();
}

/// A dead card that the step wakes up needs no recovery; one in doubt before the step stays in doubt.
#[test]
fn what_was_seen_before_the_steps_is_a_doubt_and_no_more() {
    for (return_to, drivers) in [("host", HOST_DRIVERS), ("host-if-clean", ON_VFIO)] {
        let machine = machine();
        let life = gamer(&format!("gpu: {{return_to: {return_to}, reset_after: [bus-reset]}}"));
        machine.prepare(&life).unwrap();
        machine.started(&life).unwrap();
        machine.kernel_says("vfio-pci 0000:03:00.0: not ready 65535ms after bus reset; giving up");
        machine.breaks(CARD[0], "dead until reset_subordinate");
        let outcome = machine.release(&life).unwrap();
        assert!(machine.quarantine().is_none(), "{return_to}: {outcome:#?}");
        assert_eq!(machine.drivers(), drivers, "{return_to}: {outcome:#?}");
    }
}

#[test]
fn killed_at_any_write_the_card_comes_home() {
    for nth in 1.. {
        let machine = machine();
        let before = machine.files();
        let life = gamer("gpu: {reset_after: [bus-reset]}");
        machine.prepare(&life).unwrap();
        machine.started(&life).unwrap();
        machine.faults.panic_at_write(nth);
        let outcome = machine.until_killed(|| machine.release(&life).unwrap());
        machine.faults.clear();
        machine.open_and_close();
        machine.release(&life).unwrap();
        machine.set(LOG, before[LOG].trim_end());
        machine.assert_is(&before, &format!("killed at write {nth} of release"));
        if outcome.is_ok() {
            assert!(nth > 30, "{nth}");
            break;
        }
    }
}
