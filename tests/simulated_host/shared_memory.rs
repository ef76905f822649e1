//! Files that guests and programs of the host have in common.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use nix::unistd::{Gid, Uid};
use vfio_hook::guest::Guest;
use vfio_hook::host::simulated::Faults;
use vfio_hook::ledger::{NoteLevel, Record};
use vfio_hook::lifecycle::{self, plan_prepare};

use crate::support::{Files, Life, Machine, life, soon};

const PATH: &str = "/dev/shm/looking-glass";
const YAML: &str = "shared_memory: {path: /dev/shm/looking-glass}\n";

/// A host on which QEMU's group is the one that this test runs in: another one only root may give to a file.
fn machine() -> Machine {
    let group = Gid::effective();
    Machine::with(
        "two-nodes",
        &format!("/dev/shm/\n/etc/group = root:x:0:\\nkvm:x:{group}:\\nusers:x:100:\n"),
    )
}

fn guest(number: u8) -> Guest {
    let xml = format!(
        "<domain type='kvm'><name>guest{number}</name><uuid>00000000-0000-4000-8000-0000000000{number:02x}</uuid>\
         <memory unit='MiB'>512</memory><devices><shmem name='looking-glass'><model type='ivshmem-plain'/>\
         <size unit='M'>1</size></shmem></devices></domain>"
    );
    Guest::parse(xml.as_bytes()).unwrap()
}

fn of(number: u8, yaml: &str) -> Life {
    life(guest(number), yaml)
}

/// Size and permission bits; none where there is no file.
fn file(machine: &Machine) -> Option<(u64, u32)> {
    let file = fs::symlink_metadata(machine.path(PATH)).ok()?;
    Some((file.len(), file.mode() & 0o7777))
}

/// A file of somebody's.
fn put(machine: &Machine, size: u64, mode: u32) {
    fs::write(machine.path(PATH), vec![0; usize::try_from(size).unwrap()]).unwrap();
    fs::set_permissions(machine.path(PATH), fs::Permissions::from_mode(mode)).unwrap();
}

const MIB: u64 = 1024 * 1024;

/// A process that has it open.
fn opened_by(machine: &Machine, pid: i32) {
    let folder = machine.path(&format!("/proc/{pid}"));
    fs::create_dir_all(folder.join("fd")).unwrap();
    symlink(PATH, folder.join("fd/7")).unwrap();
    let fields = format!("{}4242 {}", "0 ".repeat(18), "0 ".repeat(30));
    fs::write(folder.join("stat"), format!("{pid} (looking-glass-c) S {fields}\n")).unwrap();
    let status = format!("Name:\tlooking-glass-c\nUid:\t{0}\t{0}\t{0}\t{0}\n", Uid::effective());
    fs::write(folder.join("status"), status).unwrap();
}

#[test]
fn it_is_made_as_the_xml_says_shown_before_and_removed_with_the_last_guest() {
    let machine = machine();
    let before = machine.files();
    let (one, other) = (of(1, YAML), of(2, YAML));
    let host = machine.host();
    let record = Record::empty(host.boot_id().unwrap());
    let shown = plan_prepare(&host, &record, &one.loaded, &one.guest, soon()).unwrap().plan.changes;
    let done = machine.prepare(&one).unwrap().changes;
    assert_eq!(shown, done);
    let text = done.iter().map(ToString::to_string).find(|text| text.contains(PATH)).unwrap();
    let (user, group) = (Uid::effective(), Gid::effective());
    assert_eq!(text, format!("shared memory {PATH}: none -> 1 MiB, owner {user}, group {group}, mode 0660"));
    assert_eq!(file(&machine), Some((MIB, 0o660)));
    machine.prepare(&other).unwrap();
    machine.release(&one).unwrap();
    assert_eq!(file(&machine), Some((MIB, 0o660)), "the other one has it");
    machine.release(&other).unwrap();
    assert_eq!(file(&machine), None);
    machine.assert_is(&before, "both are gone");
}

