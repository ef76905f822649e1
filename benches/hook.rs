//! What the hook costs, as ratios of two things measured in the same run.
//!
//! `cargo bench --bench hook` measures an event of a guest without a file on any machine. `hook take GUEST XML`
//! measures a whole `prepare`, as root on a host that may be changed: beside the shell lines people use for the same,
//! and beside the bare writes and bus calls; `tests/vm/bench` does it in the virtual machine. With `--strict` a ratio
//! that does not hold is a failure: not for a machine that does other things as well.

#![allow(clippy::print_stdout, missing_docs, reason = "a program that prints figures")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vfio_hook::cpuset::CpuSet;

/// A dispatcher of the usual shape: the guest's folder is looked for, and what is in it run.
const DISPATCHER: &str = r#"#!/bin/bash
GUEST_NAME="$1"
HOOK_NAME="$2"
STATE_NAME="$3"
BASEDIR="$(dirname "$0")"
HOOKPATH="$BASEDIR/qemu.d/$GUEST_NAME/$HOOK_NAME/$STATE_NAME"
set -e
if [ -f "$HOOKPATH" ] && [ -x "$HOOKPATH" ]; then
    "$HOOKPATH" "$@"
elif [ -d "$HOOKPATH" ]; then
    while read -r file; do
        "$file" "$@"
    done <<< "$(find -L "$HOOKPATH" -maxdepth 1 -type f -executable -print)"
fi
"#;

fn main() {
    // As the hook does for itself: else the bare program would be measured with the clearing of its huge pages.
    let _ = nix::sys::prctl::set_thp_disable(true);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_strict = arguments.iter().any(|word| word == "--strict");
    let words: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|word| !["--bench", "--strict"].contains(word)).collect();
    let holds = match words[..] {
        ["bare", list] => return bare::run(Path::new(list)),
        ["take", hook, guest, xml] => take(Path::new(hook), guest, Path::new(xml)),
        [] => start_up(Path::new(env!("CARGO_BIN_EXE_vfio-hook"))),
        _ => {
            println!("usage: hook [take HOOK GUEST XML]");
            false
        }
    };
    std::process::exit(i32::from(is_strict && !holds));
}

/// An event of a guest without a file, on a host without a ledger.
fn start_up(binary: &Path) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let hook = folder.path().join("qemu");
    std::os::unix::fs::symlink(binary, &hook).expect("a link");
    let dispatcher = folder.path().join("dispatcher");
    fs::write(&dispatcher, DISPATCHER).expect("a script");
    fs::set_permissions(&dispatcher, fs::Permissions::from_mode(0o755)).expect("a mode");

    let event = ["no-such-guest", "prepare", "begin", "-"];
    // A call is over in a millisecond: of several, one is seen late enough.
    let peak = (0..50).map(|_| peak_memory(&hook, &event, None)).fold(0.0, f64::max);
    let programs = [Path::new("/bin/true"), &hook, &dispatcher];
    let [nothing, ours, bash] = medians(400, programs, |program| run(program, &event, None));

    let size = fs::metadata(binary).map_or(0, |file| file.len());
    let mut holds = ratio("event of a guest without a file / bin/true", ours, nothing, 1.4);
    holds &= ratio("event of a guest without a file / bash dispatcher", ours, bash, 1.0 / 3.0);
    holds &= limit("peak memory of such an event, MB", peak, 6.0);
    holds & limit("stripped binary, MB", size as f64 / 1e6, 3.0)
}

/// A whole `prepare` of both actions.
fn take(hook: &Path, guest: &str, xml: &Path) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let qemu = folder.path().join("qemu");
    std::os::unix::fs::symlink(hook, &qemu).expect("a link");
    let event = |operation, sub_operation| {
        run(&qemu, &[guest, operation, sub_operation, "-"], Some(xml));
    };
    let peak = peak_memory(&qemu, &[guest, "prepare", "begin", "-"], Some(xml));
    let plans = plan::of_running(folder.path());
    event("release", "end");

    let this = std::env::current_exe().expect("this program");
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..15 {
        times[0].push(timed(|| event("prepare", "begin")));
        event("release", "end");
        times[1].push(timed(|| run(Path::new("/bin/bash"), &[&plans.shell_take], None)));
        run(Path::new("/bin/bash"), &[&plans.shell_undo], None);
        times[2].push(timed(|| run(&this, &["bare", &plans.bare_take], None)));
        run(&this, &["bare", &plans.bare_undo], None);
        times[3].push(timed(|| plans.pools.iter().for_each(|(path, then, _)| write(path, then))));
        plans.pools.iter().for_each(|(path, _, before)| write(path, before));
    }
    let [ours, shell, bare, pages] = times.map(median);
    println!(
        "{} writes, {} bus calls; the pages alone take the kernel {pages:.2?}",
        plans.writes, plans.calls
    );
    let less = |time: Duration| time.saturating_sub(pages);
    let _ =
        ratio("prepare / the usual shell lines, both without the pages", less(ours), less(shell), 1.0 / 3.0);
    let mut holds = ratio("prepare / the usual shell lines", ours, shell, 1.0 / 3.0);
    holds &= ratio("prepare / the bare writes and bus calls", ours, bare, 1.5);
    holds & limit("peak memory of prepare, MB", peak, 6.0)
}

