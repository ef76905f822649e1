//! The program is killed before every write there is.

use vfio_hook::ledger::{LeaseState, Ledger};

use crate::support::{Files, HOSTS, Killed, Life, Machine, greedy};

/// What comes by after the program was killed, and settles what it left.
#[derive(Clone, Copy, Debug)]
enum Settler {
    /// Any event of a guest without a lease; `vfio-hook undo --stale`.
    AnyCall,
    /// The next start of the guest.
    NextPrepare,
    /// libvirt's release, which follows a failed prepare.
    Release,
    /// Another guest's whole life, in which the guest's keeper is started.
    OtherGuest,
}

const SETTLERS: [Settler; 4] =
    [Settler::AnyCall, Settler::NextPrepare, Settler::Release, Settler::OtherGuest];

impl Settler {
    fn settle(self, machine: &Machine, life: &Life) {
        match self {
            Self::AnyCall => drop(machine.open_and_close()),
            Self::NextPrepare => {
                machine.prepare(life).unwrap();
                machine.release(life).unwrap();
            }
            Self::Release => drop(machine.release(life).unwrap()),
            Self::OtherGuest => {
                let other = greedy(machine, 2, "4-5", 50);
                machine.prepare(&other).unwrap();
                machine.release(&other).unwrap();
                machine.keeper_finishes(life);
            }
        }
    }
}

/// A place to kill at in each round, and whether there was one so late.
fn kill_at<T>(machine: &Machine, nth: usize, what: impl FnOnce() -> T) -> Result<T, Killed> {
    machine.faults.panic_at_write(nth);
    let outcome = machine.until_killed(what);
    machine.faults.clear();
    outcome
}

#[test]
fn a_release_shows_which_process_does_it() {
    let machine = Machine::new("two-nodes");
    let life = greedy(&machine, 1, "2-3,6", 100);
    let mut seen = 0;
    for nth in 1.. {
        machine.prepare(&life).unwrap();
        let outcome = kill_at(&machine, nth, || machine.release(&life).unwrap());
        if outcome.is_ok() {
            break;
        }
        // At the very end nothing is held any more.
        let Some(record) = machine.record() else { continue };
        if record.entries().any(|entry| entry.is_pending()) {
            assert_eq!(record.leases.len(), 1, "write {nth}: {record:?}");
            assert!(record.leases.values().all(|lease| matches!(lease.phase, LeaseState::GivingBack(_))));
            seen += 1;
        }
        machine.release(&life).unwrap();
        assert!(machine.record().is_none(), "write {nth}");
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn a_ledger_that_was_half_removed_is_known_as_one() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let life = greedy(&machine, 1, "2-3,6", 100);
    let mut seen = 0;
    for nth in 1.. {
        assert!(!Ledger::is_half_removed(&machine.host()).unwrap());
        machine.prepare(&life).unwrap();
        assert!(!Ledger::is_half_removed(&machine.host()).unwrap());
        let outcome = kill_at(&machine, nth, || machine.release(&life).unwrap());
        if Ledger::is_half_removed(&machine.host()).unwrap() {
            assert!(machine.record().is_none(), "write {nth}");
            machine.open_and_close();
            machine.assert_is(&before, &format!("killed at write {nth} of release"));
            seen += 1;
        }
        machine.release(&life).unwrap();
        if outcome.is_ok() {
            break;
        }
    }
    assert!(seen > 0);
}

#[test]
fn a_killed_prepare_is_undone_by_the_next_process() {
    for name in HOSTS {
        let machine = Machine::new(name);
        let before = machine.files();
        let life = greedy(&machine, 1, "2-3,6", 100);
        for nth in 1.. {
            let outcome = kill_at(&machine, nth, || machine.prepare(&life).unwrap());
            let settler = SETTLERS[nth % SETTLERS.len()];
            if outcome.is_ok() {
                machine.release(&life).unwrap();
                break;
            }
            settler.settle(&machine, &life);
            machine.assert_is(&before, &format!("{name}, killed at write {nth} of prepare, {settler:?}"));
        }
    }
}

#[test]
fn a_killed_release_is_finished_by_the_next_process() {
    for name in HOSTS {
        let machine = Machine::new(name);
        let before = machine.files();
        let life = greedy(&machine, 1, "2-3,6", 100);
        for nth in 1.. {
            machine.prepare(&life).unwrap();
            let outcome = kill_at(&machine, nth, || machine.release(&life).unwrap());
            let settler = SETTLERS[nth % SETTLERS.len()];
            settler.settle(&machine, &life);
            // Killed before the first write the lease is whole, and stays until the guest itself is heard of.
            machine.release(&life).unwrap();
            machine.assert_is(&before, &format!("{name}, killed at write {nth} of release, {settler:?}"));
            if outcome.is_ok() {
                break;
            }
        }
    }
}

/// Services, systemd, irqbalance and keepers may hang: an event of another guest has this guest's keeper see to them.
#[test]
fn an_event_leaves_to_other_guests_what_may_hang() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let life = greedy(&machine, 1, "2-3,6", 100);
    let other = greedy(&machine, 2, "4-5", 50);
    let may_hang = |files: &Files| -> Files {
        let is_kernels = |path: &str| path.starts_with("/proc/") || path.starts_with("/sys/");
        let is_keeper = |path: &str| path.starts_with("/simulated/keepers/");
        let kept = files.iter().filter(|(path, _)| !is_kernels(path) && !is_keeper(path));
        kept.map(|(path, text)| (path.clone(), text.clone())).collect()
    };
    let mut left = 0;
    for nth in 1.. {
        if kill_at(&machine, nth, || machine.prepare(&life).unwrap()).is_ok() {
            machine.release(&life).unwrap();
            break;
        }
        let half_done = may_hang(&machine.files());
        machine.started(&other).unwrap();
        let is_left = machine.record().is_some_and(|record| record.leases.contains_key(&life.guest.uuid));
        if is_left {
            assert_eq!(may_hang(&machine.files()), half_done, "killed at write {nth}");
            left += 1;
        }
        machine.keeper_finishes(&life);
        machine.assert_is(&before, &format!("killed at write {nth}"));
    }
    assert!(left > 20, "{left}");
}

