//! A card is its keeper's to take back: an event of libvirt's has too little time for it.

use std::fs;
use std::time::Duration;

use nix::errno::Errno;
use vfio_hook::deadline::Deadline;
use vfio_hook::ledger::{Ledger, Phase};
use vfio_hook::lifecycle;

use super::{ON_VFIO, gamer, machine};
use crate::support::{Life, Machine, soon};

/// What a `release` has.
fn little_time() -> Deadline {
    Deadline::after(Duration::from_secs(4))
}

fn release(machine: &Machine, life: &Life, deadline: Deadline) -> Vec<String> {
    lifecycle::release(&mut machine.host(), life.guest.uuid, "destroyed", deadline).unwrap().failures
}

/// The card is with the guest still, and whoever comes after this process goes on with the lease.
fn assert_left(machine: &Machine, life: &Life, failures: &[String]) {
    assert_eq!(machine.drivers(), ON_VFIO);
    let [failure] = failures else { panic!("{failures:?}") };
    assert!(failure.starts_with("the cards are not given back yet: "), "{failure}");
    let phase = machine.record().unwrap().leases[&life.guest.uuid].phase;
    assert_eq!(phase, Phase::GivingBack(machine.host().this_process()));
}

#[test]
fn an_event_without_a_keeper_leaves_the_card_to_one_that_has_time() {
    let machine = machine();
    let before = machine.files();
    let life = gamer("gpu: {}");
    machine.prepare(&life).unwrap();
    machine.started(&life).unwrap();
    let keeper = machine.path(&format!("/simulated/keepers/{}", life.guest.uuid));
    fs::remove_file(&keeper).unwrap();
    machine.faults.refuse(&keeper, Errno::EIO);
    assert_left(&machine, &life, &release(&machine, &life, little_time()));
    // Neither has any other event.
    machine.forget_processes();
    let mut host = machine.host();
    let failures = Ledger::open(&mut host, little_time()).unwrap().recovered().failures.clone();
    assert_left(&machine, &life, &failures);
    machine.faults.clear();
    machine.forget_processes();
    assert_eq!(machine.open_and_close().failures, [""; 0]);
    machine.assert_is(&before, "found by whoever comes next");
}

#[test]
fn a_keeper_that_does_not_answer_may_be_at_the_card() {
    let machine = machine();
    let before = machine.files();
    let life = gamer("gpu: {}");
    machine.prepare(&life).unwrap();
    machine.started(&life).unwrap();
    let keeper = machine.path(&format!("/simulated/keepers/{}", life.guest.uuid));
    let state = fs::read(&keeper).unwrap();
    fs::write(&keeper, "?").unwrap();
    assert_left(&machine, &life, &release(&machine, &life, soon()));
    fs::write(&keeper, state).unwrap();
    machine.forget_processes();
    assert_eq!(machine.open_and_close().failures, [""; 0]);
    machine.assert_is(&before, "found by whoever comes next");
}

#[test]
fn without_a_keeper_a_person_has_time() {
    let machine = machine();
    let life = gamer("gpu: {}");
    machine.prepare(&life).unwrap();
    let keeper = machine.path(&format!("/simulated/keepers/{}", life.guest.uuid));
    fs::remove_file(&keeper).unwrap();
    machine.faults.refuse(&keeper, Errno::EIO);
    release(&machine, &life, soon());
    assert_eq!(machine.drivers(), super::HOST_DRIVERS);
}
