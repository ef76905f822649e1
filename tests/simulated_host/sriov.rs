//! Virtual functions of a device: made before a guest starts, taken away with the last one that needs them, never while
//! somebody uses one.

use std::fs;

use vfio_hook::guest::Guest;
use vfio_hook::host::manifest;
use vfio_hook::host::simulated::{Faults, SimulatedKernel};
use vfio_hook::ledger::{NoteLevel, Record};
use vfio_hook::lifecycle::{self, plan_prepare};

use crate::cards::{CARD, ON_VFIO, drm, hostdevs, process};
use crate::support::{Life, Machine, assert_same, guest, killed_at_every_write, life, soon};

const DEVICE: &str = "/sys/bus/pci/devices/0000:21:00.0";
const REAL: &str = "/sys/devices/pci0000:00/0000:00:1c.0/0000:21:00.0";

/// The first four: as those of an 82576, whose first is 128 functions away, and each 2 from the next.
const FUNCTIONS: [&str; 4] = ["0000:21:10.0", "0000:21:10.2", "0000:21:10.4", "0000:21:10.6"];

const YAML: &str = "sriov: {device: \"0000:21:00.0\", count: 4}\n";

/// An 82576 behind a port of its own, its driver, that of its virtual functions, and VFIO.
const CARD_82576: &str = "\
/sys/devices/pci0000:00/0000:00:1c.0/class = 0x060400
/sys/devices/pci0000:00/0000:00:1c.0/vendor = 0x1022
/sys/devices/pci0000:00/0000:00:1c.0/device = 0x14db
/sys/bus/pci/devices/0000:00:1c.0 -> ../../../devices/pci0000:00/0000:00:1c.0
REAL/vendor = 0x8086
REAL/device = 0x10c9
REAL/class = 0x020000
REAL/driver_override = (null)
REAL/sriov_totalvfs = 7
REAL/sriov_numvfs = 0
REAL/sriov_offset = 128
REAL/sriov_stride = 2
REAL/sriov_vf_device = 10ca
REAL/sriov_drivers_autoprobe = 1
REAL/driver -> ../../../../bus/pci/drivers/igb
REAL/net/enp33s0/flags = 0x1003
REAL/net/enp33s0/device -> ../../../0000:21:00.0
/sys/class/net/enp33s0 -> ../../devices/pci0000:00/0000:00:1c.0/0000:21:00.0/net/enp33s0
/sys/bus/pci/devices/0000:21:00.0 -> ../../../devices/pci0000:00/0000:00:1c.0/0000:21:00.0
/sys/bus/pci/drivers/igb/0000:21:00.0 -> ../../../../devices/pci0000:00/0000:00:1c.0/0000:21:00.0
/sys/bus/pci/drivers/igb/bind =
/sys/bus/pci/drivers/igb/unbind =
/sys/bus/pci/drivers/igbvf/bind =
/sys/bus/pci/drivers/igbvf/unbind =
/simulated/pci/drivers/igb = 8086:10c9
/simulated/pci/drivers/igbvf = 8086:10ca
/simulated/pci/log =
";

fn machine() -> Machine {
    machine_with("")
}

fn machine_with(lines: &str) -> Machine {
    Machine::with("ryzen-7950x", &format!("{}{}{lines}", drm(), CARD_82576.replace("REAL", REAL)))
}

fn with_functions(number: u8, functions: &[&str]) -> Guest {
    guest(number, "2-3", &format!("<memory unit='MiB'>512</memory>{}", hostdevs(functions)))
}

fn of(number: u8, functions: &[&str], yaml: &str) -> Life {
    life(with_functions(number, functions), yaml)
}

fn kernel(machine: &Machine) -> SimulatedKernel {
    SimulatedKernel::new(machine.root(), Faults::default())
}

/// `sriov_numvfs` and `sriov_drivers_autoprobe`.
fn values(machine: &Machine) -> (String, String) {
    let text = |name: &str| fs::read_to_string(machine.path(&format!("{DEVICE}/{name}"))).unwrap();
    (text("sriov_numvfs").trim().to_owned(), text("sriov_drivers_autoprobe").trim().to_owned())
}

