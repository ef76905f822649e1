//! Two guests that share CPUs' masks and page pools, and everything that can fail between them: each store, each write,
//! the space for the ledger. Whatever fails, no baseline is lost.

use nix::errno::Errno;
use vfio_hook::host::simulated::Faults;

use crate::support::{Files, Life, Machine, greedy};

/// More writes than such lives have.
const LONGEST: usize = 100_000;

fn guests(machine: &Machine) -> [Life; 2] {
    [greedy(machine, 1, "2-3,6", 20), greedy(machine, 2, "4-5", 30)]
}

/// Both come and go, the first one first. Refusals and failures are as they are.
fn live(machine: &Machine, [first, second]: &[Life; 2]) {
    for life in [first, second] {
        if machine.prepare(life).is_ok() {
            let _ = machine.started(life);
        }
    }
    for life in [first, second] {
        let _ = machine.release(life);
    }
}

/// What libvirt's later events and the guests' next lives do.
fn settle(machine: &Machine, lives: &[Life; 2]) {
    machine.forget_processes();
    machine.open_and_close();
    for life in lives {
        machine.release(life).unwrap();
    }
}

#[test]
fn whichever_write_fails_no_baseline_is_lost() {
    at_each_write("failed", Faults::fail_write);
}

#[test]
fn wherever_it_is_killed_no_baseline_is_lost() {
    at_each_write("killed", Faults::panic_at_write);
}

fn at_each_write(what: &str, make_fault: fn(&Faults, usize)) {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let lives = guests(&machine);
    for nth in 1..LONGEST {
        make_fault(&machine.faults, nth);
        let was_killed = machine.until_killed(|| live(&machine, &lives)).is_err();
        let was_reached = was_killed || machine.faults.writes() >= nth;
        machine.faults.clear();
        settle(&machine, &lives);
        machine.assert_is(&before, &format!("{what} at write {nth}"));
        if !was_reached {
            assert!(nth > 100, "{nth}");
            return;
        }
    }
    panic!("more than {LONGEST} writes");
}

/// Giving back needs no space: `/run` may be full from any moment on, and stay so.
#[test]
fn a_full_disk_stops_no_giving_back() {
    let small = |nth| nth + 1;
    full_from_each(&|| Machine::new("two-nodes"), small);
}

/// A ledger that outgrows the space that was set aside at first.
#[test]
fn a_full_disk_stops_no_giving_back_of_much() {
    let many = "/proc/irq/{100..599}/smp_affinity_list = 0-7\n/sys/kernel/irq/{100..599}/actions = queue\n";
    let sparse = |nth| nth + 1 + nth / 4;
    full_from_each(&|| Machine::with("two-nodes", many), sparse);
}

fn full_from_each(make: &dyn Fn() -> Machine, next: fn(usize) -> usize) {
    let mut nth = 1;
    while nth < LONGEST {
        let machine = make();
        let before = machine.files();
        let lives = guests(&machine);
        machine.faults.fill_disk_at_write(nth);
        let mut begun = 0;
        for life in &lives {
            match machine.prepare(life) {
                Ok(_) => begun += 1,
                Err(error) => {
                    let error = error.to_string();
                    assert!(error.contains("No space left"), "write {nth}: {error}");
                    assert!(!error.contains("not all"), "write {nth}: {error}");
                }
            }
        }
        for life in &lives {
            let outcome = machine.release(life).unwrap_or_else(|error| panic!("write {nth}: {error}"));
            assert_eq!(outcome.failures, [""; 0], "write {nth}");
        }
        machine.assert_is(&before, &format!("full from write {nth}"));
        if machine.faults.writes() < nth {
            assert_eq!(begun, 2);
            return;
        }
        nth = next(nth);
    }
    panic!("more than {LONGEST} writes");
}

/// Where not even the ledger can be written, what needs no record goes back: settings that nobody else claims. Shares of
/// page pools and what the other guest claims wait until it can be written again, and no baseline is lost.
#[test]
fn a_ledger_that_cannot_be_written_stops_only_what_needs_it() {
    let slots = ["/run/vfio-hook/ledger.json", "/run/vfio-hook/ledger-2.json"];
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let lives = guests(&machine);
    for life in &lives {
        machine.prepare(life).unwrap();
    }
    let held = machine.files();
    let is_back = |path: &str, files: &Files| files[path] == before[path] && held[path] != before[path];
    let changed = |files: &Files| before.keys().filter(|path| is_back(path, files)).count();
    for slot in slots {
        machine.faults.refuse(slot, Errno::EIO);
    }
    let error = machine.release(&lives[0]).unwrap_err();
    let (first, help) = (machine.files(), error.help().unwrap());
    let error = error.to_string();
    assert!(error.contains("ledger") && error.contains("until the ledger can be written"), "{error}");
    assert!(help.contains("undo --stale"), "{help}");
    // The governors of the first guest's own CPUs, and nothing that the second one claims too.
    let governor = |cpu| format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
    assert!(is_back(&governor(2), &first) && !is_back(&governor(4), &first), "{error}");
    for path in before.keys().filter(|path| path.ends_with("nr_hugepages")) {
        assert_eq!(first[path], held[path], "{path}");
    }
    machine.release(&lives[1]).unwrap_err();
    assert!(changed(&machine.files()) > 0);
    machine.faults.clear();
    settle(&machine, &lives);
    machine.assert_is(&before, "the ledger can be written again");
}
