//! Every section of a guest's file, with XML of a person's own and with the demo's guest.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;

use vfio_hook::actions::SECTIONS;

use crate::{demo, own_files, text};

/// A guest: what its XML has beside a name, and four vCPUs on CPUs of their own.
const PLAIN: &str = "";
const HUGE: &str = "<memoryBacking><hugepages/></memoryBacking>";
const NODE_1: &str =
    "<memoryBacking><hugepages/></memoryBacking><numatune><memory mode='strict' nodeset='1'/></numatune>";
const IOTHREADS: &str = "<iothreads>2</iothreads>";
const SHMEM: &str = "<devices><shmem name='looking-glass'><size unit='M'>32</size></shmem></devices>";
const DRIVE: &str = "<devices><disk type='block'><source dev='/dev/sdg'/></disk>\
    <disk type='block'><source dev='/dev/disk/by-id/nvme-x'/></disk></devices>";
const CARD: &str = "<on_reboot>destroy</on_reboot><devices>A=0x0b:0x00.0 A=0x0b:0x00.1</devices>";
const ONE_FUNCTION: &str = "<on_reboot>destroy</on_reboot><devices>A=0x16:0x00.0</devices>";
const INTELS: &str = "<on_reboot>destroy</on_reboot><devices>A=0:0x02.0</devices>";
const WHERE_A_BRIDGE_IS: &str = "<on_reboot>destroy</on_reboot><devices>A=0x01:0x00.0</devices>";
const BUILT_IN_CARD: &str = "<on_reboot>destroy</on_reboot><devices>A=0x03:0x00.0 A=0x03:0x00.1 A=0x03:0x00.2 A=0x03:0x00.3</devices>";
const PROCESSORS_GRAPHICS: &str = "<on_reboot>destroy</on_reboot><devices>A=0x0e:0x00.0</devices>";
const CARD_DRIVE_AND_NETWORK: &str = "<on_reboot>destroy</on_reboot><devices>\
    <disk type='nvme'><source type='pci' managed='yes' namespace='1'><address bus='0x05'/></source></disk>\
    <interface type='hostdev' managed='yes'><source><address type='pci' bus='0x06' function='2'/></source></interface>\
    A=0x16:0x00.0</devices>";

const FUNCTIONS: &str = "<devices>A=0x21:0x10.0 A=0x21:0x10.4</devices>";
const FUNCTIONS_AND_CARD: &str =
    "<on_reboot>destroy</on_reboot><devices>A=0x0b:0x00.0 A=0x0b:0x00.1 A=0x21:0x10.4</devices>";

