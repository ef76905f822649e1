//! QEMUs and what looks like one, on hosts in folders.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::Uid;
use tempfile::TempDir;

use super::*;
use crate::host::manifest::lay_out;
use crate::host::process_search::ONE_LOOK;
use crate::host::simulated::{Faults, qemu_process, qemu_scope};

const PID: i32 = 300;
const NAME: &str = "win11";
const RUNS: QemuSearch = QemuSearch::Runs(ProcessId { pid: PID, start_time: 4242 });

/// A user who logs in.
const ANNA: u32 = 1000;

struct Machine(TempDir);

impl Machine {
    fn with(lines: &str) -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        machine.add(
            "/proc/\n\
             /etc/passwd = root:x:0:0::/root:/bin/sh\\nlibvirt-qemu:x:64055:104::/:/bin/false\\nanna:x:1000:1000::/:\n\
             /etc/group =\n",
        );
        machine.add(lines);
        machine
    }

    fn add(&self, lines: &str) {
        lay_out(lines, self.0.path()).unwrap();
    }

    /// A process of these users (real, effective, saved) with the guest's UUID among its arguments, and its executable.
    fn process(&self, users: [u32; 3], cgroup: &str) {
        let [real, effective, saved] = users;
        self.add(&process(PID));
        self.add(&format!(
            "/proc/{PID}/status = Name: qemu\\nUid:\t{real}\t{effective}\t{saved}\t{effective}\\nGid:\t0\t0\t0\t0\n\
             /proc/{PID}/cgroup = 0::{cgroup}\n\
             /proc/{PID}/exe =\n"
        ));
        self.set("/proc/300/exe", 0o755);
    }

    fn set(&self, path: &str, mode: u32) {
        fs::set_permissions(self.0.path().join(&path[1..]), Permissions::from_mode(mode)).unwrap();
    }

    /// libvirt's status file of the guest.
    fn status(&self, guest: GuestUuid, pid: i32, threads: &[i32]) {
        let vcpu = |(id, thread): (usize, &i32)| format!("<vcpu id='{id}' pid='{thread}'/>");
        let threads: String = threads.iter().enumerate().map(vcpu).collect();
        self.add(&format!(
            "/run/libvirt/qemu/{NAME}.xml = <domstatus pid='{pid}'><vcpus>{threads}</vcpus>\
             <domain><uuid>{guest}</uuid></domain></domstatus>\n"
        ));
        for folder in ["/run", "/run/libvirt", "/run/libvirt/qemu"] {
            self.set(folder, 0o755);
        }
        self.set("/run/libvirt/qemu/win11.xml", 0o600);
    }

    fn host(&self) -> Host {
        Host::simulated(self.0.path(), &Faults::default())
    }

    fn look(&self) -> QemuSearch {
        self.host().qemu_of(clues(guest(), None), soon())
    }

    fn look_for_others(&self, but: GuestUuid) -> QemuSearch {
        self.host().qemu_of_others(QemuClues { guest: but, name: "other", known: None }, soon())
    }
}

fn guest() -> GuestUuid {
    "c0ffee00-1111-4222-8333-44445555666f".parse().unwrap()
}

fn other() -> GuestUuid {
    "c0ffee00-1111-4222-8333-444455556670".parse().unwrap()
}

fn clues(guest: GuestUuid, known: Option<ProcessId>) -> QemuClues<'static> {
    QemuClues { guest, name: NAME, known }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

/// The user that stands for root on a host in a folder.
fn root() -> u32 {
    Uid::effective().as_raw()
}

