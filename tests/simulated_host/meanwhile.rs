//! Others come and go while one guest's memory is gathered and the ledger is not locked.

use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use vfio_hook::host::simulated::Faults;
use vfio_hook::host::{Host, PagePool};
use vfio_hook::ledger::{Ledger, Occasion, available_pages};
use vfio_hook::lifecycle;
use vfio_hook::pages::PageSize;

use crate::support::{Life, Machine, config, greedy, guest, life, pages_on, soon};

const COMPACT: &str = "/sys/devices/system/node/node0/compact";
const NR: &str = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages";

/// A guest that has to wait for memory, on a host where it is in pieces.
fn waiting(machine: &Machine) -> Life {
    machine.set("/sys/devices/system/node/node0/simulated_contiguous_kB", &(60 * 2048).to_string());
    machine.set("/sys/devices/system/node/node0/simulated_fragmented_kB", &(600 * 2048).to_string());
    let yaml = "hugepages: {}\nisolate_cpus: {}\ncpu_power: {governor: performance}\n";
    life(guest(1, "2-3", &pages_on(200, 0)), yaml)
}

/// While memory is gathered, another process does something on the same machine.
fn meanwhile(machine: &Machine, what: impl FnOnce(&mut Host) + Send + 'static) {
    let root: PathBuf = machine.root();
    machine.faults.interrupt(COMPACT, move || what(&mut Host::simulated(&root, &Faults::default())));
}

fn prepare(host: &mut Host, life: &Life) {
    lifecycle::prepare(host, Some(&life.loaded), &life.guest, b"", soon()).unwrap();
}

const UNIT: &str = "/simulated/systemd/system.slice/AllowedCPUs";

#[test]
fn another_guest_comes() {
    let machine = Machine::new("two-nodes");
    let life = waiting(&machine);
    let before = machine.files();
    let other = greedy(&machine, 2, "4-5", 0);
    let other = life_without_pages(other);
    let uuid = other.guest.uuid;
    meanwhile(&machine, move |host| prepare(host, &other));
    machine.prepare(&life).unwrap();
    assert_eq!(machine.get(UNIT), "0-1,6-7");
    assert_eq!(machine.get("/proc/irq/32/smp_affinity_list"), "0-1,6-7");
    machine.release(&life).unwrap();
    assert_eq!(machine.get(UNIT), "0-3,6-7");
    lifecycle::release(&mut machine.host(), uuid, "shutdown", soon()).unwrap();
    machine.assert_is(&before, "both are gone");
}

/// The same guest, but with ordinary memory.
fn life_without_pages(other: Life) -> Life {
    Life { loaded: config("isolate_cpus: {}\ncpu_power: {governor: performance}"), ..other }
}

#[test]
fn another_guest_goes() {
    let machine = Machine::new("two-nodes");
    let life = waiting(&machine);
    let before = machine.files();
    let other = greedy(&machine, 2, "4-5", 30);
    machine.prepare(&other).unwrap();
    let uuid = other.guest.uuid;
    meanwhile(&machine, move |host| drop(lifecycle::release(host, uuid, "shutdown", soon()).unwrap()));
    machine.prepare(&life).unwrap();
    assert_eq!(machine.get(UNIT), "0-1,4-7");
    machine.release(&life).unwrap();
    machine.assert_is(&before, "both are gone");
}

#[test]
fn another_guest_takes_pages_of_the_same_pool() {
    let machine = Machine::new("two-nodes");
    let life = waiting(&machine);
    let before = machine.files();
    let other = crate::support::life(guest(2, "5", &pages_on(50, 0)), "hugepages: {}");
    let uuid = other.guest.uuid;
    let root = machine.root();
    meanwhile(&machine, move |host| {
        // There is memory for it, but not yet for both.
        std::fs::write(root.join("sys/devices/system/node/node0/simulated_contiguous_kB"), "307200\n")
            .unwrap();
        std::fs::write(root.join("sys/devices/system/node/node0/simulated_fragmented_kB"), "921600\n")
            .unwrap();
        prepare(host, &other);
    });
    machine.prepare(&life).unwrap();
    assert_eq!(machine.number(NR), 250);
    machine.start(&life).unwrap();
    machine.release(&life).unwrap();
    assert_eq!(machine.number(NR), 7 + 50);
    lifecycle::release(&mut machine.host(), uuid, "shutdown", soon()).unwrap();
    machine.assert_is(&before, "both are gone");
}

#[test]
fn an_administrator_adds_pages() {
    let machine = Machine::new("two-nodes");
    let life = waiting(&machine);
    let root = machine.root();
    machine.faults.interrupt(COMPACT, move || {
        let kernel = vfio_hook::host::simulated::SimulatedKernel::new(root.clone(), Faults::default());
        kernel.write(COMPACT, "1").unwrap();
        kernel.write(NR, "72").unwrap();
    });
    machine.prepare(&life).unwrap();
    machine.release(&life).unwrap();
    // 67 were there before the administrator made it 72.
    assert_eq!(machine.number(NR), 7 + 5);
}

#[test]
fn the_lease_is_undone_by_force() {
    let machine = Machine::new("two-nodes");
    let life = waiting(&machine);
    let before = machine.files();
    let uuid = life.guest.uuid;
    meanwhile(&machine, move |host| drop(lifecycle::release(host, uuid, "shutdown", soon()).unwrap()));
    let error = machine.prepare(&life).unwrap_err();
    assert_eq!(error.to_string(), "the lease was given back while it was being taken");
    machine.assert_is(&before, "refused");
}

