//! A host in a folder, guests for it, and what the kernel and libvirt do to them.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use vfio_hook::actions::GuestConfig;
use vfio_hook::config::ConfigSource;
use vfio_hook::deadline::Deadline;
use vfio_hook::event::Operation;
use vfio_hook::guest::{Guest, GuestUuid};
use vfio_hook::host::simulated::{Faults, qemu_process, qemu_scope};
use vfio_hook::host::{Host, STATE_DIR, manifest};
use vfio_hook::ledger::{FILE, Ledger, Note, Outcome, Record, SECOND};
use vfio_hook::lifecycle::{self, LifecycleError, LoadedConfig};

pub(crate) const HOSTS: &[&str] =
    &["ryzen-7950x", "two-nodes", "no-systemd", "cgroup-v1", "isolcpus", "no-cpufreq", "offline-cpu"];

/// The process of a guest, while it runs, and the name in that of its control group.
const QEMU: i32 = 4242;
const QEMU_NAME: &str = "guest";

/// What the files of a host hold.
pub(crate) type Files = BTreeMap<String, String>;

/// A host in a folder.
pub(crate) struct Machine {
    folder: TempDir,
    pub(crate) faults: Faults,
}

/// A guest and its YAML file.
pub(crate) struct Life {
    pub(crate) guest: Guest,
    pub(crate) loaded: LoadedConfig,
}

/// The program was killed.
#[derive(Debug)]
pub(crate) struct Killed;

