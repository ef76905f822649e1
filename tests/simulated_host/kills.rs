//! The program is killed before every write there is.

use vfio_hook::ledger::Phase;

use crate::support::{HOSTS, Killed, Life, Machine, greedy};

/// Who comes by after the program was killed, and mends what it left.
#[derive(Clone, Copy, Debug)]
enum Mender {
    /// Any event of a guest without a lease; `vfio-hook undo --stale`.
    Anybody,
    /// The next start of the guest.
    NextPrepare,
    /// libvirt's release, which follows a failed prepare.
    Release,
    /// Another guest's whole life.
    OtherGuest,
}

const MENDERS: [Mender; 4] = [Mender::Anybody, Mender::NextPrepare, Mender::Release, Mender::OtherGuest];

impl Mender {
    fn mend(self, machine: &Machine, life: &Life) {
        match self {
            Self::Anybody => drop(machine.open_and_close()),
            Self::NextPrepare => {
                machine.prepare(life).unwrap();
                machine.release(life).unwrap();
            }
            Self::Release => drop(machine.release(life).unwrap()),
            Self::OtherGuest => {
                let other = greedy(machine, 2, "4-5", 50);
                machine.prepare(&other).unwrap();
                machine.release(&other).unwrap();
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
fn whoever_looks_at_a_release_sees_whose_it_is() {
    let machine = Machine::new("two-nodes");
    let life = greedy(&machine, 1, "2-3,6", 100);
    let mut seen = 0;
    for nth in 1.. {
        machine.prepare(&life).unwrap();
        let outcome = kill_at(&machine, nth, || machine.release(&life).unwrap());
        if outcome.is_ok() {
            break;
        }
        let record = machine.record().unwrap();
        if record.entries.iter().any(|entry| entry.pending.is_some()) {
            assert_eq!(record.leases.len(), 1, "write {nth}: {record:?}");
            assert!(record.leases.values().all(|lease| matches!(lease.phase, Phase::GivingBack(_))));
            seen += 1;
        }
        machine.release(&life).unwrap();
        assert!(machine.record().is_none(), "write {nth}");
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn a_killed_prepare_is_undone_by_whoever_comes_next() {
    for name in HOSTS {
        let machine = Machine::new(name);
        let before = machine.files();
        let life = greedy(&machine, 1, "2-3,6", 100);
        for nth in 1.. {
            let outcome = kill_at(&machine, nth, || machine.prepare(&life).unwrap());
            let mender = MENDERS[nth % MENDERS.len()];
            if outcome.is_ok() {
                machine.release(&life).unwrap();
                break;
            }
            mender.mend(&machine, &life);
            machine.assert_is(&before, &format!("{name}, killed at write {nth} of prepare, {mender:?}"));
        }
    }
}

#[test]
fn a_killed_release_is_finished_by_whoever_comes_next() {
    for name in HOSTS {
        let machine = Machine::new(name);
        let before = machine.files();
        let life = greedy(&machine, 1, "2-3,6", 100);
        for nth in 1.. {
            machine.prepare(&life).unwrap();
            let outcome = kill_at(&machine, nth, || machine.release(&life).unwrap());
            let mender = MENDERS[nth % MENDERS.len()];
            mender.mend(&machine, &life);
            // Killed before the first write the lease is whole, and stays until the guest itself is heard of.
            machine.release(&life).unwrap();
            machine.assert_is(&before, &format!("{name}, killed at write {nth} of release, {mender:?}"));
            if outcome.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn a_killed_mender_is_mended() {
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
            let mender = MENDERS[(first + second) % MENDERS.len()];
            let mended = kill_at(&machine, second, || mender.mend(&machine, &life));
            machine.open_and_close();
            machine.release(&life).unwrap();
            machine.release(&greedy(&machine, 2, "4-5", 50)).unwrap();
            machine.assert_is(&before, &format!("killed at {first}, then at {second} of {mender:?}"));
            if mended.is_ok() {
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
