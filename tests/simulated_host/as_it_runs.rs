//! Guests as they really run: vCPUs that are off, QEMU's own threads, devices in every part of the XML.

use std::fs;
use std::path::Path;
use std::time::Duration;

use vfio_hook::deadline::Deadline;
use vfio_hook::guest::Guest;
use vfio_hook::ledger::Occasion;
use vfio_hook::lifecycle;

use crate::cards::{CARD, machine, machine_with, player};
use crate::support::{Life, Machine, life};

const ISOLATED: &str = "isolate_cpus: {}\n";

/// A guest of `tests/data/field`: XML as people have it.
fn field(file: &str, yaml: &str) -> Life {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/field").join(file);
    life(Guest::parse(&fs::read(path).unwrap()).unwrap(), yaml)
}

fn with_elements(elements: &str, yaml: &str) -> Life {
    let xml = format!(
        "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>guest1</name>\
         <uuid>00000000-0000-4000-8000-000000000001</uuid><memory unit='MiB'>512</memory>\
         <on_reboot>destroy</on_reboot>{elements}</domain>"
    );
    life(Guest::parse(xml.as_bytes()).unwrap(), yaml)
}

/// What is said of a guest that starts; the host is as it was after its end.
#[track_caller]
fn notes(machine: &Machine, life: &Life) -> Vec<String> {
    let before = machine.files();
    let outcome = machine.prepare(life).unwrap_or_else(|error| panic!("{error}"));
    machine.release(life).unwrap();
    machine.assert_is(&before, "released");
    outcome.notes.into_iter().map(|note| note.text).collect()
}

/// Why a guest does not start; the host is left alone.
#[track_caller]
fn refusal(machine: &Machine, life: &Life) -> String {
    let before = machine.files();
    let error = machine.prepare(life).unwrap_err().to_string();
    machine.assert_is(&before, &error);
    error
}

/// The CPUs that are left to the host's services while the guest is there.
fn left_to_host(machine: &Machine, life: &Life) -> String {
    machine.prepare(life).unwrap();
    let left = machine.get("/sys/fs/cgroup/system.slice/cpuset.cpus.effective");
    machine.release(life).unwrap();
    left
}

/// What is said of vCPUs that are off.
fn about_off(notes: &[String]) -> Vec<&str> {
    let is_about = |note: &&str| note.contains(" is off and ") || note.contains(" vCPUs that are off ");
    notes.iter().map(String::as_str).filter(is_about).collect()
}

fn about<'n>(notes: &'n [String], word: &str) -> Vec<&'n str> {
    notes.iter().map(String::as_str).filter(|note| note.contains(word)).collect()
}

#[test]
fn a_guest_starts_with_vcpus_that_are_off() {
    let machine = Machine::new("ryzen-7950x");
    for (file, left, said) in [
        (
            "offline-vcpus-current.xml",
            "0-7,10-31",
            vec![
                "vCPU 2-3 is off and has no <vcpupin>: plugged in later, it does not run on CPUs of its own",
            ],
        ),
        (
            "offline-vcpus-pin-absent-cpu.xml",
            "0-7,9-23,25-31",
            vec![
                "CPU 40-41, to which vCPUs that are off are pinned, is not there or another guest's: they cannot be \
                 plugged in",
            ],
        ),
        ("offline-vcpus-pinned-elsewhere.xml", "0-7,10-23,26-31", vec![]),
    ] {
        let guest = field(file, ISOLATED);
        assert_eq!(left_to_host(&machine, &guest), left, "{file}");
        assert_eq!(about_off(&notes(&machine, &guest)), said, "{file}");
    }
}