impl Machine {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, "")
    }

    /// A host that also has what these lines of a manifest say.
    pub(crate) fn with(name: &str, lines: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = match name {
            "ryzen-7950x" => root.join("src/commands/demo/ryzen-7950x.host"),
            name => root.join(format!("tests/hosts/{name}.host")),
        };
        Self::from_manifest(&format!("{}\n{lines}", fs::read_to_string(path).unwrap()))
    }

    pub(crate) fn from_manifest(text: &str) -> Self {
        // Thousands of small files: in memory where the machine has such a folder.
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = tempfile::tempdir_in(parent).unwrap();
        manifest::lay_out(text, folder.path()).unwrap();
        Self { folder, faults: Faults::default() }
    }

    /// Another process' view of the same machine, without faults.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub(crate) fn host(&self) -> Host {
        Host::simulated(self.folder.path(), &self.faults)
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn get(&self, path: &str) -> String {
        fs::read_to_string(self.path(path))
            .unwrap_or_else(|error| panic!("{path}: {error}"))
            .trim()
            .to_owned()
    }

    pub(crate) fn number(&self, path: &str) -> u64 {
        self.get(path).parse().unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// What an administrator does with `echo`.
    pub(crate) fn set(&self, path: &str, value: &str) {
        assert!(self.path(path).exists(), "{path}");
        fs::write(self.path(path), format!("{value}\n")).unwrap();
    }

    pub(crate) fn prepare(&self, life: &Life) -> Result<Outcome, LifecycleError> {
        lifecycle::prepare(&mut self.host(), Some(&life.loaded), &life.guest, b"", soon())
    }

    pub(crate) fn start(&self, life: &Life) -> Result<(), LifecycleError> {
        lifecycle::start(&mut self.host(), life.guest.uuid, soon()).map(drop)
    }

    pub(crate) fn started(&self, life: &Life) -> Result<Vec<Note>, LifecycleError> {
        lifecycle::started(&mut self.host(), life.guest.uuid, Operation::Started, soon())
            .map(|outcome| outcome.notes)
    }

    pub(crate) fn stopped(&self, life: &Life) -> Result<Outcome, LifecycleError> {
        lifecycle::stopped(&mut self.host(), life.guest.uuid, "shutdown", soon())
    }

    pub(crate) fn release(&self, life: &Life) -> Result<Outcome, LifecycleError> {
        lifecycle::release(&mut self.host(), life.guest.uuid, "shutdown", soon())
    }

    /// What a guest's keeper does once it has been started for a lease that a killed process left: it gives the lease
    /// back, and ends.
    pub(crate) fn keeper_finishes(&self, life: &Life) {
        let uuid = life.guest.uuid;
        let keeper = self.path(&format!("/simulated/keepers/{uuid}"));
        if keeper.exists() {
            lifecycle::finish(&mut self.host(), uuid, "failed", None, soon()).unwrap();
            let _ = fs::remove_file(keeper);
        }
    }

    /// What `vfio-hook undo --stale` does first.
    pub(crate) fn open_and_close(&self) -> Outcome {
        let mut host = self.host();
        Ledger::open(&mut host, soon()).unwrap().recovered().clone()
    }

    /// Runs something that may be killed at a write; its process is dead then.
    pub(crate) fn until_killed<T>(&self, what: impl FnOnce() -> T) -> Result<T, Killed> {
        let outcome = catch_unwind(AssertUnwindSafe(what));
        outcome.map_err(|panic| {
            assert!(
                panic.downcast_ref::<String>().is_some_and(|text| text.starts_with("simulated panic")),
                "a real panic: {panic:?}"
            );
            self.faults.clear();
            self.forget_processes();
            Killed
        })
    }

    /// Makes the ledger's writers dead ones: this test's process is the one that "was killed".
    pub(crate) fn forget_processes(&self) {
        let Some(text) = self.keep_one_slot() else { return };
        let path = self.path(STATE_DIR).join(FILE);
        let mut ledger: serde_json::Value = serde_json::from_str(&text).unwrap();
        for lease in ledger["leases"].as_object_mut().unwrap().values_mut() {
            for phase in ["preparing", "giving-back"] {
                if let Some(process) = lease["phase"].get_mut(phase) {
                    process["start_time"] = 1.into();
                }
            }
        }
        fs::write(path, serde_json::to_vec(&ledger).unwrap()).unwrap();
    }

    pub(crate) fn record(&self) -> Option<Record> {
        Ledger::peek(&self.host()).unwrap()
    }

    /// Leaves one slot of the ledger, in the first one's place: its text.
    pub(crate) fn keep_one_slot(&self) -> Option<String> {
        let bytes = self.record()?.to_bytes();
        let _ = fs::remove_file(self.path(STATE_DIR).join(SECOND));
        fs::write(self.path(STATE_DIR).join(FILE), &bytes).unwrap();
        Some(String::from_utf8(bytes).unwrap())
    }

    pub(crate) fn has_ledger(&self) -> bool {
        self.path(STATE_DIR).join(FILE).exists()
    }

    /// All files but the program's own. How free memory lies does not count, its amount does.
    pub(crate) fn files(&self) -> Files {
        let mut files = Files::new();
        collect(self.folder.path(), self.folder.path(), &mut files);
        files.retain(|path, _| !path.starts_with(STATE_DIR));
        let layouts: Vec<String> =
            files.keys().filter(|path| path.ends_with("/simulated_fragmented_kB")).cloned().collect();
        for fragmented in layouts {
            let contiguous = fragmented.replace("fragmented", "contiguous");
            let kib = |text: Option<String>| text.unwrap().trim().parse::<u64>().unwrap();
            let sum = kib(files.remove(&fragmented)) + kib(files.remove(&contiguous));
            files.insert(fragmented.replace("fragmented", "free"), sum.to_string());
        }
        files
    }

    /// The host is what it was, and nothing is left to be done.
    #[track_caller]
    pub(crate) fn assert_is(&self, before: &Files, context: &str) {
        assert_same(&self.files(), before, context);
        assert!(!self.has_ledger(), "{context}: a ledger is left: {:#?}", self.record());
    }

    /// QEMU takes the pages that were set aside.
    pub(crate) fn qemu_runs(&self, uuid: GuestUuid) {
        manifest::lay_out(&qemu_process(QEMU, uuid, QEMU_NAME), self.folder.path()).unwrap();
    }

    pub(crate) fn qemu_is_gone(&self) {
        for folder in [format!("/proc/{QEMU}"), qemu_scope(QEMU_NAME)] {
            fs::remove_dir_all(self.path(&folder)).unwrap();
        }
    }

    pub(crate) fn qemu_takes_pages(&self, uuid: GuestUuid) -> Vec<(String, u64)> {
        let mut taken = Vec::new();
        let Some(record) = self.record() else { return taken };
        for (entry, share) in record.claims_of::<vfio_hook::ledger::PagePoolSize>(uuid) {
            let path = entry.setting.0.nr_hugepages_path();
            let folder = path.parent().unwrap().to_str().unwrap().to_owned();
            let free = format!("{folder}/free_hugepages");
            let then = self.number(&free).checked_sub(share.reserved).expect("QEMU found too few pages");
            self.set(&free, &then.to_string());
            taken.push((folder, share.reserved));
        }
        taken
    }

    /// QEMU gives its pages back to their pools; surplus ones go back to the kernel.
    pub(crate) fn qemu_exits(&self, taken: Vec<(String, u64)>) {
        for (folder, pages) in taken {
            let file = |name: &str| format!("{folder}/{name}_hugepages");
            let (nr, free, surplus) =
                (self.number(&file("nr")), self.number(&file("free")), self.number(&file("surplus")));
            let gone = surplus.min(pages);
            self.set(&file("nr"), &(nr - gone).to_string());
            self.set(&file("surplus"), &(surplus - gone).to_string());
            self.set(&file("free"), &(free + pages - gone).to_string());
            if gone > 0 {
                self.grow_free_memory(&folder, gone);
            }
        }
    }

    fn grow_free_memory(&self, pool: &str, pages: u64) {
        let pool = Path::new(pool);
        let size = pool.file_name().unwrap().to_str().unwrap();
        let kib: u64 = size.trim_start_matches("hugepages-").trim_end_matches("kB").parse().unwrap();
        let node = pool.ancestors().nth(2).unwrap().to_str().unwrap();
        let contiguous = format!("{node}/simulated_contiguous_kB");
        self.set(&contiguous, &(self.number(&contiguous) + pages * kib).to_string());
        for path in [format!("{node}/meminfo"), "/proc/meminfo".to_owned()] {
            let text = self.get(&path);
            let lines = text.lines().map(|line| match line.split_once(": ") {
                Some((name, rest)) if name.ends_with("MemFree") || name.ends_with("MemAvailable") => {
                    let before: u64 = rest.trim_end_matches(" kB").parse().unwrap();
                    format!("{name}: {} kB", before + pages * kib)
                }
                _ => line.to_owned(),
            });
            self.set(&path, &lines.collect::<Vec<_>>().join("\n"));
        }
    }
}

