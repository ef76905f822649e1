//! Processes: who is alive, and who still runs where only a guest should.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use procfs::process::{Process, Stat, all_processes_with_root};
use serde::{Deserialize, Serialize};

use super::{Host, HostError};
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;

/// The daemons that call the hook, as the kernel names their processes.
const LIBVIRT_DAEMONS: [&str; 2] = ["libvirtd", "virtqemud"];

/// `PF_KTHREAD` of the kernel's `include/linux/sched.h`, in `flags` of `/proc/PID/stat`.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// One life of a process: its number, and when it started, since numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: i32,
    /// `starttime` of `/proc/PID/stat`, in clock ticks since boot.
    pub start_time: u64,
}

/// Tasks of programs that may still run on CPUs set aside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StrayTasks {
    /// How many threads.
    pub count: usize,
    /// The names of some of their programs.
    pub examples: Vec<String>,
}

impl ProcessId {
    /// The process with this number, in the life that it has now; none where there is none.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let stat = Process::new(pid).and_then(|process| process.stat()).ok()?;
        Some(Self { pid, start_time: stat.starttime })
    }

    /// Whether it is the one that asks.
    #[must_use]
    pub fn is_this_process(self) -> bool {
        u32::try_from(self.pid) == Ok(std::process::id())
    }
}

/// Whether that very process still runs.
pub(super) fn is_alive(id: ProcessId) -> bool {
    is_alive_in(Path::new("/proc"), id)
}

/// Whether a process of this folder still runs. Where its first thread has ended, others may hang in the kernel, with
/// everything that the process has open.
fn is_alive_in(proc: &Path, id: ProcessId) -> bool {
    let runs = |stat: Stat| !matches!(stat.state, 'Z' | 'X');
    let Ok(process) = Process::new_with_root(proc.join(id.pid.to_string())) else { return false };
    let Ok(first) = process.stat() else { return false };
    first.starttime == id.start_time
        && (runs(first)
            || process.tasks().is_ok_and(|tasks| tasks.flatten().any(|task| task.stat().is_ok_and(runs))))
}

/// A descriptor of a process, readable when it has ended; none where it has ended already.
pub(super) fn pidfd(id: ProcessId) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = rustix::process::Pid::from_raw(id.pid) else { return Ok(None) };
    let opened = match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        Ok(opened) => opened,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // The number may have been used again just before it was opened.
    Ok(is_alive(id).then_some(opened))
}

impl Host {
    /// This process.
    #[must_use]
    pub fn this_process(&self) -> ProcessId {
        let pid = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
        ProcessId::of(pid).unwrap_or(ProcessId { pid, start_time: 0 })
    }

    /// Whether that very process still runs.
    #[must_use]
    pub fn is_alive(&self, id: ProcessId) -> bool {
        is_alive(id)
    }

    /// A descriptor of a process, readable when it has ended; none where it has ended already.
    ///
    /// # Errors
    /// The kernel has no such descriptors (before Linux 5.3), or none is left.
    pub fn process_descriptor(&self, id: ProcessId) -> Result<Option<OwnedFd>, HostError> {
        pidfd(id).map_err(|error| HostError::call("pidfd_open", &format!("process {}", id.pid), error))
    }

    /// The libvirt daemon that called a hook: the next process above this one that has such a name. Between them is the
    /// hook's own parent, which waits for it.
    #[must_use]
    pub fn libvirt_daemon_above(&self, hook: ProcessId) -> Option<ProcessId> {
        let stat = |pid: i32| Process::new(pid).and_then(|process| process.stat()).ok();
        let parent = stat(stat(hook.pid)?.ppid)?;
        let is_daemon = |stat: &Stat| LIBVIRT_DAEMONS.contains(&stat.comm.as_str());
        let daemon = if is_daemon(&parent) { Some(parent) } else { stat(parent.ppid).filter(is_daemon) };
        daemon.map(|daemon| ProcessId { pid: daemon.pid, start_time: daemon.starttime })
    }

