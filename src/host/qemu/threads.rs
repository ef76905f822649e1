//! The threads of a guest's QEMU, and how the kernel schedules them.
//!
//! Which threads run virtual CPUs, libvirt's status file says; those of `<iothreads>` have names that QEMU gives them
//! (`iothread_init` in `iothread.c`: `IO ` and libvirt's name; libvirt starts QEMU with `debug-threads=on`). A number is
//! a thread's only together with its start: the kernel uses numbers again.

use std::fmt;
use std::io::Cursor;
use std::path::PathBuf;

use nix::errno::Errno;
use procfs::FromRead;
use procfs::process::Stat;
use serde::{Deserialize, Serialize};

use super::{QemuClues, QemuSearch};
use crate::deadline::Deadline;
use crate::host::{Host, HostError};
use crate::scheduling::{Nice, Scheduling, SchedulingPolicy};

/// How QEMU names a thread of `<iothreads>`; its monitor's own is `IO mon_iothread`.
const IO_THREAD: &str = "IO iothread";

/// A thread in the life that it has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThreadId {
    /// Its process.
    pub process: i32,
    /// Its own number.
    pub thread: i32,
    /// When it was started, in clock ticks since the boot (`starttime` of `proc_pid_stat(5)`).
    pub start_time: u64,
}

/// What a thread of QEMU's is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ThreadRole {
    /// It runs this virtual CPU.
    Vcpu(u32),
    /// It is the first one, which does all that no other does.
    Emulator,
    /// It is the one with this number of `<iothreads>`.
    Io(u32),
}

/// A thread of a guest's QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QemuThread {
    /// Its number and start, which tell it from a later thread.
    pub id: ThreadId,
    /// What it is for.
    pub role: ThreadRole,
    /// How it is scheduled.
    pub scheduling: Scheduling,
}

impl fmt::Display for ThreadRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vcpu(number) => write!(f, "vCPU {number}"),
            Self::Emulator => f.write_str("emulator"),
            Self::Io(number) => write!(f, "iothread {number}"),
        }
    }
}

impl ThreadId {
    fn stat_path(self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/task/{}/stat", self.process, self.thread))
    }
}

impl fmt::Display for ThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread {} of process {}", self.thread, self.process)
    }
}

impl Host {
    /// The threads of the QEMU that runs a guest, as far as they have a role; none where it does not run, or it is not
    /// known which one it is.
    ///
    /// # Errors
    /// libvirt's file or the list of the threads cannot be read.
    pub fn qemu_threads(
        &self,
        clues: QemuClues<'_>,
        deadline: Deadline,
    ) -> Result<Option<Vec<QemuThread>>, HostError> {
        let QemuSearch::Runs(qemu) = self.qemu_of(clues, deadline) else { return Ok(None) };
        let status = self.libvirt_status(clues.guest, clues.name)?.filter(|status| status.pid == qemu.pid);
        let tasks = PathBuf::from(format!("/proc/{}/task", qemu.pid));
        let names = match self.names(&tasks) {
            Err(error) if error.is_absent() => return Ok(None),
            names => names?,
        };
        let mut threads = Vec::new();
        for thread in names.iter().filter_map(|name| name.to_str()?.parse::<i32>().ok()) {
            let vcpu = status.iter().flat_map(|status| &status.threads).find(|(_, of)| **of == thread);
            let any = ThreadId { process: qemu.pid, thread, start_time: 0 };
            // What has ended meanwhile has no role.
            let Some(stat) = self.thread_stat(any)? else { continue };
            let role = match (vcpu, io_thread(&stat.comm)) {
                (Some((number, _)), _) => ThreadRole::Vcpu(*number),
                (None, _) if thread == qemu.pid => ThreadRole::Emulator,
                (None, Some(number)) => ThreadRole::Io(number),
                (None, None) => continue,
            };
            let id = ThreadId { start_time: stat.starttime, ..any };
            threads.push(QemuThread { id, role, scheduling: scheduling_of(&stat, id)? });
        }
        threads.sort_by_key(|thread| (thread.role, thread.id));
        // A process that ended while it was looked at may have left its number to another.
        Ok(self.qemu_of(QemuClues { known: Some(qemu), ..clues }, deadline).found().map(|_| threads))
    }

    /// How a thread is scheduled.
    ///
    /// # Errors
    /// It has ended ([`HostError::is_absent`]); its file cannot be read.
    pub fn thread_scheduling(&self, thread: ThreadId) -> Result<Scheduling, HostError> {
        match self.thread_stat(thread)? {
            Some(stat) if stat.starttime == thread.start_time => scheduling_of(&stat, thread),
            _ => Err(HostError::gone(format!("{thread} has ended"))),
        }
    }