fn are(count: &str, autoprobe: &str) -> (String, String) {
    (count.to_owned(), autoprobe.to_owned())
}

fn is_there(machine: &Machine, function: &str) -> bool {
    machine.path(&format!("/sys/bus/pci/devices/{function}")).exists()
}

/// What an administrator, libvirt or another program has the kernel do.
fn write(machine: &Machine, file: &str, value: &str) {
    kernel(machine).write(file, value).unwrap_or_else(|error| panic!("{file}: {error}"));
}

/// What libvirt does to a function of a guest.
fn bind_to_vfio(machine: &Machine, function: &str) {
    write(machine, &format!("/sys/bus/pci/devices/{function}/driver_override"), "vfio-pci");
    write(machine, "/sys/bus/pci/drivers_probe", function);
    assert_eq!(machine.driver(function), "vfio-pci");
}

/// A process has a function's group open.
fn opened_by(machine: &Machine, pid: i32, function: &str) {
    let group = fs::read_link(machine.path(&format!("/sys/bus/pci/devices/{function}/iommu_group"))).unwrap();
    let group = group.file_name().unwrap().to_str().unwrap().to_owned();
    let lines = format!(
        "/sys/class/vfio/{group}/dev = 511:0\n{}/proc/{pid}/status = Uid:\t0\t0\t0\t0\n",
        process(pid, "qemu-system-x86", "/machine.slice", &format!("/dev/vfio/{group}"))
    );
    manifest::lay_out(&lines, &machine.root()).unwrap();
}

fn closed(machine: &Machine, pid: i32) {
    fs::remove_dir_all(machine.path(&format!("/proc/{pid}"))).unwrap();
    fs::remove_dir_all(machine.path("/sys/class/vfio")).unwrap();
}

#[track_caller]
fn refusal(machine: &Machine, life: &Life) -> String {
    let before = machine.files();
    let error = machine.prepare(life).unwrap_err();
    assert_same(&machine.files(), &before, "refused");
    error.to_string().replace("/etc/vfio-hook/hooks.d/", "")
}

#[test]
fn they_are_made_without_drivers_shown_before_and_taken_away_with_the_last_guest() {
    let machine = machine();
    let before = machine.files();
    let one = of(1, &FUNCTIONS[..2], YAML);
    let other = of(2, &FUNCTIONS[2..], "sriov: [{device: enp33s0}]\n");
    let host = machine.host();
    let record = Record::empty(host.boot_id().unwrap());
    let shown = plan_prepare(&host, &record, &one.loaded, &one.guest, soon()).unwrap().plan.changes;
    let done = machine.prepare(&one).unwrap().changes;
    assert_eq!(shown, done);
    let texts: Vec<String> = done.iter().map(ToString::to_string).collect();
    let change = "virtual functions of 0000:21:00.0: none -> 4, without drivers of the host";
    assert!(texts.iter().any(|text| text == change), "{texts:?}");
    assert_eq!(values(&machine), are("4", "0"));
    for function in FUNCTIONS {
        assert_eq!(machine.driver(function), "", "{function}");
        bind_to_vfio(&machine, function);
    }
    let log = fs::read_to_string(machine.path("/simulated/pci/log")).unwrap();
    assert!(!log.contains("igbvf"), "{log}");
    fs::write(machine.path("/simulated/pci/log"), "\n").unwrap();
    machine.prepare(&other).unwrap();
    // The other one holds functions: none is taken away from it.
    opened_by(&machine, 4800, FUNCTIONS[3]);
    let outcome = machine.release(&one).unwrap();
    assert!(outcome.failures.is_empty(), "{outcome:?}");
    assert_eq!(values(&machine), are("4", "0"));
    assert_eq!(machine.driver(FUNCTIONS[3]), "vfio-pci");
    closed(&machine, 4800);
    machine.release(&other).unwrap();
    fs::write(machine.path("/simulated/pci/log"), "\n").unwrap();
    machine.assert_is(&before, "both are gone");
}

