//! What is taken comes back, on every host.

use crate::support::{HOSTS, Life, Machine, greedy, guest, life, pages, pages_on};

/// From prepare to release, with a QEMU that uses its memory.
fn live(machine: &Machine, life: &Life) {
    machine.prepare(life).unwrap();
    machine.start(life).unwrap();
    let taken = machine.qemu_takes_pages(life.guest.uuid);
    machine.started(life).unwrap();
    machine.qemu_exits(taken);
    let outcome = machine.release(life).unwrap();
    assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
}

#[test]
fn every_host_comes_back() {
    for name in HOSTS {
        let machine = Machine::new(name);
        let before = machine.files();
        let lives = [
            greedy(&machine, 1, "2-3,6", 100),
            life(guest(2, "2-3", ""), "isolate_cpus: {irqs: false, workqueues: false}"),
            life(guest(3, "1-4", ""), "isolate_cpus: {}"),
            life(guest(4, "3", &pages(1)), "hugepages: {}"),
            life(guest(5, "3", &pages_on(50, 0)), "hugepages: {}\nisolate_cpus: {cpus: \"1-6\"}"),
        ];
        for life in &lives {
            live(&machine, life);
            machine.assert_is(&before, &format!("{name}, {}", life.guest.name));
        }
    }
}

#[test]
fn something_was_taken_on_every_host() {
    for name in HOSTS {
        let machine = Machine::new(name);
        let before = machine.files();
        let outcome = machine.prepare(&greedy(&machine, 1, "2-3", 100)).unwrap();
        let after = machine.files();
        let changed = before.iter().filter(|(path, text)| after.get(*path) != Some(text)).count();
        assert!(changed >= outcome.changes.len() && outcome.changes.len() > 5, "{name}: {changed}");
    }
}

#[test]
fn guests_may_leave_in_any_order() {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for name in ["two-nodes", "ryzen-7950x", "no-systemd"] {
        let machine = Machine::new(name);
        let before = machine.files();
        for order in orders {
            let lives = [
                greedy(&machine, 1, "1-2", 30),
                greedy(&machine, 2, "3-4", 40),
                greedy(&machine, 3, "5", 50),
            ];
            for life in &lives {
                machine.prepare(life).unwrap();
            }
            for index in order {
                assert!(machine.has_ledger());
                machine.release(&lives[index]).unwrap();
            }
            machine.assert_is(&before, &format!("{name}, {order:?}"));
        }
    }
}

#[test]
fn guests_that_share_cpus_keep_them_until_the_last_one_leaves() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let yaml = "isolate_cpus: {shared: true}\ncpu_power: {governor: performance}";
    let (first, second) = (life(guest(1, "2-4", ""), yaml), life(guest(2, "4-5", ""), yaml));
    machine.prepare(&first).unwrap();
    machine.prepare(&second).unwrap();
    assert_eq!(machine.get("/simulated/systemd/system.slice/AllowedCPUs"), "0-1,6-7");
    assert_eq!(machine.get("/simulated/systemd/user.slice/AllowedCPUs"), "0-1,6");
    machine.release(&first).unwrap();
    assert_eq!(machine.get("/simulated/systemd/system.slice/AllowedCPUs"), "0-3,6-7");
    assert_eq!(machine.get("/sys/devices/system/cpu/cpu4/cpufreq/scaling_governor"), "performance");
    assert_eq!(machine.get("/sys/devices/system/cpu/cpu3/cpufreq/scaling_governor"), "schedutil");
    machine.release(&second).unwrap();
    machine.assert_is(&before, "both released");
}

#[test]
fn events_without_a_lease_do_nothing() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let stranger = greedy(&machine, 9, "2", 1);
    machine.start(&stranger).unwrap();
    machine.started(&stranger).unwrap();
    for _ in 0..2 {
        assert!(machine.release(&stranger).unwrap().changes.is_empty());
    }
    machine.assert_is(&before, "a stranger");
}

#[test]
fn a_second_prepare_and_a_second_release_are_harmless() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let life = greedy(&machine, 1, "2-3", 20);
    let first = machine.prepare(&life).unwrap().changes.len();
    let prepared = machine.files();
    let again = machine.prepare(&life).unwrap();
    assert_eq!(again.changes.len(), 2 * first);
    crate::support::assert_same(&machine.files(), &prepared, "prepared twice");
    machine.release(&life).unwrap();
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released twice");
}