#[test]
fn cpus_of_vcpus_that_are_off_never_keep_a_guest_from_its_start() {
    // They would leave none for the host.
    let machine = Machine::new("two-nodes");
    let pins: String = (0..8).map(|cpu| format!("<vcpupin vcpu='{cpu}' cpuset='{cpu}'/>")).collect();
    let all = with_elements(&format!("<vcpu current='2'>8</vcpu><cputune>{pins}</cputune>"), ISOLATED);
    assert_eq!(left_to_host(&machine, &all), "2-7");
    let told = notes(&machine, &all);
    assert_eq!(
        about_off(&told),
        ["CPU 2-7, to which vCPUs that are off are pinned, stays with the host: it would have none"]
    );
    // They are another guest's.
    let other = life(crate::support::guest(2, "4-5", ""), ISOLATED);
    machine.prepare(&other).unwrap();
    let outcome = machine.prepare(&all).unwrap();
    let told: Vec<String> = outcome.notes.into_iter().map(|note| note.text).collect();
    assert!(about(&told, "another guest's")[0].starts_with("CPU 4-5, "), "{told:?}");
    machine.release(&all).unwrap();
    machine.release(&other).unwrap();
    // What runs, and has no pin, is refused all the same.
    let unpinned = "<vcpu>4</vcpu><vcpus><vcpu id='0' enabled='yes'/><vcpu id='3' enabled='yes'/></vcpus>\
                    <cputune><vcpupin vcpu='0' cpuset='2'/></cputune>";
    assert!(refusal(&machine, &with_elements(unpinned, ISOLATED)).contains("does not pin vCPU 3:"));
}

#[test]
fn where_qemus_own_threads_may_run_is_said() {
    let machine = Machine::new("ryzen-7950x");
    let told = |life: &Life| notes(&machine, life);
    assert_eq!(
        about(&told(&field("emulator-unpinned.xml", ISOLATED)), "QEMU's own"),
        [
            "QEMU's own threads and I/O threads may run on the guest's CPU 8,24: no <emulatorpin>; <emulatorpin \
             cpuset='0-7,9-23,25-31'/> in <cputune> keeps them off it"
        ]
    );
    assert_eq!(
        about(&told(&field("emulator-default.xml", ISOLATED)), "QEMU's own"),
        [
            "QEMU's own threads may run on the guest's CPU 8-9: <vcpu cpuset=…> holds for them too; <emulatorpin \
             cpuset='0-7,10-31'/> in <cputune> keeps them off it"
        ]
    );
    let pinned = |more: &str| {
        with_elements(
            &format!(
                "<vcpu>1</vcpu><iothreads>1</iothreads><cputune><vcpupin vcpu='0' cpuset='8'/>\
                 <emulatorpin cpuset='0-1'/>{more}</cputune>"
            ),
            ISOLATED,
        )
    };
    assert_eq!(about(&told(&pinned("")), "QEMU's own"), [] as [&str; 0]);
    assert_eq!(
        about(&told(&pinned("<iothreadpin iothread='1' cpuset='8-9'/>")), "I/O"),
        ["I/O thread 1 is pinned to CPU 8, where vCPUs run (<iothreadpin>)"]
    );
}

#[test]
fn isolated_cpus_are_not_balanced() {
    let machine = Machine::new("isolcpus");
    let elements = |pin: &str| {
        format!(
            "<vcpu>2</vcpu><cputune><vcpupin vcpu='0' cpuset='{pin}'/><vcpupin vcpu='1' cpuset='{pin}'/>\
             <emulatorpin cpuset='0-1'/></cputune>"
        )
    };
    let told = notes(&machine, &with_elements(&elements("2-3"), ISOLATED));
    assert_eq!(
        about(&told, "balance"),
        [
            "vCPU 0-1: pinned to CPUs 2-3, of which the kernel does not balance 2-3 (isolcpus=), so that one CPU does \
             all the work; pin each to one CPU"
        ]
    );
    let told = notes(&machine, &with_elements(&elements("2"), ISOLATED));
    assert_eq!(about(&told, "balance"), [] as [&str; 0]);
    let ordinary = Machine::new("two-nodes");
    assert_eq!(
        about(&notes(&ordinary, &with_elements(&elements("2-3"), ISOLATED)), "balance"),
        [] as [&str; 0]
    );
}