#[test]
fn enough_are_left_as_they_are_and_too_few_come_back_in_their_number() {
    let machine = machine();
    write(&machine, &format!("{DEVICE}/sriov_numvfs"), "2");
    assert_eq!(machine.driver(FUNCTIONS[1]), "igbvf");
    let interface = |lines: &str| manifest::lay_out(lines, &machine.root()).unwrap();
    interface(
        "/sys/bus/pci/devices/0000:21:10.0/net/vf0/flags = 0x1002\n/sys/class/net/vf0/flags = 0x1002\n",
    );
    interface(
        "/sys/bus/pci/devices/0000:21:10.2/net/vf1/flags = 0x1002\n/sys/class/net/vf1/flags = 0x1002\n",
    );
    let enough = of(1, &FUNCTIONS[1..2], "sriov: {device: \"0000:21:00.0\", count: 2}\n");
    let outcome = machine.prepare(&enough).unwrap();
    let notes: Vec<&str> = outcome.notes.iter().map(|note| note.text.as_str()).collect();
    assert_eq!(notes, ["0000:21:00.0 has 2 virtual functions: no more are made"]);
    assert_eq!(values(&machine), are("2", "1"));
    machine.release(&enough).unwrap();
    assert_eq!(values(&machine), are("2", "1"));
    assert_eq!(machine.driver(FUNCTIONS[1]), "igbvf");

    let more = of(1, &FUNCTIONS, "sriov: {device: \"0000:21:00.0\"}\n");
    let outcome = machine.prepare(&more).unwrap();
    assert_eq!(values(&machine), are("4", "0"));
    let warning =
        "the 2 virtual functions of 0000:21:00.0 are taken away, and 4 are made: the kernel has no other way";
    let warned = |note: &&vfio_hook::ledger::Note| note.text == warning && note.level == NoteLevel::Warning;
    assert_eq!(outcome.notes.iter().filter(warned).count(), 0, "it is over: {outcome:?}");
    machine.release(&more).unwrap();
    assert_eq!(values(&machine), are("2", "1"));
    // The host's driver has them again.
    assert_eq!(machine.driver(FUNCTIONS[1]), "igbvf");
    assert!(!machine.has_ledger());
}

#[test]
fn too_few_that_are_used_are_not_taken_away() {
    let machine = machine();
    write(&machine, &format!("{DEVICE}/sriov_numvfs"), "2");
    let interface = |lines: &str| manifest::lay_out(lines, &machine.root()).unwrap();
    let life = of(1, &FUNCTIONS, YAML);
    let mut refusals = Vec::new();
    // Its interface is in a container, for all that can be seen.
    refusals.push(refusal(&machine, &life));
    interface(
        "/sys/bus/pci/devices/0000:21:10.0/net/vf0/flags = 0x1003\n/sys/class/net/vf0/flags = 0x1003\n",
    );
    interface(
        "/sys/bus/pci/devices/0000:21:10.2/net/vf1/flags = 0x1002\n/sys/class/net/vf1/flags = 0x1002\n",
    );
    refusals.push(refusal(&machine, &life));
    interface("/sys/class/net/vf0/flags = 0x1002\n/sys/class/net/vf0/master -> ../br0\n");
    refusals.push(refusal(&machine, &life));
    fs::remove_file(machine.path("/sys/class/net/vf0/master")).unwrap();
    write(&machine, "/sys/bus/pci/drivers/igbvf/unbind", FUNCTIONS[0]);
    bind_to_vfio(&machine, FUNCTIONS[0]);
    opened_by(&machine, 4800, FUNCTIONS[0]);
    refusals.push(refusal(&machine, &life));
    closed(&machine, 4800);
    insta::assert_snapshot!(refusals.join("\n\n"));
    machine.prepare(&life).unwrap();
    machine.release(&life).unwrap();
    assert_eq!(values(&machine), are("2", "1"));
}