#[test]
fn one_that_is_larger_than_the_host_is_told() {
    let machine = machine();
    let xml = "<domain type='kvm'><name>guest1</name><uuid>00000000-0000-4000-8000-000000000001</uuid>\
               <memory unit='MiB'>512</memory></domain>";
    let guest = Guest::parse(xml.as_bytes()).unwrap();
    let life = life(guest, "shared_memory: {path: /dev/shm/looking-glass, size: 1TiB}\n");
    let host = machine.host();
    let record = Record::empty(host.boot_id().unwrap());
    let plan = plan_prepare(&host, &record, &life.loaded, &life.guest, soon()).unwrap();
    let notes: Vec<&str> = plan.notes.iter().map(|note| note.text.as_str()).collect();
    assert!(
        notes.contains(&"/dev/shm/looking-glass has 1 TiB, and the host 16 GiB of memory in all"),
        "{notes:?}"
    );
}

#[test]
fn one_that_was_there_gets_its_mode_back() {
    let machine = machine();
    put(&machine, MIB, 0o600);
    let before = machine.files();
    machine.prepare(&of(1, "shared_memory: {path: /dev/shm/looking-glass, mode: \"0640\"}\n")).unwrap();
    assert_eq!(file(&machine), Some((MIB, 0o640)));
    machine.release(&of(1, YAML)).unwrap();
    assert_eq!(file(&machine), Some((MIB, 0o600)));
    machine.assert_is(&before, "released");
}

#[test]
fn owners_and_groups_come_back_too() {
    if !Uid::effective().is_root() {
        return;
    }
    let machine = machine();
    put(&machine, MIB, 0o600);
    let yaml = "shared_memory: {path: /dev/shm/looking-glass, owner: alice, group: users, mode: \"0600\"}\n";
    let owner = || fs::metadata(machine.path(PATH)).map(|file| (file.uid(), file.gid())).unwrap();
    let before = owner();
    machine.prepare(&of(1, yaml)).unwrap();
    assert_eq!(owner(), (1000, 100));
    machine.release(&of(1, yaml)).unwrap();
    assert_eq!(owner(), before);
    // Hers already: it stays hers.
    std::os::unix::fs::chown(machine.path(PATH), Some(1000), Some(1000)).unwrap();
    machine.prepare(&of(1, yaml)).unwrap();
    machine.release(&of(1, yaml)).unwrap();
    assert_eq!(owner(), (1000, 1000));
}

#[test]
fn one_that_a_program_has_open_is_left_and_said() {
    let machine = machine();
    let before = machine.files();
    machine.prepare(&of(1, YAML)).unwrap();
    opened_by(&machine, 4800);
    let outcome = machine.release(&of(1, YAML)).unwrap();
    assert_eq!(outcome.failures, [""; 0]);
    let [note] = &outcome.notes[..] else { panic!("{outcome:?}") };
    assert_eq!(note.level, NoteLevel::Warning);
    assert_eq!(
        note.text,
        format!("shared memory {PATH} stays: looking-glass-c (process 4800) has {PATH} open")
    );
    assert!(!machine.has_ledger());
    assert_eq!(file(&machine), Some((MIB, 0o660)));
    // The next life takes it as it is, and leaves it.
    machine.prepare(&of(1, YAML)).unwrap();
    fs::remove_dir_all(machine.path("/proc/4800")).unwrap();
    machine.release(&of(1, YAML)).unwrap();
    fs::remove_file(machine.path(PATH)).unwrap();
    machine.assert_is(&before, "removed by hand");
}

#[test]
fn what_somebody_changed_meanwhile_is_left_alone() {
    let machine = machine();
    machine.prepare(&of(1, YAML)).unwrap();
    fs::set_permissions(machine.path(PATH), fs::Permissions::from_mode(0o600)).unwrap();
    let outcome = machine.release(&of(1, YAML)).unwrap();
    assert_eq!(file(&machine), Some((MIB, 0o600)));
    assert!(outcome.notes.iter().any(|note| note.text.contains("was changed from outside")), "{outcome:?}");
    // Removed meanwhile: nothing is to be done.
    fs::remove_file(machine.path(PATH)).unwrap();
    machine.prepare(&of(1, YAML)).unwrap();
    fs::remove_file(machine.path(PATH)).unwrap();
    let outcome = machine.release(&of(1, YAML)).unwrap();
    assert!(outcome.failures.is_empty(), "{outcome:?}");
    assert!(!machine.has_ledger());
}