#[test]
fn every_control_group_above_the_guest_counts() {
    let inner = "/sys/fs/cgroup/machine.slice/machine-rt.slice/cpuset.cpus.effective";
    let machine = Machine::with("two-nodes", &format!("{inner} = 2-3\n"));
    let elements = |cpu: u8, partition: &str| {
        format!(
            "<vcpu>1</vcpu><cputune><vcpupin vcpu='0' cpuset='{cpu}'/></cputune>\
             <resource><partition>{partition}</partition></resource>"
        )
    };
    let error = refusal(&machine, &with_elements(&elements(4, "/machine/rt"), ISOLATED));
    assert!(
        error.contains("machine-rt.slice may only use CPUs 2-3, but the guest's XML pins to CPU 4"),
        "{error}"
    );
    assert!(error.contains("`systemctl set-property machine-rt.slice AllowedCPUs=`"), "{error}");
    notes(&machine, &with_elements(&elements(2, "/machine/rt"), ISOLATED));
    notes(&machine, &with_elements(&elements(4, "/machine"), ISOLATED));
    // Each says what it takes away itself, once.
    machine.set("/sys/fs/cgroup/machine.slice/cpuset.cpus.effective", "2-3");
    let error = refusal(&machine, &with_elements(&elements(4, "/machine/rt"), ISOLATED));
    assert!(error.contains("machine.slice may only") && !error.contains("machine-rt.slice may"), "{error}");
}

/// The kernel makes an interrupt that the host's CPUs serve.
fn appears(machine: &Machine, number: u32, actions: &str) {
    let default = machine.get("/proc/irq/default_smp_affinity");
    let list = vfio_hook::cpuset::CpuSet::from_mask(&default).unwrap().to_string();
    for (path, text) in [
        (format!("/proc/irq/{number}/smp_affinity_list"), list),
        (format!("/sys/kernel/irq/{number}/actions"), actions.to_owned()),
    ] {
        let path = machine.path(&path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text + "\n").unwrap();
    }
}

fn reconcile(machine: &Machine, life: &Life) {
    let soon = Deadline::after(Duration::from_secs(10));
    lifecycle::reconcile(&mut machine.host(), life.guest.uuid, Occasion::Usual, soon).unwrap();
}

const PINNED: &str =
    "<vcpu>2</vcpu><cputune><vcpupin vcpu='0' cpuset='2'/><vcpupin vcpu='1' cpuset='3'/></cputune>";

#[test]
fn interrupts_of_every_device_of_the_guest_are_its_own() {
    let elements = format!(
        "{PINNED}<devices><interface type='hostdev'><source><address type='pci' bus='0x66'/></source></interface>\
         <disk type='nvme'><source type='pci' namespace='1'><address bus='0x67'/></source></disk></devices>\
         <qemu:commandline><qemu:arg value='-device'/><qemu:arg value='vfio-pci,host=68:00.0'/></qemu:commandline>"
    );
    let machine = Machine::new("two-nodes");
    let guest = with_elements(&elements, ISOLATED);
    machine.prepare(&guest).unwrap();
    for (number, bus) in [(90, "66"), (91, "67"), (92, "68"), (93, "69")] {
        appears(&machine, number, &format!("vfio-msix[0](0000:{bus}:00.0)"));
    }
    reconcile(&machine, &guest);
    let served: Vec<String> =
        (90..94).map(|number| machine.get(&format!("/proc/irq/{number}/smp_affinity_list"))).collect();
    assert_eq!(served, ["2-3", "2-3", "2-3", "0-1,4-7"]);
}

