//! What a step of the same `prepare` makes true is checked after that step, and all goes back where it did not.

use std::fs;

use vfio_hook::host::simulated::Faults;
use vfio_hook::host::{Host, manifest};
use vfio_hook::lifecycle::{self, LifecycleError};

use crate::cards::{CARD, HOST_DRIVERS, ON_VFIO, USB, drm, gamer, player, process};
use crate::support::{Life, Machine, guest, life, pages, soon};

const XML: &str = "<memory unit='MiB'>512</memory><on_reboot>destroy</on_reboot>";

/// Where the simulated keepers note the commands that they run.
const COMMANDS: &str = "/simulated_commands";

/// A disk behind the function [`USB`], mounted by a unit.
const DISK: &str = "\
/sys/devices/pci0000:00/0000:00:08.3/0000:0f:00.3/nvme/nvme0/nvme0n1/dev = 259:0
/sys/devices/pci0000:00/0000:00:08.3/0000:0f:00.3/nvme/nvme0/nvme0n1/uevent = DEVNAME=nvme0n1
/sys/devices/pci0000:00/0000:00:08.3/0000:0f:00.3/nvme/nvme0/nvme0n1/subsystem -> ../../../../../../../class/block
/simulated/systemd/srv-games.mount/ActiveState = active
";

const MOUNTED: &str = "22 1 259:0 / /srv/games rw,relatime shared:1 - ext4 /dev/nvme0n1 rw";

/// A virtual function of the processor's graphics, as a write to `sriov_numvfs` makes one.
const VIRTUAL_FUNCTION: &str = "\
/sys/devices/pci0000:00/0000:00:08.1/0000:0e:00.4/vendor = 0x1002
/sys/devices/pci0000:00/0000:00:08.1/0000:0e:00.4/device = 0x164e
/sys/devices/pci0000:00/0000:00:08.1/0000:0e:00.4/class = 0x030000
/sys/devices/pci0000:00/0000:00:08.1/0000:0e:00.4/physfn -> ../0000:0e:00.0
/sys/bus/pci/devices/0000:0e:00.4 -> ../../../devices/pci0000:00/0000:00:08.1/0000:0e:00.4
";

const BY_A_COMMAND: &str = "run: {when: prepare, command: [/bin/sh, -c, 'echo 1 > /x/sriov_numvfs']}\n";

fn machine(lines: &str) -> Machine {
    let machine = Machine::with("ryzen-7950x", &format!("{}{lines}/bin/sh = \n", drm()));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(machine.path("/bin/sh"), mode).unwrap();
    machine
}

fn with_disk() -> Machine {
    machine(&format!("{DISK}/proc/1/mountinfo = {MOUNTED}\n"))
}

fn with_drive(yaml: &str) -> Life {
    let devices: Vec<&str> = CARD.into_iter().chain([USB]).collect();
    player(1, &devices, XML, yaml)
}

/// What is there once a file is written, or a command run.
fn then(machine: &Machine, at: &str, lines: &str) {
    let (root, lines) = (machine.root(), lines.to_owned());
    machine.faults.interrupt(at, move || manifest::lay_out(&lines, &root).unwrap());
}

fn refusal(machine: &Machine, life: &Life) -> String {
    let error = machine.prepare(life).unwrap_err();
    assert!(matches!(error, LifecycleError::Refused(_)), "{error}");
    error.to_string()
}

fn notes(machine: &Machine, life: &Life) -> Vec<String> {
    machine.prepare(life).unwrap().notes.iter().map(|note| note.text.clone()).collect()
}

#[test]
fn a_drive_that_a_stopped_unit_has_mounted_is_handed_over() {
    let machine = with_disk();
    let before = machine.files();
    then(&machine, "/simulated/systemd/srv-games.mount/ActiveState", "/proc/1/mountinfo =\n");
    let life = with_drive("services: {stop: [srv-games.mount]}\ngpu: {}\n");
    machine.prepare(&life).unwrap();
    assert_eq!(machine.driver(USB), "vfio-pci");
    assert_eq!(machine.drivers(), ON_VFIO);
    machine.release(&life).unwrap();
    machine.set("/proc/1/mountinfo", MOUNTED);
    machine.assert_is(&before, "released");
}