/// How a guest ends.
type End = fn(&Machine, &Life);

#[test]
fn however_a_guest_ends_nothing_is_left() {
    let ends: [(&str, End); 3] = [
        ("stopped and released", |machine, life| {
            machine.stopped(life).unwrap();
            machine.release(life).unwrap();
        }),
        ("its keeper finds it dead", |machine, life| {
            lifecycle::finish(&mut machine.host(), life.guest.uuid, "unknown", None, soon()).unwrap();
            let _ = fs::remove_file(machine.path(&format!("/simulated/keepers/{}", life.guest.uuid)));
        }),
        ("it is started anew", |machine, life| {
            machine.prepare(life).unwrap();
            machine.release(life).unwrap();
        }),
    ];
    for (how, end) in ends {
        let machine = machine();
        let before = machine.files();
        let life = of(1, YAML);
        machine.prepare(&life).unwrap();
        machine.start(&life).unwrap();
        end(&machine, &life);
        machine.assert_is(&before, how);
    }
}

#[test]
fn whichever_write_fails_nothing_is_left() {
    at_each_write("failed", Faults::fail_write);
}

#[test]
fn wherever_it_is_killed_nothing_is_left() {
    at_each_write("killed", Faults::panic_at_write);
}

fn at_each_write(what: &str, make_fault: fn(&Faults, usize)) {
    for was_there in [false, true] {
        let machine = machine();
        if was_there {
            put(&machine, MIB, 0o600);
        }
        let (before, file_before): (Files, _) = (machine.files(), file(&machine));
        let life = of(1, YAML);
        for nth in 1.. {
            make_fault(&machine.faults, nth);
            let lived = machine.until_killed(|| {
                let _ = machine.prepare(&life);
                let _ = machine.release(&life);
            });
            let was_reached = lived.is_err() || machine.faults.writes() >= nth;
            machine.faults.clear();
            machine.forget_processes();
            machine.open_and_close();
            machine.release(&life).unwrap();
            machine.assert_is(&before, &format!("{what} at write {nth}"));
            assert_eq!(file(&machine), file_before, "{what} at write {nth}");
            if !was_reached {
                assert!(nth > 8, "{nth}");
                break;
            }
        }
    }
}

#[track_caller]
fn refusal(machine: &Machine, life: &Life) -> String {
    let before = machine.files();
    let error = machine.prepare(life).unwrap_err();
    crate::support::assert_same(&machine.files(), &before, "refused");
    let root = machine.root().display().to_string();
    error.to_string().replace("/etc/vfio-hook/hooks.d/", "").replace(&root, "")
}

#[test]
fn what_is_there_and_is_not_that_file_is_refused_and_not_touched() {
    let machine = machine();
    let there = machine.path(PATH);
    let mut refusals = Vec::new();
    symlink("/etc/passwd", &there).unwrap();
    refusals.push(refusal(&machine, &of(1, YAML)));
    fs::remove_file(&there).unwrap();
    fs::create_dir(&there).unwrap();
    refusals.push(refusal(&machine, &of(1, YAML)));
    fs::remove_dir(&there).unwrap();
    put(&machine, 2 * MIB, 0o600);
    refusals.push(refusal(&machine, &of(1, YAML)));
    put(&machine, MIB, 0o600);
    fs::hard_link(&there, machine.path("/dev/shm/other")).unwrap();
    refusals.push(refusal(&machine, &of(1, YAML)));
    fs::remove_file(machine.path("/dev/shm/other")).unwrap();
    insta::assert_snapshot!(refusals.join("\n\n"));
    if Uid::effective().is_root() {
        std::os::unix::fs::chown(&there, Some(1001), None).unwrap();
        let text = refusal(&machine, &of(1, YAML));
        assert!(text.contains("is a file of bob, who is neither root, QEMU nor its `owner`"), "{text}");
    }
}