    /// Has the kernel schedule a thread so: its policy in one call, its nice value in another, each where it differs.
    ///
    /// # Errors
    /// It has ended; the kernel refuses.
    pub fn set_thread_scheduling(&mut self, thread: ThreadId, to: Scheduling) -> Result<(), HostError> {
        let now = self.thread_scheduling(thread)?;
        let stat = thread.stat_path();
        if now.policy != to.policy {
            let Some((policy, priority)) = to.policy.to_kernel() else {
                let reason = format!("{} cannot be set", to.policy);
                return Err(HostError::call("sched_setscheduler", &thread.to_string(), reason));
            };
            let set = self.files.set_scheduling_policy(&stat, thread.thread, policy, priority);
            set.map_err(|error| self.scheduling_error("sched_setscheduler", thread, to.policy, &error))?;
        }
        if now.nice != to.nice {
            let set = self.files.set_nice(&stat, thread.thread, to.nice.get().into());
            set.map_err(|error| self.scheduling_error("setpriority", thread, to.policy, &error))?;
        }
        Ok(())
    }

    fn scheduling_error(
        &self,
        call: &'static str,
        thread: ThreadId,
        policy: SchedulingPolicy,
        error: &std::io::Error,
    ) -> HostError {
        let errno = error.raw_os_error().map(Errno::from_raw);
        if errno == Some(Errno::ESRCH) {
            return HostError::gone(format!("{thread} has ended"));
        }
        let is_real_time = matches!(policy, SchedulingPolicy::Fifo(_) | SchedulingPolicy::RoundRobin(_));
        let why = match errno {
            // `__sched_setscheduler` in `kernel/sched/syscalls.c`.
            Some(Errno::EPERM) if is_real_time => {
                " (a kernel with RT_GROUP_SCHED refuses real-time threads in a control group without a real-time budget: \
                 `rt_group_sched=0` on the kernel's command line, or cpu.rt_runtime_us of the guest's group)"
            }
            _ => "",
        };
        HostError::call(call, &thread.to_string(), format!("{error}{why}"))
    }

    /// For how much of each second real-time threads may run, in words; none where there is no limit. The kernel's files
    /// are in microseconds (`Documentation/scheduler/sched-rt-group.rst`).
    ///
    /// # Errors
    /// They are there but cannot be read.
    pub fn real_time_limit(&self) -> Result<Option<RealTimeLimit>, HostError> {
        const FOLDER: &str = "/proc/sys/kernel";
        let number = |name: &str| -> Result<Option<i64>, HostError> {
            let path = format!("{FOLDER}/{name}");
            let Some(text) = self.text_if_present(&path)? else { return Ok(None) };
            text.parse().map(Some).map_err(|reason| HostError::content(path.as_ref(), reason))
        };
        let (runtime, period) = (number("sched_rt_runtime_us")?, number("sched_rt_period_us")?);
        Ok(match (runtime, period) {
            (Some(runtime), Some(period)) if runtime >= 0 && runtime < period => {
                Some(RealTimeLimit { runtime_us: runtime, period_us: period })
            }
            _ => None,
        })
    }

    fn thread_stat(&self, thread: ThreadId) -> Result<Option<Stat>, HostError> {
        let path = thread.stat_path();
        let gone = [Some(Errno::ENOENT as i32), Some(Errno::ESRCH as i32)];
        let bytes = match self.files.read(&path) {
            Err(error) if gone.contains(&error.raw_os_error()) => return Ok(None),
            bytes => bytes.map_err(|error| HostError::read(&path, error))?,
        };
        // A thread that ends while its file is read.
        if bytes.is_empty() {
            return Ok(None);
        }
        Stat::from_read(Cursor::new(bytes)).map(Some).map_err(|error| HostError::content(&path, error))
    }
}

/// How long real-time threads may run in each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealTimeLimit {
    /// `sched_rt_runtime_us`.
    pub runtime_us: i64,
    /// `sched_rt_period_us`.
    pub period_us: i64,
}

fn io_thread(name: &str) -> Option<u32> {
    name.strip_prefix(IO_THREAD)?.parse().ok()
}

fn scheduling_of(stat: &Stat, thread: ThreadId) -> Result<Scheduling, HostError> {
    let policy = SchedulingPolicy::from_kernel(stat.policy.unwrap_or(0), stat.rt_priority.unwrap_or(0));
    match Nice::new(stat.nice) {
        Some(nice) => Ok(Scheduling { policy, nice }),
        None => Err(HostError::content(&thread.stat_path(), format!("{} is no nice value", stat.nice))),
    }
}
