//! A keeper on a host in a folder.

mod no_thread;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};

use nix::errno::Errno;

use super::*;
use crate::host::simulated::{Faults, kernel_thread, qemu_process};
use crate::lifecycle::testing::{GUEST, Machine, soon};

const LEDGER: &str = "/run/vfio-hook/ledger.json";
const SLEEP: &str = "sleep";

/// A guest that runs, with a process of this machine's for its QEMU, and its keeper.
struct Guest {
    machine: Machine,
    faults: Faults,
    qemu: Child,
    keeper: Keeper,
    host: Host,
    hours: u32,
}

/// How a ledger cannot be read.
#[derive(Clone, Copy, Debug)]
enum Unreadable {
    Refused(Errno),
    Holds(&'static str),
}

const UNREADABLE: [Unreadable; 5] = [
    Unreadable::Refused(Errno::EMFILE),
    Unreadable::Refused(Errno::EIO),
    Unreadable::Refused(Errno::EACCES),
    Unreadable::Holds("{\"format\": 999, \"leases\": \"elsewhere\"}"),
    Unreadable::Holds("{\"format\": 3, \"leases\": {"),
];

fn host(machine: &Machine, faults: &Faults) -> Host {
    Host::simulated(machine.0.path(), faults)
}

fn host_source(machine: &Machine, faults: &Faults) -> HostSource {
    let (root, other) = (machine.0.path().to_owned(), faults.clone());
    Arc::new(move || Host::simulated(&root, &other))
}

fn keeper(machine: &Machine, faults: &Faults) -> Keeper {
    let hosts = host_source(machine, faults);
    let mut host = host(machine, faults);
    let name = name_of(&host, GUEST);
    Keeper::new(&mut host, GUEST, name, hosts).unwrap()
}

impl Guest {
    fn runs() -> Self {
        Self::runs_with("gpu: { return_to: host-if-clean }\n")
    }

    fn runs_with(yaml: &str) -> Self {
        let thread = kernel_thread(15, "rcu_preempt", 0, "0-31");
        let machine = Machine::with(&format!("/dev/cpu_dma_latency =\n{thread}"));
        machine.prepare_as(yaml).unwrap();
        let qemu = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = i32::try_from(qemu.id()).unwrap();
        machine.add(&qemu_process(pid, GUEST, "win11"));
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        machine.add(&format!("/proc/{pid}/stat = {}\n", stat.trim_end()));
        let faults = Faults::default();
        let mut host = host(&machine, &faults);
        lifecycle::started(&mut host, GUEST, Operation::Started, soon()).unwrap();
        let mut keeper = keeper(&machine, &faults);
        assert_eq!(keeper.subject.qemu(), Some(pid));
        keeper.held.sleep_lock(&host, Some(SLEEP.to_owned())).unwrap();
        keeper.held.cpu_dma_latency(&host, Some(20)).unwrap();
        let mut guest = Self { machine, faults, qemu, keeper, host, hours: 0 };
        guest.settle();
        guest
    }

    /// The keeper answers what there is, until it has nothing at hand.
    fn settle(&mut self) {
        while !self.keeper.work.is_idle() {
            self.keeper.wait(&mut self.host).unwrap();
        }
    }

    fn ledger(&self) -> PathBuf {
        self.machine.path(LEDGER)
    }

    fn breaks_ledger(&self, how: Unreadable) {
        match how {
            Unreadable::Refused(errno) => self.faults.refuse_read(LEDGER, errno),
            Unreadable::Holds(text) => {
                self.machine.write(self.machine.record());
                fs::copy(self.ledger(), self.machine.path("/kept")).unwrap();
                fs::write(self.ledger(), text).unwrap();
            }
        }
    }

    fn repairs_ledger(&self, how: Unreadable) {
        match how {
            Unreadable::Refused(_) => self.faults.clear(),
            Unreadable::Holds(_) => fs::rename(self.machine.path("/kept"), self.ledger()).unwrap(),
        }
    }

    fn qemu_ends(&mut self) {
        let pid = self.qemu.id();
        self.qemu.kill().unwrap();
        self.qemu.wait().unwrap();
        fs::remove_dir_all(self.machine.path(&format!("/proc/{pid}"))).unwrap();
        // It is told by the process's descriptor.
        self.keeper.wait(&mut self.host).unwrap();
    }

