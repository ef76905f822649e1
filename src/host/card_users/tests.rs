//! Users of a card, on hosts in folders.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::deadline::Deadline;
use crate::host::manifest::lay_out;
use crate::host::simulated::Faults;
use crate::host::{Host, HostError};
use crate::pci::PciAddress;

/// A Navi 21 behind its switch as amdgpu has it, its sound function, and the processor's own card.
const CARDS: &str = "
/sys/bus/pci/devices/0000:03:00.0 -> ../../../devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0
/sys/bus/pci/devices/0000:03:00.1 -> ../../../devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.1
/sys/bus/pci/devices/0000:02:00.0 -> ../../../devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0
/sys/bus/pci/devices/0000:0e:00.0 -> ../../../devices/pci0000:00/0000:00:08.1/0000:0e:00.0
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/resource{0..5} =
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/resource0_wc =
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/resource0_resize = 7f00
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/resource =
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/drm/card1/dev = 226:1
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/drm/card1/uevent = MAJOR=226\\nMINOR=1\\nDEVNAME=dri/card1\\nDEVTYPE=drm_minor
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/drm/card1/card1-DP-1/drm_dp_aux0/dev = 237:0
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/drm/card1/card1-DP-1/drm_dp_aux0/uevent = DEVNAME=drm_dp_aux0
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/drm/card1/card1-DP-1/i2c-7/i2c-dev/i2c-7/dev = 89:7
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/drm/card1/card1-DP-1/i2c-7/i2c-dev/i2c-7/uevent = DEVNAME=i2c-7
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/drm/card1/device -> ../../../0000:03:00.0
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/drm/renderD128/dev = 226:128
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/drm/renderD128/uevent = DEVNAME=dri/renderD128
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/graphics/fb1/dev = 29:1
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/graphics/fb1/uevent = DEVNAME=fb1
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/hwmon/hwmon3/name = amdgpu
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/mem_dev/dev = 259:9
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/mem_dev/subsystem -> ../../../../../../../../class/block
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0/iommu_group -> ../../../../../../kernel/iommu_groups/14
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.1/sound/card0/pcmC0D3p/dev = 116:3
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.1/sound/card0/pcmC0D3p/uevent = DEVNAME=snd/pcmC0D3p
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.1/sound/card0/controlC0/dev = 116:7
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.1/sound/card0/controlC0/uevent = DEVNAME=snd/controlC0
/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.1/iommu_group -> ../../../../../../kernel/iommu_groups/15
/sys/devices/pci0000:00/0000:00:08.1/0000:0e:00.0/drm/card0/dev = 226:0
/sys/devices/pci0000:00/0000:00:08.1/0000:0e:00.0/drm/card0/uevent = DEVNAME=dri/card0
/sys/class/kfd/kfd/dev = 234:0
/sys/class/kfd/kfd/uevent = DEVNAME=kfd
/sys/class/kfd/kfd/topology/nodes/0/properties = cpu_cores_count 32\\nsimd_count 0\\nlocation_id 0\\ndomain 0
/sys/class/kfd/kfd/topology/nodes/1/properties = cpu_cores_count 0\\nsimd_count 144\\nlocation_id 768\\ndomain 0
/etc/passwd = root:x:0:0::/root:/bin/sh\\nanna:x:1000:1000::/home/anna:/bin/sh
";

const RESOURCES: &str = "/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0";

/// Control groups of a user's programs.
const UNIT_OF_USER: &str =
    "0::/user.slice/user-1000.slice/user@1000.service/session.slice/wireplumber.service";
const SESSION: &str = "0::/user.slice/user-1000.slice/session-2.scope";

struct Machine(TempDir);

impl Machine {
    fn with(lines: &str) -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        machine.add(CARDS);
        machine.add("/proc/\n");
        machine.add(lines);
        machine
    }

    fn add(&self, manifest: &str) {
        lay_out(manifest, self.0.path()).unwrap();
    }

    /// A process that was started at this many ticks.
    fn run(&self, pid: i32, name: &str, cgroup: &str, files: &str) {
        // `starttime` is the 22nd field.
        let fields = format!("{}4242 {}", "0 ".repeat(18), "0 ".repeat(30));
        self.add(&format!("/proc/{pid}/stat = {pid} ({name}) S {fields}\n/proc/{pid}/cgroup = {cgroup}\n"));
        for line in files.lines() {
            self.add(&format!("/proc/{pid}/{}\n", line.trim()));
        }
    }

    fn host(&self) -> Host {
        Host::simulated(self.0.path(), &Faults::default())
    }

    fn holders(&self) -> Result<Vec<Holder>, HostError> {
        self.host().holders_of(&card(), soon())
    }

    #[track_caller]
    fn assert_held_by(&self, expected: &[&str]) -> Vec<Holder> {
        let holders = self.holders().unwrap();
        assert_eq!(holders.iter().map(Holder::to_string).collect::<Vec<_>>(), expected);
        holders
    }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn at(text: &str) -> PciAddress {
    text.parse().unwrap()
}

