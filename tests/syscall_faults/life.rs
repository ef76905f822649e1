//! A guest's life as libvirt leads it, with one fault on the way, and what is to hold of it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use vfio_hook::event::{FailureEffect, Operation};

use crate::sandbox::{Answer, Sandbox, UUID};
use crate::tracer::{self, Fault, HookEnd, Key, Order, Seen, Traced, When};

/// A life without trouble.
pub(crate) const LIFE: [Operation; 6] = [
    Operation::Prepare,
    Operation::Start,
    Operation::Started,
    Operation::Reconnect,
    Operation::Stopped,
    Operation::Release,
];

/// What a busy machine and the tracer may add to an event's time.
const SLACK: Duration = Duration::from_secs(3);

/// How long libvirt may be kept waiting, as this test measures it.
pub(crate) fn longest(event: Operation) -> Duration {
    let budget = match event {
        // The guest has scripts, and one of them may be for it.
        Operation::Start => Operation::Prepare.budget(),
        event => event.budget(),
    };
    budget + SLACK
}

/// The longest wait for the keeper to give everything back: it tries again after 10 s.
const GIVES_BACK: Duration = Duration::from_secs(45);

/// How long the keeper is followed after the answer.
fn linger(event: Operation) -> Duration {
    match event {
        // Its first look for interrupts comes after a second.
        Operation::Started => Duration::from_millis(1500),
        // Till it ends, in fact.
        Operation::Release => Duration::from_secs(5),
        _ => Duration::from_millis(300),
    }
}

/// A fault in a life.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) event: Operation,
    pub(crate) key: Key,
    pub(crate) when: When,
    pub(crate) fault: Fault,
}

/// What came of a case.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Whether the call was made at all, and so failed.
    pub(crate) was_made: bool,
    /// How long the event took.
    pub(crate) took: Duration,
    /// What must not be.
    pub(crate) failures: Vec<String>,
    /// Whether a person had to give back what was left.
    pub(crate) help: Option<Help>,
    /// What the program left in its own folder.
    pub(crate) litter: Vec<String>,
    /// What it said.
    pub(crate) log: Vec<String>,
}

/// What a person had to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Help {
    /// The card was taken for dead.
    ClearCard,
    UndoStale,
    AnotherLife,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { who, call, place, occurrence } = &self.key;
        write!(f, "{} {who} {call} {place}", self.event.as_str())?;
        if *occurrence > 0 {
            write!(f, " #{occurrence}")?;
        }
        match self.fault {
            Fault::Fails(errno) => write!(f, " {errno:?}"),
            Fault::Late(time) => write!(f, " late by {} s", time.as_secs()),
        }
    }
}

/// All calls of a life in which nothing fails.
pub(crate) fn record() -> Vec<(Operation, Vec<Seen>)> {
    let mut life = Life::new();
    let mut calls = Vec::new();
    for event in LIFE {
        life.before(event);
        let (traced, answer) = life.traced(event, "-", None, linger(event));
        assert_eq!(traced.end, HookEnd::Exited(0), "{}: {}\n{}", event.as_str(), text(&answer), life.log());
        calls.push((event, traced.seen));
    }
    let mut report = Report::default();
    life.end(&mut report);
    assert!(report.failures.is_empty() && report.help.is_none(), "{report:#?}\n{}", life.log());
    calls
}

