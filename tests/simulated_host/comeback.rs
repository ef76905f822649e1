//! What the host's sleep and CPUs that come back undo is set again; what an administrator has chosen is not.

use nix::errno::Errno;

use vfio_hook::ledger::{Occasion, Outcome};
use vfio_hook::lifecycle;

use crate::support::{Life, Machine, guest, life, soon};

const YAML: &str = "isolate_cpus: {}\ncpu_power: {governor: performance, resume_latency: 20us}\n";
const ONLINE: &str = "/sys/devices/system/cpu/online";
const LATENCY: &str = "/sys/devices/system/cpu/cpu3/power/pm_qos_resume_latency_us";
const WORKQUEUES: &str = "/sys/devices/virtual/workqueue/cpumask";
const UNIT: &str = "/simulated/systemd/system.slice/AllowedCPUs";

fn governor(cpu: u32) -> String {
    format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor")
}

fn irq(number: u32) -> String {
    format!("/proc/irq/{number}/smp_affinity_list")
}

fn reconcile(machine: &Machine, life: &Life, occasion: Occasion) -> Outcome {
    lifecycle::reconcile(&mut machine.host(), life.guest.uuid, occasion, soon()).unwrap()
}

fn cpus_come_back(machine: &Machine, life: &Life) -> Outcome {
    reconcile(machine, life, Occasion::CpusCameBack)
}

fn started(machine: &Machine, cpus: &str) -> Life {
    let life = life(guest(1, cpus, ""), YAML);
    machine.prepare(&life).unwrap();
    machine.started(&life).unwrap();
    life
}

#[test]
fn what_the_kernel_has_reset_is_set_again() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let life = started(&machine, "2-3");
    let settings =
        [(governor(2), "schedutil"), (LATENCY.into(), "0"), (WORKQUEUES.into(), "ff"), (UNIT.into(), "")];
    let held: Vec<String> = settings.iter().map(|(path, _)| machine.get(path)).collect();
    for (path, reset) in &settings {
        machine.set(path, reset);
    }
    let outcome = cpus_come_back(&machine, &life);
    assert_eq!((outcome.changes.len(), outcome.notes.len()), (4, 0), "{outcome:?}");
    assert_eq!(settings.iter().map(|(path, _)| machine.get(path)).collect::<Vec<_>>(), held);
    assert!(cpus_come_back(&machine, &life).changes.is_empty());
    machine.release(&life).unwrap();
    machine.assert_is(&before, "given back");
}

#[test]
fn what_an_administrator_has_chosen_is_left_alone() {
    let machine = Machine::new("two-nodes");
    let life = started(&machine, "2-3");
    machine.set(&governor(2), "ondemand");
    let outcome = cpus_come_back(&machine, &life);
    assert!(outcome.changes.is_empty(), "{outcome:?}");
    assert!(outcome.notes[0].text.contains("governor of CPU 2 was changed from outside"), "{outcome:?}");
    let outcome = cpus_come_back(&machine, &life);
    assert!(outcome.changes.is_empty() && outcome.notes.is_empty(), "said once: {outcome:?}");
    machine.release(&life).unwrap();
    assert_eq!(
        (machine.get(&governor(2)), machine.get(&governor(3))),
        ("ondemand".into(), "schedutil".into())
    );
}

/// Only CPUs that come back are a reason to look at what nothing else undoes.
#[test]
fn what_only_they_undo_is_looked_at_only_then() {
    let machine = Machine::new("two-nodes");
    let life = started(&machine, "2-3");
    machine.set(&governor(2), "schedutil");
    assert!(reconcile(&machine, &life, Occasion::Usual).changes.is_empty());
    assert_eq!(cpus_come_back(&machine, &life).changes.len(), 1);
}

/// An interrupt loses all CPUs that it may be served by, and the kernel gives it to the others.
#[test]
fn an_interrupt_that_the_kernel_moved_goes_back_to_its_cpus() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    // Interrupt 32 is left with CPUs 6 and 7.
    let life = started(&machine, "0-5");
    let held = machine.get(&irq(32));
    assert_eq!(held, "6-7");
    machine.set(ONLINE, "0-5");
    machine.set(&irq(32), "0-5");
    // As long as none of its CPUs is there, nothing can be done, and nothing is taken for a choice.
    let outcome = reconcile(&machine, &life, Occasion::Usual);
    assert!(outcome.changes.is_empty() && outcome.notes.is_empty(), "{outcome:?}");
    machine.set(ONLINE, "0-7");
    let outcome = cpus_come_back(&machine, &life);
    assert!(outcome.notes.is_empty(), "{outcome:?}");
    assert_eq!(machine.get(&irq(32)), held);
    machine.release(&life).unwrap();
    machine.assert_is(&before, "given back");
}