fn card() -> [PciAddress; 2] {
    [at("0000:03:00.0"), at("0000:03:00.1")]
}

fn nodes(host: &Host, functions: &[PciAddress]) -> Vec<(String, NodeKind, String)> {
    let nodes = host.device_nodes_of(functions).unwrap().into_iter();
    nodes
        .map(|node| {
            let number = node.number.map(|number| number.to_string()).unwrap_or_default();
            (node.path.display().to_string().replace(RESOURCES, "…"), node.kind, number)
        })
        .collect()
}

#[test]
fn nodes_of_a_card_are_those_below_it_and_its_drivers() {
    let machine = Machine::with("");
    let node = |path: &str, kind, number: &str| (path.to_owned(), kind, number.to_owned());
    assert_eq!(
        nodes(&machine.host(), &card()),
        [
            node("/dev/dri/card1", NodeKind::Drm, "226:1"),
            node("/dev/dri/renderD128", NodeKind::Render, "226:128"),
            node("/dev/drm_dp_aux0", NodeKind::Other, "237:0"),
            node("/dev/fb1", NodeKind::Framebuffer, "29:1"),
            node("/dev/i2c-7", NodeKind::I2c, "89:7"),
            node("/dev/kfd", NodeKind::Kfd, "234:0"),
            node("/dev/mem_dev", NodeKind::Other, "259:9"),
            node("/dev/snd/controlC0", NodeKind::Sound, "116:7"),
            node("/dev/snd/pcmC0D3p", NodeKind::Sound, "116:3"),
            node("…/resource0", NodeKind::PciResource, ""),
            node("…/resource0_wc", NodeKind::PciResource, ""),
            node("…/resource1", NodeKind::PciResource, ""),
            node("…/resource2", NodeKind::PciResource, ""),
            node("…/resource3", NodeKind::PciResource, ""),
            node("…/resource4", NodeKind::PciResource, ""),
            node("…/resource5", NodeKind::PciResource, ""),
        ]
    );
    // A block device has a number of its own kind.
    let all = machine.host().device_nodes_of(&card()).unwrap();
    let blocks =
        all.iter().filter_map(|node| node.number).filter(|number| number.class == DeviceClass::Block);
    assert_eq!(blocks.map(|number| number.to_string()).collect::<Vec<_>>(), ["259:9"]);
}

#[test]
fn what_is_behind_a_bridge_is_not_the_bridges() {
    let machine = Machine::with("");
    let host = machine.host();
    assert_eq!(nodes(&host, &[at("0000:02:00.0")]), []);
    assert_eq!(nodes(&host, &[at("0000:77:00.0")]), []);
    assert_eq!(nodes(&host, &[]), []);
    // The one sound function is no node of the compute driver.
    assert!(nodes(&host, &[at("0000:03:00.1")]).iter().all(|(_, kind, _)| *kind == NodeKind::Sound));
}

#[test]
fn a_vfio_driver_has_nodes_of_the_group_and_of_the_function() {
    let machine = Machine::with(&format!(
        "/sys/class/vfio/14/dev = 235:0\n/sys/class/vfio/noiommu-15/dev = 235:1\n\
         {RESOURCES}/vfio-dev/vfio0/dev = 511:0\n{RESOURCES}/vfio-dev/vfio0/uevent = DEVNAME=vfio/devices/vfio0\n"
    ));
    let vfio: Vec<_> =
        nodes(&machine.host(), &card()).into_iter().filter(|(_, kind, _)| *kind == NodeKind::Vfio).collect();
    let paths: Vec<_> = vfio.iter().map(|(path, ..)| path.as_str()).collect();
    assert_eq!(paths, ["/dev/vfio/14", "/dev/vfio/devices/vfio0", "/dev/vfio/noiommu-15"]);
}