fn collect(root: &Path, folder: &Path, files: &mut Files) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let content = match kind {
            kind if kind.is_dir() => {
                collect(root, &path, files);
                continue;
            }
            kind if kind.is_symlink() => format!("-> {}", fs::read_link(&path).unwrap().display()),
            kind if kind.is_file() => fs::read_to_string(&path).unwrap(),
            _ => continue,
        };
        let on_host = Path::new("/").join(path.strip_prefix(root).unwrap());
        files.insert(on_host.to_str().unwrap().to_owned(), content);
    }
}

#[track_caller]
pub(crate) fn assert_same(now: &Files, before: &Files, context: &str) {
    let paths: std::collections::BTreeSet<_> = now.keys().chain(before.keys()).collect();
    let different: Vec<_> = paths
        .into_iter()
        .filter(|path| now.get(*path) != before.get(*path))
        .map(|path| format!("{path}: was {:?}, is {:?}", before.get(path), now.get(path)))
        .collect();
    assert!(different.is_empty(), "{context}: the host differs:\n{}", different.join("\n"));
}

/// Time enough for anything a test does.
pub(crate) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

/// A guest: its CPUs (a vCPU each), and what its XML says of memory.
pub(crate) fn guest(number: u8, cpus: &str, memory: &str) -> Guest {
    let cpus: vfio_hook::cpuset::CpuSet = cpus.parse().unwrap();
    let pins: String = (0..)
        .zip(cpus.iter())
        .map(|(vcpu, cpu)| format!("<vcpupin vcpu='{vcpu}' cpuset='{cpu}'/>"))
        .collect();
    let memory = if memory.is_empty() { "<memory unit='MiB'>512</memory>" } else { memory };
    let xml = format!(
        "<domain type='kvm'><name>guest{number}</name>\
         <uuid>00000000-0000-4000-8000-0000000000{number:02x}</uuid>{memory}\
         <vcpu>{}</vcpu><cputune>{pins}</cputune></domain>",
        cpus.len().max(1)
    );
    Guest::parse(xml.as_bytes()).unwrap()
}

/// So many pages of 2 MiB, from anywhere.
pub(crate) fn pages(count: u64) -> String {
    format!("<memory unit='KiB'>{}</memory><memoryBacking><hugepages/></memoryBacking>", count * 2048)
}

/// So many pages of 2 MiB from one node, and no other.
pub(crate) fn pages_on(count: u64, node: u32) -> String {
    format!("{}<numatune><memory mode='strict' nodeset='{node}'/></numatune>", pages(count))
}

pub(crate) fn config(yaml: &str) -> LoadedConfig {
    let source = ConfigSource::new("/etc/vfio-hook/hooks.d/guest.yaml", yaml);
    let config = GuestConfig::read(&source).unwrap_or_else(|errors| panic!("{errors}"));
    LoadedConfig::of_file(source, config)
}

pub(crate) fn life(guest: Guest, yaml: &str) -> Life {
    Life { guest, loaded: config(yaml) }
}

/// A guest that wants everything a host has to give.
pub(crate) fn greedy(machine: &Machine, number: u8, cpus: &str, page_count: u64) -> Life {
    let mut power = "isolate_cpus: {}\ncpu_power: {resume_latency: 20us".to_owned();
    if machine.path("/sys/devices/system/cpu/cpu2/cpufreq").exists() {
        power.push_str(", governor: performance");
    }
    let mut yaml = format!("{power}}}\nhugepages: {{}}\n");
    if machine.path("/simulated/logind").exists() {
        yaml.push_str("block_sleep: {strength: mask, lid: ignore}\n");
    }
    if machine.path("/simulated/systemd/ollama.service").exists() {
        yaml.push_str("services: {stop: ollama.service}\n");
    }
    life(guest(number, cpus, &pages(page_count)), &yaml)
}

/// Two guests come and go, the first one first, and the program is killed at each write of that in turn: whatever comes by
/// afterwards, the host is what it was.
pub(crate) fn killed_at_every_write(machine: &Machine, before: &Files, lives: &[Life; 2]) {
    for nth in 1.. {
        machine.faults.panic_at_write(nth);
        let lived = machine.until_killed(|| {
            for life in lives {
                machine.prepare(life).unwrap();
                machine.started(life).unwrap();
            }
            for life in lives {
                machine.release(life).unwrap();
            }
        });
        machine.faults.clear();
        machine.forget_processes();
        if nth % 2 == 0 {
            machine.open_and_close();
        }
        for life in lives {
            machine.release(life).unwrap();
        }
        machine.assert_is(before, &format!("killed at write {nth}"));
        if lived.is_ok() {
            assert!(nth > 20, "{nth}");
            return;
        }
    }
}