    /// The threads of programs that may still run on these CPUs. Kernel threads are left out, and so is everything
    /// below the groups named (`machine.slice`: the guests themselves). Stops where the time is over.
    #[must_use]
    pub fn stray_tasks(&self, cpus: &CpuSet, spared_groups: &[&str], deadline: Deadline) -> StrayTasks {
        let mut strays = StrayTasks::default();
        let Ok(processes) = all_processes_with_root(self.files.locate(Path::new("/proc"))) else {
            return strays;
        };
        for process in processes.flatten() {
            if deadline.has_passed() {
                break;
            }
            let spared = process.cgroups().is_ok_and(|groups| {
                groups.into_iter().any(|group| {
                    spared_groups.iter().any(|spared| group.pathname.starts_with(&format!("/{spared}/")))
                })
            });
            // Not by the command line, which kernel threads lack: a process that hangs keeps its reader waiting.
            let Ok(stat) = process.stat() else { continue };
            if spared || stat.flags & KERNEL_THREAD != 0 || matches!(stat.state, 'Z' | 'X') {
                continue;
            }
            let Ok(tasks) = process.tasks() else { continue };
            let threads = tasks.flatten().filter(|task| {
                task.status()
                    .ok()
                    .and_then(|status| allowed_cpus(&status))
                    .is_some_and(|allowed| allowed.intersects(cpus))
            });
            let count = threads.count();
            if count > 0 {
                strays.count += count;
                if strays.examples.len() < 5 {
                    strays.examples.push(format!("{} ({})", stat.comm, process.pid));
                }
            }
        }
        strays
    }
}

fn allowed_cpus(status: &procfs::process::Status) -> Option<CpuSet> {
    let ranges = status.cpus_allowed_list.as_ref()?;
    Some(ranges.iter().flat_map(|(first, last)| *first..=*last).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;
    use std::{fs, thread};

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;
    use crate::host::manifest;
    use crate::host::simulated::Faults;

    #[test]
    fn a_process_lives_as_long_as_one_of_its_threads() {
        let stat = |path: &str, id: i32, state: char| {
            format!(
                "/proc/4711{path}/stat = {id} (qemu) {state} {}4242 {}\n",
                "0 ".repeat(18),
                "0 ".repeat(30)
            )
        };
        for (threads, is_alive) in [("ZD", true), ("ZS", true), ("SS", true), ("ZX", false), ("Z", false)] {
            let root = tempfile::tempdir().unwrap();
            let each = (4711..).zip(threads.chars());
            let mut lines: String = each.map(|(id, state)| stat(&format!("/task/{id}"), id, state)).collect();
            lines.extend(threads.chars().next().map(|first| stat("", 4711, first)));
            manifest::lay_out(&lines, root.path()).unwrap();
            let asked =
                |start_time| is_alive_in(&root.path().join("proc"), ProcessId { pid: 4711, start_time });
            assert_eq!(asked(4242), is_alive, "{threads}");
            assert!(!asked(4243), "{threads}: another life");
        }
    }

    /// A pipe without a writer keeps its reader waiting, as the lock on a process's memory does.
    #[test]
    fn tasks_are_counted_although_a_process_hangs() {
        let root = tempfile::tempdir().unwrap();
        let own = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).unwrap();
        let add = |pid: i32, flags: u32, cpus: &str| {
            let folder = root.path().join(format!("proc/{pid}"));
            let fields = format!("S 1 1 1 0 -1 {flags} {}4242 {}", "0 ".repeat(12), "0 ".repeat(30));
            fs::create_dir_all(folder.join("task/1")).unwrap();
            fs::write(folder.join("stat"), format!("{pid} (p{pid}) {fields}\n")).unwrap();
            let status = own("status");
            let lines = status.lines().map(|line| match line.split_once(':') {
                Some((name @ "Cpus_allowed_list", _)) => format!("{name}:\t{cpus}\n"),
                _ => format!("{line}\n"),
            });
            fs::write(folder.join("task/1/status"), lines.collect::<String>()).unwrap();
            mkfifo(&folder.join("cmdline"), Mode::S_IRWXU).unwrap();
        };
        add(100, 0, "0-3");
        add(200, 0, "4-7");
        add(300, KERNEL_THREAD, "0-7");
        let (sender, strays) = channel();
        let host = Host::simulated(root.path(), &Faults::default());
        thread::spawn(move || {
            let later = Deadline::after(Duration::from_secs(20));
            sender.send(host.stray_tasks(&"2-3".parse().unwrap(), &[], later))
        });
        let strays = strays.recv_timeout(Duration::from_secs(20)).expect("it hangs");
        assert_eq!(strays, StrayTasks { count: 1, examples: vec!["p100 (100)".to_owned()] });
    }
}
