//! What has to be there before a guest starts, and which guests must not be.

use std::fs;

use vfio_hook::guest::GuestUuid;
use vfio_hook::host::manifest;
use vfio_hook::host::simulated::qemu_process;
use vfio_hook::ledger::NoteLevel;

use crate::support::{Life, Machine, guest, life};

/// The refusal of a start; nothing is left of it.
#[track_caller]
fn refusal(machine: &Machine, life: &Life) -> String {
    let before = machine.files();
    let error = machine.prepare(life).unwrap_err();
    crate::support::assert_same(&machine.files(), &before, "refused");
    error.to_string().replace("/etc/vfio-hook/hooks.d/", "")
}

fn of(yaml: &str) -> Life {
    life(guest(1, "2-3", ""), yaml)
}

#[test]
fn what_is_required_and_there_is_said_in_one_line() {
    let machine = Machine::with(
        "two-nodes",
        "/run/user/1000/systemd/private = x\n/dev/kvmfr0 = x\n/sys/bus/usb/devices/1-4/idVendor = 046d\n/sys/bus/usb/devices/1-4/idProduct = c52b\n",
    );
    let outcome = machine
        .prepare(&of(
            "requires: [ollama.service, /dev/kvmfr0, \"046d:c52b\", {unit: player.service, user: alice}]\n",
        ))
        .unwrap();
    let texts: Vec<&str> = outcome.notes.iter().map(|note| note.text.as_str()).collect();
    assert_eq!(
        texts,
        ["required, and there: ollama.service, /dev/kvmfr0, USB device 046d:c52b, player.service of alice"]
    );
}

#[test]
fn what_is_missing_is_said_with_the_words_of_the_user_first() {
    let machine = Machine::new("two-nodes");
    let refusals = [
        "requires: [{unit: backup.service, message: \"Make a backup first.\"}]\n",
        "requires: none-such.mount\n",
        "requires: {unit: player.service, user: nobody-here}\n",
        "requires:\n  - path: /dev/kvmfr0\n    message: load the module of Looking Glass\n  - \"0000:99:00.0\"\n  - \"1d6b:0002\"\n",
    ]
    .map(|yaml| refusal(&machine, &of(yaml)));
    insta::assert_snapshot!(refusals.join("\n\n"));
    let without = Machine::new("no-systemd");
    let text = refusal(&without, &of("requires: [ollama.service]\n"));
    assert!(text.contains("ollama.service cannot be active: the host has no systemd"), "{text}");
}

/// libvirt's file says that a guest runs, and so does a process.
fn runs(machine: &Machine, name: &str, uuid: GuestUuid, pid: i32) {
    manifest::lay_out(&qemu_process(pid, uuid, name), &machine.root()).unwrap();
    says(machine, name, uuid, pid);
}

fn says(machine: &Machine, name: &str, uuid: GuestUuid, pid: i32) {
    let path = machine.path(&format!("/run/libvirt/qemu/{name}.xml"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let text = format!("<domstatus pid='{pid}'><domain><uuid>{uuid}</uuid></domain></domstatus>");
    fs::write(path, text).unwrap();
}

fn uuid(number: u8) -> GuestUuid {
    format!("00000000-0000-4000-8000-0000000000{number:02x}").parse().unwrap()
}

const CONFLICT: &str = "conflicts:\n  - guest: guest2\n    message: both use the sound card\n";

#[test]
fn a_guest_that_holds_something_is_in_the_way_until_it_has_given_it_back() {
    let machine = Machine::new("two-nodes");
    let other = life(guest(2, "4-5", ""), "isolate_cpus: {}\n");
    machine.prepare(&other).unwrap();
    let mut refusals = vec![refusal(&machine, &of(CONFLICT))];
    runs(&machine, "guest2", uuid(2), 4700);
    machine.started(&other).unwrap();
    refusals.push(refusal(&machine, &of(CONFLICT)));
    fs::remove_dir_all(machine.path("/proc/4700")).unwrap();
    fs::remove_dir_all(machine.path(&vfio_hook::host::simulated::qemu_scope("guest2"))).unwrap();
    fs::remove_file(machine.path("/run/libvirt/qemu/guest2.xml")).unwrap();
    machine.release(&other).unwrap();
    insta::assert_snapshot!(refusals.join("\n\n"));
    let outcome = machine.prepare(&of(CONFLICT)).unwrap();
    assert_eq!(outcome.notes[0].text, "in conflict with this guest, and off: guest2");
}

#[test]
fn a_guest_that_nothing_was_taken_for_counts_while_it_runs() {
    let machine = Machine::new("two-nodes");
    // Its daemon was killed together with it: what the file says is over.
    says(&machine, "guest2", uuid(2), 4700);
    machine.prepare(&of(CONFLICT)).unwrap();
    machine.release(&of(CONFLICT)).unwrap();
    runs(&machine, "guest2", uuid(2), 4700);
    let text = refusal(&machine, &of(CONFLICT));
    assert!(text.contains("both use the sound card: guest guest2 runs (process 4700)"), "{text}");
    // A guest of another name is none of its business.
    machine.prepare(&of("conflicts: [guest3]\n")).unwrap();
}

#[test]
fn a_file_that_others_could_have_written_stops_no_guest() {
    use std::os::unix::fs::PermissionsExt;
    let machine = Machine::new("two-nodes");
    runs(&machine, "guest2", uuid(2), 4700);
    let path = machine.path("/run/libvirt/qemu/guest2.xml");
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    machine.prepare(&of(CONFLICT)).unwrap();
}

#[test]
fn no_guest_is_in_conflict_with_itself() {
    let machine = Machine::new("two-nodes");
    let shared = "isolate_cpus: {}\nconflicts: [guest1, guest2]\n";
    machine.prepare(&of(shared)).unwrap();
    // What its life before left is given back first.
    machine.prepare(&of(shared)).unwrap();
    let other = life(guest(2, "4-5", ""), shared);
    let text = refusal(&machine, &other);
    assert!(text.contains("guest guest1 holds what it needs of the host"), "{text}");
    machine.release(&of(shared)).unwrap();
    let outcome = machine.prepare(&life(guest(2, "4-5", ""), "conflicts: guest2\n")).unwrap();
    let said = outcome.notes.iter().find(|note| note.level == NoteLevel::Warning).unwrap();
    assert_eq!(said.text, "`conflicts` has no effect: it names this guest alone");
}

#[test]
fn a_guest_that_is_being_given_back_is_waited_for_by_a_person() {
    let machine = Machine::new("two-nodes");
    let other = life(guest(2, "4-5", ""), "isolate_cpus: {}\n");
    machine.prepare(&other).unwrap();
    let path = "/proc/irq/32/smp_affinity_list";
    machine.faults.refuse(path, nix::errno::Errno::EIO);
    assert_eq!(machine.release(&other).unwrap().failures.len(), 1);
    machine.faults.clear();
    let text = refusal(&machine, &of(CONFLICT));
    assert!(text.contains("what guest guest2 held is still being given back"), "{text}");
    machine.release(&other).unwrap();
    machine.prepare(&of(CONFLICT)).unwrap();
}
