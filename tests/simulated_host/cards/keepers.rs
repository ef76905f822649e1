//! A card is its keeper's to take back: an event of libvirt's has too little time for it.

use std::fs;
use std::time::Duration;

use nix::errno::Errno;
use vfio_hook::deadline::Deadline;
use vfio_hook::ledger::{LeaseState, Ledger};
use vfio_hook::lifecycle;

use super::{ON_VFIO, gamer, machine};
use crate::support::{Life, Machine, assert_same, soon};

/// What a `release` has.
fn little_time() -> Deadline {
    Deadline::after(Duration::from_secs(4))
}

fn release(machine: &Machine, life: &Life, deadline: Deadline) -> Vec<String> {
    lifecycle::release(&mut machine.host(), life.guest.uuid, "destroyed", deadline).unwrap().failures
}

/// The card is with the guest still, and the next process goes on with the lease.
fn assert_left(machine: &Machine, life: &Life, failures: &[String]) {
    assert_eq!(machine.drivers(), ON_VFIO);
    let [failure] = failures else { panic!("{failures:?}") };
    assert!(failure.starts_with("the cards are not given back yet: "), "{failure}");
    let phase = machine.record().unwrap().leases[&life.guest.uuid].phase;
    assert_eq!(phase, LeaseState::GivingBack(machine.host().this_process()));
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
    machine.assert_is(&before, "found by the next process");
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
    machine.assert_is(&before, "found by the next process");
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

/// libvirt resets the devices of a guest that ended while it was away, under whatever driver they have then.
#[test]
fn a_card_waits_for_libvirt_where_that_has_not_noticed_the_end() {
    let machine = machine();
    let before = machine.files();
    let life = gamer("gpu: {}");
    machine.prepare(&life).unwrap();
    machine.started(&life).unwrap();
    let status = machine.path("/run/libvirt/qemu/guest1.xml");
    fs::create_dir_all(status.parent().unwrap()).unwrap();
    let uuid = life.guest.uuid;
    fs::write(&status, format!("<domstatus pid='7'><domain><uuid>{uuid}</uuid></domain></domstatus>"))
        .unwrap();
    let taken = machine.files();
    let finish = || {
        let deadline = Deadline::after(Duration::from_secs(20));
        lifecycle::finish(&mut machine.host(), uuid, "", None, deadline).unwrap().failures
    };
    let waits = |failures: &[String]| {
        let [failure] = failures else { panic!("{failures:?}") };
        assert!(failure.contains("libvirt has not noticed"), "{failure}");
        assert_same(&machine.files(), &taken, "waiting");
    };
    waits(&finish());
    // Neither does any other way back, nor a person.
    let give_back = || {
        let mut host = machine.host();
        Ledger::open(&mut host, soon()).unwrap().give_back(uuid, "unknown", None).unwrap().failures
    };
    waits(&give_back());
    // That of another guest of this name says nothing.
    let other =
        "<domstatus pid='7'><domain><uuid>00000000-0000-4000-8000-0000000000ff</uuid></domain></domstatus>";
    fs::write(&status, other).unwrap();
    assert_eq!(finish(), [""; 0]);
    fs::remove_dir_all(machine.path("/run/libvirt")).unwrap();
    machine.assert_is(&before, "given back");
}

/// A card that had no host driver goes to none: a reset does no harm.
#[test]
fn a_card_that_was_with_vfio_before_waits_for_nobody() {
    let machine = machine();
    machine.gives_card_to_vfio();
    let life = gamer("gpu: {}");
    machine.prepare(&life).unwrap();
    machine.started(&life).unwrap();
    let uuid = life.guest.uuid;
    let folder = machine.path("/run/libvirt/qemu");
    fs::create_dir_all(&folder).unwrap();
    let status = format!("<domstatus pid='7'><domain><uuid>{uuid}</uuid></domain></domstatus>");
    fs::write(folder.join("guest1.xml"), status).unwrap();
    let deadline = Deadline::after(Duration::from_secs(20));
    let outcome = lifecycle::finish(&mut machine.host(), uuid, "", None, deadline).unwrap();
    assert_eq!(outcome.failures, [""; 0]);
    // It holds its power settings itself.
    let record = machine.record().unwrap();
    assert_eq!((record.leases.len(), record.kept_awake.len()), (0, 1));
}
