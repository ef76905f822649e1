//! Every system call of every event fails once, or comes late once: the answer comes in time, standard output stays
//! empty, no running guest is lost, and once the cause is gone the host is what it was.
//!
//! A life without trouble is recorded first; then a life is led for each distinct call in it (who makes it, which call,
//! what kind of place it is about) and each way in which it can fail. `SYSCALL_FAULTS` says which of these:
//! nothing for a sample, `all`, `3/8` for the third of eight parts, or `only:TEXT` for those whose name has this text.
//!
//! It takes root, for mounts, processes and a network of its own. Nothing of the machine's own is touched.
#![cfg(target_arch = "x86_64")]
#![expect(clippy::print_stdout, reason = "the figures are what the long series is run for")]

mod calls;
mod life;
mod peers;
mod place;
mod sandbox;
mod select;
mod summary;
mod tracer;

use std::env;
use std::sync::Mutex;
use std::thread;

use nix::unistd::geteuid;

use life::Case;
use select::Selection;
use summary::Summary;
use tracer::Fault;

/// How often it is said how far it is.
const STEP: usize = 100;

/// How many lives with a late call are led at once.
const LATE_AT_ONCE: usize = 6;

#[test]
fn every_call_fails_once() {
    let wanted = env::var("SYSCALL_FAULTS").unwrap_or_default();
    if !geteuid().is_root() {
        // A person who asks for it, and a machine that tests for others, must not take silence for success.
        let is_asked_for = !wanted.is_empty() || env::var_os("CI").is_some();
        assert!(!is_asked_for, "system calls that fail take root: mounts and processes of the test's own");
        println!("left out: it takes root");
        return;
    }
    let selection = Selection::parse(&wanted)
        .unwrap_or_else(|| panic!("SYSCALL_FAULTS is `{wanted}`, not `all`, `PART/OF` or `only:TEXT`"));
    let life = life::record();
    let calls: Vec<String> =
        life.iter().map(|(event, calls)| format!("{} {}", event.as_str(), calls.len())).collect();
    let all = select::cases(&life);
    println!("distinct calls: {}; {} cases", calls.join(", "), all.len());
    // The standard library makes one where it forks, and waits without a bound for a child that it cannot ask about.
    let forks: Vec<&Case> = all.iter().filter(|case| case.key.call == "socketpair").collect();
    assert!(forks.is_empty(), "a program is not started with posix_spawn: {forks:?}");
    let mut queue = selection.of(all);
    println!("{} of them are run", queue.len());
    assert!(!queue.is_empty(), "no case is called so");
    queue.reverse();
    // Those that come late wait for most of the time.
    let (late, failing): (Vec<Case>, _) =
        queue.into_iter().partition(|case| matches!(case.fault, Fault::Late(_)));
    let summary = Mutex::new(Summary::default());
    let (late, failing) = (Mutex::new(late), Mutex::new(failing));
    let work = |queue: &Mutex<Vec<Case>>| {
        loop {
            let Some(case) = queue.lock().unwrap().pop() else { return };
            let report = life::run(&case);
            summary.lock().unwrap().add(&case, report);
            let left = queue.lock().unwrap().len();
            if left > 0 && left.is_multiple_of(STEP) {
                println!("{left} left");
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| work(&failing));
        }
        for _ in 0..LATE_AT_ONCE {
            scope.spawn(|| work(&late));
        }
    });
    let summary = summary.into_inner().unwrap();
    println!("{}", summary.text());
    assert!(
        summary.failed.is_empty(),
        "{} cases failed:\n{}",
        summary.failed.len(),
        summary.failed.join("\n")
    );
}