/// A person gives the lease back while a user's service manager takes its time to answer, after units were stopped.
#[test]
fn a_lease_that_is_undone_before_the_checks_after_the_first_step_is_not_taken() {
    const ALICE: &str = "/etc/passwd = alice:x:1000:1000::/home/alice:/bin/bash
/etc/group = alice:x:1000:
/run/user/1000/systemd/private =
/simulated/systemd-of-1000/player.service/ActiveState = active
";
    let asked = "/simulated/systemd-of-1000/player.service/ActiveState";
    let machine = with_disk();
    manifest::lay_out(ALICE, &machine.root()).unwrap();
    let before = machine.files();
    then(&machine, "/simulated/systemd/srv-games.mount/ActiveState", "/proc/1/mountinfo =\n");
    let yaml =
        "requires: {unit: player.service, user: alice}\nservices: {stop: [srv-games.mount]}\ngpu: {}\n";
    let life = with_drive(yaml);
    let (faults, root, uuid) = (machine.faults.clone(), machine.root(), life.guest.uuid);
    machine.faults.delay_answer(asked, move || {
        faults.delay_answer(asked, move || {
            let mut host = Host::simulated(&root, &Faults::default());
            drop(lifecycle::release(&mut host, uuid, "undone", soon()).unwrap());
        });
    });
    let error = machine.prepare(&life).unwrap_err();
    assert_eq!(error.to_string(), "the lease was given back while it was being taken");
    machine.set("/proc/1/mountinfo", MOUNTED);
    machine.assert_is(&before, "undone");
}

#[test]
fn a_drive_that_stays_mounted_is_refused_and_all_goes_back() {
    let machine = with_disk();
    let before = machine.files();
    let life = with_drive("services: {stop: [srv-games.mount]}\ngpu: {}\n");
    let error = refusal(&machine, &life);
    assert!(error.contains("/srv/games is mounted from /dev/nvme0n1"), "{error}");
    assert!(error.contains("guest.yaml:2:1: "), "{error}");
    machine.assert_is(&before, "refused");
}

/// Nothing in the file could take the mount away: not even a unit is stopped.
#[test]
fn without_a_step_that_could_help_nothing_is_touched() {
    let machine = with_disk();
    let before = machine.files();
    for (yaml, reason) in [
        ("gpu: {}\n", "is mounted from"),
        // Another reason cannot pass: no unit stops for that.
        (
            "services: {stop: [srv-games.mount]}\ngpu: {}\nisolate_cpus: {}\ncpu_power: {governor: turbo}\n",
            "`turbo`",
        ),
    ] {
        machine.faults.interrupt("/simulated/systemd/srv-games.mount/ActiveState", || panic!("touched"));
        let error = refusal(&machine, &with_drive(yaml));
        assert!(error.contains(reason) && error.contains("is mounted from"), "{error}");
        machine.assert_is(&before, yaml);
    }
}

#[test]
fn a_virtual_function_that_a_command_makes_is_looked_for_after_it() {
    let machine = machine("");
    let devices: Vec<&str> = CARD.into_iter().chain(["0000:0e:00.4"]).collect();
    let life = player(1, &devices, XML, &format!("gpu: {{}}\n{BY_A_COMMAND}"));
    then(&machine, COMMANDS, VIRTUAL_FUNCTION);
    let notes = notes(&machine, &life);
    let left = "0000:0e:00.4 is a virtual function of a card: it is left to libvirt";
    assert!(notes.iter().any(|note| note == left), "{notes:?}");
    assert_eq!(machine.drivers(), ON_VFIO);
    // It was run once.
    let ran = machine.get(COMMANDS);
    assert_eq!(ran.lines().count(), 1, "{ran}");
    machine.release(&life).unwrap();
    assert_eq!(machine.drivers(), HOST_DRIVERS);
}