#[test]
fn a_second_guest_that_needs_more_waits_for_the_first() {
    let machine = machine();
    let before = machine.files();
    let (few, many) = (of(1, &FUNCTIONS[..1], "sriov: {device: enp33s0}\n"), of(2, &FUNCTIONS[1..], YAML));
    machine.prepare(&few).unwrap();
    assert_eq!(values(&machine), are("1", "0"));
    let text = refusal(&machine, &many);
    assert!(
        text.contains("guest guest1 holds them") && text.contains("with `count: 4` in its file"),
        "{text}"
    );
    machine.release(&few).unwrap();
    machine.prepare(&many).unwrap();
    machine.prepare(&few).unwrap();
    machine.release(&many).unwrap();
    assert_eq!(values(&machine), are("4", "0"));
    machine.release(&few).unwrap();
    fs::write(machine.path("/simulated/pci/log"), "\n").unwrap();
    machine.assert_is(&before, "both are gone");
}

/// Somebody without a file of this program's has a function.
#[test]
fn a_function_that_somebody_uses_stays_and_goes_later() {
    let machine = machine();
    let before = machine.files();
    let life = of(1, &FUNCTIONS[..1], YAML);
    machine.prepare(&life).unwrap();
    bind_to_vfio(&machine, FUNCTIONS[2]);
    opened_by(&machine, 4800, FUNCTIONS[2]);
    let outcome = machine.release(&life).unwrap();
    assert_eq!(
        outcome.failures,
        [
            "virtual functions of 0000:21:00.0 not given back: 0000:21:10.0, 0000:21:10.2, 0000:21:10.4, 0000:21:10.6 \
          still in use: qemu-system-x86 (process 4800) has /dev/vfio/1132 open"
        ]
    );
    assert_eq!(values(&machine), are("4", "0"));
    assert_eq!(machine.driver(FUNCTIONS[2]), "vfio-pci");
    assert!(machine.has_ledger());
    let uuid = life.guest.uuid;
    let again = || lifecycle::finish(&mut machine.host(), uuid, "failed", None, soon()).unwrap();
    assert_eq!(again().failures.len(), 1);
    assert_eq!(values(&machine), are("4", "0"));
    closed(&machine, 4800);
    assert_eq!(again().failures, [""; 0]);
    machine.useless_keepers_leave();
    fs::write(machine.path("/simulated/pci/log"), "\n").unwrap();
    machine.assert_is(&before, "nobody uses one any more");
}

#[test]
fn another_guest_takes_over_what_could_not_be_taken_away() {
    let machine = machine();
    let (one, other) = (of(1, &FUNCTIONS[..1], YAML), of(2, &FUNCTIONS[1..2], YAML));
    machine.prepare(&one).unwrap();
    bind_to_vfio(&machine, FUNCTIONS[2]);
    opened_by(&machine, 4800, FUNCTIONS[2]);
    assert_eq!(machine.release(&one).unwrap().failures.len(), 1);
    machine.prepare(&other).unwrap();
    closed(&machine, 4800);
    machine.open_and_close();
    assert_eq!(values(&machine), are("4", "0"));
    machine.release(&one).unwrap();
    assert_eq!(values(&machine), are("4", "0"));
    machine.release(&other).unwrap();
    assert_eq!(values(&machine), are("0", "1"));
    assert!(!machine.has_ledger());
}