/// A process with the guest's UUID among its arguments, in no group of libvirt's.
fn process(pid: i32) -> String {
    let lines = qemu_process(pid, guest(), NAME);
    lines.lines().filter(|line| line.starts_with("/proc")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn what_is_known_is_not_looked_for() {
    let machine = Machine::with(&qemu_process(PID, guest(), NAME));
    let host = machine.host();
    let this = host.this_process();
    assert_eq!(host.qemu_of(clues(other(), Some(this)), soon()), QemuSearch::Runs(this));
    let ended = ProcessId { start_time: this.start_time + 1, ..this };
    assert_eq!(host.qemu_of(clues(other(), Some(ended)), soon()), QemuSearch::Gone);
    assert_eq!(host.qemu_of(clues(guest(), Some(ended)), soon()), RUNS);
}

#[test]
fn a_process_in_a_machine_group_is_told_by_its_uuid() {
    let machine = Machine::with(&qemu_process(PID, guest(), NAME));
    assert_eq!(machine.look(), RUNS);
    assert_eq!(machine.host().qemu_of(clues(other(), None), soon()), QemuSearch::Gone);
    assert_eq!(machine.look_for_others(guest()), QemuSearch::Gone);
    assert_eq!(machine.look_for_others(other()), RUNS);
    // Of any owner: a static label of the XML may say so.
    machine.add("/proc/300/status = Uid: 1000 1000 1000 1000\n");
    assert_eq!(machine.look(), RUNS);
    // What libvirt has beside it in the group.
    machine.add("/proc/300/cmdline = swtpm\0socket\0\n");
    assert_eq!(machine.look(), QemuSearch::Gone);
}

#[test]
fn one_that_is_ending_is_told_by_the_name_of_its_group() {
    let machine = Machine::with(&qemu_process(PID, guest(), NAME));
    fs::write(machine.0.path().join("proc/300/cmdline"), "").unwrap();
    assert_eq!(machine.look(), RUNS);
    assert_eq!(machine.look_for_others(guest()), RUNS);
    let other_name = QemuClues { name: "win12", ..clues(guest(), None) };
    assert_eq!(machine.host().qemu_of(other_name, soon()), QemuSearch::Gone);
    let stat = |state: char, flags: u32| {
        format!(
            "/proc/300/stat = 300 (qemu) {state} {}{flags} {}4242 {}\n",
            "0 ".repeat(5),
            "0 ".repeat(12),
            "0 ".repeat(30)
        )
    };
    // One of the kernel's threads for the guest; and QEMU, when nothing is left of it but its exit status.
    for gone in [stat('S', 0x0020_8040), stat('Z', 0)] {
        machine.add(&gone);
        assert_eq!(machine.look(), QemuSearch::Gone, "{gone}");
    }
}

#[test]
fn libvirts_status_file_names_the_process() {
    let machine = Machine::with(&process(PID));
    machine.add("/proc/300/status = Uid: 1000 1000 1000 1000\n/proc/300/task/301/comm = CPU 0/KVM\n");
    assert_eq!(machine.look(), QemuSearch::Gone);
    machine.status(guest(), PID, &[301, 302]);
    assert_eq!(machine.look(), RUNS);
    machine.status(guest(), PID, &[]);
    assert_eq!(machine.look(), RUNS);
    // Its number is another's by now, who has the same arguments.
    machine.status(guest(), PID, &[302]);
    assert_eq!(machine.look(), QemuSearch::Gone);
    machine.status(other(), PID, &[301]);
    assert_eq!(machine.look(), QemuSearch::Gone);
    machine.status(guest(), 299, &[301]);
    assert_eq!(machine.look(), QemuSearch::Gone);
    // A file that others may have written says nothing.
    machine.status(guest(), PID, &[301]);
    for (path, wrong, right) in
        [("/run/libvirt/qemu/win11.xml", 0o620, 0o600), ("/run/libvirt/qemu", 0o777, 0o755)]
    {
        machine.set(path, wrong);
        assert_eq!(machine.look(), QemuSearch::Gone, "{path}");
        machine.set(path, right);
    }
    assert_eq!(machine.look(), RUNS);
    let odd = QemuClues { name: "../qemu/win11", ..clues(guest(), None) };
    assert_eq!(machine.host().qemu_of(odd, soon()), QemuSearch::Gone);
}

#[test]
fn a_users_process_is_never_taken_for_qemu() {
    let at_home = "/user.slice/user-1000.slice/user@1000.service";
    let machine = Machine::with("");
    for cgroup in [
        "/user.slice/user-1000.slice/session-2.scope",
        &format!("{at_home}/app.slice/qemu.scope"),
        &format!(r"{at_home}/machine.slice/machine-qemu\x2d1\x2dwin11.scope/libvirt/emulator"),
        r"/machine.slice/machine-qemu\x2d1\x2dwin11.scope/libvirt/emulator",
        "/",
    ] {
        machine.process([ANNA; 3], cgroup);
        assert_eq!(machine.look(), QemuSearch::Gone, "{cgroup}");
        assert_eq!(machine.look_for_others(other()), QemuSearch::Gone, "{cgroup}");
    }
    let group =
        format!(r"/sys/fs/cgroup{at_home}/machine.slice/machine-qemu\x2d1\x2dwin11.scope/cgroup.procs");
    machine.add(&format!("{group} = {PID}\n"));
    assert_eq!(machine.look(), QemuSearch::Gone);
    // `passwd`, stopped before it has looked at its arguments, and `sudo`, which has made itself root's altogether.
    machine.process([ANNA, root(), root()], "/");
    assert_eq!(machine.look(), QemuSearch::Gone);
    machine.process([root(); 3], "/");
    machine.set("/proc/300/exe", 0o4755);
    assert_eq!(machine.look(), QemuSearch::Gone);
}

/// Nothing but the folder of a user's process is looked at: what it shows can be made to hang, and thousands of them
/// would take their time.
#[test]
fn a_users_process_cannot_keep_the_look_waiting() {
    let machine = Machine::with("");
    for pid in 301..1301 {
        let folder = machine.0.path().join(format!("proc/{pid}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("status"), "Uid:\t1000\t1000\t1000\t1000\n").unwrap();
        nix::unistd::mkfifo(&folder.join("cmdline"), Mode::S_IRWXU).unwrap();
    }
    assert_eq!(machine.look(), QemuSearch::Gone);
    machine.add(&qemu_process(2000, guest(), NAME));
    assert_eq!(machine.look(), QemuSearch::Runs(ProcessId { pid: 2000, start_time: 4242 }));
}

#[test]
fn without_groups_the_owner_tells() {
    for owner in [root(), 64055] {
        let machine = Machine::with("");
        machine.process([owner; 3], "/system.slice/libvirtd.service");
        assert_eq!(machine.look(), RUNS, "{owner}");
        assert_eq!(machine.look_for_others(other()), RUNS, "{owner}");
        // An executable that another user may have written.
        machine.set("/proc/300/exe", 0o775);
        assert_eq!(machine.look(), QemuSearch::Unknown, "{owner}");
        fs::remove_file(machine.0.path().join("proc/300/exe")).unwrap();
        assert_eq!(machine.look(), QemuSearch::Gone, "{owner}: it has ended");
    }
}

#[test]
fn a_person_that_qemu_runs_as_leaves_it_unknown() {
    let session = "/user.slice/user-1000.slice/session-2.scope";
    let daemons = "/system.slice/libvirtd.service";
    for (user, cgroup, expected) in [
        ("anna", daemons, QemuSearch::Unknown),
        ("+1000", daemons, QemuSearch::Unknown),
        ("1000", "/", QemuSearch::Unknown),
        ("anna", session, QemuSearch::Gone),
        ("qemu", daemons, QemuSearch::Gone),
    ] {
        let machine = Machine::with(&format!("/etc/libvirt/qemu.conf = user = \"{user}\"\n"));
        machine.process([ANNA; 3], cgroup);
        assert_eq!(machine.look(), expected, "{user} {cgroup}");
    }
    // In its group it is found all the same.
    let machine = Machine::with("/etc/libvirt/qemu.conf = user = \"anna\"\n");
    machine.process([ANNA; 3], daemons);
    machine.add(&format!("{}/libvirt/cgroup.procs = {PID}\n", qemu_scope(NAME)));
    assert_eq!(machine.look(), RUNS);
}

/// What cannot be read may hide one that runs, and hides none that is seen.
#[test]
fn what_cannot_be_read_leaves_it_unknown() {
    let scope = qemu_scope("other");
    for lines in [
        "/etc/libvirt/qemu.conf/no file/\n".to_owned(),
        "/proc/7 = no folder\n".to_owned(),
        "/proc/7/cmdline/no file/\n".to_owned(),
        format!("{scope}/cgroup.procs/no file/\n"),
        "/sys/fs/cgroup = no folder\n".to_owned(),
    ] {
        let machine = Machine::with(&lines);
        assert_eq!(machine.look(), QemuSearch::Unknown, "{lines}");
        if !lines.contains("/cgroup = ") {
            machine.add(&qemu_process(PID, guest(), NAME));
            assert_eq!(machine.look(), RUNS, "{lines}");
        }
    }
    assert!(QemuSearch::Unknown.may_run());
}

/// A pipe without a writer keeps its reader waiting, as the lock on a process's memory does.
#[test]
fn a_process_of_roots_that_hangs_leaves_it_unknown() {
    let machine = Machine::with(&qemu_process(PID, guest(), NAME));
    let hanging = machine.0.path().join("proc/200");
    fs::create_dir(&hanging).unwrap();
    nix::unistd::mkfifo(&hanging.join("cmdline"), Mode::S_IRWXU).unwrap();
    // What libvirt has made is looked at first.
    assert_eq!(machine.look(), RUNS);
    let host = machine.host();
    let short = || Deadline::after(Duration::from_millis(50));
    assert_eq!(host.qemu_of(clues(other(), None), short()), QemuSearch::Unknown);
    let own = QemuClues { guest: guest(), name: "", known: None };
    assert_eq!(host.qemu_of_others(own, Deadline::after(ONE_LOOK)), QemuSearch::Unknown);
}
