//! What is upon the drives of a mount is taken down for a guest, in order, and comes back after it.

use std::fs;
use std::os::unix::fs::symlink;

use vfio_hook::ledger::Record;
use vfio_hook::lifecycle::{LifecycleError, plan_prepare};

use crate::disks::{AHCI, ROOT, add, machine, with};
use crate::support::{Life, Machine, killed_at_every_write, soon};

const SDA: &str = "/sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda";
const GAMES: &str =
    "36 22 254:1 / /games rw,noatime shared:7 - ext4 /dev/mapper/vg0-my--games rw,errors=remount-ro";
const MORE: &str = "37 36 8:3 / /games/more ro shared:8 - xfs /dev/sda3 ro,noquota";
const YAML: &str = "disks: {unmount: /games}\n";

/// `/games` is on LVM in an encrypted volume on `sda1`, and `/games/more` on `sda3`.
fn stacked() -> Machine {
    let machine = machine();
    add(
        &machine,
        &format!(
            "{SDA}/sda1/holders/dm-0 =\n/sys/devices/virtual/block/dm-0/slaves/sda1 =\n\
             /sys/devices/virtual/block/dm-0/holders/dm-1 =\n/sys/devices/virtual/block/dm-1/slaves/dm-0 =\n\
             /etc/crypttab = # <name> <device> <key> <options>\\ncr_games UUID=0123 /etc/keys/games discard\n\
             /etc/keys/games = x\n/proc/1/mountinfo = {ROOT}\\n{GAMES}\\n{MORE}\n\
             /simulated/storage/crypt-cr_games/state = up\n/simulated/storage/crypt-cr_games/device = dm-0\n\
             /simulated/storage/crypt-cr_games/bases = sda1\n\
             /simulated/storage/volume-vg0-my-games/state = up\n/simulated/storage/volume-vg0-my-games/device = dm-1\n\
             /simulated/storage/volume-vg0-my-games/bases = dm-0\n\
             /simulated/storage/mount-games/state = up\n/simulated/storage/mount-games/device = dm-1\n\
             /simulated/storage/mount-games/mount = {GAMES}\n\
             /simulated/storage/mount-games-more/state = up\n/simulated/storage/mount-games-more/device = sda3\n\
             /simulated/storage/mount-games-more/mount = {MORE}\n"
        ),
    );
    machine
}

fn changes(machine: &Machine, life: &Life) -> Vec<String> {
    let host = machine.host();
    let record = Record::empty(host.boot_id().unwrap());
    let plan = plan_prepare(&host, &record, &life.loaded, &life.guest, soon()).unwrap().plan;
    plan.changes.iter().map(ToString::to_string).filter(|change| !change.contains("keeper")).collect()
}

fn refusal(machine: &Machine, yaml: &str) -> String {
    let before = machine.files();
    let error = machine.prepare(&with(AHCI, yaml)).unwrap_err();
    assert!(matches!(error, LifecycleError::Refused(_)), "{error}");
    machine.assert_is(&before, yaml);
    error.to_string()
}

#[test]
fn a_stack_is_taken_down_from_the_top_and_comes_back() {
    let machine = stacked();
    let before = machine.files();
    let life = with(AHCI, YAML);
    assert_eq!(
        changes(&machine, &life),
        [
            "mount /games/more: xfs (ro) -> down",
            "mount /games: ext4 (noatime,rw) -> down",
            "LVM volume vg0/my-games: up -> down",
            "encrypted volume cr_games: up -> down",
        ]
    );
    let outcome = machine.prepare(&life).unwrap();
    assert_eq!(machine.get("/proc/1/mountinfo"), ROOT);
    assert!(!machine.path(&format!("{SDA}/sda1/holders/dm-0")).exists());
    let notes: Vec<&str> = outcome.notes.iter().map(|note| note.text.as_str()).collect();
    assert!(notes.iter().any(|note| note.contains("does not use: /dev/sda ")), "{notes:?}");
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
    assert!(!machine.has_ledger());
    // Without it the drive is in use.
    let error = refusal(&machine, "disks: {}\n");
    assert!(error.contains("/dev/sda3 is mounted at /games/more"), "{error}");
}

