//! What the commands have left running: adopted when its parent ends, and ended on request.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use nix::sys::prctl;
use procfs::ProcResult;
use procfs::process::{Process, Stat};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use super::children::{live_processes, reap_orphans};
use crate::deadline::Deadline;
use crate::process_id::ProcessId;

/// How long a process has to end by itself after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

/// How often it is looked who is left.
const LOOK: Duration = Duration::from_millis(20);

/// A process that neither SIGTERM nor SIGKILL has ended in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftRunning {
    /// The process, by pid and start time.
    pub id: ProcessId,
    /// The name of its program.
    pub name: String,
}

/// Makes this process the parent of what its descendants leave behind, instead of the machine's first process.
pub(super) fn adopt_orphans() -> io::Result<()> {
    prctl::set_child_subreaper(true).map_err(Into::into)
}

/// Waits for adopted orphans that have ended.
pub(super) fn reap_adopted() {
    // Without adopting there are none, and the processes of the whole machine need not be looked through.
    if prctl::get_child_subreaper().unwrap_or(true) {
        reap_orphans();
    }
}

/// Ends every descendant of this process: SIGTERM, and after a grace or at the deadline SIGKILL. While `/proc` cannot be
/// read there may be some.
pub(super) fn end_all(deadline: Deadline) -> Vec<LeftRunning> {
    let grace = Deadline::after(GRACE).earlier(deadline);
    let mut asked = BTreeSet::new();
    while !grace.has_passed() {
        reap_orphans();
        let alive = descendants();
        if alive.as_ref().is_ok_and(Vec::is_empty) {
            return Vec::new();
        }
        for process in alive.iter().flatten() {
            if asked.insert((process.pid, process.starttime)) {
                signal(process, Signal::TERM);
                // One that is stopped takes the other signal only when it goes on.
                signal(process, Signal::CONT);
            }
        }
        grace.pause(LOOK);
    }
    loop {
        reap_orphans();
        let alive = descendants();
        if alive.as_ref().is_ok_and(Vec::is_empty) {
            return Vec::new();
        }
        // Again at every look: a process may have started another one meanwhile.
        for process in alive.iter().flatten() {
            signal(process, Signal::KILL);
        }
        if deadline.has_passed() {
            return match alive {
                Ok(alive) => alive.into_iter().map(left_running).collect(),
                Err(error) => {
                    tracing::warn!("it is not known whether programs were left running: {error}");
                    Vec::new()
                }
            };
        }
        deadline.pause(LOOK);
    }
}

fn left_running(process: Stat) -> LeftRunning {
    LeftRunning { id: ProcessId { pid: process.pid, start_time: process.starttime }, name: process.comm }
}

/// All live processes below this one.
fn descendants() -> ProcResult<Vec<Stat>> {
    let this = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
    let mut others = live_processes()?;
    let mut parents = BTreeSet::from([this]);
    let mut found = Vec::new();
    loop {
        let (children, rest): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|process| parents.contains(&process.ppid));
        if children.is_empty() {
            return Ok(found);
        }
        parents = children.iter().map(|process| process.pid).collect();
        found.extend(children);
        others = rest;
    }
}

/// Signals this life of the process only, should its number belong to another one by now.
fn signal(process: &Stat, signal: Signal) {
    let Some(pid) = Pid::from_raw(process.pid) else { return };
    let pidfd = pidfd_open(pid, PidfdFlags::empty());
    let now = Process::new(process.pid).and_then(|process| process.stat());
    if !now.is_ok_and(|now| now.starttime == process.starttime) {
        return;
    }
    // What has ended meanwhile needs no signal.
    let _ = match pidfd {
        Ok(pidfd) => pidfd_send_signal(pidfd, signal),
        Err(_) => kill_process(pid, signal),
    };
}
