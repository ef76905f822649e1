//! Drives that the guest's XML hands over: whose they are, and whether they are the ones that are meant.

use vfio_hook::guest::Guest;
use vfio_hook::host::manifest;
use vfio_hook::ledger::Record;
use vfio_hook::lifecycle::{LifecycleError, plan_prepare};

use crate::support::{Life, Machine, life, soon};

/// Two drives on an AHCI controller, an NVMe drive, and one behind a USB controller. The host lives on the NVMe drive.
const DRIVES: &str = "\
/sys/devices/pci0000:00/0000:00:17.0/class = 0x010601
/sys/devices/pci0000:00/0000:00:17.0/vendor = 0x1022
/sys/devices/pci0000:00/0000:00:17.0/device = 0x7901
/sys/bus/pci/devices/0000:00:17.0 -> ../../../devices/pci0000:00/0000:00:17.0
/sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/model = WDC WD40EZRZ-00G
/sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda/dev = 8:0
/sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda/device -> ../../../0:0:0:0
/sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda{1..3}/partition = 1
/sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda1/dev = 8:1
/sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda2/dev = 8:2
/sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda3/dev = 8:3
/sys/devices/pci0000:00/0000:00:17.0/ata2/host1/target1:0:0/1:0:0:0/block/sdb/dev = 8:16
/sys/devices/pci0000:00/0000:00:17.0/ata2/host1/target1:0:0/1:0:0:0/block/sdb/device -> ../../../1:0:0:0
/sys/bus/scsi/devices/1:0:0:0 -> ../../../devices/pci0000:00/0000:00:17.0/ata2/host1/target1:0:0/1:0:0:0
/sys/class/block/sda -> ../../devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda
/sys/class/block/sda1 -> ../../devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda1
/sys/class/block/sda2 -> ../../devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda2
/sys/class/block/sda3 -> ../../devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda3
/sys/class/block/sdb -> ../../devices/pci0000:00/0000:00:17.0/ata2/host1/target1:0:0/1:0:0:0/block/sdb
/dev/sda{1..3} =
/dev/sda =
/dev/sdb =
/dev/disk/by-id/ata-WDC_WD40EZRZ-00G_WD-1 -> ../../sda
/run/udev/data/b8:0 = S:disk/by-id/ata-WDC_WD40EZRZ-00G_WD-1\\nS:disk/by-id/wwn-0x50014ee2\\nE:ID_SERIAL_SHORT=WD-1\\nE:ID_WWN=0x50014ee2
/run/udev/data/b8:16 = S:disk/by-id/ata-OTHER_WD-2\\nE:ID_SERIAL_SHORT=WD-2\\nE:ID_MODEL=OTHER
/sys/devices/pci0000:00/0000:00:01.2/0000:05:00.0/class = 0x010802
/sys/devices/pci0000:00/0000:00:01.2/0000:05:00.0/vendor = 0x144d
/sys/devices/pci0000:00/0000:00:01.2/0000:05:00.0/device = 0xa80a
/sys/bus/pci/devices/0000:05:00.0 -> ../../../devices/pci0000:00/0000:00:01.2/0000:05:00.0
/sys/devices/pci0000:00/0000:00:01.2/0000:05:00.0/nvme/nvme0/model = Samsung SSD 980 PRO 1TB
/sys/devices/pci0000:00/0000:00:01.2/0000:05:00.0/nvme/nvme0/serial = S5GX
/sys/devices/pci0000:00/0000:00:01.2/0000:05:00.0/nvme/nvme0/nvme0n1/dev = 259:0
/sys/devices/pci0000:00/0000:00:01.2/0000:05:00.0/nvme/nvme0/nvme0n1/wwid = eui.0025385b
/sys/devices/pci0000:00/0000:00:01.2/0000:05:00.0/nvme/nvme0/nvme0n1/device -> ../../nvme0
/sys/devices/pci0000:00/0000:00:01.2/0000:05:00.0/nvme/nvme0/nvme0n1/nvme0n1p{1..2}/partition = 1
/sys/devices/pci0000:00/0000:00:01.2/0000:05:00.0/nvme/nvme0/nvme0n1/nvme0n1p1/dev = 259:1
/sys/devices/pci0000:00/0000:00:01.2/0000:05:00.0/nvme/nvme0/nvme0n1/nvme0n1p2/dev = 259:2
/sys/class/block/nvme0n1 -> ../../devices/pci0000:00/0000:00:01.2/0000:05:00.0/nvme/nvme0/nvme0n1
/sys/class/block/nvme0n1p1 -> ../../devices/pci0000:00/0000:00:01.2/0000:05:00.0/nvme/nvme0/nvme0n1/nvme0n1p1
/sys/class/block/nvme0n1p2 -> ../../devices/pci0000:00/0000:00:01.2/0000:05:00.0/nvme/nvme0/nvme0n1/nvme0n1p2
/dev/nvme0n1p{1..2} =
/dev/nvme0n1 =
/proc/1/mountinfo = 22 1 259:2 / / rw,relatime - ext4 /dev/nvme0n1p2 rw
";