/// Killed at any write, a guest beside it or not: nothing stays down, and nothing is taken twice.
#[test]
fn killed_at_every_write_it_comes_back() {
    let machine = stacked();
    let before = machine.files();
    let other = crate::disks::with_number(2, "", "disks: {unmount: [/games]}\n");
    killed_at_every_write(&machine, &before, &[with(AHCI, YAML), other]);
}

/// The drive is back later than the guest is gone: what is upon it waits.
#[test]
fn what_cannot_come_back_yet_comes_back_later() {
    let machine = stacked();
    let before = machine.files();
    let life = with(AHCI, YAML);
    machine.prepare(&life).unwrap();
    let (there, gone) = (machine.path(&format!("{SDA}/sda1/dev")), machine.path("/simulated/gone"));
    fs::rename(&there, &gone).unwrap();
    let outcome = machine.release(&life).unwrap();
    assert!(!outcome.failures.is_empty(), "{outcome:?}");
    assert!(machine.has_ledger());
    fs::rename(&gone, &there).unwrap();
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released again");
}

/// An administrator mounted it again: that is left as it is.
#[test]
fn what_somebody_brought_back_is_left() {
    let machine = stacked();
    let before = machine.files();
    let life = with("", "disks: {unmount: /games/more}\n");
    machine.prepare(&life).unwrap();
    assert_eq!(machine.get("/proc/1/mountinfo"), format!("{ROOT}\n{GAMES}"));
    machine.set("/proc/1/mountinfo", &format!("{ROOT}\n{GAMES}\n{MORE}"));
    machine.set("/simulated/storage/mount-games-more/state", "up");
    let outcome = machine.release(&life).unwrap();
    assert_eq!(outcome.failures, [""; 0]);
    machine.assert_is(&before, "released");
}

#[test]
fn what_would_not_come_back_is_refused_before_anything_is_touched() {
    let other_mount =
        format!("/proc/1/mountinfo = {ROOT}\\n{GAMES}\\n38 22 254:1 / /home rw - ext4 /dev/mapper/x rw\n");
    let mounts = |line: &str| format!("/proc/1/mountinfo = {ROOT}\\n{line}\n");
    for (lines, reason, help) in [
        (
            "/etc/crypttab =\n".to_owned(),
            "/etc/crypttab has no line for it",
            "give it a key file: a line `cr_games",
        ),
        ("/etc/crypttab = cr_games UUID=0123 none luks\n".to_owned(), "has no key file", "cr_games"),
        ("/etc/crypttab = cr_games UUID=0123\n".to_owned(), "has no key file", "cr_games"),
        ("/etc/crypttab = cr_games UUID=0123 /etc/keys/none\n".to_owned(), "has no key file", "cr_games"),
        (
            "/etc/crypttab = cr_games UUID=0123 /dev/urandom swap\n".to_owned(),
            "the option `swap`",
            "cr_games",
        ),
        (
            "/etc/crypttab = cr_games UUID=0123 - tpm2-device=auto\n".to_owned(),
            "`tpm2-device=auto`",
            "cr_games",
        ),
        (
            "/etc/crypttab = cr_games UUID=0123 /games/key\n/games/key = x\n".to_owned(),
            "its key file /games/key goes with it",
            "cr_games",
        ),
        (other_mount, "/dev/dm-1 is upon the same drive, and in use at /home", "name /home here, too"),
        (
            "/proc/swaps = Filename Type Size Used Priority\\n/dev/dm-1 partition 4 0 5\n".to_owned(),
            "in use at /dev/dm-1",
            "name /dev/dm-1 here, too",
        ),
        (
            format!("/sys/devices/virtual/block/dm-1/dm/uuid = LVM-{}-tpool\n", "a".repeat(64)),
            "vg0/my-games is a part of a thin pool",
            "/etc/fstab",
        ),
        (
            "/sys/devices/virtual/block/dm-0/dm/uuid = mpath-0123\n".to_owned(),
            "it is not known how /dev/dm-0 is brought back",
            "/etc/fstab",
        ),
        (
            mounts("40 22 0:50 / /games rw - fuse.sshfs anna@x: rw"),
            "/games is mounted as fuse.sshfs",
            "/etc/fstab",
        ),
        (mounts("40 22 254:1 /sub /games rw - ext4 /dev/dm-1 rw"), "a bind mount", "/etc/fstab"),
        (mounts("40 22 254:1 / /games rw master:3 - ext4 /dev/dm-1 rw"), "another namespace", "/etc/fstab"),
        (
            mounts("40 22 0:50 / /games rw - autofs systemd-1 rw"),
            "whenever it is looked at",
            "NAME.automount",
        ),
        (mounts(&format!("{GAMES}\\n{GAMES}")), "several file systems are mounted at /games", "/etc/fstab"),
    ] {
        let machine = stacked();
        add(&machine, &lines);
        let error = refusal(&machine, "# unmount\ndisks: {unmount: [/games]}\n");
        assert!(error.contains(reason) && error.contains(help), "{lines}: {error}");
        assert!(error.contains("guest.yaml:2:"), "{error}");
    }
}

