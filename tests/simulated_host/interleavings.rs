//! Guests come and go in any order, writes fail, programs are killed, and an administrator changes things in between.
//!
//! The law: when all guests are gone the host is what it was, but for what the administrator changed, which is as he
//! left it. While guests are there, no unit may use their CPUs, and their pages are in the pools.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use vfio_hook::cpuset::CpuSet;
use vfio_hook::host::simulated::{Faults, SimulatedKernel};
use vfio_hook::host::{AllowedCpus, DropIn, Host, UnitName};
use vfio_hook::ledger::PagePoolSize;

use crate::support::{Files, Life, Machine, guest, life, pages, pages_on, soon};

const UNITS: [&str; 3] = ["init.scope", "system.slice", "user.slice"];

/// What goes wrong during an event.
#[derive(Clone, Debug)]
enum Trouble {
    None,
    /// These writes fail.
    Writes(BTreeSet<usize>),
    /// No interrupt can be moved for the time being.
    Interrupts,
    /// The program is killed at this write.
    Kill(usize),
}

#[derive(Clone, Debug)]
enum Step {
    Prepare(usize, Trouble),
    Started(usize),
    Release(usize, Trouble),
    AnyCall(Trouble),
    Administrator(Whim),
}

/// What an administrator changes, to values that no guest brings about.
#[derive(Clone, Debug)]
enum Whim {
    Governor(u32, &'static str),
    AllowedCpus(&'static str, &'static str),
    Interrupt(u32, &'static str),
    MorePages(u32, u64),
}

/// How far libvirt is with a guest.
enum Stage {
    Off,
    Prepared,
    Runs(Vec<(String, u64)>),
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        4 => Just(Trouble::None),
        2 => prop::collection::btree_set(1_usize..45, 1..4).prop_map(Trouble::Writes),
        1 => Just(Trouble::Interrupts),
        3 => (1_usize..45).prop_map(Trouble::Kill),
    ]
}

fn whim() -> impl Strategy<Value = Whim> {
    prop_oneof![
        (2_u32..7, prop::sample::select(vec!["ondemand", "conservative"]))
            .prop_map(|(cpu, governor)| Whim::Governor(cpu, governor)),
        (prop::sample::select(UNITS.to_vec()), prop::sample::select(vec!["0", "1", "0-7"]))
            .prop_map(|(unit, cpus)| Whim::AllowedCpus(unit, cpus)),
        (prop::sample::select(vec![30_u32, 32]), prop::sample::select(vec!["0", "1"]))
            .prop_map(|(number, cpus)| Whim::Interrupt(number, cpus)),
        (0_u32..2, 1_u64..6).prop_map(|(node, count)| Whim::MorePages(node, count)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0_usize..3, trouble()).prop_map(|(guest, trouble)| Step::Prepare(guest, trouble)),
        3 => (0_usize..3).prop_map(Step::Started),
        4 => (0_usize..3, trouble()).prop_map(|(guest, trouble)| Step::Release(guest, trouble)),
        1 => trouble().prop_map(Step::AnyCall),
        2 => whim().prop_map(Step::Administrator),
    ]
}

struct World {
    machine: Machine,
    lives: [Life; 3],
    stages: [Stage; 3],
    start: Files,
    /// Files that the administrator changed, as he left them.
    decrees: BTreeMap<String, String>,
    /// Pages that he added, by node.
    added: BTreeMap<u32, u64>,
}

impl World {
    fn new() -> Self {
        let machine = Machine::new("two-nodes");
        // Some of the memory has to be gathered.
        machine.set("/sys/devices/system/node/node0/simulated_contiguous_kB", &(25 * 2048).to_string());
        let isolate = "isolate_cpus: {shared: true}\ncpu_power: {governor: performance}";
        let lives = [
            life(guest(1, "2-3", &pages_on(30, 0)), &format!("{isolate}\nhugepages: {{}}")),
            life(guest(2, "4-5", &pages(40)), &format!("{isolate}\nhugepages: {{}}")),
            life(guest(3, "5-6", ""), "isolate_cpus: {shared: true}\ncpu_power: {resume_latency: none}"),
        ];
        let start = machine.files();
        let stages = [Stage::Off, Stage::Off, Stage::Off];
        Self { machine, lives, stages, start, decrees: BTreeMap::new(), added: BTreeMap::new() }
    }