#[test]
fn what_a_card_and_a_condition_say_of_functions_is_looked_at_once_they_are_made() {
    let machine = machine();
    let devices: Vec<&str> = CARD.into_iter().chain([FUNCTIONS[3]]).collect();
    let xml = format!("<memory unit='MiB'>512</memory><on_reboot>destroy</on_reboot>{}", hostdevs(&devices));
    let yaml = |more: &str| {
        format!("requires: [\"{}\"]\nsriov: {{device: \"0000:21:00.0\"}}\ngpu: {{}}\n{more}", FUNCTIONS[3])
    };
    let life = |more: &str| crate::support::life(guest(1, "2-3", &xml), &yaml(more));
    let host = machine.host();
    let record = Record::empty(host.boot_id().unwrap());
    let one = life("");
    let plan = plan_prepare(&host, &record, &one.loaded, &one.guest, soon()).unwrap();
    let notes: Vec<&str> = plan.notes.iter().map(|note| note.text.as_str()).collect();
    let absent =
        "checked after `sriov`: the guest's XML hands over 0000:21:10.6, but this host has no such device";
    assert!(notes.contains(&absent), "{notes:?}");
    assert!(notes.contains(&"checked after `sriov`: PCI device 0000:21:10.6 is not there"), "{notes:?}");
    let outcome = machine.prepare(&one).unwrap();
    let notes: Vec<&str> = outcome.notes.iter().map(|note| note.text.as_str()).collect();
    assert!(notes.contains(&"required, and there: PCI device 0000:21:10.6"), "{notes:?}");
    assert!(notes.contains(&"0000:21:10.6 is a virtual function: it is left to libvirt"), "{notes:?}");
    assert_eq!(machine.drivers(), ON_VFIO);
    machine.release(&one).unwrap();
    assert_eq!(values(&machine), are("0", "1"));
    // What is not one of them is missing from the beginning: nothing is made for it.
    let other = crate::support::life(
        guest(1, "2-3", &xml),
        &yaml("").replace("requires: [\"0000:21:10.6\"]", "requires: [\"0000:44:00.0\"]"),
    );
    let text = refusal(&machine, &other);
    assert!(text.contains("PCI device 0000:44:00.0 is not there"), "{text}");
}