/// A key that systemd finds by the volume's name.
#[test]
fn a_key_in_the_usual_place_needs_no_path() {
    let machine = stacked();
    add(&machine, "/etc/crypttab = cr_games UUID=0123\n/etc/cryptsetup-keys.d/cr_games.key = x\n");
    assert_eq!(changes(&machine, &with(AHCI, YAML)).len(), 4);
}

fn process(machine: &Machine, pid: i32, cwd: &str, unit: &str) {
    let folder = machine.path(&format!("/proc/{pid}"));
    fs::create_dir_all(folder.join("fd")).unwrap();
    symlink(cwd, folder.join("cwd")).unwrap();
    fs::write(folder.join("comm"), "steam\n").unwrap();
    fs::write(folder.join("cgroup"), format!("0::/system.slice/{unit}\n")).unwrap();
}

#[test]
fn a_mount_that_programs_use_is_refused_unless_they_are_stopped_before() {
    let machine = stacked();
    process(&machine, 4800, "/games/steamapps", "steam.service");
    process(&machine, 4801, "/gamesome", "other.service");
    add(&machine, "/simulated/systemd/steam.service/ActiveState = active\n");
    let error = refusal(&machine, YAML);
    assert!(error.contains("/games is in use by steam (process 4800, /games/steamapps)"), "{error}");
    assert!(error.contains("`services: { stop: [steam.service] }`") && !error.contains("4801"), "{error}");
    let before = machine.files();
    let life = with(AHCI, &format!("services: {{stop: steam.service}}\n{YAML}"));
    machine.prepare(&life).unwrap();
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn nothing_is_mounted_there() {
    let machine = stacked();
    machine.set("/proc/1/mountinfo", ROOT);
    let life = with("", YAML);
    let outcome = machine.prepare(&life).unwrap();
    let notes: Vec<&str> = outcome.notes.iter().map(|note| note.text.as_str()).collect();
    assert!(notes.contains(&"nothing is to be unmounted at /games"), "{notes:?}");
    machine.release(&life).unwrap();
}

/// An array, and swap upon it.
#[test]
fn swap_on_an_array_comes_back_with_its_priority() {
    let machine = machine();
    add(
        &machine,
        &format!(
            "{SDA}/sda1/holders/md127 =\n/sys/devices/virtual/block/md127/slaves/sda1 =\n\
             /run/udev/data/b9:127 = E:MD_UUID=aa:bb:cc:dd\\nS:disk/by-uuid/0123\n/dev/disk/by-uuid/0123 -> ../../md127\n\
             /proc/swaps = Filename Type Size Used Priority\\n/dev/md127 partition 4 0 5\n"
        ),
    );
    assert_eq!(
        changes(&machine, &with("", "disks: {unmount: [/dev/md127]}\n")),
        [
            "swap /dev/disk/by-uuid/0123: swap, priority 5 -> down",
            "RAID array aa:bb:cc:dd: /dev/md127 -> down"
        ]
    );
}