/// Runs a life with a fault.
pub(crate) fn run(case: &Case) -> Report {
    let mut life = Life::new();
    let mut report = Report::default();
    let mut is_refused = false;
    for event in LIFE {
        if is_refused && !matches!(event, Operation::Stopped | Operation::Release) {
            continue;
        }
        if !is_refused {
            life.before(event);
        }
        let reason = if is_refused { "failed" } else { "-" };
        let answer = if event == case.event {
            let linger = if case.when == When::AfterAnswer { linger(event) * 4 } else { Duration::ZERO };
            let (traced, answer) = life.traced(event, reason, Some((&case.key, case.fault)), linger);
            report.was_made = traced.was_made;
            report.took = traced.took;
            judge(event, &traced, answer.as_ref(), &mut report);
            answer
        } else {
            life.untraced(event, reason)
        };
        let Some(answer) = answer else {
            report.failures.push(format!("{} does not end, or its pipes stay open", event.as_str()));
            report.log = life.lines();
            return report;
        };
        if event != case.event && answer.status != 0 {
            report.failures.push(format!(
                "after it, {} ends with {}: {}",
                event.as_str(),
                answer.status,
                answer.text()
            ));
        }
        is_refused |= answer.status != 0 && event.failure_effect() == FailureEffect::RefusesStart;
        if event == Operation::Prepare && answer.status != 0 {
            // libvirt goes on as after a guest that ended.
            is_refused = true;
        }
    }
    life.end(&mut report);
    report.log = life.lines();
    report
}

fn judge(event: Operation, traced: &Traced, answer: Option<&Answer>, report: &mut Report) {
    if traced.took > longest(event) {
        report.failures.push(format!("the answer took {:.1} s", traced.took.as_secs_f64()));
    }
    let may_refuse = event.failure_effect() == FailureEffect::RefusesStart;
    match traced.end {
        HookEnd::Exited(0) => {}
        HookEnd::Exited(1) if may_refuse => {}
        HookEnd::Exited(status) => report.failures.push(format!("it ended with exit status {status}")),
        HookEnd::Killed(signal) => report.failures.push(format!("it was ended by {signal}")),
        HookEnd::Hangs => report.failures.push("it hangs".to_owned()),
    }
    if let Some(answer) = answer
        && !answer.stdout.is_empty()
    {
        let text = String::from_utf8_lossy(&answer.stdout);
        report.failures.push(format!("on standard output: {text}"));
    }
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end().to_owned()
    }
}

fn text(answer: &Option<Answer>) -> String {
    answer.as_ref().map_or_else(|| "no answer".to_owned(), Answer::text)
}

/// What the files of a host hold.
type Files = BTreeMap<String, String>;

struct Life {
    machine: Sandbox,
    before: Files,
    has_qemu: bool,
}

impl Life {
    fn new() -> Self {
        let machine = Sandbox::new();
        let before = files(&machine);
        Self { machine, before, has_qemu: false }
    }

    /// What libvirt does before an event.
    fn before(&mut self, event: Operation) {
        match event {
            Operation::Started => {
                self.machine.qemu_runs();
                self.has_qemu = true;
            }
            Operation::Stopped if self.has_qemu => {
                self.machine.qemu_ends();
                self.has_qemu = false;
            }
            _ => {}
        }
    }

    fn untraced(&mut self, event: Operation, reason: &str) -> Option<Answer> {
        let begun = self.machine.begin(event, reason);
        self.machine.finish(begun, longest(event))
    }

    fn traced(
        &mut self,
        event: Operation,
        reason: &str,
        fault: Option<(&Key, Fault)>,
        linger: Duration,
    ) -> (Traced, Option<Answer>) {
        let root = self.machine.root().to_owned();
        let (daemon, keeper) = (self.machine.daemon(), self.machine.keeper());
        let patience = longest(event);
        let order = Order { root: &root, daemon, keeper, fault, patience, linger };
        let mut begun = None;
        let traced = tracer::trace(order, || begun = Some(self.machine.begin(event, reason)));
        let answer = begun.and_then(|begun| self.machine.finish(begun, SLACK));
        (traced, answer)
    }