/// Volumes and arrays: folders that the tests connect by `holders`.
const VOLUMES: &str = "\
/sys/devices/virtual/block/dm-0/dev = 254:0
/sys/devices/virtual/block/dm-0/dm/name = cr_games
/sys/devices/virtual/block/dm-0/dm/uuid = CRYPT-LUKS2-0123-cr_games
/sys/devices/virtual/block/dm-1/dev = 254:1
/sys/devices/virtual/block/dm-1/dm/name = vg0-my--games
/sys/devices/virtual/block/dm-1/dm/uuid = LVM-abcdef
/sys/devices/virtual/block/md127/dev = 9:127
/sys/devices/virtual/block/md127/md/level = raid1
/sys/class/block/dm-0 -> ../../devices/virtual/block/dm-0
/sys/class/block/dm-1 -> ../../devices/virtual/block/dm-1
/sys/class/block/md127 -> ../../devices/virtual/block/md127
/dev/dm-{0..1} =
/dev/md127 =
/dev/mapper/vg0-my--games -> ../dm-1
";

pub(crate) const ROOT: &str = "22 1 259:2 / / rw,relatime - ext4 /dev/nvme0n1p2 rw";

pub(crate) fn machine() -> Machine {
    Machine::with("two-nodes", &format!("{DRIVES}{VOLUMES}"))
}

pub(crate) fn add(machine: &Machine, lines: &str) {
    manifest::lay_out(lines, &machine.root()).unwrap();
}

fn mounted(machine: &Machine, mounts: &str) {
    machine.set("/proc/1/mountinfo", &format!("{ROOT}\n{mounts}"));
}

fn guest(number: u8, devices: &str) -> Guest {
    let xml = format!(
        "<domain type='kvm'><name>guest{number}</name><uuid>00000000-0000-4000-8000-0000000000{number:02x}</uuid>\
         <memory unit='MiB'>512</memory><devices>{devices}</devices></domain>"
    );
    Guest::parse(xml.as_bytes()).unwrap()
}

fn block(path: &str) -> String {
    format!("<disk type='block' device='disk'><source dev='{path}'/></disk>")
}

pub(crate) const AHCI: &str =
    "<hostdev type='pci' managed='yes'><source><address slot='0x17'/></source></hostdev>";
const NVME: &str = "<disk type='nvme'><source type='pci' namespace='1'><address bus='0x05'/></source></disk>";

pub(crate) fn with(devices: &str, yaml: &str) -> Life {
    with_number(1, devices, yaml)
}

pub(crate) fn with_number(number: u8, devices: &str, yaml: &str) -> Life {
    life(guest(number, devices), yaml)
}

/// The refusal, once nothing was changed for it.
fn refusal(machine: &Machine, devices: &str, yaml: &str) -> String {
    let before = machine.files();
    let error = machine.prepare(&with(devices, yaml)).unwrap_err();
    assert!(matches!(error, LifecycleError::Refused(_)), "{error}");
    machine.assert_is(&before, yaml);
    error.to_string()
}