#[test]
fn a_killed_settler_is_settled() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let life = greedy(&machine, 1, "2-3", 30);
    for first in 1.. {
        let mut done = false;
        for second in 1.. {
            if kill_at(&machine, first, || machine.prepare(&life).unwrap()).is_ok() {
                machine.release(&life).unwrap();
                done = true;
                break;
            }
            let settler = SETTLERS[(first + second) % SETTLERS.len()];
            let settled = kill_at(&machine, second, || settler.settle(&machine, &life));
            machine.open_and_close();
            machine.release(&life).unwrap();
            machine.release(&greedy(&machine, 2, "4-5", 50)).unwrap();
            machine.assert_is(&before, &format!("killed at {first}, then at {second} of {settler:?}"));
            if settled.is_ok() {
                break;
            }
        }
        if done {
            break;
        }
    }
}

#[test]
fn a_panic_in_the_same_process_is_undone_by_its_own_release() {
    // What `hook::answer` does: the writer named in the ledger is alive.
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let life = greedy(&machine, 1, "2-3,6", 100);
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
fn a_guest_that_lives_keeps_what_it_has_while_another_ones_leftovers_go() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let (living, dying) = (greedy(&machine, 1, "2-3", 30), greedy(&machine, 2, "4-5", 40));
    machine.prepare(&living).unwrap();
    let alone = machine.files();
    for nth in 1.. {
        if kill_at(&machine, nth, || machine.prepare(&dying).unwrap()).is_ok() {
            machine.release(&dying).unwrap();
            break;
        }
        machine.open_and_close();
        crate::support::assert_same(&machine.files(), &alone, &format!("killed at write {nth}"));
    }
    machine.release(&living).unwrap();
    machine.assert_is(&before, "both are gone");
}