#[test]
fn a_device_that_libvirt_chooses_later_is_the_guests_from_then_on() {
    let network =
        format!("{PINNED}<devices><interface type='network'><source network='pool'/></interface></devices>");
    // As libvirt writes it while the guest runs.
    let chosen = format!(
        "{PINNED}<devices><interface type='hostdev' managed='yes'><source><address type='pci' bus='0x66'/></source>\
         </interface></devices>"
    );
    for (yaml, served) in [(ISOLATED, "2-3"), ("isolate_cpus: {vfio_irqs: host}\n", "0-1,4-7")] {
        let machine = Machine::new("two-nodes");
        let before = machine.files();
        let guest = with_elements(&network, yaml);
        machine.prepare(&guest).unwrap();
        let runs = with_elements(&chosen, yaml).guest;
        let soon = || Deadline::after(Duration::from_secs(10));
        for _ in 0..2 {
            lifecycle::note_network_devices(&mut machine.host(), &runs, soon()).unwrap();
        }
        machine.started(&guest).unwrap();
        appears(&machine, 90, "vfio-msix[0](0000:66:00.0)");
        reconcile(&machine, &guest);
        assert_eq!(machine.get("/proc/irq/90/smp_affinity_list"), served, "{yaml}");
        let record = machine.record().unwrap();
        let devices = &record.leases[&guest.guest.uuid].interrupts.as_ref().unwrap().devices;
        assert_eq!(devices.len(), usize::from(served == "2-3"), "{yaml}");
        for folder in ["/proc/irq/90", "/sys/kernel/irq/90"] {
            fs::remove_dir_all(machine.path(folder)).unwrap();
        }
        machine.release(&guest).unwrap();
        machine.assert_is(&before, yaml);
    }
}

#[test]
fn a_device_far_from_the_guests_cpus_is_named_with_its_place() {
    let lines = "/sys/bus/pci/devices/0000:66:00.0/numa_node = 1\n";
    let machine = Machine::with("two-nodes", lines);
    let elements = format!(
        "{PINNED}<devices><interface type='hostdev'><source><address type='pci' bus='0x66'/></source></interface></devices>"
    );
    assert_eq!(
        about(&notes(&machine, &with_elements(&elements, ISOLATED)), "at node"),
        ["device 0000:66:00.0 (<interface type='hostdev'>) is at node 1, the guest's CPUs are at node 0"]
    );
}

#[test]
fn a_device_in_the_cards_group_may_stand_anywhere_in_the_xml() {
    let machine = machine_with(
        "/sys/kernel/iommu_groups/24/devices/0000:0f:00.3 -> ../../../../devices/pci0000:00/0000:00:08.3/0000:0f:00.3\n",
    );
    let card = crate::cards::hostdevs(&CARD);
    let kept = with_elements(&format!("{PINNED}{card}"), "gpu: {}");
    assert!(refusal(&machine, &kept).contains("shares IOMMU group 24 with 0000:0f:00.3"));
    let argument = "<qemu:commandline><qemu:arg value='-device'/><qemu:arg value='vfio-pci,host=0f:00.3'/></qemu:commandline>";
    let disk = "<disk type='nvme'><source type='pci' namespace='1'><address bus='0x0f' function='3'/></source></disk>";
    let disk = card.replace("</devices>", &format!("{disk}</devices>"));
    for elements in [format!("{PINNED}{card}{argument}"), format!("{PINNED}{disk}")] {
        notes(&machine, &with_elements(&elements, "gpu: {}"));
    }
}

#[test]
fn a_card_that_only_qemu_is_told_of_is_taken() {
    let arguments: String = CARD
        .iter()
        .map(|address| format!("<qemu:arg value='-device'/><qemu:arg value='vfio-pci,host={address}'/>"))
        .collect();
    let elements = format!("{PINNED}<qemu:commandline>{arguments}</qemu:commandline>");
    let machine = machine();
    let told = notes(&machine, &with_elements(&elements, "gpu: {}"));
    assert_eq!(
        about(&told, "<qemu:commandline>"),
        [
            "0000:03:00.0, 0000:03:00.1, 0000:03:00.2, 0000:03:00.3: libvirt knows nothing of what <qemu:commandline> \
             hands over; a <hostdev managed='yes'> is safer"
        ]
    );
}

