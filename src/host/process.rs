//! Processes: who is alive, and who still runs where only a guest should.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use procfs::process::{Process, Stat, all_processes_with_root};
use procfs::{ProcError, ProcResult};

use super::{Host, HostError};
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::process_id::ProcessId;

/// The daemons that call the hook, as the kernel names their processes.
const LIBVIRT_DAEMONS: [&str; 2] = ["libvirtd", "virtqemud"];

/// `PF_KTHREAD` of the kernel's `include/linux/sched.h`, in `flags` of `/proc/PID/stat`.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// Whether a process runs. Of two answers one would be wrong where `/proc` cannot be read: with no descriptor left, a
/// process that runs would count as ended, and what it has would be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It runs, or has threads that do.
    Runs,
    /// It has ended.
    Ended,
    /// It cannot be looked at now.
    Unknown,
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
    /// The process with this number, in the life that it has now; none where there is none, or it cannot be looked at.
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

/// Whether that very process still runs, for all that is known.
pub(super) fn is_alive(id: ProcessId) -> bool {
    life_in(Path::new("/proc"), id) != Life::Ended
}

/// Whether a process of this folder still runs. Where its first thread has ended, others may hang in the kernel, with
/// everything that the process has open.
pub(super) fn life_in(proc: &Path, id: ProcessId) -> Life {
    let process = match Process::new_with_root(proc.join(id.pid.to_string())) {
        Ok(process) => process,
        Err(error) => return Life::without(&error),
    };
    match process.stat() {
        Ok(first) if id.start_time != 0 && first.starttime != id.start_time => Life::Ended,
        Ok(first) if runs(&first) => Life::Runs,
        Ok(_) => life_of_threads(&process),
        Err(error) => Life::without(&error),
    }
}

fn life_of_threads(process: &Process) -> Life {
    let threads = match process.tasks() {
        Ok(threads) => threads,
        Err(error) => return Life::without(&error),
    };
    let mut life = Life::Ended;
    for stat in threads.map(|thread| thread.and_then(|thread| thread.stat())) {
        match stat {
            Ok(stat) if runs(&stat) => return Life::Runs,
            Ok(_) => {}
            Err(error) if Life::without(&error) == Life::Ended => {}
            Err(_) => life = Life::Unknown,
        }
    }
    life
}

fn runs(stat: &Stat) -> bool {
    !matches!(stat.state, 'Z' | 'X')
}

