//! Where the kernel's own threads run.

use std::fmt;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::cpus::cpus_in_words;
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::host::{Host, HostError, ProcessId};
use crate::ledger::rule::MinusCpus;
use crate::ledger::setting::{Absence, OnRefusal, Phase, Place, Reconciling, Setting, Traits};

/// The CPUs of one thread of the kernel's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KernelThreadCpus {
    /// Its number.
    pub pid: i32,
    /// When it started; another thread may get the number later.
    pub start_time: u64,
    /// As the kernel calls it, for people.
    pub name: String,
}

impl KernelThreadCpus {
    fn id(&self) -> ProcessId {
        ProcessId { pid: self.pid, start_time: self.start_time }
    }
}

impl fmt::Display for KernelThreadCpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPUs of kernel thread {} ({})", self.name, self.pid)
    }
}

impl Setting for KernelThreadCpus {
    type Value = CpuSet;
    type Want = CpuSet;
    type Rule = MinusCpus;

    fn place(&self) -> Place {
        Place::KernelThreads
    }

    /// Before Linux 7.0 the kernel writes an older value back when it changes partitions of CPUs
    /// (`cpuset_update_tasks_cpumask` in `kernel/cgroup/cpuset.c`), and since 6.14 when a CPU comes
    /// (`kthreads_online_cpu` in `kernel/kthread.c`).
    fn traits(&self) -> Traits {
        Traits {
            reconciling: Reconciling::OldValues,
            absence: Absence::Expected,
            ..Traits::of(Phase::WithinCommands)
        }
    }

    fn read(&self, host: &Host, _deadline: Deadline) -> Result<CpuSet, HostError> {
        host.kernel_thread_cpus(self.id())
    }

    fn write(&self, host: &mut Host, cpus: &CpuSet, _deadline: Deadline) -> Result<(), HostError> {
        host.set_kernel_thread_cpus(self.id(), cpus)
    }

    /// One that has ended, or that the kernel has bound since it was looked at.
    fn on_refusal(&self, error: &HostError) -> OnRefusal {
        let refused = [Errno::EINVAL, Errno::EPERM].map(|errno| Some(errno as i32));
        match error.is_absent() || refused.contains(&error.raw_os_error()) {
            true => OnRefusal::Skip,
            false => OnRefusal::Refuse,
        }
    }

    cpus_in_words!();
}
