//! Interrupts that come, or move, while guests run.

use std::fs;
use std::time::Duration;

use vfio_hook::deadline::Deadline;
use vfio_hook::guest::Guest;
use vfio_hook::ledger::Occasion;
use vfio_hook::lifecycle;

use crate::support::{Life, Machine, life};

const ISOLATED: &str = "isolate_cpus: {}\n";

fn with_card(number: u8, cpus: &str, yaml: &str) -> Life {
    let device = format!(
        "<devices><hostdev mode='subsystem' type='pci'><source><address domain='0' bus='{number}' slot='0' \
         function='0'/></source></hostdev></devices></domain>"
    );
    let pins: String = (0..)
        .zip(cpus.parse::<vfio_hook::cpuset::CpuSet>().unwrap().iter())
        .map(|(vcpu, cpu)| format!("<vcpupin vcpu='{vcpu}' cpuset='{cpu}'/>"))
        .collect();
    let xml = format!(
        "<domain type='kvm'><name>guest{number}</name><uuid>00000000-0000-4000-8000-0000000000{number:02x}</uuid>\
         <memory unit='MiB'>512</memory><vcpu>2</vcpu><cputune>{pins}</cputune>{device}"
    );
    life(Guest::parse(xml.as_bytes()).unwrap(), yaml)
}

/// The kernel makes an interrupt; it starts out with the default.
fn appears(machine: &Machine, number: u32, actions: &str) {
    let default = machine.get("/proc/irq/default_smp_affinity");
    let list = vfio_hook::cpuset::CpuSet::from_mask(&default).unwrap().to_string();
    for (path, text) in [
        (format!("/proc/irq/{number}/smp_affinity_list"), list),
        (format!("/sys/kernel/irq/{number}/actions"), actions.to_owned()),
    ] {
        let path = machine.path(&path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text + "\n").unwrap();
    }
}

fn affinity(machine: &Machine, number: u32) -> String {
    machine.get(&format!("/proc/irq/{number}/smp_affinity_list"))
}

fn reconcile(machine: &Machine, life: &Life) -> usize {
    reconcile_on(Occasion::Usual, machine, life)
}

fn reconcile_on(occasion: Occasion, machine: &Machine, life: &Life) -> usize {
    let soon = Deadline::after(Duration::from_secs(10));
    lifecycle::reconcile(&mut machine.host(), life.guest.uuid, occasion, soon).unwrap().changes.len()
}

#[test]
fn those_of_a_guests_devices_go_to_its_cpus() {
    let machine = Machine::new("two-nodes");
    let (one, other) = (with_card(1, "2-3", ISOLATED), with_card(2, "4-5", ISOLATED));
    let before = machine.files();
    machine.prepare(&one).unwrap();
    machine.prepare(&other).unwrap();
    appears(&machine, 90, "vfio-msix[0](0000:01:00.0)");
    appears(&machine, 91, "vfio-msi[0](0000:02:00.0)");
    assert_eq!(reconcile(&machine, &one), 1);
    assert_eq!((affinity(&machine, 90), affinity(&machine, 91)), ("2-3".to_owned(), "0-1,6-7".to_owned()));
    assert_eq!(reconcile(&machine, &other), 1);
    assert_eq!(affinity(&machine, 91), "4-5");
    assert_eq!(reconcile(&machine, &one) + reconcile(&machine, &other), 0);
    // They are gone with QEMU, which is no failure and not worth a word.
    for number in [90, 91] {
        fs::remove_dir_all(machine.path(&format!("/proc/irq/{number}"))).unwrap();
        fs::remove_dir_all(machine.path(&format!("/sys/kernel/irq/{number}"))).unwrap();
    }
    for life in [&one, &other] {
        let outcome = machine.release(life).unwrap();
        assert!(outcome.failures.is_empty() && outcome.notes.is_empty(), "{outcome:?}");
    }
    machine.assert_is(&before, "released");
}

#[test]
fn one_that_comes_while_the_guest_is_given_back_has_the_usual_cpus_too() {
    let machine = Machine::new("two-nodes");
    let life = with_card(1, "2-3", ISOLATED);
    let before = machine.files();
    machine.prepare(&life).unwrap();
    let (root, list) = (machine.root(), "/proc/irq/90/smp_affinity_list");
    machine.faults.interrupt("/proc/irq/default_smp_affinity", move || {
        for (path, text) in [(list, "0-1,4-7\n"), ("/sys/kernel/irq/90/actions", "enp5s0\n")] {
            let path = root.join(&path[1..]);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    });
    machine.release(&life).unwrap();
    assert_eq!(affinity(&machine, 90), "0-7");
    for folder in ["/proc/irq/90", "/sys/kernel/irq/90"] {
        fs::remove_dir_all(machine.path(folder)).unwrap();
    }
    machine.assert_is(&before, "released");
}

#[test]
fn those_of_a_guests_devices_stay_where_the_file_says_so() {
    let machine = Machine::new("two-nodes");
    let life = with_card(1, "2-3", "isolate_cpus: {vfio_irqs: host}\n");
    machine.prepare(&life).unwrap();
    appears(&machine, 90, "vfio-intx(0000:01:00.0)");
    assert_eq!(reconcile(&machine, &life), 0);
    assert_eq!(affinity(&machine, 90), "0-1,4-7");
}

#[test]
fn one_that_is_moved_back_moves_away_again_and_keeps_its_new_value_afterwards() {
    let machine = Machine::new("two-nodes");
    let life = with_card(1, "2-3", ISOLATED);
    machine.prepare(&life).unwrap();
    machine.set("/proc/irq/30/smp_affinity_list", "1-2");
    machine.set("/proc/irq/9/smp_affinity_list", "3-5");
    assert_eq!(reconcile(&machine, &life), 0, "a CPU that comes may have led to it");
    assert_eq!(reconcile_on(Occasion::NoCpuCame, &machine, &life), 2);
    assert_eq!((affinity(&machine, 30), affinity(&machine, 9)), ("1".to_owned(), "4-5".to_owned()));
    machine.release(&life).unwrap();
    assert_eq!((affinity(&machine, 30), affinity(&machine, 9)), ("1-2".to_owned(), "3-5".to_owned()));
}

#[test]
fn new_ones_of_the_host_have_the_usual_cpus_when_the_guests_are_gone() {
    let machine = Machine::new("two-nodes");
    // An administrator has pinned one to exactly the CPUs that the host will be left with.
    machine.set("/proc/irq/31/smp_affinity_list", "0-1,4-7");
    let (one, other) = (with_card(1, "2-3", ISOLATED), with_card(2, "4-5", ISOLATED));
    machine.prepare(&one).unwrap();
    appears(&machine, 90, "nvme0q1");
    machine.prepare(&other).unwrap();
    appears(&machine, 91, "nvme0q2");
    assert_eq!(
        (affinity(&machine, 90), affinity(&machine, 91)),
        ("0-1,6-7".to_owned(), "0-1,6-7".to_owned())
    );
    machine.release(&one).unwrap();
    assert_eq!(
        (affinity(&machine, 90), affinity(&machine, 91)),
        ("0-3,6-7".to_owned(), "0-3,6-7".to_owned())
    );
    machine.release(&other).unwrap();
    assert_eq!((affinity(&machine, 90), affinity(&machine, 91)), ("0-7".to_owned(), "0-7".to_owned()));
    assert_eq!(affinity(&machine, 31), "0-1,4-7");
    assert!(!machine.has_ledger());
}