/// YAML, what the XML has, and words that the output has.
const FILES: [(&str, &str, &str); 77] = [
    ("requires: [srv-games.mount, {unit: pipewire.service, user: anna}]", PLAIN, "required, and there"),
    ("requires: [/dev/kvm, /srv/games, /etc/passwd, /]", PLAIN, "the path /srv/games"),
    ("requires: [\"046d:c52b\", \"0000:44:00.0\", \"0000:03:00.0\"]", PLAIN, "USB device 046d:c52b"),
    ("requires: [ollama.service]\nservices: {start: [ollama.service]}", PLAIN, "required, and there"),
    ("conflicts: [macos]", PLAIN, "and off: macos"),
    ("block_sleep: {what: [sleep, idle], strength: mask, lid: ignore}", PLAIN, "masked sleep units"),
    ("services: {start: [evsieve@win11.service]}", PLAIN, "stopped -> started"),
    (
        "services: {start: [{unit: lg.service, user: anna}], stop: [x.socket]}",
        PLAIN,
        "lg.service of anna, not running",
    ),
    ("run: {when: prepare, command: [/bin/true], undo: [/opt/undo, x]}", PLAIN, "runs /opt/undo x"),
    ("run: {when: started, command: [/bin/true], user: root}", PLAIN, "runs /bin/true (as root)"),
    ("run: [{when: start, command: [/a]}, {when: start, command: [/a/b]}]", PLAIN, ""),
    ("tune: {stat_interval: 120}", PLAIN, "vm.stat_interval  1 -> 120"),
    ("tune: {swappiness: 0}", PLAIN, "60 -> 0"),
    ("tune: {compaction_proactiveness: 0}", PLAIN, "20 -> 0"),
    ("tune: {dirty_bytes: 256MiB, dirty_background_bytes: 64MiB}", PLAIN, "-> 268435456"),
    ("tune: {dirty_ratio: 5, dirty_background_ratio: 2}", PLAIN, "20 -> 5"),
    ("tune: {sched_rt_runtime_us: -1}", PLAIN, "950000 -> -1"),
    ("tune: {numa_balancing: 2}", PLAIN, "0 -> 2"),
    ("tune: {nmi_watchdog: 0, watchdog: 0}", PLAIN, "1 -> 0"),
    ("tune: {transparent_hugepages: never}", PLAIN, "madvise -> never"),
    ("tune: {transparent_hugepages_defrag: defer+madvise}", PLAIN, "-> defer+madvise"),
    ("tune: {ksm: 1}", PLAIN, "0 -> 1"),
    ("tune: {halt_poll_ns: 0}", PLAIN, "200000 -> 0"),
    ("tune: {writeback_numa: 0}", PLAIN, "1 -> 0"),
    ("tune: {writeback_numa: 1}", PLAIN, "0 -> 1"),
    ("tune: {x3d_mode: cache}", PLAIN, "frequency -> cache"),
    ("tune: {x3d_mode: frequency}", PLAIN, "cache -> frequency"),
    ("tune: {disks: {nvme0n1: {scheduler: none, read_ahead: 128KiB}}}", PLAIN, "mq-deadline -> none"),
    ("tune: {disks: {sda: {scheduler: mq-deadline}}}", PLAIN, "none -> mq-deadline"),
    ("tune: {disks: {sda: {scheduler: bfq}, sdb: {read_ahead: 1MiB}}}", PLAIN, "128 -> 1024"),
    ("tune: {backlight: {intel_backlight: 30%}}", PLAIN, "19393 -> 28800"),
    ("tune: {files: {\"/proc/sys/kernel/sched_autogroup_enabled\": 0}}", PLAIN, "1 -> 0"),
    ("tune: {files: {\"/proc/sys/kernel/printk\": \"3 4 0 3\"}}", PLAIN, "0 0 1 0 -> 3 4 0 3"),
    ("tune: {files: {\"/sys/module/kvm_amd/parameters/avic\": \"N\"}}", PLAIN, "Y -> N"),
    ("tune: {files: {\"/sys/kernel/mm/transparent_hugepage/shmem_enabled\": advise}}", PLAIN, "-> advise"),
    ("tune: {files: {\"/sys/block/sda/queue/nr_requests\": 64}}", PLAIN, "0 -> 64"),
    ("tune: {files: {\"/proc/sys/vm/odd {1..3} = x\": 1}}", PLAIN, "0 -> 1"),
    ("shared_memory: {path: /dev/shm/looking-glass}", SHMEM, "none -> 32 MiB"),
    ("shared_memory: {path: /dev/shm/looking-glass, group: root}", SHMEM, "none -> 32 MiB"),
    ("shared_memory: {path: /dev/shm/scream, size: 2MiB, owner: anna, group: audio}", PLAIN, "none -> 2 MiB"),
    ("shared_memory: {path: /dev/kvmfr1, owner: anna, mode: \"0600\"}", PLAIN, "/dev/kvmfr1 with 128 MiB"),
    ("disks: {}", DRIVE, "drives that the host does not use: /dev/sdg"),
    ("disks: {in_use: warn, expect: [WD-1, S5GX]}", DRIVE, "serial S5GX"),
    (
        "disks: {expect: /dev/disk/by-id/nvme-x_1}",
        CARD_DRIVE_AND_NETWORK,
        "serial nvme-x_1, PCI device 0000:05:00.0",
    ),
    ("disks: {unmount: [/games/more, /games]}", PLAIN, "mount /games/more  ext4 (relatime,rw) -> down"),
    ("disks: {unmount: [/games, /dev/sdq2], timeout: 30s}", DRIVE, "swap /dev/sdq2"),
    ("disks: {}\ngpu: {}", CARD_DRIVE_AND_NETWORK, "PCI device 0000:05:00.0"),
    ("sriov: {device: \"0000:21:00.0\", count: 4}", PLAIN, "none -> 4, without drivers of the host"),
    ("sriov: [{device: enp33s0f1}]", FUNCTIONS, "a network card with 7 virtual functions (enp33s0f1)"),
    ("sriov: {device: \"0000:21:00.0\"}\ngpu: {}", FUNCTIONS_AND_CARD, "none -> 3"),
    ("gpu: {}", CARD, "graphics card 0000:0b:00.0, 0000:0b:00.1, as one of NVIDIA's"),
    ("gpu: {}", ONE_FUNCTION, "graphics card 0000:16:00.0, as one of NVIDIA's"),
    ("gpu: {}", INTELS, "graphics card 0000:00:02.0, as one of Intel's"),
    ("gpu: {}", WHERE_A_BRIDGE_IS, "graphics card 0000:01:00.0, as one of NVIDIA's"),
    ("gpu: {}", BUILT_IN_CARD, "amdgpu"),
    ("gpu: {}", PROCESSORS_GRAPHICS, "amdgpu"),
    ("gpu: {}", CARD_DRIVE_AND_NETWORK, "device 0000:05:00.0, as an NVMe drive"),
    ("gpu: {}", CARD_DRIVE_AND_NETWORK, "device 0000:06:00.2, as a network card"),
    ("gpu: {}", CARD_DRIVE_AND_NETWORK, "graphics card 0000:16:00.0"),
    ("gpu: {bars: {0: 16 GiB}, return_to: vfio}", CARD, "stay with VFIO and awake"),
    (
        "gpu: {return_to: vfio, keep_awake: never}",
        CARD,
        "stay with VFIO, as `return_to: vfio` asks, and may sleep",
    ),
    ("gpu: {display_manager: stop}", CARD, "sddm.service                       running -> stopped"),
    ("gpu: {return_to: host-if-clean, recover: [reset, bus-reset], reset_after: [reset]}", CARD, "is done"),
    ("free_memory: {}", PLAIN, ""),
    ("hugepages: {keep_free: 1GiB}", HUGE, "2 MiB pages on node 0"),
    ("hugepages: {}", NODE_1, "2 MiB pages on node 1"),
    ("isolate_cpus: {}", PLAIN, "AllowedCPUs"),
    ("isolate_cpus: {}\nhugepages: {}", NODE_1, "NUMA nodes 0-1"),
    ("cpu_power: {governor: schedutil, epp: balance_power}", PLAIN, "powersave -> schedutil"),
    ("cpu_power: {epp: performance}", PLAIN, "balance_performance -> performance"),
    ("cpu_power: {boost: false, cpus: all}", PLAIN, "boost of CPUs 0-31"),
    ("cpu_power: {profile: performance}", PLAIN, "none -> performance"),
    ("cpu_power: {dma_latency: 20us, resume_latency: none}", PLAIN, "none -> 20"),
    (
        "schedule: {vcpus: {nice: -10}, emulator: {nice: 5}}",
        PLAIN,
        "vCPU 3 (thread 4246)    nice 0 -> nice -10",
    ),
    ("schedule: {io: {nice: -5}}", IOTHREADS, "iothread 2 (thread 4248)  nice 0 -> nice -5"),
    ("isolate_cpus: {}\nschedule: {vcpus: fifo}", PLAIN, "fifo"),
    ("switch_input: {monitor: desk, guest: hdmi-1}", PLAIN, "dp-1 -> hdmi-1"),
];

