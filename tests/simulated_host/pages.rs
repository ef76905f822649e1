//! Huge pages: gathered where memory is in pieces, counted once, given back as many as were added.

use vfio_hook::ledger::LedgerError;
use vfio_hook::lifecycle::LifecycleError;

use crate::support::{Life, Machine, guest, life, pages, pages_on};

const NODE: [&str; 2] = ["/sys/devices/system/node/node0", "/sys/devices/system/node/node1"];
const KIB: u64 = 2048;

/// A number of a node's pool of 2 MiB pages.
fn pool(machine: &Machine, node: usize, name: &str) -> u64 {
    machine.number(&format!("{}/hugepages/hugepages-2048kB/{name}_hugepages", NODE[node]))
}

/// Makes so many pages of a node's free memory contiguous, and so many more possible after compaction.
fn lay_out_memory(machine: &Machine, node: usize, contiguous: u64, fragmented: u64) {
    machine.set(&format!("{}/simulated_contiguous_kB", NODE[node]), &(contiguous * KIB).to_string());
    machine.set(&format!("{}/simulated_fragmented_kB", NODE[node]), &(fragmented * KIB).to_string());
}

fn wants(number: u8, memory: &str) -> Life {
    life(guest(number, "2", memory), "hugepages: {}")
}

fn message(error: &LifecycleError) -> String {
    let help = error.help().map(|help| format!("\nhelp: {help}")).unwrap_or_default();
    format!("{error}{help}")
}

