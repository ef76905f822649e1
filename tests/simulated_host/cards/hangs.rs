//! The kernel does not come back from something that was done to a card.

use std::fs;
use std::process::{Child, Command};
use std::time::Duration;

use vfio_hook::host::manifest;
use vfio_hook::host::simulated::{qemu_process, qemu_scope};
use vfio_hook::ledger::Cleared;
use vfio_hook::lifecycle;

use super::{CARD, HOST_DRIVERS, gamer, machine};
use crate::support::{Machine, greedy};

/// A process that "hangs in the kernel" until this ends it.
struct Hanging(Child);

impl Hanging {
    fn new() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }

    fn fault(&self, name: &str) -> String {
        format!("{name} {}", self.0.id())
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Known to hang, left alone by everybody, and no obstacle to others. Afterwards it is healed and comes home.
fn assert_stuck_until_it_ends(machine: &Machine, hanging: Hanging, context: &str) {
    let quarantine = machine.quarantine().unwrap_or_else(|| panic!("{context}: no quarantine"));
    let stuck = quarantine.terms.stuck.as_ref().unwrap_or_else(|| panic!("{context}: {quarantine:#?}"));
    assert_eq!(stuck.process.pid, i32::try_from(hanging.0.id()).unwrap(), "{context}");
    assert!(machine.record().unwrap().leases.is_empty(), "{context}");
    let left = machine.files();

    let error = machine.prepare(&gamer("gpu: {}")).unwrap_err().to_string();
    assert!(error.contains(&stuck.help()), "{context}: {error}");
    let other = greedy(machine, 2, "4-5", 10);
    machine.prepare(&other).unwrap();
    machine.release(&other).unwrap();
    machine.open_and_close();
    let Cleared::No { evidence } = machine.clear_quarantine() else { panic!("{context}: cleared") };
    assert_eq!(evidence.join("\n"), stuck.what, "{context}");
    crate::support::assert_same(&machine.files(), &left, context);
    drop(hanging);
}

#[test]
fn what_hangs_before_the_guest_is_told_by_its_process() {
    for (index, fault) in [
        (0, "config-hangs"),
        (1, "config-hangs"),
        (0, "unbind-hangs amdgpu"),
        (1, "unbind-hangs snd_hda_intel"),
        (3, "unbind-hangs"),
        (0, "probe-hangs vfio-pci"),
        (2, "probe-hangs vfio-pci"),
    ] {
        let machine = machine();
        let before = machine.files();
        let hanging = Hanging::new();
        let context = format!("{} {fault}", CARD[index]);
        machine.breaks(CARD[index], &hanging.fault(fault));
        machine.prepare(&gamer("gpu: {}")).unwrap_err();
        machine.release(&gamer("gpu: {}")).unwrap();
        assert_stuck_until_it_ends(&machine, hanging, &context);
        machine.heals(CARD[index]);
        let Cleared::Yes(_) = machine.clear_quarantine() else { panic!("{context}: not cleared") };
        machine.assert_is(&before, &context);
    }
}

#[test]
fn what_hangs_after_the_guest_is_told_by_its_process() {
    for (index, fault) in [
        (0, "config-hangs"),
        (3, "config-hangs"),
        (0, "unbind-hangs vfio-pci"),
        (2, "unbind-hangs vfio-pci"),
        (0, "probe-hangs amdgpu"),
        (1, "probe-hangs snd_hda_intel"),
    ] {
        let machine = machine();
        let before = machine.files();
        let life = gamer("gpu: {recover: [reset, bus-reset, rescan]}");
        machine.prepare(&life).unwrap();
        let hanging = Hanging::new();
        let context = format!("{} {fault}", CARD[index]);
        machine.breaks(CARD[index], &hanging.fault(fault));
        let outcome = machine.release(&life).unwrap();
        // Nothing is tried on top of it.
        assert!(outcome.notes.iter().all(|note| !note.text.contains("trying")), "{context}: {outcome:?}");
        assert_stuck_until_it_ends(&machine, hanging, &context);
        machine.heals(CARD[index]);
        let Cleared::Yes(_) = machine.clear_quarantine() else { panic!("{context}: not cleared") };
        machine.assert_is(&before, &context);
    }
}

/// libvirt kills QEMU, and goes on after a while even where the kernel does not let it end. At the end of that QEMU has
/// neither a command line nor descriptors any more, and may still be at the reset of its devices.
#[test]
fn a_qemu_that_does_not_end_keeps_the_card() {
    for holds in ["the guest", "the device", "its group", "nothing that can be seen"] {
        let machine = machine();
        let life = gamer("gpu: {recover: [reset, bus-reset, rescan]}");
        machine.prepare(&life).unwrap();
        let hanging = Hanging::new();
        let pid = hanging.0.id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let stat = format!("/proc/{pid}/stat = {}\n", stat.trim_end());
        let number = i32::try_from(pid).unwrap();
        let qemu = qemu_process(number, life.guest.uuid, &life.guest.name);
        let does_not_end = format!("QEMU (process {pid}) does not end, and still has the card");
        let (what, words) = match holds {
            "the device" => (
                format!("/proc/{pid}/fd/30 -> /dev/vfio/24\n/sys/class/vfio/24/dev = 511:0\n"),
                format!("sleep (process {pid}) has /dev/vfio/24 open"),
            ),
            _ => (qemu, does_not_end),
        };
        manifest::lay_out(&format!("{what}{stat}"), &machine.root()).unwrap();
        let loses_arguments = || fs::write(machine.path(&format!("/proc/{pid}/cmdline")), "").unwrap();
        if holds == "its group" {
            loses_arguments();
        }
        if holds == "nothing that can be seen" {
            machine.started(&life).unwrap();
            loses_arguments();
            fs::remove_dir_all(machine.path(&qemu_scope(&life.guest.name))).unwrap();
        }
        let taken = machine.drivers();
        let outcome = machine.gives_back_within(&life, Duration::from_millis(500));
        assert_eq!(machine.drivers(), taken, "{holds}");
        assert!(outcome.notes.iter().any(|note| note.text.contains(&words)), "{holds}: {outcome:?}");
        assert!(outcome.notes.iter().all(|note| !note.text.contains("trying")), "{holds}: {outcome:?}");
        assert_stuck_until_it_ends(&machine, hanging, holds);
        fs::remove_dir_all(machine.path(&format!("/proc/{pid}"))).unwrap();
        assert!(matches!(machine.clear_quarantine(), Cleared::Yes(_)));
        assert_eq!(machine.drivers(), HOST_DRIVERS, "{holds}");
    }
}

/// Users of the host start what they like, with any arguments, and keep a process that looks at it waiting.
#[test]
fn what_a_user_starts_is_neither_taken_for_qemu_nor_waited_for() {
    let machine = machine();
    let before = machine.files();
    let life = gamer("gpu: {recover: [reset, bus-reset, rescan]}");
    machine.prepare(&life).unwrap();
    let scope =
        r"user.slice/user-1000.slice/user@1000.service/machine.slice/machine-qemu\x2d1\x2dguest1.scope";
    for pid in [4711, 4712] {
        let process = qemu_process(pid, life.guest.uuid, &life.guest.name);
        let process: Vec<&str> = process.lines().filter(|line| line.starts_with("/proc")).collect();
        let owner = format!(
            "/proc/{pid}/status = Uid: 1000 1000 1000 1000\n\
             /proc/{pid}/cgroup = 0::/{scope}\n\
             /sys/fs/cgroup/{scope}/cgroup.procs = {pid}\n"
        );
        manifest::lay_out(&format!("{}\n{owner}", process.join("\n")), &machine.root()).unwrap();
    }
    let hanging = machine.path("/proc/4712/cmdline");
    fs::remove_file(&hanging).unwrap();
    nix::unistd::mkfifo(&hanging, nix::sys::stat::Mode::S_IRWXU).unwrap();
    machine.started(&life).unwrap();
    let record = machine.record().unwrap();
    assert_eq!(record.leases[&life.guest.uuid].qemu, None);
    assert!(!lifecycle::guest_runs(&machine.host(), &record, life.guest.uuid));
    let outcome = machine.gives_back_within(&life, Duration::from_secs(20));
    assert!(machine.quarantine().is_none(), "{outcome:?}");
    for folder in ["/proc/4711", "/proc/4712", "/sys/fs/cgroup/user.slice/user-1000.slice"] {
        fs::remove_dir_all(machine.path(folder)).unwrap();
    }
    machine.assert_is(&before, "given back");
}

/// A pipe without a writer keeps its reader waiting, as the lock on the memory of a process that hangs does.
#[test]
fn a_card_is_left_alone_while_nobody_can_tell_whether_qemu_runs() {
    let machine = machine();
    let before = machine.files();
    let life = gamer("gpu: {recover: [reset, bus-reset, rescan]}");
    machine.prepare(&life).unwrap();
    let (taken, process) = (machine.drivers(), machine.path("/proc/77"));
    fs::create_dir(&process).unwrap();
    nix::unistd::mkfifo(&process.join("cmdline"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let outcome = machine.gives_back_within(&life, Duration::from_secs(1));
    assert_eq!(machine.drivers(), taken);
    let words = "it is not known whether QEMU has ended";
    assert!(outcome.notes.iter().any(|note| note.text.contains(words)), "{outcome:?}");
    assert!(outcome.notes.iter().all(|note| !note.text.contains("trying")), "{outcome:?}");
    // The process lets go of its memory, and ends.
    drop(fs::OpenOptions::new().write(true).open(process.join("cmdline")).unwrap());
    fs::remove_dir_all(&process).unwrap();
    assert!(matches!(machine.clear_quarantine(), Cleared::Yes(_)));
    machine.assert_is(&before, "cleared");
}