/// The guest's XML; `A=BUS:SLOT.FUNCTION` is a device that it gets.
fn xml(more: &str, cpus: [u32; 4]) -> String {
    let pins: String =
        (0..).zip(cpus).map(|(vcpu, cpu)| format!("<vcpupin vcpu='{vcpu}' cpuset='{cpu}'/>")).collect();
    let mut text = format!(
        "<domain type='kvm'><name>mine</name><uuid>11111111-1111-4222-8333-444455556666</uuid>\
         <memory unit='GiB'>4</memory><vcpu>4</vcpu><cputune>{pins}<emulatorpin cpuset='0'/></cputune>{more}</domain>"
    );
    while let Some((start, rest)) = text.split_once("A=") {
        let end = rest.find([' ', '<']).unwrap();
        let (address, after) = rest.split_at(end);
        let (bus, rest) = address.split_once(':').unwrap();
        let (slot, function) = rest.split_once('.').unwrap();
        text = format!(
            "{start}<hostdev mode='subsystem' type='pci' managed='yes'><source>\
             <address bus='{bus}' slot='{slot}' function='{function}'/></source></hostdev>{after}"
        );
    }
    text
}

const USUAL: [u32; 4] = [2, 18, 3, 19];

#[test]
fn the_host_is_as_it_was_after_every_section() {
    thread::scope(|scope| {
        for files in FILES.chunks(FILES.len().div_ceil(4)) {
            scope.spawn(|| files.iter().for_each(|(yaml, more, words)| is_as_it_was(yaml, more, words)));
        }
    });
}

