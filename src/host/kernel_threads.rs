//! The kernel's own threads, and the CPUs they may use.

use std::path::PathBuf;

use procfs::FromRead;
use procfs::process::Stat;

use super::{Host, HostError};
use crate::cpuset::CpuSet;
use crate::process_id::ProcessId;

/// `PF_KTHREAD` and `PF_NO_SETAFFINITY` of the kernel's `include/linux/sched.h`, in `flags` of `/proc/PID/stat`: the
/// second has those that are bound to their CPUs, workers of workqueues among them.
const KERNEL_THREAD: u32 = 0x0020_0000;
const BOUND: u32 = 0x0400_0000;

/// Those that belong where they are: `kthreadd` hands its CPUs on to those that come later, threads of vhost and KVM
/// work for guests, and the kernel moves the threads of interrupts with these (`irq_thread_check_affinity` in
/// `kernel/irq/manage.c`).
const LEFT_ALONE: [&str; 4] = ["kthreadd", "vhost-", "kvm-", "irq/"];

/// A thread of the kernel's that may be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelThread {
    /// Which one: its number may be another's later.
    pub id: ProcessId,
    /// As the kernel calls it, for people.
    pub name: String,
    /// The CPUs it may use.
    pub allowed: CpuSet,
}

impl Host {
    /// The kernel's threads that may be moved. One that ends meanwhile is left out.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn movable_kernel_threads(&self) -> Result<Vec<KernelThread>, HostError> {
        let pids = self.numbered("/proc", "")?;
        let movable = |pid: u32| {
            let pid = i32::try_from(pid).ok()?;
            let stat = self.stat_of(pid).ok()?;
            let is_movable = stat.flags & KERNEL_THREAD != 0
                && stat.flags & BOUND == 0
                && !LEFT_ALONE.iter().any(|name| stat.comm.starts_with(name));
            let allowed = is_movable.then(|| self.allowed_cpus_of(pid).ok())??;
            Some(KernelThread { id: ProcessId { pid, start_time: stat.starttime }, name: stat.comm, allowed })
        };
        Ok(pids.into_iter().filter_map(movable).collect())
    }

    /// The CPUs that a thread of the kernel's may use.
    ///
    /// # Errors
    /// It has ended ([`HostError::is_absent`]); `/proc` cannot be read.
    pub fn kernel_thread_cpus(&self, id: ProcessId) -> Result<CpuSet, HostError> {
        let cpus = self.allowed_cpus_of(id.pid)?;
        // Looked at after them: what was read is that thread's.
        let stat = self.stat_of(id.pid)?;
        if stat.starttime != id.start_time || stat.flags & KERNEL_THREAD == 0 {
            return Err(HostError::gone(format!("thread {} is now another one", id.pid)));
        }
        Ok(cpus)
    }

    /// Has a thread of the kernel's use these CPUs alone (`sched_setaffinity(2)`).
    ///
    /// # Errors
    /// It has ended ([`HostError::is_absent`]); EINVAL for one that is bound, or where none of the CPUs is online.
    pub fn set_kernel_thread_cpus(&mut self, id: ProcessId, cpus: &CpuSet) -> Result<(), HostError> {
        self.kernel_thread_cpus(id)?;
        let set = self.files.set_affinity(id.pid, cpus);
        set.map_err(|error| match error.raw_os_error() {
            Some(nix::libc::ESRCH) => HostError::gone(format!("thread {} has ended", id.pid)),
            _ => HostError::write(&proc_file(id.pid, "status"), &format!("CPUs {cpus}"), error),
        })
    }

    fn stat_of(&self, pid: i32) -> Result<Stat, HostError> {
        let path = proc_file(pid, "stat");
        // Bytes: a program may have any name.
        let bytes = self.files.read(&path).map_err(|error| HostError::read(&path, error))?;
        Stat::from_read(&bytes[..]).map_err(|error| HostError::content(&path, error))
    }

    fn allowed_cpus_of(&self, pid: i32) -> Result<CpuSet, HostError> {
        let path = proc_file(pid, "status");
        let text = self.text(&path)?;
        let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let list = list.ok_or_else(|| HostError::content(&path, "it has no `Cpus_allowed_list`"))?;
        list.trim().parse().map_err(|error| HostError::content(&path, error))
    }
}

fn proc_file(pid: i32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::manifest;
    use crate::host::simulated::{Faults, kernel_thread};

    #[test]
    fn bound_threads_and_those_of_guests_and_interrupts_are_left_alone() {
        let lines = [
            kernel_thread(2, "kthreadd", 0, "0-7"),
            kernel_thread(15, "rcu_preempt", 0, "0-7"),
            kernel_thread(18, "migration/0", BOUND, "0"),
            kernel_thread(40, "kworker/u17:0-flush", BOUND, "0-7"),
            kernel_thread(77, "kvm-nx-lpage-recovery-4242", 0, "0-7"),
            kernel_thread(78, "vhost-4242", 0, "0-7"),
            kernel_thread(79, "irq/24-pciehp", 0, "0-3"),
            kernel_thread(101, "kswapd0", 0, "0-3"),
            // A program with the name of a kernel's thread.
            "/proc/900/stat = 900 (kswapd0) S 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 42 0 0 0 0 0 0 0 0 0 0 0 0 \
             0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
                .to_owned(),
        ];
        let root = tempfile::tempdir().unwrap();
        manifest::lay_out(&lines.concat(), root.path()).unwrap();
        let host = Host::simulated(root.path(), &Faults::default());
        let found = host.movable_kernel_threads().unwrap();
        let found: Vec<_> =
            found.iter().map(|thread| (thread.id.pid, &*thread.name, thread.allowed.to_string())).collect();
        assert_eq!(found, [(15, "rcu_preempt", "0-7".to_owned()), (101, "kswapd0", "0-3".to_owned())]);
    }

    #[test]
    fn another_thread_with_the_number_is_not_moved() {
        let root = tempfile::tempdir().unwrap();
        manifest::lay_out(&kernel_thread(15, "rcu_preempt", 0, "0-7"), root.path()).unwrap();
        let mut host = Host::simulated(root.path(), &Faults::default());
        let id = host.movable_kernel_threads().unwrap()[0].id;
        let cpus = "0-1".parse().unwrap();
        let other = ProcessId { start_time: id.start_time + 1, ..id };
        assert!(host.set_kernel_thread_cpus(other, &cpus).unwrap_err().is_absent());
        assert_eq!(host.kernel_thread_cpus(id).unwrap().to_string(), "0-7");
        host.set_kernel_thread_cpus(id, &cpus).unwrap();
        assert_eq!(host.kernel_thread_cpus(id).unwrap(), cpus);
    }

    /// Reads this machine's.
    #[test]
    fn a_kernel_shows_its_threads_in_this_way() {
        let host = Host::real();
        for thread in host.movable_kernel_threads().unwrap() {
            assert!(!thread.allowed.is_empty(), "{thread:?}");
        }
        // This program is none.
        let own = host.kernel_thread_cpus(host.this_process());
        assert!(own.unwrap_err().is_absent());
    }
}