impl Life {
    /// What it means that `/proc` does not show a process.
    fn without(error: &ProcError) -> Self {
        match error {
            // procfs has ESRCH among them: it ended while it was read.
            ProcError::NotFound(_) => Self::Ended,
            _ => Self::Unknown,
        }
    }
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
        // Read once: later there may be no descriptor left for it. A process that was forked off has another number.
        static KNOWN: Mutex<Option<ProcessId>> = Mutex::new(None);
        let pid = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none_or(|known| known.pid != pid) {
            *known = ProcessId::of(pid);
        }
        known.unwrap_or(ProcessId { pid, start_time: 0 })
    }

    /// Whether that very process still runs, for all that is known: one that cannot be looked at does.
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
    /// hook's own parent, which waits for it. It is root's, as the hook is: a user's process of that name is nobody's
    /// parent here, unless the hook's number is already another's.
    #[must_use]
    pub fn libvirt_daemon_above(&self, hook: ProcessId) -> Option<ProcessId> {
        let proc = self.files.locate(Path::new("/proc"));
        let process = |pid: i32| Process::new_with_root(proc.join(pid.to_string()));
        let above = || -> ProcResult<(u32, Stat)> {
            let stat = |pid: i32| process(pid).and_then(|process| process.stat());
            let waiting = stat(stat(hook.pid)?.ppid)?;
            let is_daemon = LIBVIRT_DAEMONS.contains(&waiting.comm.as_str());
            let parent = process(if is_daemon { waiting.pid } else { waiting.ppid })?;
            Ok((parent.uid()?, parent.stat()?))
        };
        let (owner, stat) = above().ok()?;
        // Still above it: no number was used again before it was looked at.
        let is_above =
            life_in(&proc, hook) == Life::Runs && above().is_ok_and(|(_, now)| now.pid == stat.pid);
        let is_daemon =
            owner == self.trusted_owner().as_raw() && LIBVIRT_DAEMONS.contains(&stat.comm.as_str());
        (is_above && is_daemon).then_some(ProcessId { pid: stat.pid, start_time: stat.starttime })
    }

    /// Whether a daemon of libvirt's runs that could start a guest, for all that is known. A user's process of that name
    /// is none.
    #[must_use]
    pub fn libvirt_may_run(&self) -> bool {
        let Ok(processes) = all_processes_with_root(self.files.locate(Path::new("/proc"))) else {
            return true;
        };
        let owner = self.trusted_owner().as_raw();
        let trusted = processes.flatten().filter(|process| process.uid().is_ok_and(|uid| uid == owner));
        let mut stats = trusted.filter_map(|process| process.stat().ok());
        stats.any(|stat| LIBVIRT_DAEMONS.contains(&stat.comm.as_str()))
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

    fn stat(path: &str, id: i32, name: &str, state: char, parent: i32, start_time: u64) -> String {
        let fields = format!("{}{start_time} {}", "0 ".repeat(17), "0 ".repeat(30));
        format!("/proc{path}/stat = {id} ({name}) {state} {parent} {fields}\n")
    }

    #[test]
    fn a_process_lives_as_long_as_one_of_its_threads() {
        use Life::{Ended, Runs};
        for (threads, life) in [("ZD", Runs), ("ZS", Runs), ("SS", Runs), ("ZX", Ended), ("Z", Ended)] {
            let root = tempfile::tempdir().unwrap();
            let each = (4711..).zip(threads.chars());
            let thread = |(id, state)| stat(&format!("/4711/task/{id}"), id, "qemu", state, 1, 4242);
            let mut lines: String = each.map(thread).collect();
            lines.extend(threads.chars().next().map(|first| stat("/4711", 4711, "qemu", first, 1, 4242)));
            manifest::lay_out(&lines, root.path()).unwrap();
            let asked = |start_time| life_in(&root.path().join("proc"), ProcessId { pid: 4711, start_time });
            assert_eq!(asked(4242), life, "{threads}");
            assert_eq!(asked(4243), Ended, "{threads}: another life");
            assert_eq!(asked(0), life, "{threads}: any life");
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

    #[test]
    fn a_process_that_cannot_be_looked_at_may_run() {
        let asked = |lines: &str| {
            let root = tempfile::tempdir().unwrap();
            manifest::lay_out(lines, root.path()).unwrap();
            life_in(&root.path().join("proc"), ProcessId { pid: 4711, start_time: 4242 })
        };
        let zombie = stat("/4711", 4711, "qemu", 'Z', 1, 4242);
        assert_eq!(asked("/proc/\n"), Life::Ended);
        assert_eq!(asked("/proc/4711 = no folder\n"), Life::Unknown);
        assert_eq!(asked("/proc/4711/stat/no file/\n"), Life::Unknown);
        assert_eq!(asked("/proc/4711/stat = no fields\n"), Life::Unknown);
        assert_eq!(asked(&format!("{zombie}/proc/4711/task = no folder\n")), Life::Unknown);
        assert_eq!(asked(&format!("{zombie}/proc/4711/task/4712/stat = no fields\n")), Life::Unknown);
        assert_eq!(asked(&format!("{zombie}/proc/4711/task/4712/comm = no stat\n")), Life::Ended);
    }

    /// What a user starts under such a name would keep the recovery unit from its work for ever.
    #[test]
    fn a_users_process_is_no_daemon_of_libvirt() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let stat = format!("/proc/400/stat = 400 (virtqemud) S 1 {}", "0 ".repeat(48));
        manifest::lay_out(&stat, root.path()).unwrap();
        let host = Host::simulated(root.path(), &Faults::default());
        assert!(host.libvirt_may_run());
        std::os::unix::fs::chown(root.path().join("proc/400"), Some(1000), None).unwrap();
        assert!(!host.libvirt_may_run());
    }

    #[test]
    fn the_daemon_above_a_hook_is_its_parent_or_the_parent_of_that() {
        let root = tempfile::tempdir().unwrap();
        let above = |daemon: &str, hook: &str| {
            manifest::lay_out(&format!("{daemon}{hook}"), root.path()).unwrap();
            let host = Host::simulated(root.path(), &Faults::default());
            host.libvirt_daemon_above(ProcessId { pid: 500, start_time: 77 })
        };
        let hook = stat("/500", 500, "qemu", 'S', 400, 77);
        let daemon = |name| stat("/400", 400, name, 'S', 1, 11);
        let found = Some(ProcessId { pid: 400, start_time: 11 });
        assert_eq!(above(&daemon("virtqemud"), &hook), found);
        assert_eq!(above(&daemon("libvirtd"), &hook), found);
        assert_eq!(above(&daemon("bash"), &hook), None);
        let waiting = format!("{}{}", daemon("libvirtd"), stat("/450", 450, "qemu", 'S', 400, 76));
        assert_eq!(above(&waiting, &stat("/500", 500, "qemu", 'S', 450, 77)), found);
        // The hook has ended, and another process has its number.
        assert_eq!(above(&daemon("libvirtd"), &stat("/500", 500, "qemu", 'S', 400, 78)), None);
    }
}