#[test]
fn the_program_is_killed_while_it_waits_and_another_guest_comes() {
    let machine = Machine::new("two-nodes");
    let life = waiting(&machine);
    let before = machine.files();
    let other = life_without_pages(greedy(&machine, 2, "4-5", 0));
    let uuid = other.guest.uuid;
    for nth in 3..8 {
        let other = Life { guest: other.guest.clone(), loaded: other.loaded.clone() };
        machine.set("/sys/devices/system/node/node0/simulated_contiguous_kB", &(60 * 2048).to_string());
        machine.set("/sys/devices/system/node/node0/simulated_fragmented_kB", &(600 * 2048).to_string());
        machine.faults.panic_at_write(nth);
        meanwhile(&machine, move |host| prepare(host, &other));
        let outcome = machine.until_killed(|| machine.prepare(&life).unwrap());
        machine.faults.clear();
        lifecycle::release(&mut machine.host(), uuid, "shutdown", soon()).unwrap();
        machine.release(&life).unwrap();
        machine.assert_is(&before, &format!("write {nth}: {outcome:?}"));
    }
}

#[test]
fn another_process_keeps_the_lock() {
    let machine = Machine::new("two-nodes");
    let life = waiting(&machine);
    let before = machine.files();
    let root = machine.root();
    let (sender, receiver) = std::sync::mpsc::channel();
    machine.faults.interrupt(COMPACT, move || {
        let lock = Host::simulated(&root, &Faults::default()).lock_state("lock", soon()).unwrap();
        sender.send(lock).unwrap();
    });
    let deadline = vfio_hook::deadline::Deadline::after(std::time::Duration::from_millis(300));
    let error =
        lifecycle::prepare(&mut machine.host(), Some(&life.loaded), &life.guest, b"", deadline).unwrap_err();
    let holder = (r"`simulated_host-[^`]+` \(process \d+\) since \d+ s", "`PROGRAM` (process PID) since AGE");
    insta::with_settings!({ filters => vec![holder] }, {
        insta::assert_snapshot!(format!("{error}\nhelp: {}", error.help().unwrap()));
    });
    drop(receiver);
    machine.forget_processes();
    machine.open_and_close();
    machine.assert_is(&before, "the next event");
}

#[test]
fn the_time_runs_out_and_all_is_given_back_all_the_same() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let yaml = "hugepages: {on_shortage: warn}\nisolate_cpus: {}\ncpu_power: {governor: performance}\n";
    let life = life(guest(1, "2-3", &pages_on(200, 0)), yaml);
    machine.faults.interrupt("/simulated/systemd/system.slice/AllowedCPUs", || {
        std::thread::sleep(std::time::Duration::from_millis(400));
    });
    let deadline = vfio_hook::deadline::Deadline::after(std::time::Duration::from_millis(350));
    let error =
        lifecycle::prepare(&mut machine.host(), Some(&life.loaded), &life.guest, b"", deadline).unwrap_err();
    assert_eq!(error.to_string(), "taking what the guest needs did not finish in time");
    machine.assert_is(&before, "refused");
}

#[test]
fn what_a_reload_took_away_is_set_again_and_what_an_administrator_chose_is_not() {
    let reconcile = |machine: &Machine, life: &Life| {
        lifecycle::reconcile(&mut machine.host(), life.guest.uuid, Occasion::Usual, soon()).unwrap()
    };
    let machine = Machine::new("two-nodes");
    let life = life(guest(1, "2-3", ""), "isolate_cpus: {}\n");
    let unset = machine.get(UNIT);
    machine.prepare(&life).unwrap();
    machine.started(&life).unwrap();
    let isolated = machine.get(UNIT);
    assert_ne!(isolated, unset);
    machine.set(UNIT, &unset);
    assert_eq!(reconcile(&machine, &life).changes.len(), 1);
    assert_eq!(machine.get(UNIT), isolated);

    machine.set(UNIT, "0-4");
    let outcome = reconcile(&machine, &life);
    assert!(outcome.changes.is_empty(), "{outcome:?}");
    assert!(outcome.notes[0].text.contains("system.slice was changed from outside"), "{outcome:?}");
    assert!(reconcile(&machine, &life).notes.is_empty(), "said once");
    machine.release(&life).unwrap();
    assert_eq!(machine.get(UNIT), "0-4");
}

/// Every write to the pool takes longer than one may have the ledger to himself.
fn each_write_is_slow(faults: &Faults) {
    let again = faults.clone();
    faults.interrupt(NR, move || {
        thread::sleep(Duration::from_millis(320));
        each_write_is_slow(&again);
    });
}

#[test]
fn another_guest_gets_its_turn_while_a_large_pool_grows() {
    const WANTED: u64 = 4500;
    let machine = Machine::new("ryzen-7950x");
    let life = life(guest(1, "2-3", &pages_on(WANTED, 0)), "hugepages: {}");
    let (root, faults) = (machine.root(), machine.faults.clone());
    let (tell, told) = channel();
    machine.faults.interrupt(NR, move || {
        thread::spawn(move || {
            let mut host = Host::simulated(&root, &Faults::default());
            let ledger = Ledger::open(&mut host, soon()).unwrap();
            let there = std::fs::read_to_string(root.join(NR.trim_start_matches('/'))).unwrap();
            // None of them is for another guest.
            let pool = PagePool { node: 0, size: PageSize::from_kib(2048).unwrap() };
            let other = guest(2, "4-5", "").uuid;
            let free = available_pages(ledger.record(), ledger.host(), pool, other).unwrap();
            drop(ledger);
            tell.send((there.trim().parse::<u64>().unwrap(), free)).unwrap();
        });
        each_write_is_slow(&faults);
        thread::sleep(Duration::from_millis(320));
    });
    machine.prepare(&life).unwrap();
    assert_eq!(machine.number(NR), WANTED);
    let (there, free) = told.recv().unwrap();
    assert!(there < WANTED, "{there}");
    assert_eq!(free, 0, "of {there}");
}