    /// Runs an event in which something goes wrong; none where the program was killed.
    fn event<T>(&self, trouble: &Trouble, what: impl FnOnce(&Machine) -> T) -> Option<T> {
        let faults = &self.machine.faults;
        match trouble {
            Trouble::None => {}
            Trouble::Writes(which) => faults.fail_writes(which.iter().copied()),
            Trouble::Interrupts => {
                for number in [9, 30, 31, 32, 33, 34] {
                    faults.refuse(format!("/proc/irq/{number}/smp_affinity_list"), Errno::EIO);
                }
            }
            Trouble::Kill(nth) => faults.panic_at_write(*nth),
        }
        let outcome = self.machine.until_killed(|| what(&self.machine)).ok();
        faults.clear();
        // A program that failed has ended, too.
        self.machine.forget_processes();
        outcome
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Prepare(index, trouble) => {
                if matches!(self.stages[*index], Stage::Runs(_)) {
                    return;
                }
                let life = &self.lives[*index];
                let prepared = self.event(trouble, |machine| machine.prepare(life));
                let is_prepared = matches!(prepared, Some(Ok(_)));
                if matches!(trouble, Trouble::None | Trouble::Interrupts) {
                    assert!(is_prepared, "{prepared:?}");
                }
                self.stages[*index] = if is_prepared { Stage::Prepared } else { Stage::Off };
            }
            Step::Started(index) => {
                if matches!(self.stages[*index], Stage::Prepared) {
                    let life = &self.lives[*index];
                    self.machine.start(life).unwrap();
                    let taken = self.machine.qemu_takes_pages(life.guest.uuid);
                    self.machine.started(life).unwrap();
                    self.stages[*index] = Stage::Runs(taken);
                }
            }
            Step::Release(index, trouble) => {
                if let Stage::Runs(taken) = std::mem::replace(&mut self.stages[*index], Stage::Off) {
                    self.machine.qemu_exits(taken);
                }
                let life = &self.lives[*index];
                self.event(trouble, |machine| machine.release(life).is_ok());
            }
            Step::AnyCall(trouble) => {
                self.event(trouble, |machine| {
                    let mut host = machine.host();
                    vfio_hook::ledger::Ledger::open(&mut host, soon()).is_ok()
                });
            }
            Step::Administrator(whim) => self.administer(whim),
        }
    }

    fn administer(&mut self, whim: &Whim) {
        let kernel = SimulatedKernel::new(self.machine.root(), Faults::default());
        match whim {
            Whim::Governor(cpu, governor) => {
                let path = format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
                kernel.write(&path, governor).unwrap();
                self.decree(path);
            }
            Whim::Interrupt(number, cpus) => {
                let path = format!("/proc/irq/{number}/smp_affinity_list");
                kernel.write(&path, cpus).unwrap();
                self.decree(path);
            }
            Whim::AllowedCpus(unit, cpus) => {
                let mut host = Host::simulated(&self.machine.root(), &Faults::default());
                let value = AllowedCpus { cpus: cpus.parse().unwrap(), drop_in: DropIn::Present };
                host.set_allowed_cpus(&UnitName::new(unit).unwrap(), &value, soon()).unwrap();
                self.decree(format!("/simulated/systemd/{unit}/AllowedCPUs"));
                self.decree(format!("/sys/fs/cgroup/{unit}/cpuset.cpus.effective"));
                let folder = if *unit == "init.scope" { "transient" } else { "system.control" };
                self.decree(format!("/run/systemd/{folder}/{unit}.d/50-AllowedCPUs.conf"));
            }
            Whim::MorePages(node, _) if self.is_changing(*node) => {}
            Whim::MorePages(node, count) => {
                let folder = pool(*node);
                let persistent = self.machine.number(&format!("{folder}/nr_hugepages"))
                    - self.machine.number(&format!("{folder}/surplus_hugepages"));
                let before = self.machine.number(&format!("{folder}/nr_hugepages"));
                kernel.write(format!("{folder}/nr_hugepages"), &(persistent + count).to_string()).unwrap();
                let got = self.machine.number(&format!("{folder}/nr_hugepages")) - before;
                *self.added.entry(*node).or_default() += got;
            }
        }
    }

    /// Whether a program was killed while it changed a pool: pages that an administrator adds before the next event cannot
    /// be told from those it had got so far, or had not taken away yet.
    fn is_changing(&self, node: u32) -> bool {
        let record = self.machine.record();
        let mut entries = record.iter().flat_map(|record| record.each::<PagePoolSize>());
        entries.any(|entry| entry.setting.0.node == node && entry.pending().is_some())
    }