/// What a person is told of a guest that starts.
fn notes(machine: &Machine, devices: &str, yaml: &str) -> Vec<String> {
    let (host, life) = (machine.host(), with(devices, yaml));
    let record = Record::empty(host.boot_id().unwrap());
    let plan = plan_prepare(&host, &record, &life.loaded, &life.guest, soon()).unwrap();
    plan.notes.iter().map(|note| note.text.clone()).collect()
}

#[test]
fn drives_that_nobody_uses_are_named() {
    let machine = machine();
    assert_eq!(
        notes(&machine, AHCI, "disks: {}\n"),
        [
            "drives that the host does not use: /dev/sda (WDC WD40EZRZ-00G, serial WD-1, PCI device 0000:00:17.0); \
             /dev/sdb (OTHER, serial WD-2, PCI device 0000:00:17.0)"
        ]
    );
    let scsi =
        "<hostdev type='scsi'><source><adapter name='scsi_host1'/><address unit='0'/></source></hostdev>";
    assert_eq!(
        notes(&machine, scsi, "disks: {}\n"),
        ["drives that the host does not use: /dev/sdb (OTHER, serial WD-2, SCSI device 1:0:0:0)"]
    );
    assert_eq!(
        notes(&machine, &block("/dev/sda2"), "disks: {}\n"),
        ["drives that the host does not use: /dev/sda2 (WDC WD40EZRZ-00G, serial WD-1)"]
    );
    for none in ["", &block("/dev/none"), &block("/mnt/x"), "<disk type='file'><source file='/x'/></disk>"] {
        let notes = notes(&machine, none, "disks: {}\n");
        assert!(notes[0].starts_with("the guest's XML hands no drive"), "{notes:?}");
    }
}