fn write(path: &Path, value: &str) {
    use std::io::Write;
    let mut file = fs::OpenOptions::new().write(true).open(path).expect("a file");
    file.write_all(value.as_bytes()).expect("a write");
}

fn run(program: &Path, arguments: &[&str], input: Option<&Path>) {
    let stdin = input.map_or_else(Stdio::null, |path| fs::File::open(path).expect("the input").into());
    let status = Command::new(program)
        .args(arguments)
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .status()
        .expect("a process");
    assert!(status.success(), "{}: {status}", program.display());
}

/// Rounds in which each runs once, so that a slow moment of the machine hits all alike.
fn medians<const N: usize>(rounds: usize, programs: [&Path; N], run: impl Fn(&Path)) -> [Duration; N] {
    let mut times = [const { Vec::new() }; N];
    for _ in 0..rounds {
        for (program, times) in programs.iter().zip(&mut times) {
            times.push(timed(|| run(program)));
        }
    }
    times.map(median)
}

fn timed(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The largest resident set of one run, in MB, looked at as it goes: what `wait4` says of a child begins with the
/// memory of the program that started it.
fn peak_memory(program: &Path, arguments: &[&str], input: Option<&Path>) -> f64 {
    let stdin = input.map_or_else(Stdio::null, |path| fs::File::open(path).expect("the input").into());
    let mut child =
        Command::new(program).args(arguments).stdin(stdin).stdout(Stdio::null()).spawn().expect("a process");
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut peak = 0;
    while child.try_wait().expect("a child").is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let field = |field| status.lines().find_map(|line| line.strip_prefix(field)).map(str::trim);
        if field("Name:") == Some(&name) {
            let kib = field("VmHWM:").and_then(|text| text.strip_suffix("kB")?.trim().parse().ok());
            peak = peak.max(kib.unwrap_or(0));
        }
    }
    peak as f64 * 1024.0 / 1e6
}

fn ratio(what: &str, time: Duration, base: Duration, most: f64) -> bool {
    let ratio = time.as_secs_f64() / base.as_secs_f64();
    let verdict = if ratio <= most { "ok" } else { "TOO SLOW" };
    println!("{what}: {ratio:.2} (at most {most:.2}; {time:.2?} and {base:.2?}) {verdict}");
    ratio <= most
}

fn limit(what: &str, value: f64, most: f64) -> bool {
    let verdict = if value <= most { "ok" } else { "TOO MUCH" };
    println!("{what}: {value:.2} (at most {most:.0}) {verdict}");
    value <= most
}

/// The same changes as the hook made, for a shell and for a bare program.
mod plan {
    use super::*;

    pub(super) struct Plans {
        pub(super) shell_take: String,
        pub(super) shell_undo: String,
        pub(super) bare_take: String,
        pub(super) bare_undo: String,
        pub(super) writes: usize,
        pub(super) calls: usize,
        /// The attribute of each pool, with the pages it gets and those it had.
        pub(super) pools: Vec<(PathBuf, String, String)>,
    }

