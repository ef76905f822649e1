//! Guests as libvirt really passes them, against what is known of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use vfio_hook::cpuset::{CpuSet, NodeSet};
use vfio_hook::guest::{
    DriveSharing, DriveSource, Guest, GuestError, HostDrive, HostdevPlace, HugepagesPage, LifecycleAction,
    Managed, MemNode, MemoryDevice, MemoryModel, MemorySource, NumaCell, NumaMemory, NumaMode, NumaPlacement,
    PageDemand, PciHostdev, Placement, QemuThreads, Shmem, VcpuCount, XmlSchedulers,
};
use vfio_hook::pages::{MemorySize, PageSize};

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

/// The files that real libvirt 9.0.0 and 11.3.0 gave to a hook, and what it was given to define the guests.
fn event_files() -> Vec<PathBuf> {
    let mut files: Vec<_> = ["libvirt-events/9.0.0", "libvirt-events/11.3.0"]
        .iter()
        .flat_map(|folder| fs::read_dir(data(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn cpus(list: &str) -> CpuSet {
    list.parse().unwrap()
}

fn nodes(list: &str) -> NodeSet {
    list.parse().unwrap()
}

fn pins(pins: &[(u32, &str)]) -> BTreeMap<u32, CpuSet> {
    pins.iter().map(|(thread, list)| (*thread, cpus(list))).collect()
}

fn hostdev(address: &str, managed: Managed) -> PciHostdev {
    PciHostdev { address: address.parse().unwrap(), managed, place: HostdevPlace::Hostdev }
}

/// What the three guests of the recordings have in common, under the name of the plainest.
fn win11() -> Guest {
    Guest {
        name: "win11".into(),
        uuid: "9f9b5b1a-7c2a-4b8e-9b5e-0d3a3c0b7f11".parse().unwrap(),
        memory: MemorySize::from_kib(131_072),
        hugepages: None,
        memory_source: MemorySource::Anonymous,
        numa_cells: vec![],
        numa_memory: None,
        memnodes: vec![],
        memory_devices: vec![],
        vcpus: VcpuCount { max: 2, running: (0..2).collect(), cpuset: None },
        vcpu_pins: pins(&[(0, "1"), (1, "0")]),
        qemu_threads: QemuThreads {
            emulator_pin: Some(cpus("0-1")),
            iothreads: 1,
            iothread_pins: pins(&[(1, "0")]),
        },
        schedulers: XmlSchedulers::default(),
        shmems: Vec::new(),
        partition: None,
        pci_hostdevs: vec![],
        host_drives: vec![],
        mediated_devices: 0,
        network_interfaces: 0,
        on_reboot: LifecycleAction::Restart,
        undeclared_prefixes: vec![],
    }
}

fn kvmtest() -> Guest {
    Guest {
        name: "kvmtest".into(),
        uuid: "c0ffee00-1111-4222-8333-444455557777".parse().unwrap(),
        numa_cells: vec![NumaCell { id: 0, memory: MemorySize::from_kib(131_072) }],
        vcpu_pins: pins(&[(0, "0"), (1, "1")]),
        ..win11()
    }
}

fn win11_gaming() -> Guest {
    Guest {
        name: "win11-gaming".into(),
        uuid: "c0ffee00-1111-4222-8333-444455556666".parse().unwrap(),
        memory: MemorySize::from_gib(16),
        hugepages: Some(vec![HugepagesPage { size: Some(PageSize::GIB_1), guest_nodes: Some(nodes("0")) }]),
        numa_cells: vec![NumaCell { id: 0, memory: MemorySize::from_gib(16) }],
        pci_hostdevs: vec![
            hostdev("0000:0b:00.0", Managed::Yes),
            hostdev("0000:0b:00.1", Managed::Yes),
            hostdev("0000:0c:00.0", Managed::No),
        ],
        host_drives: vec![HostDrive {
            source: DriveSource::UsbId(0x046d, 0xc539),
            sharing: DriveSharing::None,
        }],
        schedulers: XmlSchedulers { vcpus: true, io: false, emulator: false },
        ..kvmtest()
    }
}

/// The guest a file is about: `008.win11_prepare_begin_-.stdin.xml`, or the name it was defined from.
fn expected(file: &str) -> Guest {
    let guest = match file.split_once('.') {
        Some((name, "xml")) => name,
        Some((_, rest)) => rest.split('_').next().unwrap(),
        None => file,
    };
    match guest {
        "win11" | "vm" => win11(),
        "kvmtest" => kvmtest(),
        "win11-gaming" | "vfio" => win11_gaming(),
        other => panic!("no expectation for {other}"),
    }
}

#[test]
fn every_recorded_event_is_read() {
    let mut count = 0;
    for path in event_files() {
        let file = path.file_name().unwrap().to_str().unwrap();
        if file.ends_with(".status.xml") {
            continue;
        }
        let guest = Guest::parse(&fs::read(&path).unwrap()).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(guest, expected(file), "{}", path.display());
        count += 1;
    }
    assert_eq!(count, 76);
}

#[test]
fn status_files_are_refused_by_name() {
    let mut count = 0;
    for path in event_files() {
        if path.to_str().unwrap().ends_with(".status.xml") {
            let error = Guest::parse(&fs::read(&path).unwrap()).unwrap_err();
            assert!(matches!(error, GuestError::StatusFile { .. }), "{}: {error}", path.display());
            count += 1;
        }
    }
    assert_eq!(count, 26);
}

#[test]
fn the_recorded_guests_need_these_pages_and_cpus() {
    let sixteen = PageDemand { size: PageSize::GIB_1, pages: 16, placement: Placement::Anywhere };
    assert_eq!(win11_gaming().page_demands(PageSize::MIB_2).unwrap(), [sixteen]);
    assert_eq!(kvmtest().page_demands(PageSize::MIB_2).unwrap(), []);
    assert_eq!(win11().pinned_cpus(), cpus("0-1"));
    assert!(win11().unpinned_vcpus().is_empty());
}

fn everything() -> Vec<u8> {
    fs::read(data("guests/everything.xml")).unwrap()
}

#[test]
fn everything_is_read() {
    let guest = Guest {
        name: "Everything — & \"more\"".into(),
        uuid: "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0".parse().unwrap(),
        memory: MemorySize::from_gib(26),
        hugepages: Some(vec![
            HugepagesPage { size: Some(PageSize::GIB_1), guest_nodes: Some(nodes("0")) },
            HugepagesPage { size: Some(PageSize::MIB_2), guest_nodes: None },
        ]),
        memory_source: MemorySource::Memfd,
        numa_cells: vec![
            NumaCell { id: 0, memory: MemorySize::from_kib(15_728_641) },
            NumaCell { id: 1, memory: MemorySize::from_kib(8_388_607) },
        ],
        numa_memory: Some(NumaMemory {
            mode: NumaMode::Preferred,
            placement: NumaPlacement::Static,
            nodes: Some(nodes("0-1")),
        }),
        memnodes: vec![MemNode { cell: 1, mode: NumaMode::Strict, nodes: nodes("1") }],
        memory_devices: vec![
            MemoryDevice {
                model: MemoryModel::Dimm,
                size: MemorySize::from_gib(1),
                requested: None,
                page_size: Some(PageSize::GIB_1),
                guest_node: Some(1),
                source_nodes: None,
            },
            MemoryDevice {
                model: MemoryModel::VirtioMem,
                size: MemorySize::from_gib(2),
                requested: Some(MemorySize::from_kib(524_288)),
                page_size: None,
                guest_node: Some(1),
                source_nodes: Some(nodes("0")),
            },
        ],
        vcpus: VcpuCount { max: 8, running: (0..2).collect(), cpuset: Some(cpus("24-25")) },
        vcpu_pins: pins(&[(0, "4"), (1, "20"), (2, "5,21"), (3, "5,21"), (4, "6-7,9"), (5, "6-7,9")]),
        qemu_threads: QemuThreads {
            emulator_pin: Some(cpus("0-1,16-17")),
            iothreads: 2,
            iothread_pins: pins(&[(1, "2"), (2, "3,19")]),
        },
        schedulers: XmlSchedulers { vcpus: true, io: false, emulator: false },
        shmems: vec![Shmem { name: "looking-glass".into(), size: MemorySize::from_kib(65_536) }],
        partition: Some("/machine/games".into()),
        pci_hostdevs: vec![
            hostdev("0000:0b:00.0", Managed::Yes),
            hostdev("0000:0b:00.1", Managed::Yes),
            hostdev("10000:e1:1f.7", Managed::No),
            PciHostdev { place: HostdevPlace::Interface, ..hostdev("0000:66:10.2", Managed::Yes) },
        ],
        host_drives: vec![HostDrive {
            source: DriveSource::UsbId(0x046d, 0xc539),
            sharing: DriveSharing::None,
        }],
        mediated_devices: 0,
        network_interfaces: 0,
        on_reboot: LifecycleAction::Destroy,
        undeclared_prefixes: vec![],
    };
    assert_eq!(Guest::parse(&everything()).unwrap(), guest);
}

#[test]
fn everything_needs_these_pages_and_cpus() {
    let guest = Guest::parse(&everything()).unwrap();
    let demand = |size, pages, placement| PageDemand { size, pages, placement };
    assert_eq!(
        guest.page_demands(PageSize::MIB_2).unwrap(),
        [
            // 512 MiB of the virtio-mem, whose own nodes come before its cell's.
            demand(PageSize::MIB_2, 256, Placement::Strict(nodes("0"))),
            // Cell 1, one KiB short of 8 GiB.
            demand(PageSize::MIB_2, 4096, Placement::Strict(nodes("1"))),
            // Cell 0, one KiB more than 15 GiB.
            demand(PageSize::GIB_1, 16, Placement::Prefer(nodes("0-1"))),
            // The dimm.
            demand(PageSize::GIB_1, 1, Placement::Strict(nodes("1"))),
        ]
    );
    assert_eq!(guest.pinned_cpus(), cpus("4,20"));
    assert_eq!(guest.spare_cpus(), cpus("5-7,9,21,24-25"));
    assert_eq!(guest.effective_vcpu_pin(7), Some(&cpus("24-25")));
    assert!(guest.unpinned_vcpus().is_empty());
}

#[test]
fn a_cut_off_xml_is_an_error_that_betrays_nothing() {
    let xml = everything();
    let end = xml.trim_ascii_end().len();
    for length in 0..end {
        check(&xml[..length]).unwrap_err();
    }
    check(&xml[..end]).unwrap();
}

/// Reads the XML; whatever comes of it, no message may show a password or break a line.
fn check(xml: &[u8]) -> Result<Guest, GuestError> {
    let result = Guest::parse(xml).and_then(|guest| {
        let _ = (guest.pinned_cpus(), guest.unpinned_vcpus());
        guest.page_demands(PageSize::MIB_2).map(|_| guest)
    });
    let shown = match &result {
        Ok(guest) => format!("{guest:?}"),
        Err(error) => error.to_string(),
    };
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(!shown.contains(char::is_control), "{shown}");
    result
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = check(&bytes);
    }

    #[test]
    fn no_text_within_a_domain_panics(text in "[<>/='\" a-z0-9&;!-]{0,200}") {
        let _ = check(format!("<domain>{text}</domain>").as_bytes());
    }

    #[test]
    fn no_mutation_panics(
        place in any::<prop::sample::Index>(),
        removed in 0_usize..12,
        inserted in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..8),
            "[-<>/='&;^,0-9a-zA-Z \n]{0,8}".prop_map(String::into_bytes),
        ],
    ) {
        let mut xml = everything();
        let start = place.index(xml.len());
        let end = (start + removed).min(xml.len());
        xml.splice(start..end, inserted);
        let _ = check(&xml);
    }

    #[test]
    fn no_other_value_panics(place in any::<prop::sample::Index>(), value in "[-0-9a-zA-Z^, .é\u{9b}]{0,24}") {
        let xml = String::from_utf8(everything()).unwrap();
        let quoted: Vec<_> = xml.match_indices('\'').map(|(at, _)| at).collect();
        let pair = place.index(quoted.len() / 2) * 2;
        let xml = format!("{}{value}{}", &xml[..=quoted[pair]], &xml[quoted[pair + 1]..]);
        let _ = check(xml.as_bytes());
    }
}
