//! Starts that are refused, as a person reads it, and nothing is touched.

use vfio_hook::lifecycle::LifecycleError;

use crate::support::{Life, Machine, guest, life, pages};

/// What `virsh start` shows.
fn message(error: &LifecycleError) -> String {
    let help = error.help().map(|help| format!("\nhelp: {help}")).unwrap_or_default();
    format!("{error}{help}")
}

/// The refusal of a guest; the machine is not touched by it.
#[track_caller]
fn refusal(machine: &Machine, life: &Life) -> String {
    let before = machine.files();
    machine.faults.clear();
    let error = machine.prepare(life).unwrap_err();
    assert_eq!(machine.faults.writes(), 0);
    crate::support::assert_same(&machine.files(), &before, "refused");
    message(&error)
}

#[test]
fn cpus_that_make_no_sense() {
    let machine = Machine::new("offline-cpu");
    let unpinned = guest_with("<vcpu>2</vcpu>");
    let half_pinned = guest_with("<vcpu>3</vcpu><cputune><vcpupin vcpu='1' cpuset='2'/></cputune>");
    let refusals = [
        life(guest(1, "2-3", ""), "isolate_cpus:\n  cpus: 6-9\n"),
        life(guest(1, "3,7", ""), "isolate_cpus: {}"),
        life(guest(1, "0-6", ""), "isolate_cpus: {}"),
        life(unpinned, "isolate_cpus: {}"),
        life(half_pinned, "isolate_cpus:\n  irqs: false\n"),
        life(guest(1, "2-3", ""), "isolate_cpus: {}\ncpu_power:\n  governor: ondemand\n"),
    ]
    .map(|life| refusal(&machine, &life));
    insta::assert_snapshot!(refusals.join("\n\n"));
}

fn guest_with(cpus: &str) -> vfio_hook::guest::Guest {
    let xml = format!(
        "<domain type='kvm'><name>guest1</name><uuid>00000000-0000-4000-8000-000000000001</uuid>\
         <memory unit='MiB'>512</memory>{cpus}</domain>"
    );
    vfio_hook::guest::Guest::parse(xml.as_bytes()).unwrap()
}

#[test]
fn pages_that_make_no_sense() {
    let machine = Machine::new("no-cpufreq");
    let huge = "<memory unit='GiB'>2</memory><memoryBacking><hugepages><page size='1' unit='GiB'/></hugepages></memoryBacking>";
    let mut refusals = vec![
        refusal(&machine, &life(guest(1, "2", ""), "hugepages: {}")),
        refusal(&machine, &life(guest(1, "2", huge), "hugepages: {}")),
    ];
    let big = Machine::new("two-nodes");
    let without_pdpe1gb = big.get("/proc/cpuinfo").replace("pdpe1gb ", "");
    big.set("/proc/cpuinfo", &without_pdpe1gb);
    refusals.push(refusal(&big, &life(guest(1, "2", huge), "hugepages: {}")));
    big.set("/proc/mounts", "proc /proc proc rw 0 0");
    refusals.push(refusal(&big, &life(guest(1, "2", &pages(10)), "hugepages: {}")));
    insta::assert_snapshot!(refusals.join("\n\n"));
}

#[test]
fn memory_in_a_file_of_its_own_needs_no_mount() {
    let machine = Machine::new("two-nodes");
    machine.set("/proc/mounts", "proc /proc proc rw 0 0");
    let memory = pages(10).replace("<hugepages/>", "<hugepages/><source type='memfd'/>");
    machine.prepare(&life(guest(1, "2", &memory), "hugepages: {}")).unwrap();
}