#[test]
fn nvidias_nodes_are_in_proc() {
    let gpus = "/proc/driver/nvidia/gpus";
    let machine = Machine::with(&format!(
        "{gpus}/0000:03:00.0/information = Model: \t\t NVIDIA GeForce RTX 3080\\nDevice Minor: \t 1\\n\n"
    ));
    let paths = || -> Vec<String> {
        let nodes = nodes(&machine.host(), &card()).into_iter();
        nodes
            .filter(|(_, kind, _)| *kind == NodeKind::Nvidia)
            .map(|(path, _, number)| format!("{path} {number}"))
            .collect()
    };
    assert_eq!(paths(), ["/dev/nvidia-modeset 195:254", "/dev/nvidia1 195:1"]);
    // With a second card it is not known whose displays are meant.
    machine.add(&format!("{gpus}/0000:0e:00.0/information = Device Minor: \t 0\n"));
    assert_eq!(paths(), ["/dev/nvidia1 195:1"]);
}

#[test]
fn nobody_uses_a_card() {
    let machine = Machine::with("");
    machine.assert_held_by(&[]);
    // A process of another card, a kernel thread, one that has ended, and one without any file.
    machine.run(
        900,
        "gnome-shell",
        SESSION,
        "fd/7 -> /dev/dri/card0\nfd/8 -> /dev/dri/card10\nfd/9 -> socket:[1]",
    );
    machine.run(2, "kthreadd", "0::/", "maps =\nfd/");
    machine.add("/proc/901/fd/3 -> /dev/dri/card1\n/proc/902/\n/proc/self/fd/3 -> /dev/dri/card1\n");
    machine.assert_held_by(&[]);
}

#[test]
fn everyone_who_uses_a_card_is_named_with_the_unit() {
    let machine =
        Machine::with(&format!("{RESOURCES}/vfio-dev/vfio0/dev = 511:0\n/sys/class/vfio/14/dev = 235:0\n"));
    machine.run(1, "systemd", "0::/init.scope", "fd/40 -> /dev/dri/card1");
    machine.run(812, "systemd-logind", "0::/system.slice/systemd-logind.service", "fd/30 -> /dev/dri/card1");
    machine.run(
        1234,
        "Xorg",
        "12:cpuset:/\\n1:name=systemd:/system.slice/sddm.service\\n0::/other",
        "fd/0 -> /dev/null\nfd/14 -> /dev/dri/card1\nfd/15 -> /dev/dri/card1",
    );
    machine.run(
        2000,
        "kwin_wayland",
        SESSION,
        "fd/9 -> /dev/dri/card1 (deleted)\nfd/10 -> /dev/dri/renderD128",
    );
    machine.run(2001, "wireplumber", UNIT_OF_USER, "fd/22 -> /dev/snd/controlC0");
    machine.run(
        2002,
        "ollama",
        "0::/system.slice/ollama.service",
        "fd/4 -> /dev/kfd\nfd/5 -> /dev/dri/renderD128",
    );
    machine.run(
        2003,
        "game",
        SESSION,
        "maps = 00400000-00401000 r-xp 00000000 08:02 1   /usr/bin/game\\n7f00-7f10 rw-s 00100000 00:06 512   /dev/dri/renderD128\\n7f10-7f20 rw-p 00000000 00:00 0",
    );
    machine.run(
        2004,
        "umr",
        "0::/system.slice/docker-1f.scope",
        &format!("fd/3 -> /dev/dri/card1\nmaps = 7f00-7f10 rw-s 0 00:15 9 {RESOURCES}/resource5"),
    );
    machine.run(2005, "ddcutil", SESSION, "fd/3 -> /dev/i2c-7");
    machine.run(
        2006,
        "qemu-system-x86",
        "0::/machine.slice/machine-qemu\\x2d1\\x2dwin11.scope/libvirt/emulator",
        "fd/3 -> /dev/vfio/14",
    );
    machine.run(2007, "plymouthd", "0::/", "maps = 7f00-7f10 rw-s 0 00:06 9 /dev/fb1 (deleted)");
    let holders = machine.assert_held_by(&[
        "systemd (process 1, init.scope) has /dev/dri/card1 open",
        "systemd-logind (process 812, systemd-logind.service) has /dev/dri/card1 open",
        "Xorg (process 1234, sddm.service) has /dev/dri/card1 open",
        "kwin_wayland (process 2000, session-2.scope of anna) has /dev/dri/card1, /dev/dri/renderD128 open",
        "wireplumber (process 2001, wireplumber.service of anna) has /dev/snd/controlC0 open",
        "ollama (process 2002, ollama.service) has /dev/dri/renderD128, /dev/kfd open",
        "game (process 2003, session-2.scope of anna) has /dev/dri/renderD128 mapped",
        &format!(
            "umr (process 2004, docker-1f.scope) has /dev/dri/card1 open and {RESOURCES}/resource5 mapped"
        ),
        "ddcutil (process 2005, session-2.scope of anna) has /dev/i2c-7 open",
        "qemu-system-x86 (process 2006, machine-qemu\\x2d1\\x2dwin11.scope) has /dev/vfio/14 open",
        "plymouthd (process 2007) has /dev/fb1 mapped",
    ]);
    assert!(holders.iter().all(|holder| holder.process.start_time == 4242));
    let brokers = holders.iter().filter(|holder| holder.is_session_broker()).map(|holder| holder.process.pid);
    assert_eq!(brokers.collect::<Vec<_>>(), [1, 812]);
}