/// A drive, each of its parts and what is upon them; the use is named, and what takes it away.
#[test]
fn each_use_of_a_drive_refuses_the_guest() {
    let sda1 = "/sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda1";
    let on_sda1 = |holder: &str| format!("{sda1}/holders/{holder} -> ../x\n");
    let cases: [(&str, String, &str, &str); 11] = [
        ("36 22 8:1 / /games rw - ext4 /dev/sda1 rw", String::new(), "/dev/sda1 is mounted at /games", "`umount /games`"),
        (
            "36 22 0:41 /@games /games rw - btrfs /dev/sdc9 rw\n37 22 0:42 / /x rw - btrfs /dev/nvme0n1p1 rw",
            "/sys/fs/btrfs/0123/devices/sda1 =\n/sys/fs/btrfs/0123/devices/sdc9 =\n/sys/class/block/sdc9/dev = 8:41\n\
             /dev/sdc9 =\n"
                .to_owned(),
            "/dev/sda1 is mounted at /games",
            "`umount /games`",
        ),
        (
            "",
            "/proc/swaps = Filename Type Size Used Priority\\n/dev/sda3 partition 4 0 -2\n".to_owned(),
            "/dev/sda3 is swapped to",
            "`swapoff /dev/sda3`",
        ),
        ("", on_sda1("dm-0"), "/dev/sda1 is open as encrypted volume cr_games", "`cryptsetup close cr_games`"),
        (
            "36 22 254:1 / /games rw - ext4 /dev/mapper/vg0-my--games rw",
            format!("{}/sys/devices/virtual/block/dm-0/holders/dm-1 -> ../x\n", on_sda1("dm-0")),
            "/dev/dm-1 is mounted at /games; /dev/dm-0 is a part of active LVM volume vg0/my-games; /dev/sda1 is open as \
             encrypted volume cr_games",
            "first `umount /games`, `lvchange -an vg0/my-games`, `cryptsetup close cr_games`",
        ),
        ("", on_sda1("md127"), "/dev/sda1 is a part of RAID array /dev/md127", "`mdadm --stop /dev/md127`"),
        (
            "",
            format!("{}/sys/class/block/bcache0/dev = 252:0\n", on_sda1("bcache0")),
            "/dev/sda1 is a part of /dev/bcache0",
            "`lsblk /dev/sda`",
        ),
        (
            "",
            "/run/udev/data/b8:1 = E:ID_FS_TYPE=zfs_member\\nE:ID_FS_LABEL=tank\n/proc/spl/kstat/zfs/tank/state = ONLINE\n"
                .to_owned(),
            "/dev/sda1 is a part of ZFS pool tank",
            "`zpool export tank`",
        ),
        (
            "",
            "/sys/class/block/loop4/loop/backing_file = /dev/sda2\n".to_owned(),
            "/dev/sda2 is the base of /dev/loop4",
            "`losetup -d /dev/loop4`",
        ),
        ("", "/dev/sda2 = held\n".to_owned(), "/dev/sda2 is in use by a program or the kernel", "`lsof /dev/sda`"),
        ("", "/dev/sda = held\n".to_owned(), "/dev/sda is in use by a program or the kernel", "`lsof /dev/sda`"),
    ];
    for (mounts, lines, uses, help) in &cases {
        let machine = machine();
        add(&machine, lines);
        mounted(&machine, mounts);
        for devices in [AHCI, &block("/dev/disk/by-id/ata-WDC_WD40EZRZ-00G_WD-1")] {
            let error = refusal(&machine, devices, "# disks\ndisks: {}\n");
            assert!(error.contains("guest.yaml:2:8: "), "{error}");
            assert!(error.contains(&format!("is in use on the host: {uses}")), "{uses}: {error}");
            assert!(
                error.contains("/dev/sda (WDC WD40EZRZ-00G, serial WD-1, ") && error.contains(help),
                "{error}"
            );
        }
        let notes = notes(&machine, AHCI, "disks: {in_use: warn}\n");
        assert!(notes.iter().any(|note| note.contains(uses)), "{notes:?}");
        // Without the section it is said, too.
        if uses.ends_with("a program or the kernel") {
            continue;
        }
        let without = self::notes(&machine, AHCI, "block_sleep: {}\n");
        assert!(
            without.iter().any(|note| note.contains(uses) && note.contains("`disks: {}`")),
            "{without:?}"
        );
        // What the guest gets is not what is in use.
        let free = self::notes(&machine, &block("/dev/sdb"), "disks: {}\n");
        assert!(free[0].contains("does not use: /dev/sdb"), "{free:?}");
    }
}

#[test]
fn the_drive_that_the_host_lives_on_is_refused_in_any_case() {
    let machine = machine();
    for yaml in ["disks: {}\n", "disks: {in_use: warn}\n"] {
        for devices in [NVME.to_owned(), block("/dev/nvme0n1"), block("/dev/nvme0n1p2")] {
            let error = refusal(&machine, &devices, yaml);
            assert!(error.contains("holds the host's own system: /dev/nvme0n1p2 is mounted at /"), "{error}");
            assert!(error.contains("Samsung SSD 980 PRO 1TB, serial S5GX"), "{error}");
        }
    }
    // Another partition of it is the guest's to have, and one that only reads may look at all of it.
    let notes = notes(&machine, &block("/dev/nvme0n1p1"), "disks: {}\n");
    assert!(notes[0].contains("does not use: /dev/nvme0n1p1"), "{notes:?}");
    let reads = "<disk type='block'><source dev='/dev/nvme0n1'/><readonly/></disk>";
    let notes = self::notes(&machine, reads, "disks: {}\n");
    assert!(notes[0].contains("/dev/nvme0n1p2 is mounted at /"), "{notes:?}");
}

/// Anyone may mount a FUSE and say that it comes from a drive.
#[test]
fn what_a_user_says_of_a_mount_does_not_count() {
    let machine = machine();
    mounted(&machine, "36 22 0:44 / /home/anna/x rw,user_id=1000 - fuse.sshfs /dev/sda1 rw");
    let notes = notes(&machine, AHCI, "disks: {}\n");
    assert!(notes[0].starts_with("drives that the host does not use: /dev/sda "), "{notes:?}");
}