    /// The guest is gone: all is to be given back.
    fn end(&mut self, report: &mut Report) {
        if self.is_given_back() && self.has_ledger() {
            report.help = Some(Help::ClearCard);
            self.command("gpu clear 03:00", report);
        }
        if !self.is_given_back() {
            report.help = Some(Help::UndoStale);
            self.command("undo --stale", report);
        }
        if !self.is_given_back() {
            report.help = Some(Help::AnotherLife);
            for event in [Operation::Prepare, Operation::Stopped, Operation::Release] {
                self.untraced(event, "-");
            }
        }
        if !self.is_given_back() {
            let status = self.machine.command("status -v");
            let status = status.map(|answer| String::from_utf8_lossy(&answer.stdout).into_owned());
            report.failures.push(format!("not given back: {}", status.unwrap_or_default().trim_end()));
        }
        if self.machine.keeper().is_some() {
            report.failures.push("the keeper does not end".to_owned());
        }
        report.failures.extend(differences(&self.before, &files(&self.machine)));
        report.litter = litter(&self.machine);
    }

    fn command(&mut self, words: &str, report: &mut Report) {
        match self.machine.command(words) {
            Some(answer) if answer.status == 0 => {}
            Some(answer) => report.failures.push(format!("{words}: {}", answer.text())),
            None => report.failures.push(format!("{words} hangs")),
        }
    }

    /// Waits for the keeper, as long as there is one.
    fn is_given_back(&self) -> bool {
        let deadline = Instant::now() + GIVES_BACK;
        while self.machine.keeper().is_some() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        // A card in quarantine is no lease.
        self.ledger().is_none_or(|ledger| {
            ["leases", "entries"].iter().all(|part| match &ledger[part] {
                serde_json::Value::Object(leases) => leases.is_empty(),
                serde_json::Value::Array(entries) => entries.is_empty(),
                _ => false,
            })
        })
    }

    fn has_ledger(&self) -> bool {
        self.machine.path(LEDGER).exists()
    }

    fn ledger(&self) -> Option<serde_json::Value> {
        let read = |path: &str| -> Option<serde_json::Value> {
            serde_json::from_slice(&fs::read(self.machine.path(path)).ok()?).ok()
        };
        let slots = [LEDGER, SECOND].into_iter().filter_map(read);
        slots.max_by_key(|slot| slot["sequence"].as_u64())
    }

    fn lines(&self) -> Vec<String> {
        self.machine.journal.lines()
    }

    fn log(&self) -> String {
        self.lines().join("\n")
    }
}

const LEDGER: &str = "/run/vfio-hook/ledger.json";
const SECOND: &str = "/run/vfio-hook/ledger-2.json";

/// What is the program's own, or changes by itself.
const NOT_COMPARED: [&str; 5] =
    ["/run/vfio-hook", "/run/libvirt", "/pipes", "/dev/cpu_dma_latency", "/run/systemd"];

/// All files of the host, and what irqbalance does.
fn files(machine: &Sandbox) -> Files {
    let mut files = Files::new();
    collect(machine.root(), machine.root(), &mut files);
    files.insert("irqbalance".to_owned(), machine.irqbalance.banned());
    files
}

fn collect(root: &Path, folder: &Path, files: &mut Files) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let on_host = format!("/{}", path.strip_prefix(root).unwrap().display());
        if NOT_COMPARED.contains(&on_host.as_str()) {
            continue;
        }
        if kind.is_dir() {
            collect(root, &path, files);
        } else if kind.is_symlink() {
            files.insert(on_host, format!("-> {}", fs::read_link(&path).unwrap().display()));
        } else if kind.is_file() {
            files.insert(on_host, String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned());
        }
    }
}

fn differences(before: &Files, now: &Files) -> Vec<String> {
    let paths: std::collections::BTreeSet<_> = before.keys().chain(now.keys()).collect();
    let shown = |files: &Files, path: &str| match files.get(path) {
        Some(text) => format!("`{}`", text.trim_end()),
        None => "nothing".to_owned(),
    };
    paths
        .into_iter()
        .filter(|path| before.get(*path) != now.get(*path))
        .map(|path| format!("{path} was {}, is {}", shown(before, path), shown(now, path)))
        .collect()
}

/// What is left in the program's folder but the lock that all share.
fn litter(machine: &Sandbox) -> Vec<String> {
    let names = fs::read_dir(machine.path("/run/vfio-hook")).into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().replace(UUID, "UUID"));
    names.filter(|name| name != "lock").collect()
}
