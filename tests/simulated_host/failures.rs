//! A write that fails, at every place where there is one.

use nix::errno::Errno;
use vfio_hook::ledger::{KeeperProcess, LeaseState, SettingKey, SleepLock};

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
            // The writer lives on in this test; the real one is gone by now.
            machine.forget_processes();
            let context = format!("{name}, write {nth} of release failed: {result:?}");
            match nth % 3 {
                0 => drop(machine.open_and_close()),
                _ => drop(machine.release(&life).unwrap()),
            }
            // Each process that opens the ledger settles what is open, but a lease goes only by name.
            machine.release(&life).unwrap();
            machine.assert_is(&before, &context);
            if !was_reached {
                break;
            }
        }
    }
}

#[test]
fn a_failure_in_the_rollback_of_a_failure_is_settled_by_the_next_event() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let life = greedy(&machine, 1, "2-3,6", 100);
    let mut settled = 0;
    for first in 1.. {
        let mut first_was_reached = false;
        for second in first + 1.. {
            machine.faults.fail_writes([first, second]);
            let result = machine.prepare(&life);
            let writes = machine.faults.writes();
            machine.faults.clear();
            // The writer lives on in this test; the real one is gone by now.
            machine.forget_processes();
            if machine.record().is_some()
                && let Err(error) = &result
            {
                assert!(error.to_string().contains("not all that was taken for it is given back"), "{error}");
                settled += 1;
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
    assert!(settled > 5, "{settled}");
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

#[test]
fn what_cannot_be_read_at_release_comes_back_when_it_can() {
    let unreadable = [
        "/simulated/systemd/system.slice/AllowedCPUs",
        "/sys/devices/system/cpu/cpu2/power/pm_qos_resume_latency_us",
        "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages",
        "/proc/irq/32/smp_affinity_list",
    ];
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    for (index, path) in unreadable.into_iter().enumerate() {
        let life = greedy(&machine, 1, "2-3", 10);
        let other = greedy(&machine, 2, "4-5", 10);
        machine.prepare(&life).unwrap();
        if index % 2 == 0 {
            machine.prepare(&other).unwrap();
        }
        let taken = machine.get(path);
        machine.set(path, "what is this");
        let outcome = machine.release(&life).unwrap();
        assert_eq!(outcome.failures.len(), 1, "{path}: {outcome:?}");
        assert!(machine.has_ledger());
        machine.set(path, &taken);
        // Events of others do not pay for it.
        machine.open_and_close();
        machine.release(&other).unwrap();
        if index % 2 == 1 {
            assert_eq!(machine.get(path), taken, "{path}");
        }
        let record = machine.record().unwrap();
        assert_eq!(record.leases[&life.guest.uuid].phase, LeaseState::Unfinished, "{path}");
        assert!(
            record
                .owed_by(life.guest.uuid)
                .any(|entry| entry.key() == SettingKey::Keeper(KeeperProcess(life.guest.uuid)))
        );
        // Its keeper tries again, or its next event.
        machine.release(&life).unwrap();
        machine.assert_is(&before, path);
    }
}

/// The next life of a guest goes on without what could not be given back, and takes it along: it stays that guest's.
#[test]
fn what_could_not_be_given_back_stays_with_its_guest() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let path = "/proc/irq/32/smp_affinity_list";
    let (life, other) = (greedy(&machine, 1, "2-3", 10), greedy(&machine, 2, "4-5", 10));
    // Without interrupts: neither the next life nor the other guest asks anything of what is left.
    let [next, other] =
        [life.guest.clone(), other.guest].map(|guest| crate::support::life(guest, "hugepages: {}\n"));
    machine.prepare(&life).unwrap();
    let taken = machine.get(path);
    machine.faults.refuse(path, Errno::EIO);
    assert_eq!(machine.release(&life).unwrap().failures.len(), 1);
    machine.prepare(&next).unwrap();
    machine.started(&next).unwrap();
    machine.faults.clear();
    let is_owed = || {
        let record = machine.record().unwrap();
        record.owed_by(life.guest.uuid).any(|entry| matches!(entry.key(), SettingKey::IrqAffinity(_)))
    };
    machine.open_and_close();
    machine.prepare(&other).unwrap();
    machine.release(&other).unwrap();
    assert!(is_owed());
    assert_eq!(machine.get(path), taken);
    machine.release(&next).unwrap();
    machine.assert_is(&before, "released");
}

/// A keeper that does not answer may hold what it was asked to hold.
#[test]
fn what_a_silent_keeper_holds_stays_written_down() {
    let machine = Machine::new("two-nodes");
    let life = greedy(&machine, 1, "2-3", 10);
    let uuid = life.guest.uuid;
    machine.prepare(&life).unwrap();
    let keeper = format!("/simulated/keepers/{uuid}");
    let answers = machine.get(&keeper);
    machine.set(&keeper, "silence");
    machine.started(&life).unwrap();
    let holds = || machine.record().unwrap().entry(&SleepLock(uuid)).is_some();
    assert!(holds());
    machine.set(&keeper, &answers);
    machine.started(&life).unwrap();
    assert!(holds());
}

#[test]
fn what_is_gone_at_release_is_no_failure() {
    let machine = Machine::new("two-nodes");
    let life = greedy(&machine, 1, "2-3", 10);
    machine.prepare(&life).unwrap();
    // A CPU went offline, a device was unplugged, another one got the number of an interrupt.
    std::fs::remove_dir_all(machine.path("/sys/devices/system/cpu/cpu3/cpufreq")).unwrap();
    std::fs::remove_dir_all(machine.path("/proc/irq/32")).unwrap();
    machine.set("/sys/kernel/irq/31/actions", "xhci_hcd");
    machine.set("/proc/irq/31/smp_affinity_list", "1,4");
    let foreign = machine.get("/proc/irq/31/smp_affinity_list");
    let outcome = machine.release(&life).unwrap();
    assert_eq!(outcome.failures, [""; 0]);
    assert!(!machine.has_ledger());
    assert_eq!(machine.get("/proc/irq/31/smp_affinity_list"), foreign);
    let gone: Vec<_> = outcome.notes.iter().map(|note| note.text.as_str()).collect();
    insta::assert_snapshot!(gone.join("\n"));
}