#[test]
fn the_drives_that_are_meant_are_known_by_what_stays() {
    let machine = machine();
    for name in [
        "WD-1",
        "\"0x50014ee2\"",
        "ata-WDC_WD40EZRZ-00G_WD-1",
        "/dev/disk/by-id/wwn-0x50014ee2",
        "[/dev/disk/by-id/ata-WDC_WD40EZRZ-00G_WD-1]",
    ] {
        let notes = notes(&machine, &block("/dev/sda"), &format!("disks: {{expect: {name}}}\n"));
        assert!(notes[0].contains("does not use: /dev/sda "), "{name}: {notes:?}");
    }
    notes(&machine, AHCI, "disks: {expect: [WD-2, WD-1]}\n");
    // The address is another drive's now.
    let error = refusal(&machine, NVME, "disks: {expect: WD-1, in_use: warn}\n");
    assert!(
        error.contains(
            "the guest's XML does not hand over the drive WD-1, but /dev/nvme0n1 (Samsung SSD 980 PRO 1TB, serial S5GX, \
             PCI device 0000:05:00.0)"
        ) && error.contains("WD-1 is /dev/sda on PCI device 0000:00:17.0 now")
            && error.contains("`virsh edit guest1`"),
        "{error}"
    );
    let error = refusal(&machine, AHCI, "disks:\n  expect: [WD-1]\n");
    assert!(
        error.contains("hands over /dev/sdb (OTHER, serial WD-2, PCI device 0000:00:17.0), which `expect`"),
        "{error}"
    );
    assert!(error.contains("guest.yaml:2:"), "{error}");
    let error = refusal(&machine, &block("/dev/sda"), "disks: {expect: [WD-1, \"none-such\"]}\n");
    assert!(error.contains("does not hand over the drive none-such"), "{error}");
    assert!(error.contains("is it plugged in?"), "{error}");
}

#[test]
fn what_vfio_has_already_cannot_be_told() {
    let machine = machine();
    add(
        &machine,
        "/sys/devices/pci0000:00/0000:00:1f.0/class = 0x010802\n/sys/devices/pci0000:00/0000:00:1f.0/vendor = 0x144d\n\
         /sys/devices/pci0000:00/0000:00:1f.0/device = 0xa80a\n\
         /sys/bus/pci/devices/0000:00:1f.0 -> ../../../devices/pci0000:00/0000:00:1f.0\n\
         /sys/devices/pci0000:00/0000:00:1f.0/driver -> ../../../bus/pci/drivers/vfio-pci\n",
    );
    let hostdev = "<hostdev type='pci'><source><address slot='0x1f'/></source></hostdev>";
    let error = refusal(&machine, hostdev, "disks: {expect: S7XYZ}\n");
    assert!(
        error.contains("cannot be told whether the guest gets the drive S7XYZ: VFIO has 0000:00:1f.0"),
        "{error}"
    );
    // One that the host has elsewhere is not behind it.
    let error = refusal(&machine, hostdev, "disks: {expect: WD-2}\n");
    assert!(error.contains("WD-2 is /dev/sdb on PCI device 0000:00:17.0 now"), "{error}");
    let notes = notes(&machine, hostdev, "disks: {}\n");
    assert!(notes[0].starts_with("the guest's XML hands no drive"), "{notes:?}");
}

/// What libvirt says of a guest that runs; its QEMU is a process of the host.
fn runs(machine: &Machine, other: u8, devices: &str) {
    let uuid = format!("00000000-0000-4000-8000-0000000000{other:02x}");
    let status = format!(
        "<domstatus state='running' pid='4200'><domain type='kvm'><name>guest{other}</name><uuid>{uuid}</uuid>\
         <memory unit='MiB'>512</memory><devices>{devices}</devices></domain></domstatus>"
    );
    add(machine, &format!("/run/libvirt/qemu/guest{other}.xml = {status}\n"));
    machine.qemu_runs(uuid.parse().unwrap());
}