#[test]
fn a_folder_of_scripts_that_is_there_and_cannot_be_read() {
    let yaml = "run:\n- scripts: /srv/hooks\n";
    let machine = Machine::new("two-nodes");
    insta::assert_snapshot!(refusal(&machine, &life(guest(1, "2-3", ""), yaml)), @"
    /etc/vfio-hook/hooks.d/guest.yaml:2:12: there is no folder /srv/hooks: no script would be run
    help: make it (`mkdir -p /srv/hooks`), or remove the entry
    ");
    std::fs::create_dir_all(machine.path("/srv/hook")).unwrap();
    insta::assert_snapshot!(refusal(&machine, &life(guest(1, "2-3", ""), yaml)), @"
    /etc/vfio-hook/hooks.d/guest.yaml:2:12: there is no folder /srv/hooks: no script would be run
    help: did you mean `/srv/hook`?
    ");
    std::fs::create_dir_all(machine.path("/srv/hooks/Guest1")).unwrap();
    let report = machine.prepare(&life(guest(1, "2-3", ""), yaml)).unwrap();
    let notes: Vec<&str> = report.notes.iter().map(|note| note.text.as_str()).collect();
    let none = "guest1 has no scripts: there is no folder /srv/hooks/guest1; did you mean /srv/hooks/Guest1?";
    assert!(notes.contains(&none), "{notes:?}");

    let machine = Machine::new("two-nodes");
    let script = machine.path("/srv/hooks/guest1/prepare/begin/detach.sh");
    std::fs::create_dir_all(script.parent().unwrap()).unwrap();
    std::fs::write(&script, "#!/bin/sh\n# virsh is asked\nvirsh nodedev-detach pci_0000_03_00_0\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let report = machine.prepare(&life(guest(1, "2-3", ""), yaml)).unwrap();
    let notes: Vec<&str> = report.notes.iter().map(|note| note.text.as_str()).collect();
    assert!(notes.iter().any(|note| note.contains("detach.sh asks libvirt in line 3")), "{notes:?}");

    let machine = Machine::new("two-nodes");
    std::fs::create_dir_all(machine.path("/srv")).unwrap();
    std::os::unix::fs::symlink("not-mounted", machine.path("/srv/hooks")).unwrap();
    insta::assert_snapshot!(refusal(&machine, &life(guest(1, "2-3", ""), yaml)), @"
    /etc/vfio-hook/hooks.d/guest.yaml:2:12: failed to list /srv/hooks: a symbolic link leads to nothing
    help: `ls -ld /srv/hooks` shows what is there
    ");
}

/// What would be refused when its turn comes is refused before anything is touched.
#[test]
fn scripts_that_others_can_write() {
    use std::os::unix::fs::PermissionsExt;

    let put = |machine: &Machine, event: &str| {
        let script = machine.path(&format!("/srv/hooks/guest1/{event}/x.sh"));
        std::fs::create_dir_all(script.parent().unwrap()).unwrap();
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o777)).unwrap();
    };
    let life = life(guest(1, "2-3", ""), "run: {scripts: /srv/hooks}\n");
    let machine = Machine::new("two-nodes");
    put(&machine, "prepare/begin");
    let refusal = refusal(&machine, &life).replace(&*machine.path("/").to_string_lossy(), "/");
    assert!(refusal.contains("/x.sh can be written by its group and everybody else"), "{refusal}");
    assert!(refusal.contains("help: chmod go-w /srv/hooks/guest1/prepare/begin/x.sh"), "{refusal}");

    let machine = Machine::new("two-nodes");
    put(&machine, "release/end");
    let report = machine.prepare(&life).unwrap();
    let is_told = |note: &vfio_hook::ledger::Note| note.text.starts_with("at `release` it would not run: ");
    assert!(report.notes.iter().any(is_told), "{:?}", report.notes);
}

#[test]
fn commands_that_may_take_longer_than_prepare_are_told() {
    let yaml = "run:\n  - {when: prepare, command: [/bin/sh, -c, x], timeout: 40s}\n  \
                - {when: prepare, command: [/bin/sh, -c, x], timeout: 30s}\n  \
                - {when: prepare, command: [/bin/sh, -c, x], timeout: 10min, background: true}\n";
    let life = life(guest(1, "2-3", ""), yaml);
    let machine = Machine::new("two-nodes");
    let shell = machine.path("/bin/sh");
    std::fs::create_dir_all(shell.parent().unwrap()).unwrap();
    std::fs::write(&shell, "").unwrap();
    std::fs::set_permissions(&shell, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let host = machine.host();
    let record = vfio_hook::ledger::Record::empty(host.boot_id().unwrap());
    let deadline = crate::support::soon();
    let plan =
        vfio_hook::lifecycle::plan_prepare(&host, &record, &life.loaded, &life.guest, deadline).unwrap();
    let notes: Vec<&str> = plan.notes.iter().map(|note| note.text.as_str()).collect();
    assert!(
        notes.iter().any(|note| note.starts_with("the commands of `prepare` may take 70 s")),
        "{notes:?}"
    );
}

#[test]
fn several_reasons_at_once() {
    let machine = Machine::new("two-nodes");
    let yaml = "isolate_cpus:\n  cpus: 2-3\ncpu_power:\n  governor: turbo\nhugepages:\n  keep_free: 15GiB\n";
    insta::assert_snapshot!(refusal(&machine, &life(guest(1, "2-3", &pages(100)), yaml)));
}

#[test]
fn what_another_guest_has() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let first = life(guest(1, "2-4", ""), "isolate_cpus: {}\ncpu_power: {governor: performance}");
    machine.prepare(&first).unwrap();
    let refusals = [
        life(guest(2, "4-5", ""), "isolate_cpus: {}\ncpu_power:\n  governor: performance\n"),
        life(guest(2, "4-5", ""), "isolate_cpus: {shared: true}\ncpu_power:\n  governor: powersave\n"),
        life(guest(2, "0-1,5-7", ""), "isolate_cpus: {}"),
    ]
    .map(|life| refusal(&machine, &life));
    insta::assert_snapshot!(refusals.join("\n\n"));
    // A refusal costs the guest that runs nothing.
    machine.release(&first).unwrap();
    machine.assert_is(&before, "released");
}

/// Scripts with `AllowedCPUs=` list what stays with the host.
#[test]
fn the_hosts_cpus_instead_of_the_guests() {
    let machine = Machine::new("two-nodes");
    let refusals = [
        ("4-7", "0-3"),
        // All but the guest's.
        ("2-5", "0-1,6-7"),
        // Cut at the wrong place: one vCPU of four is on the list.
        ("4-7", "0-4"),
    ]
    .map(|(pins, list)| {
        refusal(&machine, &life(guest(1, pins, ""), &format!("isolate_cpus:\n  cpus: {list}\n")))
    });
    insta::assert_snapshot!(refusals.join("\n\n"));
    // One core for QEMU's own threads is left to the host on purpose.
    let outcome = machine.prepare(&life(guest(1, "4-7", ""), "isolate_cpus: {cpus: 5-7}")).unwrap();
    assert!(outcome.notes.iter().any(|note| note.text == "vCPUs are pinned to CPU 4, which is not isolated"));
}

#[test]
fn a_slice_of_libvirts_that_is_too_small() {
    let machine = Machine::new("two-nodes");
    machine.set("/sys/fs/cgroup/machine.slice/cpuset.cpus.effective", "4-7");
    insta::assert_snapshot!(refusal(&machine, &life(guest(1, "2-4", ""), "isolate_cpus: {}")));
}

#[test]
fn what_is_only_said() {
    let notes = |host: &str, life: &Life| {
        let machine = Machine::new(host);
        let outcome = machine.prepare(life).unwrap();
        let lines: Vec<_> =
            outcome.notes.iter().map(|note| format!("{:?}: {}", note.level, note.text)).collect();
        format!("{host}\n{}", lines.join("\n"))
    };
    let device = "<devices><hostdev mode='subsystem' type='pci'><source><address domain='0' bus='1' slot='0' function='0'/></source></hostdev></devices>";
    let with_device = guest_with(&format!(
        "<vcpu>2</vcpu><cputune><vcpupin vcpu='0' cpuset='0'/><vcpupin vcpu='1' cpuset='6'/><emulatorpin cpuset='6-7'/></cputune>{device}"
    ));
    let all = [
        notes("two-nodes", &life(with_device, "isolate_cpus: {}\ncpu_power: {epp: power}")),
        notes("two-nodes", &life(guest(1, "1-2,5-6", ""), "isolate_cpus: {}")),
        notes("no-systemd", &life(guest(1, "2,6", ""), "isolate_cpus: {}")),
        notes("cgroup-v1", &life(guest(1, "2,6", ""), "isolate_cpus: {}")),
        notes("isolcpus", &life(guest(1, "2,6", ""), "isolate_cpus: {}")),
        notes(
            "no-cpufreq",
            &life(guest(1, "2,6", ""), "isolate_cpus: {}\ncpu_power: {governor: performance}"),
        ),
        notes("no-cpufreq", &life(guest_with("<vcpu>2</vcpu>"), "isolate_cpus: {cpus: \"2,6\"}")),
    ];
    insta::assert_snapshot!(all.join("\n\n"));
}
