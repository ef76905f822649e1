//! A write that fails, at every place where there is one.

use crate::support::{HOSTS, Machine, greedy};

#[test]
fn a_failed_prepare_leaves_nothing_behind() {
    for name in HOSTS {
        let machine = Machine::new(name);
        let before = machine.files();
        let life = greedy(&machine, 1, "2-3,6", 100);
        let mut refused = 0;
        for nth in 1.. {
            machine.faults.fail_write(nth);
            let result = machine.prepare(&life);
            let was_reached = machine.faults.writes() >= nth;
            machine.faults.clear();
            let context = format!("{name}, write {nth} of prepare failed: {result:?}");
            match result {
                Err(_) => refused += 1,
                Ok(outcome) => {
                    assert!(outcome.failures.is_empty());
                    machine.release(&life).unwrap();
                }
            }
            machine.assert_is(&before, &context);
            if !was_reached {
                break;
            }
        }
        assert!(refused > 5, "{name}: {refused}");
    }
}

#[test]
fn what_a_failed_release_left_comes_back_with_the_next_event() {
    for name in HOSTS {
        let machine = Machine::new(name);
        let before = machine.files();
        let life = greedy(&machine, 1, "2-3,6", 100);
        for nth in 1.. {
            machine.prepare(&life).unwrap();
            machine.faults.fail_write(nth);
            let result = machine.release(&life);
            let was_reached = machine.faults.writes() >= nth;
            machine.faults.clear();
            let context = format!("{name}, write {nth} of release failed: {result:?}");
            match nth % 3 {
                0 => drop(machine.open_and_close()),
                _ => drop(machine.release(&life).unwrap()),
            }
            // Whoever opens the ledger settles what is open, but a lease goes only by name.
            machine.release(&life).unwrap();
            machine.assert_is(&before, &context);
            if !was_reached {
                break;
            }
        }
    }
}

#[test]
fn a_failure_in_the_rollback_of_a_failure_is_mended_by_the_next_event() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let life = greedy(&machine, 1, "2-3,6", 100);
    let mut mended = 0;
    for first in 1.. {
        let mut first_was_reached = false;
        for second in first + 1.. {
            machine.faults.fail_writes([first, second]);
            let result = machine.prepare(&life);
            let writes = machine.faults.writes();
            machine.faults.clear();
            // The writer lives on in this test; the real one is gone by now.
            machine.forget_processes();
            if machine.has_ledger()
                && let Err(error) = &result
            {
                assert!(error.to_string().contains("not all that was taken for it is given back"), "{error}");
                mended += 1;
            }
            machine.open_and_close();
            machine.release(&life).unwrap();
            machine.assert_is(&before, &format!("writes {first} and {second} failed: {result:?}"));
            first_was_reached = writes >= first;
            if writes < second {
                break;
            }
        }
        if !first_was_reached {
            break;
        }
    }
    assert!(mended > 5, "{mended}");
}

#[test]
fn interrupts_that_cannot_be_moved_are_passed_over() {
    use nix::errno::Errno;
    for errno in [Errno::EPERM, Errno::EIO, Errno::ENOSPC] {
        let machine = Machine::new("two-nodes");
        let before = machine.files();
        let life = greedy(&machine, 1, "2-3", 10);
        machine.faults.refuse("/proc/irq/31/smp_affinity_list", errno);
        let outcome = machine.prepare(&life).unwrap();
        assert_eq!(machine.get("/proc/irq/31/smp_affinity_list"), "2");
        assert_eq!(machine.get("/proc/irq/32/smp_affinity_list"), "0-1,4-7");
        let notes: Vec<_> = outcome.notes.iter().filter(|note| note.text.contains("IRQ 31")).collect();
        assert_eq!(notes.len(), 1, "{:?}", outcome.notes);
        machine.release(&life).unwrap();
        machine.assert_is(&before, "released");
    }
}