/// The kernel announces a CPU some time after it is online, and another event may look at the host in between.
#[test]
fn what_an_unannounced_cpu_may_explain_is_not_decided_at_once() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let life = started(&machine, "0-5");
    machine.set(&irq(32), "0-5");
    let outcome = reconcile(&machine, &life, Occasion::Usual);
    assert!(outcome.changes.is_empty() && outcome.notes.is_empty(), "{outcome:?}");
    assert_eq!(outcome.undecided, 1);
    assert_eq!(cpus_come_back(&machine, &life).undecided, 0);
    assert_eq!(machine.get(&irq(32)), "6-7");
    machine.release(&life).unwrap();
    machine.assert_is(&before, "given back");

    let life = started(&machine, "0-5");
    machine.set(&irq(32), "0-5");
    assert_eq!(reconcile(&machine, &life, Occasion::Usual).undecided, 1);
    let outcome = reconcile(&machine, &life, Occasion::NoCpuCame);
    assert_eq!((outcome.notes.len(), outcome.undecided), (1, 0), "{outcome:?}");
    machine.release(&life).unwrap();
    assert_eq!(machine.get(&irq(32)), "0-5");
}

#[test]
fn what_the_kernel_moved_is_given_back_though_its_cpus_are_away() {
    let machine = Machine::new("two-nodes");
    let life = started(&machine, "0-5");
    let usual = "0-7";
    machine.set(ONLINE, "0-5");
    machine.set(&irq(32), "0-5");
    machine.release(&life).unwrap();
    assert_eq!(machine.get(&irq(32)), usual);
}

/// At a suspend the boot's CPU alone is left, and the kernel does not move interrupts away from it again.
#[test]
fn a_sleep_does_not_leave_interrupts_where_it_moved_them() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let life = started(&machine, "0-5");
    machine.set(&irq(32), "0");
    let outcome = cpus_come_back(&machine, &life);
    assert!(outcome.notes.is_empty(), "{outcome:?}");
    assert_eq!(machine.get(&irq(32)), "6-7");
    machine.release(&life).unwrap();
    machine.assert_is(&before, "given back");
}

/// Network cards spread their queues over the CPUs that there are whenever one comes.
#[test]
fn what_a_driver_chooses_anew_is_no_administrators_choice() {
    let machine = Machine::new("two-nodes");
    let life = started(&machine, "2-3");
    machine.set(&irq(30), "0-7");
    let outcome = cpus_come_back(&machine, &life);
    assert!(outcome.notes.is_empty(), "{outcome:?}");
    assert_eq!(machine.get(&irq(30)), "0-1,4-7");
    machine.set(ONLINE, "0-6");
    machine.set(&irq(30), "0-6");
    let outcome = reconcile(&machine, &life, Occasion::Usual);
    assert!(outcome.notes.is_empty(), "{outcome:?}");
    machine.set(ONLINE, "0-7");
    machine.set(&irq(30), "0-7");
    cpus_come_back(&machine, &life);
    assert_eq!(machine.get(&irq(30)), "0-1,4-7");
    machine.release(&life).unwrap();
    assert_eq!(machine.get(&irq(30)), "0-7");
}

/// A CPU goes or comes while the host is looked at: the driver has chosen for other CPUs than are online now.
#[test]
fn what_a_driver_is_about_to_choose_anew_is_not_decided_at_once() {
    let machine = Machine::new("two-nodes");
    let life = started(&machine, "2-3");
    machine.set(&irq(30), "0-6");
    let outcome = reconcile(&machine, &life, Occasion::Usual);
    assert_eq!((outcome.notes.len(), outcome.undecided), (0, 1), "{outcome:?}");
    machine.set(&irq(30), "0-7");
    assert_eq!(cpus_come_back(&machine, &life).notes.len(), 0);
    assert_eq!(machine.get(&irq(30)), "0-1,4-7");
    machine.release(&life).unwrap();
    assert_eq!(machine.get(&irq(30)), "0-7");

    let life = started(&machine, "2-3");
    machine.set(&irq(30), "0-6");
    assert_eq!(reconcile(&machine, &life, Occasion::Usual).undecided, 1);
    let outcome = reconcile(&machine, &life, Occasion::NoCpuCame);
    assert_eq!((outcome.notes.len(), outcome.undecided), (1, 0), "{outcome:?}");
    machine.release(&life).unwrap();
    assert_eq!(machine.get(&irq(30)), "0-6");
}

/// A CPU that was offline when the guest came is the host's too, once it is online.
#[test]
fn a_cpu_that_comes_goes_to_the_host() {
    let machine = Machine::new("two-nodes");
    machine.set(ONLINE, "0-6");
    let life = started(&machine, "2-3");
    assert_eq!(machine.get(UNIT), "0-1,4-6");
    machine.set(ONLINE, "0-7");
    cpus_come_back(&machine, &life);
    assert_eq!(machine.get(UNIT), "0-1,4-7");
    machine.release(&life).unwrap();
    assert_eq!(machine.get(UNIT), "");
}

/// The kernel does not say what governor a CPU has that is offline.
#[test]
fn a_cpu_that_stays_away_does_not_stand_in_the_way() {
    let machine = Machine::new("two-nodes");
    let life = started(&machine, "2-3");
    machine.set(&governor(3), "schedutil");
    machine.faults.refuse_read(governor(2), Errno::EBUSY);
    let outcome = cpus_come_back(&machine, &life);
    assert!(outcome.failures.is_empty() && outcome.notes.is_empty(), "{outcome:?}");
    assert_eq!(machine.get(&governor(3)), "performance");
}