#[test]
fn a_process_that_cannot_be_looked_at_may_be_a_user() {
    // As little to be read as another user's process.
    for (file, lines) in
        [("fd", "fd = no folder\nmaps ="), ("fd", "fd/3 = no link\nmaps ="), ("maps", "maps/no file/\nfd/")]
    {
        let machine = Machine::with("");
        machine.run(7, "secret", "0::/", lines);
        let error = machine.holders().unwrap_err().to_string();
        assert!(error.contains(&format!("/proc/7/{file}: ")), "{lines}: {error}");
    }
}

#[test]
fn a_name_cannot_disturb_a_terminal() {
    let machine = Machine::with("");
    machine.run(7, "a\u{1b}[2Jb", "0::/", "fd/3 -> /dev/dri/card1");
    machine.assert_held_by(&[r"a\u{1b}[2Jb (process 7) has /dev/dri/card1 open"]);
}

#[test]
fn nodes_of_a_firmware_framebuffer_are_the_cards() {
    let machine = Machine::with(&format!(
        "{RESOURCES}/simple-framebuffer.0/drm/card2/dev = 226:2\n\
         {RESOURCES}/simple-framebuffer.0/drm/card2/uevent = DEVNAME=dri/card2\n\
         /sys/bus/platform/devices/efi-framebuffer.0 -> ../../../devices/platform/efi-framebuffer.0\n\
         /sys/devices/platform/efi-framebuffer.0/graphics/fb0/dev = 29:0\n\
         /sys/bus/pci/devices/0000:0e:00.0/resource = 0x00000000d0000000 0x00000000dfffffff 0x000000000014220c\n\
         /proc/iomem = c0000000-efffffff : PCI Bus 0000:00\\n  d0000000-d07e8fff : efifb\n"
    ));
    let paths = |function: &str| -> Vec<String> {
        nodes(&machine.host(), &[at(function)]).into_iter().map(|(path, ..)| path).collect()
    };
    assert!(paths("0000:03:00.0").contains(&"/dev/dri/card2".to_owned()));
    assert!(!paths("0000:03:00.0").contains(&"/dev/fb0".to_owned()));
    assert_eq!(paths("0000:0e:00.0"), ["/dev/dri/card0", "/dev/fb0"]);
}

/// An NVMe disk with two partitions.
const DISK: &str = "
/sys/bus/pci/devices/0000:0a:00.0 -> ../../../devices/pci0000:00/0000:00:03.1/0000:0a:00.0
/sys/devices/pci0000:00/0000:00:03.1/0000:0a:00.0/nvme/nvme0/nvme0n1/dev = 259:0
/sys/devices/pci0000:00/0000:00:03.1/0000:0a:00.0/nvme/nvme0/nvme0n1/uevent = DEVNAME=nvme0n1
/sys/devices/pci0000:00/0000:00:03.1/0000:0a:00.0/nvme/nvme0/nvme0n1/subsystem -> ../../../../../../../class/block
/sys/devices/pci0000:00/0000:00:03.1/0000:0a:00.0/nvme/nvme0/nvme0n1/nvme0n1p2/dev = 259:2
/sys/devices/pci0000:00/0000:00:03.1/0000:0a:00.0/nvme/nvme0/nvme0n1/nvme0n1p2/uevent = DEVNAME=nvme0n1p2
/sys/devices/pci0000:00/0000:00:03.1/0000:0a:00.0/nvme/nvme0/nvme0n1/nvme0n1p2/subsystem -> ../../../../../../../../class/block
";