#[test]
fn fragmented_memory_is_gathered_in_later_rounds() {
    let machine = Machine::new("two-nodes");
    lay_out_memory(&machine, 0, 20, 500);
    let before = machine.files();
    let life = wants(1, &pages_on(207, 0));
    let outcome = machine.prepare(&life).unwrap();
    assert_eq!((pool(&machine, 0, "nr"), pool(&machine, 0, "free")), (207, 207));
    assert!(outcome.notes.iter().any(|note| note.text.contains("memory is fragmented")), "{outcome:?}");
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn what_cannot_be_had_is_refused_and_given_back() {
    let machine = Machine::new("two-nodes");
    lay_out_memory(&machine, 0, 20, 30);
    let before = machine.files();
    let error = machine.prepare(&wants(1, &pages_on(207, 0))).unwrap_err();
    assert!(matches!(error, LifecycleError::Ledger(LedgerError::Shortage(_))), "{error}");
    insta::assert_snapshot!(message(&error));
    machine.assert_is(&before, "refused");
}

#[test]
fn with_on_shortage_warn_libvirt_decides() {
    let machine = Machine::new("two-nodes");
    lay_out_memory(&machine, 0, 20, 30);
    let before = machine.files();
    let life = life(guest(1, "2", &pages_on(207, 0)), "hugepages: {on_shortage: warn}");
    let outcome = machine.prepare(&life).unwrap();
    assert!(outcome.notes.iter().any(|note| note.text.starts_with("wanted 207 huge pages")), "{outcome:?}");
    assert_eq!(pool(&machine, 0, "nr"), 57);
    // It was said once; `start` must not refuse what `prepare` let through.
    machine.start(&life).unwrap();
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn with_on_shortage_warn_the_other_sizes_are_gathered_too() {
    let machine = Machine::new("two-nodes");
    lay_out_memory(&machine, 0, 20, 0);
    lay_out_memory(&machine, 1, 2000, 0);
    let before = machine.files();
    let memory = "<memory unit='MiB'>1224</memory>\
        <memoryBacking><hugepages><page size='2' unit='M' nodeset='0'/><page size='1' unit='G' nodeset='1'/></hugepages></memoryBacking>\
        <numatune><memnode cellid='0' mode='strict' nodeset='0'/><memnode cellid='1' mode='strict' nodeset='1'/></numatune>\
        <cpu><numa><cell id='0' cpus='0' memory='200' unit='MiB'/><cell id='1' memory='1024' unit='MiB'/></numa></cpu>";
    let life = life(guest(1, "2", memory), "hugepages: {on_shortage: warn}");
    let outcome = machine.prepare(&life).unwrap();
    assert_eq!(pool(&machine, 0, "nr"), 27);
    assert_eq!(
        machine.number(&format!("{}/hugepages/hugepages-1048576kB/nr_hugepages", NODE[1])),
        1,
        "{outcome:?}"
    );
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn pages_that_may_be_anywhere_spill_to_the_other_node() {
    let machine = Machine::new("two-nodes");
    lay_out_memory(&machine, 0, 50, 0);
    let before = machine.files();
    let life = wants(1, &pages(307));
    machine.prepare(&life).unwrap();
    assert_eq!((pool(&machine, 0, "nr"), pool(&machine, 1, "nr")), (57, 250));
    machine.start(&life).unwrap();
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn pages_that_spill_back_and_forth_add_up() {
    let machine = Machine::new("two-nodes");
    lay_out_memory(&machine, 0, 50, 40);
    lay_out_memory(&machine, 1, 60, 70);
    let before = machine.files();
    let life = wants(1, &pages(7 + 50 + 40 + 60 + 70));
    machine.prepare(&life).unwrap();
    assert_eq!((pool(&machine, 0, "nr"), pool(&machine, 1, "nr")), (97, 130));
    machine.start(&life).unwrap();
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
    let one_more = wants(1, &pages(7 + 50 + 40 + 60 + 70 + 1));
    let error = machine.prepare(&one_more).unwrap_err();
    insta::assert_snapshot!(message(&error));
    machine.assert_is(&before, "refused");
}

#[test]
fn bound_pages_do_not_spill() {
    let machine = Machine::new("two-nodes");
    lay_out_memory(&machine, 0, 50, 0);
    let before = machine.files();
    machine.prepare(&wants(1, &pages_on(307, 0))).unwrap_err();
    machine.assert_is(&before, "refused");
}

#[test]
fn free_pages_are_used_before_new_ones_are_made() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let few = wants(1, &pages(5));
    let changes = machine.prepare(&few).unwrap().changes;
    assert!(changes.iter().all(|change| change.setting.to_string() == "keeper"), "{changes:?}");
    assert_eq!(pool(&machine, 0, "nr"), 7);
    machine.release(&few).unwrap();
    let some = wants(1, &pages_on(10, 0));
    machine.prepare(&some).unwrap();
    assert_eq!(pool(&machine, 0, "nr"), 10);
    machine.release(&some).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn reserved_pages_are_not_used() {
    let machine = Machine::new("two-nodes");
    machine.set("/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "4");
    let life = wants(1, &pages_on(10, 0));
    machine.prepare(&life).unwrap();
    assert_eq!(pool(&machine, 0, "nr"), 14);
}

#[test]
fn reserved_pages_are_not_reserved_twice() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let (first, second) = (wants(1, &pages_on(10, 0)), wants(2, &pages_on(20, 0)));
    machine.prepare(&first).unwrap();
    machine.prepare(&second).unwrap();
    assert_eq!(pool(&machine, 0, "nr"), 30);
    machine.start(&first).unwrap();
    let taken = machine.qemu_takes_pages(first.guest.uuid);
    machine.started(&first).unwrap();
    machine.start(&second).unwrap();
    machine.qemu_exits(taken);
    machine.release(&first).unwrap();
    // The first one added three: seven were there.
    assert_eq!(pool(&machine, 0, "nr"), 27);
    machine.start(&second).unwrap();
    machine.release(&second).unwrap();
    machine.assert_is(&before, "both released");
}

#[test]
fn pages_that_a_person_took_are_missed_at_start() {
    let machine = Machine::new("two-nodes");
    let life = wants(1, &pages_on(100, 0));
    machine.prepare(&life).unwrap();
    let free = format!("{}/hugepages/hugepages-2048kB/free_hugepages", NODE[0]);
    machine.set(&free, "60");
    insta::assert_snapshot!(message(&machine.start(&life).unwrap_err()));
}

#[test]
fn pages_still_in_use_at_release_go_when_they_are_free() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let life = wants(1, &pages_on(30, 0));
    machine.prepare(&life).unwrap();
    let taken = machine.qemu_takes_pages(life.guest.uuid);
    machine.started(&life).unwrap();
    machine.release(&life).unwrap();
    assert_eq!((pool(&machine, 0, "nr"), pool(&machine, 0, "surplus")), (30, 23));
    machine.qemu_exits(taken);
    machine.assert_is(&before, "QEMU is gone");
}

/// The kernel keeps as many pages as there are in use, on all nodes, and does not count that some of these are surplus.
#[test]
fn free_pages_that_the_kernel_keeps_for_surplus_pages_of_another_node_go_later() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let (one, other) = (wants(1, &pages_on(30, 0)), wants(2, &pages_on(64, 1)));
    machine.prepare(&one).unwrap();
    let taken = machine.qemu_takes_pages(one.guest.uuid);
    machine.prepare(&other).unwrap();
    // It runs on, and its pages are surplus.
    machine.release(&one).unwrap();
    assert_eq!(pool(&machine, 0, "surplus"), 23);
    let outcome = machine.release(&other).unwrap();
    assert_eq!((pool(&machine, 1, "nr"), pool(&machine, 1, "surplus")), (23, 23));
    insta::assert_snapshot!(outcome.failures.join("\n"));
    machine.qemu_exits(taken);
    machine.release(&other).unwrap();
    machine.assert_is(&before, "QEMU is gone");
}

#[test]
fn pages_an_administrator_adds_stay() {
    let machine = Machine::new("two-nodes");
    let mut expected = machine.files();
    let nr = format!("{}/hugepages/hugepages-2048kB/nr_hugepages", NODE[0]);
    let (first, second) = (wants(1, &pages_on(10, 0)), wants(2, &pages_on(20, 0)));
    machine.prepare(&first).unwrap();
    resize(&machine, &nr, 15);
    machine.prepare(&second).unwrap();
    resize(&machine, &nr, pool(&machine, 0, "nr") + 3);
    machine.release(&first).unwrap();
    machine.release(&second).unwrap();
    resize(&machine, &nr, pool(&machine, 0, "nr") - 8);
    expected.insert(nr, "7\n".to_owned());
    machine.assert_is(&expected, "all but the administrator's 8 are gone");
}

#[test]
fn pages_an_administrator_takes_away_stay_away() {
    for (left, after_release) in [(12, 7), (7, 7), (4, 4), (0, 0)] {
        let machine = Machine::new("two-nodes");
        let nr = format!("{}/hugepages/hugepages-2048kB/nr_hugepages", NODE[0]);
        let life = wants(1, &pages_on(17, 0));
        machine.prepare(&life).unwrap();
        resize(&machine, &nr, left);
        let outcome = machine.release(&life).unwrap();
        assert_eq!(pool(&machine, 0, "nr"), after_release, "left {left}");
        assert!(outcome.notes.iter().any(|note| note.text.contains("changed from outside")));
        assert!(!machine.has_ledger());
    }
}

/// An administrator writes to the pool, without any faults.
fn resize(machine: &Machine, nr: &str, pages: u64) {
    use vfio_hook::host::simulated::{Faults, SimulatedKernel};
    SimulatedKernel::new(machine.root(), Faults::default()).write(nr, &pages.to_string()).unwrap();
}

#[test]
fn an_administrators_pages_survive_a_release_that_failed() {
    let machine = Machine::new("two-nodes");
    let mut expected = machine.files();
    let nr = format!("{}/hugepages/hugepages-2048kB/nr_hugepages", NODE[0]);
    let life = wants(1, &pages_on(17, 0));
    machine.prepare(&life).unwrap();
    machine.faults.refuse(&nr, nix::errno::Errno::EIO);
    assert_eq!(machine.release(&life).unwrap().failures.len(), 1);
    machine.faults.clear();
    resize(&machine, &nr, 20);
    machine.release(&life).unwrap();
    assert_eq!(pool(&machine, 0, "nr"), 10);
    resize(&machine, &nr, 7);
    expected.insert(nr, "7\n".to_owned());
    machine.assert_is(&expected, "the administrator's 3 were left");
}

#[test]
fn too_much_memory_is_refused_before_anything_is_tried() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let messages = [
        wants(1, "<memory unit='GiB'>64</memory><memoryBacking><hugepages/></memoryBacking>"),
        wants(1, "<memory unit='GiB'>13</memory><memoryBacking><hugepages/></memoryBacking>"),
        life(guest(1, "2", &pages(2048)), "hugepages:\n  keep_free: 12GiB\n"),
        wants(1, &pages_on(10, 5)),
    ]
    .map(|life| message(&machine.prepare(&life).unwrap_err()));
    insta::assert_snapshot!(messages.join("\n\n"));
    assert_eq!(machine.faults.writes(), 0);
    machine.assert_is(&before, "refused");
}
