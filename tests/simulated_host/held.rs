//! `hold`: what a guest's file asks for, without the guest, until a person or the guest's start ends it.

use vfio_hook::ledger::{LeaseState, Outcome};
use vfio_hook::lifecycle::{self, LifecycleError};

use crate::support::{Life, Machine, config, greedy, soon};

fn hold(machine: &Machine, life: &Life) -> Result<Outcome, LifecycleError> {
    lifecycle::hold(&mut machine.host(), &life.loaded, &life.guest, b"", soon())
}

fn phase(machine: &Machine, life: &Life) -> Option<LeaseState> {
    machine.record().map(|record| record.leases[&life.guest.uuid].phase)
}

fn is_held(machine: &Machine, life: &Life) -> bool {
    machine.record().is_some_and(|record| record.leases[&life.guest.uuid].is_held_by_hand())
}

#[test]
fn it_takes_what_a_start_takes_and_no_event_ends_it() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let life = greedy(&machine, 1, "2-3", 20);
    let taken = hold(&machine, &life).unwrap().changes;
    assert!(is_held(&machine, &life));
    let held = machine.files();
    machine.stopped(&life).unwrap();
    machine.release(&life).unwrap();
    machine.open_and_close();
    crate::support::assert_same(&machine.files(), &held, "libvirt's events");
    assert!(hold(&machine, &life).unwrap().changes.is_empty(), "it is held already");

    let mut host = machine.host();
    let mut ledger = vfio_hook::ledger::Ledger::open(&mut host, soon()).unwrap();
    ledger.give_back(life.guest.uuid, "unknown", None).unwrap();
    drop(ledger);
    machine.keeper_finishes(&life);
    machine.assert_is(&before, "given back by hand");
    let started = machine.prepare(&life).unwrap().changes;
    assert_eq!(started, taken, "the same as a start");
}

#[test]
fn a_start_takes_over_what_is_held() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let life = greedy(&machine, 1, "2-3", 20);
    hold(&machine, &life).unwrap();
    let held = machine.files();
    let outcome = machine.prepare(&life).unwrap();
    assert!(outcome.changes.is_empty() && outcome.failures.is_empty(), "{outcome:?}");
    crate::support::assert_same(&machine.files(), &held, "taken over");
    assert_eq!(phase(&machine, &life), Some(LeaseState::Prepared));
    assert!(!is_held(&machine, &life), "it is the guest's");
    machine.start(&life).unwrap();
    machine.started(&life).unwrap();
    machine.release(&life).unwrap();
    machine.keeper_finishes(&life);
    machine.assert_is(&before, "the guest's end");
}

#[test]
fn a_start_with_another_file_takes_anew() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let life = greedy(&machine, 1, "2-3", 20);
    hold(&machine, &life).unwrap();
    let other = Life { loaded: config("isolate_cpus: {}"), guest: life.guest.clone() };
    let outcome = machine.prepare(&other).unwrap();
    assert!(!outcome.changes.is_empty());
    assert!(!is_held(&machine, &life));
    machine.release(&other).unwrap();
    machine.keeper_finishes(&life);
    machine.assert_is(&before, "the guest's end");
}

#[test]
fn what_changed_meanwhile_is_set_again_by_the_start() {
    let machine = Machine::new("two-nodes");
    let life = greedy(&machine, 1, "2-3", 20);
    hold(&machine, &life).unwrap();
    const NR: &str = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages";
    let all = machine.number(NR);
    machine.set(NR, &(all - 20).to_string());
    machine.set(&NR.replace("nr_", "free_"), "0");
    let outcome = machine.prepare(&life);
    assert!(outcome.is_err() || machine.number(NR) >= all, "{outcome:?}");
}

#[test]
fn a_guest_that_runs_has_it_already() {
    let machine = Machine::new("two-nodes");
    let life = greedy(&machine, 1, "2-3", 20);
    machine.prepare(&life).unwrap();
    machine.started(&life).unwrap();
    machine.qemu_runs(life.guest.uuid);
    let error = hold(&machine, &life).unwrap_err();
    assert_eq!(error.to_string(), "guest1 runs, or is being started, and has what its file asks for");
}

/// At each write that taking over makes, the program is killed: the next event gives back what is nobody's then, and
/// what is still held by hand stays.
#[test]
fn killed_at_each_write_of_taking_over() {
    for at in 1.. {
        let machine = Machine::new("two-nodes");
        let before = machine.files();
        let life = greedy(&machine, 1, "2-3", 20);
        hold(&machine, &life).unwrap();
        machine.faults.panic_at_write(at);
        let killed = machine.until_killed(|| machine.prepare(&life)).is_err();
        machine.faults.clear();
        if !killed {
            assert!(at > 1, "it writes nothing");
            break;
        }
        machine.open_and_close();
        machine.keeper_finishes(&life);
        if is_held(&machine, &life) {
            machine.prepare(&life).unwrap();
            machine.release(&life).unwrap();
            machine.keeper_finishes(&life);
        } else if machine.record().is_some() {
            machine.release(&life).unwrap();
            machine.keeper_finishes(&life);
        }
        machine.assert_is(&before, &format!("killed at write {at}"));
    }
}