    /// Reads from the ledger what the hook has changed, while it holds it.
    pub(super) fn of_running(folder: &Path) -> Plans {
        let ledger = fs::read("/run/vfio-hook/ledger.json").expect("a ledger");
        let ledger: serde_json::Value = serde_json::from_slice(&ledger).expect("JSON");
        let (mut take, mut undo) = (String::new(), String::new());
        let (mut shell_take, mut shell_undo) = (String::new(), String::new());
        let (mut writes, mut calls, mut pools) = (0, 0, Vec::new());
        let mut interrupts = None;
        for entry in ledger["entries"].as_array().expect("entries") {
            let (knob, baseline, written) = (&entry["knob"], &entry["baseline"], &entry["written"]);
            if let Some(unit) = knob["allowed-cpus"].as_str() {
                let (cpus, before) =
                    (text(&written["allowed-cpus"]["cpus"]), text(&baseline["allowed-cpus"]["cpus"]));
                take += &format!("unit {unit} {cpus}\n");
                undo += &format!("unit {unit} {before}\n");
                shell_take += &format!("systemctl set-property --runtime -- {unit} AllowedCPUs={cpus}\n");
                shell_undo += &format!("systemctl set-property --runtime -- {unit} AllowedCPUs={before}\n");
                calls += 2;
                continue;
            }
            let (path, is_mask) = path_of(knob);
            let spell = |value: &serde_json::Value| match value["pages"].as_u64() {
                Some(pages) => pages.to_string(),
                None => {
                    let cpus: CpuSet = text(&value["cpus"]).parse().expect("CPUs");
                    if is_mask { cpus.to_mask() } else { cpus.to_string() }
                }
            };
            take += &format!("file {} {}\n", path.display(), spell(written));
            undo += &format!("file {} {}\n", path.display(), spell(baseline));
            writes += 1;
            if path.ends_with("nr_hugepages") {
                pools.push((path.clone(), spell(written), spell(baseline)));
                shell_take += &format!("echo {} > {}\n", spell(written), path.display());
                shell_undo += &format!("echo {} > {}\n", spell(baseline), path.display());
            } else if path.starts_with("/proc/irq") {
                interrupts = interrupts.or(Some(spell(written)));
                shell_undo += &format!("echo {} > {}\n", spell(baseline), path.display());
            }
        }
        let cpus = interrupts.unwrap_or_default();
        shell_take += &format!(
            "for irq in /proc/irq/*/smp_affinity_list; do echo {cpus} > $irq; done 2>/dev/null\ntrue\n"
        );
        shell_undo += "rm -rf /run/systemd/system.control\n";
        let save = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).expect("a file");
            path.to_string_lossy().into_owned()
        };
        Plans {
            shell_take: save("take.sh", &shell_take),
            shell_undo: save("undo.sh", &shell_undo),
            bare_take: save("take", &take),
            bare_undo: save("undo", &undo),
            writes,
            calls,
            pools,
        }
    }

    fn text(value: &serde_json::Value) -> String {
        value.as_str().unwrap_or_default().to_owned()
    }

    fn path_of(knob: &serde_json::Value) -> (PathBuf, bool) {
        if let Some(pool) = knob.get("page-pool") {
            let (node, size) = (&pool["node"], &pool["size"]);
            let folder = format!("/sys/devices/system/node/node{node}/hugepages/hugepages-{size}kB");
            return (PathBuf::from(folder).join("nr_hugepages"), false);
        }
        if let Some(irq) = knob.get("irq-affinity") {
            return (PathBuf::from(format!("/proc/irq/{}/smp_affinity_list", irq["number"])), false);
        }
        match knob.get("workqueue-mask") {
            Some(serde_json::Value::Object(named)) => (
                PathBuf::from(format!("/sys/devices/virtual/workqueue/{}/cpumask", text(&named["named"]))),
                true,
            ),
            Some(_) => (PathBuf::from("/sys/devices/virtual/workqueue/cpumask"), true),
            None => (PathBuf::from("/proc/irq/default_smp_affinity"), true),
        }
    }
}

/// The least a program can do for the same result: each unit's value asked for and set, each file written.
mod bare {
    use zbus::{OwnedVariant, Variant};

    use super::*;

    const SYSTEMD: &str = "org.freedesktop.systemd1";

    pub(super) fn run(list: &Path) {
        let list = fs::read_to_string(list).expect("a list");
        let lines = list.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let (units, files): (Vec<_>, Vec<_>) = lines.partition(|words| words[0] == "unit");
        for words in files {
            write(Path::new(words[1]), words[2]);
        }
        zbus::block_on(async {
            let connection = zbus::Connection::system().await.expect("the bus");
            for words in units {
                let (unit, cpus) = (words[1], words[2].parse::<CpuSet>().expect("CPUs"));
                let path = format!("/org/freedesktop/systemd1/unit/{}", unit.replace('.', "_2e"));
                let interface = if unit.ends_with(".slice") { "Slice" } else { "Scope" };
                let get = (format!("{SYSTEMD}.{interface}"), "AllowedCPUs");
                let reply = connection
                    .call_method(Some(SYSTEMD), path, Some("org.freedesktop.DBus.Properties"), "Get", &get)
                    .await
                    .expect("a value");
                let _: OwnedVariant = reply.body().deserialize().expect("a variant");
                let properties = [("AllowedCPUs", Variant::from(cpus.to_bytes()))];
                let set = (unit, true, &properties[..]);
                let manager = "org.freedesktop.systemd1.Manager";
                connection
                    .call_method(
                        Some(SYSTEMD),
                        "/org/freedesktop/systemd1",
                        Some(manager),
                        "SetUnitProperties",
                        &set,
                    )
                    .await
                    .expect("a reply");
            }
        });
    }
}