    /// As much later as a timer can be.
    fn much_later(&mut self) {
        self.hours += 1;
        self.keeper.timers(&self.host, Instant::now() + self.hours * Duration::from_secs(3600));
    }

    #[track_caller]
    fn assert_keeps_everything(&self, context: &str) {
        let keeper = &self.keeper;
        assert!(!keeper.is_leaving && keeper.work.is_idle(), "{context}");
        assert!(keeper.ledger.is_unknown(), "{context}");
        assert_eq!(keeper.held.sleep_lock_words().as_deref(), Some(SLEEP), "{context}");
        assert_eq!(keeper.held.cpu_dma_latency_micros(), Some(20), "{context}");
        assert_eq!(driver(&self.machine), "vfio-pci", "{context}");
        // A hook may ask it still.
        assert!(self.machine.path(&keeper_socket(GUEST).display().to_string()).exists(), "{context}");
    }

    #[track_caller]
    fn assert_gives_everything_back(&mut self, context: &str) {
        let deadline = soon();
        while !(self.keeper.is_leaving && self.keeper.work.is_idle()) {
            assert!(!deadline.has_passed(), "{context}");
            self.keeper.wait(&mut self.host).unwrap();
        }
        assert!(!self.ledger().exists(), "{context}: {}", fs::read_to_string(self.ledger()).unwrap());
        assert_eq!(driver(&self.machine), "amdgpu", "{context}");
        assert_eq!(self.keeper.held.sleep_lock_words(), None, "{context}");
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn driver(machine: &Machine) -> String {
    let link = fs::read_link(machine.path("/sys/bus/pci/devices/0000:03:00.0/driver")).unwrap();
    link.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn what_cannot_be_read_is_kept_until_it_can_after_libvirt_has_said_so() {
    for how in UNREADABLE {
        let context = format!("{how:?}");
        let mut guest = Guest::runs();
        guest.breaks_ledger(how);
        guest.qemu_ends();
        guest.assert_keeps_everything(&context);
        guest.much_later();
        guest.assert_keeps_everything(&context);
        guest.keeper.told_to_look(&guest.host);
        guest.keeper.give_back(&guest.host, "shutdown".to_owned(), None);
        guest.much_later();
        guest.assert_keeps_everything(&context);
        guest.repairs_ledger(how);
        guest.much_later();
        guest.assert_gives_everything_back(&context);
        assert_eq!(guest.keeper.reason, "shutdown");
    }
}

#[test]
fn what_cannot_be_read_is_kept_until_it_can_where_libvirt_says_nothing() {
    for how in UNREADABLE {
        let context = format!("{how:?}");
        let mut guest = Guest::runs();
        guest.breaks_ledger(how);
        guest.qemu_ends();
        guest.much_later();
        guest.assert_keeps_everything(&context);
        guest.repairs_ledger(how);
        // It reads the ledger again, and then gives libvirt its time.
        guest.much_later();
        guest.settle();
        assert!(!guest.keeper.is_leaving && guest.keeper.give_back_at.is_some(), "{context}");
        guest.much_later();
        guest.assert_gives_everything_back(&context);
        assert_eq!(guest.keeper.reason, "unknown");
    }
}

/// In the middle of giving back the ledger cannot be read any more: the rest follows once it can, for the same reason.
#[test]
fn one_that_cannot_go_on_giving_back_does_so_later() {
    let mut guest = Guest::runs();
    guest.qemu_ends();
    let faults = guest.faults.clone();
    guest.faults.interrupt("/sys/bus/pci/drivers/vfio-pci/unbind", move || {
        faults.refuse_read(LEDGER, Errno::EMFILE);
    });
    guest.keeper.give_back(&guest.host, "crashed".to_owned(), None);
    guest.settle();
    assert!(!guest.keeper.is_leaving && guest.keeper.ledger.is_unknown());
    assert_eq!(guest.keeper.held.sleep_lock_words().as_deref(), Some(SLEEP));
    guest.faults.clear();
    guest.much_later();
    guest.assert_gives_everything_back("given back");
    assert_eq!(guest.keeper.reason, "crashed");
}

#[test]
fn a_successor_that_cannot_read_the_ledger_waits_for_it() {
    let mut guest = Guest::runs();
    let pid = guest.keeper.subject.qemu();
    guest.faults.refuse_read(LEDGER, Errno::EMFILE);
    // Its predecessor was killed.
    fs::remove_file(guest.machine.path("/run/vfio-hook").join(keeper_lock(GUEST))).unwrap();
    guest.keeper = keeper(&guest.machine, &guest.faults);
    let keeper = &guest.keeper;
    assert!(!keeper.is_leaving && keeper.ledger.is_unknown());
    assert_eq!(keeper.name, GUEST.to_string());
    guest.faults.clear();
    guest.much_later();
    assert_eq!(guest.keeper.name, "win11");
    assert_eq!(guest.keeper.subject.qemu(), pid);
    guest.settle();
    assert!(!guest.keeper.is_leaving);
}

#[test]
fn what_a_sleep_has_undone_is_set_again_but_not_what_an_administrator_has_chosen() {
    const GOVERNOR: &str = "/sys/devices/system/cpu/cpu2/cpufreq/scaling_governor";
    let mut guest = Guest::runs_with("isolate_cpus: { cpus: '2-3' }\ncpu_power: { governor: performance }\n");
    let path = guest.machine.path(GOVERNOR);
    let governor = || fs::read_to_string(&path).unwrap().trim().to_owned();
    assert_eq!(governor(), "performance");
    let set = |value: &str| fs::write(&path, format!("{value}\n")).unwrap();
    let after = |guest: &mut Guest, notice: Notice, later: u64| {
        guest.keeper.noticed(&mut guest.host, notice);
        guest.keeper.timers(&guest.host, Instant::now() + Duration::from_millis(later));
        guest.settle();
    };
    set("powersave");
    after(&mut guest, Notice::SystemdReloaded, 5000);
    assert_eq!(governor(), "powersave", "nothing but a CPU that comes back undoes it");
    after(&mut guest, Notice::HostWokeUp, 0);
    assert_eq!(governor(), "powersave", "others may follow");
    after(&mut guest, Notice::HostWokeUp, 5000);
    assert_eq!(governor(), "performance");
    assert_eq!(guest.keeper.cpus_came_back.due(), None);

    set("schedutil");
    after(&mut guest, Notice::HostWokeUp, 5000);
    assert_eq!(governor(), "schedutil");
}

/// One that cannot be read when they come back is tried again.
#[test]
fn what_cannot_be_set_again_after_a_sleep_is_tried_again() {
    const GOVERNOR: &str = "/sys/devices/system/cpu/cpu2/cpufreq/scaling_governor";
    let mut guest = Guest::runs_with("isolate_cpus: { cpus: '2-3' }\ncpu_power: { governor: performance }\n");
    let path = guest.machine.path(GOVERNOR);
    fs::write(&path, "powersave\n").unwrap();
    guest.faults.refuse(GOVERNOR, Errno::EIO);
    guest.keeper.noticed(&mut guest.host, Notice::HostWokeUp);
    guest.much_later();
    guest.settle();
    assert!(guest.keeper.cpus_came_back.due().is_some());
    guest.faults.clear();
    guest.much_later();
    guest.settle();
    assert_eq!(fs::read_to_string(&path).unwrap().trim(), "performance");
    assert_eq!(guest.keeper.cpus_came_back.due(), None);
}

/// Also where a guest has moved nothing else, interrupts least of all.
#[test]
fn threads_of_the_kernel_that_come_later_are_moved_too() {
    let yaml = "isolate_cpus: { cpus: '2-3', units: false, irqs: false, workqueues: false }\n";
    let mut guest = Guest::runs_with(yaml);
    guest.machine.add(&kernel_thread(99, "xfsaild/sda1", 0, "0-31"));
    guest.much_later();
    guest.settle();
    for pid in [15, 99] {
        let status = fs::read_to_string(guest.machine.path(&format!("/proc/{pid}/status"))).unwrap();
        assert!(status.contains("Cpus_allowed_list: 0-1,4-31\n"), "{status}");
    }
}

#[test]
fn one_whose_guest_holds_nothing_leaves() {
    let machine = Machine::new();
    assert!(keeper(&machine, &Faults::default()).is_leaving);
    let hosts: HostSource = Arc::new(Host::real);
    serve(&mut host(&machine, &Faults::default()), GUEST, "win11", &hosts).unwrap();
}