#[test]
fn a_drive_of_a_guest_that_runs_is_refused() {
    let shared = "<disk type='block'><source dev='/dev/sda'/><shareable/></disk>";
    for (theirs, ours) in [
        (block("/dev/sda"), block("/dev/sda")),
        (block("/dev/sda1"), block("/dev/disk/by-id/ata-WDC_WD40EZRZ-00G_WD-1")),
        (block("/dev/sda"), block("/dev/sda3")),
        (block("/dev/sdb"), AHCI.to_owned()),
        (shared.to_owned(), block("/dev/sda")),
    ] {
        let machine = machine();
        runs(&machine, 2, &theirs);
        let error = refusal(&machine, &ours, "disks: {}\n");
        assert!(
            error.contains("belongs to guest guest2, which runs and has /dev/sd"),
            "{theirs} {ours} {error}"
        );
        assert!(error.contains("shut guest2 down first"), "{error}");
        machine.qemu_is_gone();
        let notes = notes(&machine, &ours, "disks: {}\n");
        assert!(notes[0].contains("does not use: /dev/sd"), "{notes:?}");
    }
    let machine = machine();
    runs(&machine, 2, &format!("{shared}{}", block("/dev/sdb")));
    notes(&machine, shared, "disks: {}\n");
    notes(&machine, &block("/dev/nvme0n1p1"), "disks: {}\n");
    // Its own, as after a crash of the daemon.
    runs(&machine, 1, &block("/dev/sda"));
    notes(&machine, shared, "disks: {}\n");
}

/// The mount that a stopped unit takes away is looked for after it.
#[test]
fn a_mount_that_a_unit_takes_away_does_not_refuse() {
    let machine = machine();
    add(&machine, "/simulated/systemd/games.mount/ActiveState = active\n");
    mounted(&machine, "36 22 8:1 / /games rw - ext4 /dev/sda1 rw");
    let before = machine.files();
    let root = machine.root();
    machine.faults.interrupt("/simulated/systemd/games.mount/ActiveState", move || {
        manifest::lay_out(&format!("/proc/1/mountinfo = {ROOT}\n"), &root).unwrap();
    });
    let life = with(AHCI, "services: {stop: games.mount}\ndisks: {}\n");
    machine.prepare(&life).unwrap();
    assert_eq!(machine.get("/simulated/systemd/games.mount/ActiveState"), "inactive");
    machine.release(&life).unwrap();
    mounted(&machine, "36 22 8:1 / /games rw - ext4 /dev/sda1 rw");
    machine.assert_is(&before, "released");
    // One that stays is refused, and all goes back.
    refusal(&machine, AHCI, "services: {stop: games.mount}\ndisks: {}\n");
}

/// A namespace that is reached through several controllers is not below one of them.
#[test]
fn a_drive_of_an_nvme_subsystem_is_that_of_its_controller() {
    let machine = machine();
    add(
        &machine,
        "/sys/devices/pci0000:00/0000:00:1f.1/class = 0x010802\n/sys/devices/pci0000:00/0000:00:1f.1/vendor = 0x144d\n\
         /sys/devices/pci0000:00/0000:00:1f.1/device = 0xa80a\n\
         /sys/bus/pci/devices/0000:00:1f.1 -> ../../../devices/pci0000:00/0000:00:1f.1\n\
         /sys/devices/pci0000:00/0000:00:1f.1/nvme/nvme7/model = Micron_7450\n\
         /sys/devices/virtual/nvme-subsystem/nvme-subsys7/nvme7 -> ../../../pci0000:00/0000:00:1f.1/nvme/nvme7\n\
         /sys/devices/virtual/nvme-subsystem/nvme-subsys7/nvme7n1/dev = 259:9\n\
         /sys/class/block/nvme7n1 -> ../../devices/virtual/nvme-subsystem/nvme-subsys7/nvme7n1\n/dev/nvme7n1 =\n",
    );
    let hostdev = "<hostdev type='pci'><source><address slot='0x1f' function='1'/></source></hostdev>";
    assert_eq!(
        notes(&machine, hostdev, "disks: {}\n"),
        ["drives that the host does not use: /dev/nvme7n1 (PCI device 0000:00:1f.1)"]
    );
}