fn is_as_it_was(yaml: &str, more: &str, words: &str) {
    let (succeeded, text) = own_files(&xml(more, USUAL), &format!("{yaml}\n"));
    // A file where another one's folder would be is a mistake of the file's.
    let is_wrong = yaml.contains("/a/b]");
    assert!(text.contains("\nthe host is as it was: "), "{yaml}\n{more}\n{text}");
    assert!(succeeded != is_wrong && text.contains(words), "{words}:\n{yaml}\n{more}\n{text}");
}

#[test]
fn every_section_is_among_them() {
    let mut sections: BTreeSet<&str> = SECTIONS.iter().map(|section| section.name).collect();
    let there = FILES.iter().flat_map(|(yaml, _, _)| yaml.lines()).filter_map(|line| line.split(':').next());
    for section in there {
        sections.remove(section);
    }
    assert!(sections.is_empty(), "write files with these sections into the table: {sections:?}");
    let tunables = SECTIONS.iter().find(|section| section.name == "tune").unwrap().keys;
    for key in tunables {
        assert!(FILES.iter().any(|(yaml, _, _)| yaml.contains(&format!("{}:", key.name))), "{}", key.name);
    }
}

#[test]
fn the_host_is_as_large_as_the_xml_says() {
    let (succeeded, text) =
        own_files(&xml(PLAIN, [40, 56, 41, 57]), "isolate_cpus: {}\ncpu_power: {boost: true, cpus: all}\n");
    assert!(succeeded && text.contains("\n  CPUs 32-63\n"), "{text}");
    assert!(text.contains("0-63 -> 0-39,42-55,58-63") && text.contains("the host is as it was"), "{text}");
    let large = xml(HUGE, USUAL).replace("'GiB'>4<", "'GiB'>96<");
    let (succeeded, text) = own_files(&large, "hugepages: {}\n");
    assert!(succeeded && text.contains("192 GiB of memory on each node"), "{text}");
}

/// With the demo's guest, which fits them.
#[test]
fn the_examples_work_as_they_are() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks.d-examples");
    let mut tried = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // These two are no guest's files.
        if ["guests.yaml", "host.yaml"].iter().any(|name| path.ends_with(name)) {
            continue;
        }
        let output = demo(&["--config".as_ref(), &path]);
        let (said, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{}:\n{said}\n{errors}", path.display());
        assert!(said.contains("\nthe host is as it was: "), "{}:\n{said}", path.display());
        tried += 1;
    }
    assert!(tried >= 5, "{tried}");
}

#[test]
fn the_demos_guest_has_the_card_that_a_file_names() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mine.yaml");
    fs::write(&config, "gpu: {devices: [\"0000:0b:00.0\"]}\n").unwrap();
    let output = demo(&["--config".as_ref(), &config]);
    let said = text(&output.stdout);
    assert!(output.status.success() && said.contains("graphics card 0000:0b:00.0, 0000:0b:00.1"), "{said}");
}

#[test]
fn a_mistake_is_not_simulated() {
    for (yaml, message) in [
        ("cpu_power: {epp: performanc}", "CPU 2 has no energy performance preference `performanc`"),
        ("cpu_power: {governor: shedutil}", "CPU 2 has no governor `shedutil`"),
        (
            "run: {when: prepare, command: [\"/bin/echo hi\"]}",
            "each argument stands alone: `command: [/bin/echo, hi]`",
        ),
        (
            "tune: {disks: {sda: {scheduler: mq_deadline}}}",
            "/sys/block/sda/queue/scheduler has no `mq_deadline`",
        ),
        ("shared_memory: {path: /dev/shm/looking-glas}", "no <shmem name='looking-glas'>"),
        ("isolate_cpus: {cpus: \"2-3,18-19,40\"}", "this host has no CPU 40"),
    ] {
        let (succeeded, text) = own_files(&xml(SHMEM, USUAL), &format!("{yaml}\n"));
        assert!(
            !succeeded && text.contains(message) && text.contains("the host is as it was"),
            "{yaml}:\n{text}"
        );
    }
}

#[test]
fn a_name_does_not_reach_the_terminal_as_it_is() {
    let odd = xml(PLAIN, USUAL).replace(">mine<", ">a\u{9b}2J\u{202e}<");
    let (succeeded, text) = own_files(&odd, "block_sleep: {} # \u{202e}\n");
    assert!(!text.contains(['\u{9b}', '\u{202e}']), "{text}");
    assert!(succeeded || text.contains("error: "), "{text}");
}