#[test]
fn a_device_that_no_command_makes_refuses_the_start() {
    let machine = machine("");
    let before = machine.files();
    let devices: Vec<&str> = CARD.into_iter().chain(["0000:0e:00.4"]).collect();
    let release =
        "run: [{when: prepare, command: [/bin/sh, -c, on]}, {when: release, command: [/bin/sh, -c, off]}]\n";
    let life = player(1, &devices, XML, &format!("gpu: {{}}\n{release}"));
    let error = refusal(&machine, &life);
    assert!(error.contains("this host has no such device"), "{error}");
    let ran = machine.get(COMMANDS);
    let ran: Vec<&str> = ran.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(ran, ["prepare: /bin/sh -c on", "release: /bin/sh -c off"]);
    fs::remove_file(machine.path(COMMANDS)).unwrap();
    machine.assert_is(&before, "refused");
}

/// What takes a command back is written down by the first part, and is not written down again by the second.
#[test]
fn a_command_before_the_second_checks_is_taken_back_once() {
    let machine = machine(&process(901, "blender", "/user.slice", "/dev/dri/card1"));
    let life = gamer(
        "gpu: {}\nrun: {when: prepare, command: [/bin/sh, -c, 'pkill blender'], undo: [/bin/sh, -c, back]}\n",
    );
    let (from, to) = (machine.path("/proc/901"), machine.path("/ended"));
    machine.faults.interrupt(COMMANDS, move || fs::rename(from, to).unwrap());
    machine.prepare(&life).unwrap();
    machine.release(&life).unwrap();
    machine.keeper_finishes(&life);
    let ran = machine.get(COMMANDS);
    let ran: Vec<&str> = ran.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(ran, ["prepare: /bin/sh -c pkill blender", "release: /bin/sh -c back"]);
}

#[test]
fn a_program_that_a_command_ends_does_not_refuse_the_start() {
    let machine = machine(&process(901, "blender", "/user.slice", "/dev/dri/card1"));
    let life = gamer("gpu: {}\nrun: {when: prepare, command: [/bin/sh, -c, 'pkill blender']}\n");
    let (from, to) = (machine.path("/proc/901"), machine.path("/ended"));
    machine.faults.interrupt(COMMANDS, move || fs::rename(from, to).unwrap());
    machine.prepare(&life).unwrap();
    assert_eq!(machine.drivers(), ON_VFIO);
    machine.release(&life).unwrap();
    assert_eq!(machine.drivers(), HOST_DRIVERS);
}

#[test]
fn a_program_of_a_unit_that_services_stop_does_not_refuse_the_start() {
    let machine = machine(&process(901, "ollama", "/system.slice/ollama.service", "/dev/dri/card1"));
    let before = machine.files();
    let life = gamer("gpu: {}\nservices: {stop: [ollama.service]}\n");
    machine.prepare(&life).unwrap();
    assert_eq!(machine.drivers(), ON_VFIO);
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn memory_that_a_stopped_unit_gives_free_counts() {
    let machine = Machine::with("two-nodes", "");
    let before = machine.files();
    let memory = machine.get("/proc/meminfo");
    let total = memory.lines().next().unwrap().to_owned();
    machine.set(
        "/proc/meminfo",
        &format!("{total}\nMemFree: 1000000 kB\nMemAvailable: 1000000 kB\nHugepagesize: 2048 kB"),
    );
    let hungry = life(guest(1, "2-3", &pages(100)), "services: {stop: [ollama.service]}\nhugepages: {}\n");
    let small = machine.files();
    let error = refusal(&machine, &hungry);
    assert!(error.contains("more in huge pages; of"), "{error}");
    crate::support::assert_same(&machine.files(), &small, "refused");
    let lines = format!("/proc/meminfo = {}\n", memory.replace('\n', "\\n"));
    then(&machine, "/simulated/systemd/ollama.service/ActiveState", &lines);
    machine.prepare(&hungry).unwrap();
    machine.release(&hungry).unwrap();
    machine.assert_is(&before, "released");
}