/// The security processor of an AMD processor, in the slot of its graphics, with a driver of the host's.
const SECURITY_PROCESSOR: &str = "\
/sys/devices/pci0000:00/0000:00:08.1/0000:0e:00.2/vendor = 0x1022
/sys/devices/pci0000:00/0000:00:08.1/0000:0e:00.2/device = 0x1649
/sys/devices/pci0000:00/0000:00:08.1/0000:0e:00.2/class = 0x108000
/sys/devices/pci0000:00/0000:00:08.1/0000:0e:00.2/driver -> ../../../../bus/pci/drivers/ccp
/sys/devices/pci0000:00/0000:00:08.1/0000:0e:00.2/iommu_group -> ../../../../kernel/iommu_groups/30
/sys/bus/pci/devices/0000:0e:00.2 -> ../../../devices/pci0000:00/0000:00:08.1/0000:0e:00.2
/sys/kernel/iommu_groups/30/devices/0000:0e:00.2 -> ../../../../devices/pci0000:00/0000:00:08.1/0000:0e:00.2
";

const XML: &str = "<memory unit='MiB'>512</memory><on_reboot>destroy</on_reboot>";

#[test]
fn the_graphics_of_a_processor_leaves_the_rest_of_its_slot_to_the_host() {
    let functions = ["0000:0e:00.0", "0000:0e:00.1"];
    let machine = machine_with(SECURITY_PROCESSOR);
    let guest = player(1, &functions, XML, "gpu: {}");
    let told = notes(&machine, &guest);
    assert_eq!(
        about(&told, "stays with the host"),
        ["0000:0e:00.2 in the slot of 0000:0e:00.0, 0000:0e:00.1 stays with the host: it is a part of the \
             processor, not of a card"]
    );
    // A model that is not in the table, and that no driver of the host's takes, is known by its neighbour.
    let graphics = "/sys/devices/pci0000:00/0000:00:08.1/0000:0e:00.0";
    machine.set(&format!("{graphics}/device"), "0x9999");
    let registers = format!("{graphics}/config");
    machine.set(&registers, &machine.get(&registers).replacen("02104e16", "02109999", 1));
    let outcome = machine.prepare(&guest).unwrap();
    let stays = outcome.notes.iter().filter(|note| note.text.contains("stays with the host"));
    assert_eq!(stays.count(), 1, "{:?}", outcome.notes);
    // What shares its IOMMU group does not stay.
    let grouped = machine_with(&format!(
        "{SECURITY_PROCESSOR}/sys/kernel/iommu_groups/28/devices/0000:0e:00.2 -> ../../../../devices/pci0000:00/0000:00:08.1/0000:0e:00.2\n"
    ));
    let error = refusal(&grouped, &guest);
    assert!(error.contains("0000:0e:00.0 shares IOMMU group 28 with 0000:0e:00.2"), "{error}");
}

#[test]
fn an_address_that_is_wrong_is_no_dead_card() {
    let machine = machine();
    for address in ["0000:02:00.0", "0000:00:01.1"] {
        let error = refusal(&machine, &player(1, &[address], XML, "gpu: {}"));
        assert!(
            error.contains(&format!(
                "the guest's XML hands over {address}, which is a PCI bridge of the host: the address is wrong"
            )),
            "{error}"
        );
        assert!(error.contains("help: is 0000:03:00.0 (1002:73bf) meant?"), "{error}");
        assert!(machine.quarantine().is_none());
    }
    // The list of the file changes nothing about it, nor does a device that is not there at all.
    let error = refusal(&machine, &player(1, &["0000:02:00.0"], XML, "gpu: {devices: [\"0000:02:00.0\"]}"));
    assert!(error.contains("is a PCI bridge of the host") && machine.quarantine().is_none(), "{error}");
    let error = refusal(&machine, &player(1, &["0000:0d:00.0"], XML, "gpu: {}"));
    assert!(error.contains("hands over 0000:0d:00.0, but this host has no such device"), "{error}");
    assert!(error.contains("help: is 0000:0e:00.0 (1002:164e) meant?"), "{error}");
}

#[test]
fn xml_as_people_have_it_is_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/field");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let made = "00000000-0000-4000-8000-000000000001".parse().unwrap();
        let guest = Guest::parse_written(&fs::read(&path).unwrap(), |_| made);
        let guest = guest.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(guest.name, "guest-a", "{}", path.display());
        count += 1;
    }
    assert_eq!(count, 12);
}