    fn decree(&mut self, path: String) {
        let text = self.machine.files().remove(&path).unwrap();
        self.decrees.insert(path, text);
    }

    fn check(&self) {
        let record = self.machine.record();
        for (stage, life) in self.stages.iter().zip(&self.lives) {
            if matches!(stage, Stage::Off) {
                continue;
            }
            let record = record.as_ref().expect("a guest without a ledger");
            assert!(record.leases.contains_key(&life.guest.uuid), "{} lost its lease", life.guest.name);
            for unit in UNITS {
                let path = format!("/simulated/systemd/{unit}/AllowedCPUs");
                let allowed: CpuSet = self.machine.get(&path).parse().unwrap();
                let is_free = self.decrees.contains_key(&path);
                let both = allowed.intersection(&life.guest.pinned_cpus());
                assert!(is_free || (!allowed.is_empty() && both.is_empty()), "{unit} may use {both}");
            }
        }
        for node in 0..2 {
            self.check_pool(node);
        }
    }

    fn check_pool(&self, node: u32) {
        let folder = pool(node);
        let file = |name: &str| self.machine.number(&format!("{folder}/{name}_hugepages"));
        let baseline = if node == 0 { 7 } else { 0 } + self.added.get(&node).copied().unwrap_or(0);
        let (mut added, mut waiting) = (0, 0);
        for (stage, life) in self.stages.iter().zip(&self.lives) {
            let Some(record) = self.machine.record() else { continue };
            for (entry, share) in record.claims_of::<PagePoolSize>(life.guest.uuid) {
                if entry.setting.0.node != node {
                    continue;
                }
                match stage {
                    Stage::Off => continue,
                    Stage::Prepared => waiting += share.set_aside(),
                    Stage::Runs(_) => {}
                }
                added += share.added;
            }
        }
        let persistent = file("nr") - file("surplus");
        assert!(persistent >= baseline + added, "node {node}: {persistent} < {baseline} + {added}");
        assert!(file("free") >= waiting, "node {node}: {} free, {waiting} reserved", file("free"));
    }

    /// All guests leave without trouble.
    fn end(mut self) {
        for index in 0..self.lives.len() {
            self.take(&Step::Release(index, Trouble::None));
        }
        self.machine.open_and_close();
        self.machine.useless_keepers_leave();
        let kernel = SimulatedKernel::new(self.machine.root(), Faults::default());
        for (node, added) in &self.added {
            let nr = format!("{}/nr_hugepages", pool(*node));
            let left = self.machine.number(&nr).checked_sub(*added).expect("the administrator's pages");
            kernel.write(&nr, &left.to_string()).unwrap();
        }
        let mut expected = self.start;
        expected.extend(self.decrees);
        self.machine.assert_is(&expected, "all are gone");
    }
}

fn pool(node: u32) -> String {
    format!("/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB")
}

fn config() -> Config {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    Config {
        // More of both by hand, to look for what nobody thought of.
        cases: number("SIMULATED_HOST_CASES").map_or(48, |cases| cases as u32),
        rng_seed: RngSeed::Fixed(number("SIMULATED_HOST_SEED").unwrap_or(7950)),
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_host_comes_back(steps in prop::collection::vec(step(), 1..16)) {
        live_through(&steps);
    }
}

fn live_through(steps: &[Step]) {
    let mut world = World::new();
    for step in steps {
        world.take(step);
        world.check();
    }
    world.end();
}

/// What chance found once.
#[test]
fn found_before() {
    let prepare = Step::Prepare;
    let writes = |which: &[usize]| Trouble::Writes(which.iter().copied().collect());
    let cases = [
        vec![prepare(0, Trouble::Kill(5)), prepare(1, Trouble::Interrupts)],
        vec![prepare(0, writes(&[14, 31])), Step::Administrator(Whim::MorePages(0, 1))],
        vec![
            prepare(0, Trouble::None),
            prepare(0, writes(&[4, 16])),
            prepare(1, Trouble::None),
            prepare(1, Trouble::None),
        ],
        vec![prepare(0, Trouble::Kill(7)), prepare(1, Trouble::None), Step::AnyCall(Trouble::None)],
        vec![prepare(0, writes(&[5])), prepare(0, Trouble::Interrupts)],
    ];
    for steps in cases {
        live_through(&steps);
    }
}
