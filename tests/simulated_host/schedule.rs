//! How the kernel schedules the threads of guests.

use std::fs;

use nix::errno::Errno;
use vfio_hook::event::Operation;
use vfio_hook::guest::{Guest, GuestUuid};
use vfio_hook::host::manifest;
use vfio_hook::host::simulated::{qemu_process, qemu_thread};
use vfio_hook::ledger::{Extent, Ledger, NoteLevel, Occasion, Outcome, Plan};
use vfio_hook::lifecycle;

use crate::support::{Life, Machine, life, soon};

const NICE: &str = "schedule: {vcpus: {nice: -10}, emulator: {nice: 5}, io: {nice: -3}}\n";
const FIFO: &str = "isolate_cpus: {}\nschedule: {vcpus: fifo}\n";

/// A guest with two vCPUs, one iothread, and all else off their CPUs.
fn guest(number: u8, cpus: &str, more: &str) -> Guest {
    let pins: String = (0..)
        .zip(cpus.parse::<vfio_hook::cpuset::CpuSet>().unwrap().iter())
        .map(|(vcpu, cpu)| format!("<vcpupin vcpu='{vcpu}' cpuset='{cpu}'/>"))
        .collect();
    let xml = format!(
        "<domain type='kvm'><name>guest{number}</name><uuid>{}</uuid><memory unit='MiB'>512</memory>\
         <vcpu>2</vcpu><iothreads>1</iothreads><cputune>{pins}<emulatorpin cpuset='0'/>\
         <iothreadpin iothread='1' cpuset='1'/>{more}</cputune></domain>",
        uuid(number)
    );
    Guest::parse(xml.as_bytes()).unwrap()
}

fn uuid(number: u8) -> GuestUuid {
    format!("00000000-0000-4000-8000-0000000000{number:02x}").parse().unwrap()
}

fn of(number: u8, cpus: &str, yaml: &str) -> Life {
    life(guest(number, cpus, ""), yaml)
}

/// QEMU's process of a guest.
fn pid(number: u8) -> i32 {
    4000 + 100 * i32::from(number)
}

