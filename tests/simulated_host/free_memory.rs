//! Room for the memory of a guest that is not in huge pages.

use nix::errno::Errno;
use vfio_hook::ledger::{Ledger, NoteLevel, Record};
use vfio_hook::lifecycle::plan_prepare;

use crate::support::{Life, Machine, guest, life, pages, soon};

const GIB: u64 = 1024 * 1024;
const NODES: [&str; 2] = ["/sys/devices/system/node/node0", "/sys/devices/system/node/node1"];

/// A host with 13 GiB of free memory, 16 GiB in all, that caches files and names in more; CPUs 4 to 7 are node 1's.
fn machine() -> Machine {
    let cache = |kind: u8, gib: u64| format!("/proc/sys/vm/simulated_cache_{kind}_kB = {}\n", gib * GIB);
    let fragmented = NODES.map(|node| format!("{node}/simulated_fragmented_kB = 1000\n")).concat();
    Machine::with("two-nodes", &format!("{}{}{fragmented}", cache(1, 1), cache(2, 1)))
}

fn needs(gib: u64) -> Life {
    life(guest(1, "4-5", &format!("<memory unit='GiB'>{gib}</memory>")), "free_memory: {}\n")
}

/// What `prepare` says of it, with its level.
#[track_caller]
fn said(machine: &Machine, life: &Life) -> Vec<(NoteLevel, String)> {
    let outcome = machine.prepare(life).unwrap();
    assert!(outcome.changes.is_empty(), "{outcome:?}");
    let notes = outcome.notes.into_iter().map(|note| (note.level, note.text));
    // How long it took differs.
    notes.map(|(level, text)| (level, text.replace(" in 0.0 s", ""))).collect()
}

fn left_in_caches(machine: &Machine) -> [u64; 2] {
    [1, 2].map(|kind| machine.number(&format!("/proc/sys/vm/simulated_cache_{kind}_kB")) / GIB)
}

fn info(text: &str) -> (NoteLevel, String) {
    (NoteLevel::Info, text.to_owned())
}

fn warning(text: &str) -> (NoteLevel, String) {
    (NoteLevel::Warning, text.to_owned())
}

#[test]
fn caches_go_one_after_the_other_and_only_as_many_as_are_needed() {
    for (gib, left, words) in [
        (13, [1, 1], "made room for 13 GiB of memory: 13 GiB were free, 13 GiB are"),
        (14, [0, 1], "made room for 14 GiB of memory: 13 GiB were free, 14 GiB are"),
        (15, [0, 0], "made room for 15 GiB of memory: 13 GiB were free, 15 GiB are"),
    ] {
        let machine = machine();
        assert_eq!(said(&machine, &needs(gib)), [info(words)]);
        assert_eq!(left_in_caches(&machine), left, "{gib} GiB");
    }
}

#[test]
fn the_nodes_of_the_guests_memory_are_compacted() {
    let fragmented =
        |machine: &Machine| NODES.map(|node| machine.number(&format!("{node}/simulated_fragmented_kB")));
    let one = machine();
    one.prepare(&needs(2)).unwrap();
    assert_eq!(fragmented(&one), [1000, 0], "those of its CPUs");
    let other = machine();
    let memory = "<memory unit='GiB'>2</memory><numatune><memory mode='strict' nodeset='0'/></numatune>";
    other.prepare(&life(guest(1, "4-5", memory), "free_memory: {}\n")).unwrap();
    assert_eq!(fragmented(&other), [0, 1000], "those that the XML names");
}

#[test]
fn a_guest_that_needs_more_than_can_be_freed_is_warned_about_and_starts() {
    let words = "the guest needs 16 GiB of memory, and 15 GiB are free: the host may swap while it starts";
    let (machine, life) = (machine(), needs(16));
    assert_eq!(said(&machine, &life), [warning(words)]);
    machine.start(&life).unwrap();
}

#[test]
fn what_the_kernel_refuses_is_told_with_its_key_and_the_rest_is_done() {
    let machine = machine();
    machine.faults.refuse(format!("{}/compact", NODES[1]), Errno::EACCES);
    let notes = said(&machine, &needs(14));
    let (level, text) = &notes[0];
    assert_eq!(*level, NoteLevel::Warning);
    assert!(text.starts_with("making room for memory: failed to write `1` to "), "{text}");
    assert!(text.ends_with("`free_memory` of the YAML file asks for it)"), "{text}");
    assert_eq!(left_in_caches(&machine), [0, 1]);
}

#[test]
fn nothing_is_left_to_be_given_back() {
    let (machine, life) = (machine(), needs(14));
    machine.prepare(&life).unwrap();
    assert_eq!(Ledger::peek(&machine.host()).unwrap().unwrap().entries().count(), 0);
    let after = machine.files();
    assert!(machine.release(&life).unwrap().changes.is_empty());
    machine.assert_is(&after, "released");
}

#[test]
fn one_that_is_killed_on_the_way_leaves_nothing_behind() {
    for nth in 1.. {
        let (machine, life) = (machine(), needs(15));
        machine.faults.panic_at_write(nth);
        if machine.until_killed(|| machine.prepare(&life)).is_ok() {
            // The ledger, two caches and a node at least.
            assert!(nth > 4, "{nth}");
            return;
        }
        machine.open_and_close();
        let record = Ledger::peek(&machine.host()).unwrap();
        assert!(record.is_none_or(|record| record.leases.is_empty()), "{nth}");
    }
}

#[test]
fn a_section_without_effect_and_a_guest_that_is_too_large_are_refused() {
    let machine = machine();
    for (memory, words) in [
        (pages(10), "has no effect: all of the guest's memory is in huge pages"),
        (
            "<memory unit='GiB'>17</memory>".to_owned(),
            "the guest needs 17 GiB of memory, the host has 16 GiB in all",
        ),
    ] {
        let error =
            machine.prepare(&life(guest(1, "4-5", &memory), "free_memory: {}\n")).unwrap_err().to_string();
        let first = error.lines().next().unwrap();
        assert_eq!(first, format!("/etc/vfio-hook/hooks.d/guest.yaml:1:14: {words}"));
    }
    assert_eq!(left_in_caches(&machine), [1, 1]);
}

#[test]
fn it_is_shown_before_it_is_done() {
    let (machine, life) = (machine(), needs(14));
    let host = machine.host();
    let record = Record::empty(host.boot_id().unwrap());
    let prepared = plan_prepare(&host, &record, &life.loaded, &life.guest, soon()).unwrap();
    let repairs: Vec<String> = prepared.plan.repairs.iter().map(ToString::to_string).collect();
    assert_eq!(
        repairs,
        [
            "room for 14 GiB of memory: files are written back and caches dropped where less is free, node 1 is compacted, \
          within 10 s"
        ]
    );
}