#[test]
fn a_disk_that_is_mounted_or_part_of_a_volume_is_in_use() {
    let disk: PciAddress = "0000:0a:00.0".parse().unwrap();
    let machine = Machine::with(DISK);
    let uses = || machine.host().disks_in_use(&[disk]).unwrap();
    assert_eq!(uses(), [""; 0]);
    machine.add(
        "/proc/1/mountinfo = 22 1 259:2 / /srv/games rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw\\n\
         23 1 0:40 / /home rw,relatime shared:2 - btrfs /dev/nvme0n1 rw\\n24 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
         /proc/swaps = Filename Type Size Used Priority\\n/dev/nvme0n1p2 partition 8388604 0 -2\n\
         /sys/class/block/nvme0n1p2/holders/dm-0/\n",
    );
    assert_eq!(
        uses(),
        [
            "/srv/games is mounted from /dev/nvme0n1p2",
            "/home is mounted from /dev/nvme0n1",
            "/dev/nvme0n1p2 is swapped to",
            "/dev/nvme0n1p2 is a part of dm-0",
        ]
    );
}

/// A pipe without a writer keeps its reader waiting, as the lock on a process's memory does.
#[test]
fn a_users_process_cannot_keep_the_look_waiting() {
    let machine = Machine::with("");
    for pid in 4001..=4006 {
        machine.run(pid, "hangs", SESSION, "status = Uid: 1000 1000 1000 1000\nfd/");
        nix::unistd::mkfifo(
            &machine.0.path().join(format!("proc/{pid}/maps")),
            nix::sys::stat::Mode::S_IRWXU,
        )
        .unwrap();
    }
    machine.add("/proc/4006/fd/3 -> /dev/dri/card1\n");
    machine.run(5000, "Xorg", "0::/system.slice/sddm.service", "fd/14 -> /dev/dri/card1\nmaps =");
    let held = [
        "hangs (process 4006, session-2.scope of anna) has /dev/dri/card1 open",
        "Xorg (process 5000, sddm.service) has /dev/dri/card1 open",
    ];
    machine.assert_held_by(&held);
    // Those that hang are known by now.
    machine.assert_held_by(&held);
}

/// Nobody but root and QEMU can have it then: what a user's process does is not even looked at.
#[test]
fn a_card_that_is_with_vfio_is_nobodys_but_roots_and_qemus() {
    let device = "/sys/devices/pci0000:00/0000:05:00.0";
    let machine = Machine::with(&format!(
        "/sys/bus/pci/devices/0000:05:00.0 -> ../../../devices/pci0000:00/0000:05:00.0\n\
         {device}/resource0 =\n\
         {device}/iommu_group -> ../../../kernel/iommu_groups/33\n\
         /sys/class/vfio/33/dev = 235:3\n\
         /dev/vfio/33 =\n\
         /etc/group =\n\
         /sys/fs/cgroup/machine.slice/machine-qemu\\x2d1\\x2dwin11.scope/cgroup.procs = 4002\n"
    ));
    let holders = || machine.host().holders_of(&[at("0000:05:00.0")], soon());
    let set = |path: &str, mode: u32| {
        let path = machine.0.path().join(&path[1..]);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    // A process that cannot be looked at.
    machine.run(4001, "secret", SESSION, "status = Uid: 1000 1000 1000 1000\nfd = no folder");
    set("/dev/vfio/33", 0o600);
    holders().unwrap_err();
    set(&format!("{device}/resource0"), 0o600);
    assert_eq!(holders().unwrap(), []);
    // libvirt's, of any owner, and root's.
    for (pid, owner) in [(4002, "status = Uid: 1000 1000 1000 1000\n"), (4003, "")] {
        machine.run(pid, "qemu", "0::/", &format!("{owner}fd/30 -> /dev/vfio/33\nmaps ="));
    }
    let found: Vec<i32> = holders().unwrap().iter().map(|holder| holder.process.pid).collect();
    assert_eq!(found, [4002, 4003]);
    set("/dev/vfio/33", 0o660);
    holders().unwrap_err();
}