/// libvirt's file, with these vCPUs' threads; the ones after QEMU's own number.
fn write_status(machine: &Machine, number: u8, vcpus: i32) {
    let vcpu = |vcpu: i32| format!("<vcpu id='{vcpu}' pid='{}'/>", pid(number) + 1 + vcpu);
    let vcpus: String = (0..vcpus).map(vcpu).collect();
    let text = format!(
        "<domstatus state='running' pid='{}'><vcpus>{vcpus}</vcpus><domain><uuid>{}</uuid></domain></domstatus>\n",
        pid(number),
        uuid(number)
    );
    let path = machine.path(&format!("/run/libvirt/qemu/guest{number}.xml"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// QEMU starts: two vCPUs, its own thread, an iothread, its monitor's, and one that is nobody's.
fn qemu_starts(machine: &Machine, number: u8) {
    let (qemu, name) = (pid(number), format!("guest{number}"));
    let threads = [
        (0, "qemu-system-x86"),
        (1, "CPU 0/KVM"),
        (2, "CPU 1/KVM"),
        (10, "IO iothread1"),
        (11, "IO mon_iothread"),
        (12, "worker"),
    ];
    let mut text = qemu_process(qemu, uuid(number), &name);
    text.extend(threads.map(|(thread, name)| qemu_thread(qemu, qemu + thread, name)));
    manifest::lay_out(&text, &machine.root()).unwrap();
    write_status(machine, number, 2);
}

fn qemu_ends(machine: &Machine, number: u8) {
    fs::remove_dir_all(machine.path(&format!("/proc/{}", pid(number)))).unwrap();
    fs::remove_file(machine.path(&format!("/run/libvirt/qemu/guest{number}.xml"))).unwrap();
    let scope = vfio_hook::host::simulated::qemu_scope(&format!("guest{number}"));
    fs::remove_dir_all(machine.path(&scope)).unwrap();
}

fn stat(number: u8, thread: i32) -> String {
    format!("/proc/{}/task/{}/stat", pid(number), pid(number) + thread)
}

/// Nice value, priority and policy of a thread.
fn scheduling(machine: &Machine, number: u8, thread: i32) -> [i32; 3] {
    let text = machine.get(&stat(number, thread));
    let fields: Vec<&str> = text.rsplit_once(") ").unwrap().1.split(' ').collect();
    [19, 40, 41].map(|field| fields[field - 3].parse().unwrap())
}

/// Those of QEMU's own thread, the vCPUs, the iothread, the monitor's and the worker.
fn nices(machine: &Machine, number: u8) -> [i32; 6] {
    [0, 1, 2, 10, 11, 12].map(|thread| scheduling(machine, number, thread)[0])
}

/// What `renice` or `chrt` does.
fn set(machine: &Machine, number: u8, thread: i32, [nice, priority, policy]: [i32; 3]) {
    let path = stat(number, thread);
    let text = machine.get(&path);
    let (start, rest) = text.rsplit_once(") ").unwrap();
    let mut fields: Vec<String> = rest.split(' ').map(str::to_owned).collect();
    for (field, value) in [(19, nice), (40, priority), (41, policy)] {
        fields[field - 3] = value.to_string();
    }
    machine.set(&path, &format!("{start}) {}", fields.join(" ")));
}

fn reconcile(machine: &Machine, life: &Life) -> Outcome {
    lifecycle::reconcile(&mut machine.host(), life.guest.uuid, Occasion::Usual, soon()).unwrap()
}

/// Up to the point where the keeper is told that QEMU runs.
fn comes_up(machine: &Machine, number: u8, life: &Life) {
    machine.prepare(life).unwrap();
    machine.start(life).unwrap();
    qemu_starts(machine, number);
    machine.started(life).unwrap();
}

fn undo(machine: &Machine, life: &Life) -> Outcome {
    let mut host = machine.host();
    let mut ledger = Ledger::open(&mut host, soon()).unwrap();
    ledger.give_back_here(life.guest.uuid, "undo", None).unwrap()
}

#[test]
fn the_threads_of_each_of_two_guests_get_what_its_own_file_says() {
    let machine = Machine::new("two-nodes");
    let (one, other) = (of(1, "2-3", NICE), of(2, "4-5", FIFO));
    comes_up(&machine, 1, &one);
    comes_up(&machine, 2, &other);
    assert_eq!(nices(&machine, 1), [0; 6], "it is the keeper's to do");
    assert_eq!(reconcile(&machine, &one).changes.len(), 4);
    assert_eq!(nices(&machine, 1), [5, -10, -10, -3, 0, 0]);
    assert_eq!(nices(&machine, 2), [0; 6]);
    assert_eq!(reconcile(&machine, &other).changes.len(), 2);
    let policies = [0, 1, 2, 10, 11, 12].map(|thread| scheduling(&machine, 2, thread));
    assert_eq!(policies, [[0, 0, 0], [0, 1, 1], [0, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]);
    for life in [&one, &other] {
        let outcome = reconcile(&machine, life);
        assert!(outcome.changes.is_empty() && outcome.notes.is_empty(), "{outcome:?}");
    }
}

/// How a guest ends.
type End = fn(&Machine, &Life);

#[test]
fn however_a_guest_ends_nothing_of_its_threads_is_left() {
    let ends: [(&str, End); 4] = [
        ("stopped and released", |machine, life| {
            machine.stopped(life).unwrap();
            machine.release(life).unwrap();
        }),
        ("released alone", |machine, life| drop(machine.release(life).unwrap())),
        ("its keeper finds it dead", |machine, life| {
            lifecycle::finish(&mut machine.host(), life.guest.uuid, "unknown", None, soon()).unwrap();
            let _ = fs::remove_file(machine.path(&format!("/simulated/keepers/{}", life.guest.uuid)));
        }),
        ("the daemon restarts, and it starts again", |machine, life| {
            lifecycle::started(&mut machine.host(), life.guest.uuid, Operation::Reconnect, soon()).unwrap();
            machine.prepare(life).unwrap();
            machine.release(life).unwrap();
        }),
    ];
    for (how, end) in ends {
        let machine = Machine::new("two-nodes");
        let before = machine.files();
        for (number, yaml) in [(1, NICE), (2, FIFO)] {
            let life = of(number, "2-3", yaml);
            comes_up(&machine, number, &life);
            reconcile(&machine, &life);
            qemu_ends(&machine, number);
            end(&machine, &life);
            machine.assert_is(&before, how);
        }
    }
}

#[test]
fn another_thread_that_got_the_number_is_never_touched() {
    let machine = Machine::new("two-nodes");
    let life = of(1, "2-3", NICE);
    comes_up(&machine, 1, &life);
    reconcile(&machine, &life);
    // The vCPU was unplugged, and its number is another thread's by now: it started later.
    let text = machine.get(&stat(1, 2)).replace(&(10_000 + pid(1) + 2).to_string(), "77777");
    let text = text.replace(" -10 ", " 3 ");
    machine.set(&stat(1, 2), &text);
    write_status(&machine, 1, 1);
    let outcome = reconcile(&machine, &life);
    assert!(
        outcome.changes.is_empty() && outcome.notes.is_empty() && outcome.failures.is_empty(),
        "{outcome:?}"
    );
    let outcome = undo(&machine, &life);
    assert_eq!(outcome.failures, [""; 0]);
    assert_eq!(nices(&machine, 1), [0, 0, 3, 0, 0, 0]);
}

#[test]
fn undo_gives_a_running_guest_what_its_threads_had() {
    for (yaml, baseline) in [(NICE, [2, 0, 0]), (FIFO, [0, 0, 3])] {
        let machine = Machine::new("two-nodes");
        let life = of(1, "2-3", yaml);
        machine.prepare(&life).unwrap();
        qemu_starts(&machine, 1);
        set(&machine, 1, 1, baseline);
        let threads = || [0, 1, 2, 10, 11, 12].map(|thread| scheduling(&machine, 1, thread));
        let before = threads();
        machine.started(&life).unwrap();
        reconcile(&machine, &life);
        assert_ne!(threads(), before);
        let host = machine.host();
        let record = machine.record().unwrap();
        let all = [life.guest.uuid].into();
        let shown = Plan::give_back(&record, &host, None, &all, Extent::Whole, soon()).unwrap();
        let is_thread = |change: &&vfio_hook::ledger::Change| change.setting.to_string().contains("(thread ");
        let shown: Vec<_> = shown.changes.iter().filter(is_thread).cloned().collect();
        let done = undo(&machine, &life).changes;
        let done: Vec<_> = done.iter().filter(is_thread).cloned().collect();
        assert_eq!(shown, done);
        assert!(!done.is_empty());
        assert_eq!(threads(), before);
    }
}

#[test]
fn a_vcpu_that_is_plugged_in_gets_it_with_the_next_look() {
    let machine = Machine::new("two-nodes");
    let life = of(1, "2-3", NICE);
    comes_up(&machine, 1, &life);
    reconcile(&machine, &life);
    manifest::lay_out(&qemu_thread(pid(1), pid(1) + 3, "CPU 2/KVM"), &machine.root()).unwrap();
    assert!(reconcile(&machine, &life).changes.is_empty(), "libvirt does not have it yet");
    write_status(&machine, 1, 3);
    let outcome = reconcile(&machine, &life);
    let changes: Vec<String> = outcome.changes.iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["vCPU 2 (thread 4103): nice 0 -> nice -10"]);
}

#[test]
fn a_value_that_a_person_chose_is_left_alone_and_said_once() {
    for chosen in [[-5, 0, 0], [0, 0, 0], [0, 9, 2]] {
        let machine = Machine::new("two-nodes");
        let life = of(1, "2-3", NICE);
        comes_up(&machine, 1, &life);
        reconcile(&machine, &life);
        set(&machine, 1, 1, chosen);
        let outcome = reconcile(&machine, &life);
        assert!(outcome.changes.is_empty(), "{outcome:?}");
        let [note] = &outcome.notes[..] else { panic!("{outcome:?}") };
        assert_eq!(note.level, NoteLevel::Warning);
        assert!(
            note.text.starts_with("vCPU 0 (thread 4101) was changed from outside, from nice -10 to "),
            "{note:?}"
        );
        assert!(reconcile(&machine, &life).notes.is_empty());
        undo(&machine, &life);
        assert_eq!(scheduling(&machine, 1, 1), chosen);
        assert_eq!(scheduling(&machine, 1, 2), [0, 0, 0]);
    }
}

#[test]
fn wherever_its_writer_is_killed_the_next_one_finishes_and_undo_brings_all_back() {
    for yaml in [NICE, FIFO] {
        let mut nth = 0;
        loop {
            nth += 1;
            let machine = Machine::new("two-nodes");
            let life = of(1, "2-3", yaml);
            comes_up(&machine, 1, &life);
            let threads = || [0, 1, 2, 10, 11, 12].map(|thread| scheduling(&machine, 1, thread));
            let before = threads();
            machine.faults.panic_at_write(nth);
            let was_killed = machine.until_killed(|| reconcile(&machine, &life)).is_err();
            machine.faults.clear();
            reconcile(&machine, &life);
            let set = threads();
            assert_ne!(set, before, "killed at write {nth}");
            machine.faults.panic_at_write(nth);
            let undone = machine.until_killed(|| undo(&machine, &life));
            machine.faults.clear();
            if undone.is_err() {
                undo(&machine, &life);
            }
            assert_eq!(threads(), before, "killed at write {nth}");
            if !was_killed && undone.is_ok() {
                assert!(nth > 4, "{nth}");
                break;
            }
        }
    }
}

#[test]
fn a_kernel_that_refuses_says_why_once_and_the_guest_runs_on() {
    let machine = Machine::new("two-nodes");
    let life = of(1, "2-3", FIFO);
    comes_up(&machine, 1, &life);
    machine.faults.refuse(stat(1, 1), Errno::EPERM);
    let outcome = reconcile(&machine, &life);
    let [failure] = &outcome.failures[..] else { panic!("{outcome:?}") };
    insta::assert_snapshot!(failure);
    assert_eq!(scheduling(&machine, 1, 2), [0, 1, 1], "the others have it");
    assert!(reconcile(&machine, &life).failures.is_empty());
    undo(&machine, &life);
    assert_eq!([1, 2].map(|thread| scheduling(&machine, 1, thread)), [[0; 3]; 2]);
}

/// Anyone can write a file, and name a thread.
#[test]
fn a_file_that_others_could_have_written_names_no_vcpus() {
    use std::os::unix::fs::PermissionsExt;
    let machine = Machine::new("two-nodes");
    let life = of(1, "2-3", FIFO);
    comes_up(&machine, 1, &life);
    let path = machine.path("/run/libvirt/qemu/guest1.xml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(reconcile(&machine, &life).changes.is_empty());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(reconcile(&machine, &life).changes.len(), 2);
}

#[test]
fn without_qemu_nothing_is_set() {
    let machine = Machine::new("two-nodes");
    let life = of(1, "2-3", NICE);
    machine.prepare(&life).unwrap();
    machine.start(&life).unwrap();
    assert!(reconcile(&machine, &life).changes.is_empty());
    qemu_starts(&machine, 1);
    assert!(reconcile(&machine, &life).changes.is_empty(), "libvirt has not said that it started");
    machine.started(&life).unwrap();
    assert_eq!(reconcile(&machine, &life).changes.len(), 4);
}

fn refusal(machine: &Machine, guest: Guest, yaml: &str) -> String {
    let error = machine.prepare(&life(guest, yaml)).unwrap_err();
    assert!(!machine.has_ledger());
    error.to_string().replace("/etc/vfio-hook/hooks.d/", "")
}

#[test]
fn real_time_threads_are_refused_where_something_else_needs_their_cpus() {
    let machine = Machine::new("two-nodes");
    let bare = |cputune: &str| {
        let xml = format!(
            "<domain type='kvm'><name>guest1</name><uuid>{}</uuid><memory unit='MiB'>512</memory><vcpu>2</vcpu>\
             <iothreads>1</iothreads><cputune>{cputune}</cputune></domain>",
            uuid(1)
        );
        Guest::parse(xml.as_bytes()).unwrap()
    };
    const PINS: &str = "<vcpupin vcpu='0' cpuset='2'/><vcpupin vcpu='1' cpuset='3'/>";
    const OTHERS: &str = "<emulatorpin cpuset='0'/><iothreadpin iothread='1' cpuset='1'/>";
    let refusals = [
        ("schedule: {vcpus: fifo}\n", format!("{PINS}{OTHERS}")),
        ("isolate_cpus: {shared: true}\nschedule: {vcpus: fifo}\n", format!("{PINS}{OTHERS}")),
        ("isolate_cpus: {cpus: \"2,4\"}\nschedule: {vcpus: {fifo: 5}}\n", format!("{PINS}{OTHERS}")),
        (FIFO, format!("<vcpupin vcpu='0' cpuset='2-3'/><vcpupin vcpu='1' cpuset='4'/>{OTHERS}")),
        (FIFO, format!("<vcpupin vcpu='0' cpuset='2'/><vcpupin vcpu='1' cpuset='2'/>{OTHERS}")),
        ("isolate_cpus: {cpus: \"2-3\"}\nschedule: {vcpus: fifo}\n", format!("<vcpupin vcpu='0' cpuset='2'/>{OTHERS}")),
        (FIFO, PINS.to_owned()),
        (FIFO, format!("{PINS}<emulatorpin cpuset='1-2'/><iothreadpin iothread='1' cpuset='3'/>")),
        (FIFO, format!("{PINS}{OTHERS}<vcpusched vcpus='0-1' scheduler='fifo' priority='1'/>")),
        (
            "schedule: {emulator: {nice: 1}, io: {nice: 1}}\n",
            format!("{PINS}{OTHERS}<iothreadsched iothreads='1' scheduler='batch'/><emulatorsched scheduler='idle'/>"),
        ),
    ]
    .map(|(yaml, cputune)| refusal(&machine, bare(&cputune), yaml));
    insta::assert_snapshot!(refusals.join("\n\n"));
}

#[test]
fn real_time_threads_are_refused_where_the_host_cannot_keep_their_cpus_free() {
    let mut refusals = Vec::new();
    for host in ["no-systemd", "cgroup-v1"] {
        refusals.push(refusal(&Machine::new(host), guest(1, "2-3", ""), FIFO));
    }
    let limit = |runtime: &str| {
        let lines = format!(
            "/proc/sys/kernel/sched_rt_runtime_us = {runtime}\n/proc/sys/kernel/sched_rt_period_us = 1000000\n"
        );
        Machine::with("two-nodes", &lines)
    };
    refusals.push(refusal(&limit("0"), guest(1, "2-3", ""), FIFO));
    let xml = "<domain type='kvm'><name>g</name><uuid>00000000-0000-4000-8000-000000000001</uuid><memory>1</memory></domain>";
    let without = Guest::parse(xml.as_bytes()).unwrap();
    refusals.push(refusal(&limit("-1"), without, "schedule: {io: {nice: 1}}\n"));
    insta::assert_snapshot!(refusals.join("\n\n"));
    for (runtime, is_said) in [("-1", false), ("950000", true)] {
        let outcome = limit(runtime).prepare(&of(1, "2-3", FIFO)).unwrap();
        let said = outcome.notes.iter().any(|note| note.text.contains("50 ms of each 1000 ms"));
        assert_eq!(said, is_said, "{outcome:?}");
    }
}