/// Between the look and the write a user exchanges it.
#[test]
fn a_link_that_comes_meanwhile_is_not_followed() {
    let machine = machine();
    put(&machine, MIB, 0o600);
    fs::write(machine.path("/etc/shadow"), "secret").unwrap();
    fs::set_permissions(machine.path("/etc/shadow"), fs::Permissions::from_mode(0o600)).unwrap();
    let root = machine.root();
    machine.faults.interrupt(PATH, move || {
        let there = root.join(&PATH[1..]);
        fs::remove_file(&there).unwrap();
        symlink(root.join("etc/shadow"), &there).unwrap();
    });
    machine.prepare(&of(1, YAML)).unwrap_err();
    let shadow = fs::metadata(machine.path("/etc/shadow")).unwrap();
    assert_eq!(shadow.mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(machine.path("/etc/shadow")).unwrap(), "secret");
}

#[test]
fn what_does_not_fit_is_refused() {
    let machine = machine();
    let without = Guest::parse(
        b"<domain><name>g</name><uuid>00000000-0000-4000-8000-000000000001</uuid><memory>1</memory></domain>",
    )
    .unwrap();
    let refusals = [
        of(1, "shared_memory: {path: /dev/shm/looking-glass, size: 2MiB}\n"),
        life(without, YAML),
        of(1, "shared_memory:\n  - path: /dev/shm/looking-glass\n    owner: nobody-here\n"),
        of(1, "shared_memory:\n  - {path: /dev/shm/looking-glass, group: none-such}\n"),
        of(1, "shared_memory: {path: /dev/kvmfr0}\n"),
    ]
    .map(|life| refusal(&machine, &life));
    insta::assert_snapshot!(refusals.join("\n\n"));
    machine.prepare(&of(1, YAML)).unwrap();
    let text = machine
        .prepare(&of(2, "shared_memory: {path: /dev/shm/looking-glass, mode: \"0600\"}\n"))
        .unwrap_err()
        .to_string();
    assert!(text.contains("guest1") && text.contains(PATH), "{text}");
}

#[test]
fn a_device_of_the_module_gets_its_mode_and_gives_it_back() {
    let group = Gid::effective();
    let machine = Machine::with(
        "two-nodes",
        &format!(
            "/dev/kvmfr1 = x\n/sys/module/kvmfr/parameters/static_size_mb = 64,128\n/etc/group = kvm:x:{group}:\n"
        ),
    );
    let path = machine.path("/dev/kvmfr1");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let mode = || fs::metadata(&path).unwrap().mode() & 0o7777;
    let yaml = "shared_memory: {path: /dev/kvmfr1, size: 128MiB}\n";
    let before = machine.files();
    let text = refusal(&machine, &of(1, &yaml.replace("128", "64")));
    assert!(text.contains("/dev/kvmfr1 has 128 MiB in its module, and 64 MiB here"), "{text}");
    let text = refusal(&machine, &of(1, "shared_memory: {path: /dev/kvmfr2}\n"));
    assert!(text.contains("kvmfr is not loaded with a size for /dev/kvmfr2"), "{text}");
    machine.prepare(&of(1, yaml)).unwrap();
    assert_eq!(mode(), 0o660);
    machine.release(&of(1, yaml)).unwrap();
    assert_eq!(mode(), 0o600);
    machine.assert_is(&before, "released");
}

/// A user makes the file after the look at it, and has it open: the guest's memory would be that user's too.
#[test]
fn a_file_that_a_user_made_meanwhile_is_not_given_to_the_guest() {
    if !Uid::effective().is_root() {
        return;
    }
    let machine = machine();
    let path = machine.path(PATH);
    let unit = "/simulated/systemd/aside.service/ActiveState";
    let state = machine.path(unit);
    fs::create_dir_all(state.parent().unwrap()).unwrap();
    fs::write(state, "active\n").unwrap();
    machine.faults.interrupt(unit, move || {
        fs::write(&path, vec![0; usize::try_from(MIB).unwrap()]).unwrap();
        std::os::unix::fs::chown(&path, Some(1002), Some(1002)).unwrap();
    });
    let life = of(1, &format!("services: {{stop: [aside.service]}}\n{YAML}"));
    let error = machine.prepare(&life).unwrap_err().to_string();
    assert!(error.contains("a file of user 1002 is there"), "{error}");
    // It cannot be told from one that a killed process had begun to make.
    assert_eq!(file(&machine), None);
    assert!(!machine.has_ledger());
}