/// A command loads the driver: only then can functions be made.
#[test]
fn a_device_that_a_command_gives_its_driver_gets_its_functions_after_it() {
    let machine = machine();
    let before = machine.files();
    manifest::lay_out("/bin/sh =\n", &machine.root()).unwrap();
    fs::set_permissions(machine.path("/bin/sh"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    write(&machine, "/sys/bus/pci/drivers/igb/unbind", "0000:21:00.0");
    let yaml = format!("run: {{when: prepare, command: [/bin/sh, -c, 'modprobe igb']}}\n{YAML}");
    let life = of(1, &FUNCTIONS, &yaml);
    let text = refusal(&machine, &of(1, &FUNCTIONS, YAML));
    assert!(text.contains("0000:21:00.0 has no driver, and only that makes virtual functions"), "{text}");
    let (kernel, root) = (kernel(&machine), machine.root());
    machine.faults.interrupt("/simulated_commands", move || {
        kernel.write("/sys/bus/pci/drivers_probe", "0000:21:00.0").unwrap();
        assert!(!root.join("sys/bus/pci/devices/0000:21:10.0").exists());
    });
    machine.prepare(&life).unwrap();
    assert_eq!(values(&machine), are("4", "0"));
    machine.release(&life).unwrap();
    fs::remove_file(machine.path("/bin/sh")).unwrap();
    let _ = fs::remove_file(machine.path("/simulated_commands"));
    fs::write(machine.path("/simulated/pci/log"), "\n").unwrap();
    assert_same(&machine.files(), &before, "released");
}

#[test]
fn what_makes_no_sense_is_refused_and_nothing_touched() {
    let machine = machine_with(&format!(
        "/sys/class/net/lo/flags = 0x9\n/sys/bus/pci/devices/0000:0f:00.3/sriov_totalvfs = 0\n\
         {REAL}/sriov_totalvfs = 7\n"
    ));
    let one = |yaml: &str| refusal(&machine, &of(1, &FUNCTIONS[1..2], yaml));
    let mut refusals = vec![
        one("sriov: {device: \"0000:21:00.0\", count: 8}\n"),
        one("sriov: {device: \"0000:21:00.0\", count: 1}\n"),
        one("sriov: {device: \"0000:99:00.0\", count: 1}\n"),
        one("sriov: {device: \"0000:03:00.0\", count: 1}\n"),
        one("sriov: {device: \"0000:0f:00.3\", count: 1}\n"),
        one("sriov: [{device: eth7, count: 1}, {device: lo}]\n"),
        one("sriov: [{device: enp33s0, count: 2}, {device: \"0000:21:00.0\", count: 2}]\n"),
        refusal(&machine, &of(1, &[], "sriov: {device: enp33s0}\n")),
        refusal(&machine, &of(1, &["0000:21:00.0"], YAML)),
    ];
    write(&machine, &format!("{DEVICE}/sriov_numvfs"), "2");
    refusals.push(one("sriov: {device: \"0000:21:10.2\", count: 1}\n"));
    write(&machine, &format!("{DEVICE}/sriov_numvfs"), "0");
    insta::assert_snapshot!(refusals.join("\n\n"));
}

#[test]
fn a_number_that_somebody_else_set_meanwhile_is_left_alone() {
    let machine = machine();
    let life = of(1, &FUNCTIONS[..1], YAML);
    machine.prepare(&life).unwrap();
    write(&machine, &format!("{DEVICE}/sriov_numvfs"), "0");
    write(&machine, &format!("{DEVICE}/sriov_numvfs"), "6");
    let outcome = machine.release(&life).unwrap();
    assert!(outcome.notes.iter().any(|note| note.text.contains("was changed from outside")), "{outcome:?}");
    assert_eq!(values(&machine).0, "6");
    assert!(!machine.has_ledger());
}

#[test]
fn a_driver_that_refuses_or_hangs_refuses_the_start() {
    let machine = machine();
    let before = machine.files();
    let life = of(1, &FUNCTIONS[..1], YAML);
    manifest::lay_out("/simulated/pci/0000:21:00.0/fault = sriov-hangs 4711\n", &machine.root()).unwrap();
    let text = machine.prepare(&life).unwrap_err().to_string();
    assert!(text.contains("failed to write `4` to") && text.contains("process 4711"), "{text}");
    fs::remove_dir_all(machine.path("/simulated/pci/0000:21:00.0")).unwrap();
    machine.open_and_close();
    let _ = machine.release(&life);
    machine.useless_keepers_leave();
    fs::write(machine.path("/simulated/pci/log"), "\n").unwrap();
    machine.assert_is(&before, "it came to itself");
}

#[test]
fn wherever_two_guests_are_killed_no_function_is_left() {
    let machine = machine();
    fs::remove_file(machine.path("/simulated/pci/log")).unwrap();
    let before = machine.files();
    let yaml = format!("{YAML}isolate_cpus: {{shared: true}}\n");
    let lives = [of(1, &FUNCTIONS[..2], &yaml), of(2, &FUNCTIONS[2..], &yaml)];
    killed_at_every_write(&machine, &before, &lives);
}

#[test]
fn wherever_one_is_killed_that_has_more_made_the_old_number_is_back() {
    let machine = machine();
    fs::remove_file(machine.path("/simulated/pci/log")).unwrap();
    write(&machine, &format!("{DEVICE}/sriov_numvfs"), "2");
    for function in &FUNCTIONS[..2] {
        write(&machine, "/sys/bus/pci/drivers/igbvf/unbind", function);
    }
    // A driver of the host's would count as a user, and comes back with them.
    fs::remove_dir_all(machine.path("/sys/bus/pci/drivers/igbvf")).unwrap();
    let before = machine.files();
    for make_fault in [Faults::panic_at_write as fn(&Faults, usize), Faults::fail_write] {
        for nth in 1.. {
            make_fault(&machine.faults, nth);
            let life = of(1, &FUNCTIONS, YAML);
            let lived = machine.until_killed(|| {
                let _ = machine.prepare(&life);
                let _ = machine.release(&life);
            });
            let was_reached = lived.is_err() || machine.faults.writes() >= nth;
            machine.faults.clear();
            machine.forget_processes();
            machine.open_and_close();
            machine.release(&life).unwrap();
            machine.useless_keepers_leave();
            machine.assert_is(&before, &format!("at write {nth}"));
            if !was_reached {
                assert!(nth > 10, "{nth}");
                break;
            }
        }
    }
    assert!(is_there(&machine, FUNCTIONS[1]) && !is_there(&machine, FUNCTIONS[2]));
}
