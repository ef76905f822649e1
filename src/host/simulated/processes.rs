//! Processes of a host in a folder: those in a unit's control group end when it stops, and are there again when it
//! starts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::SimulatedFiles;
use crate::guest::GuestUuid;

/// A control group's part of the tree that ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndingGroup<'a> {
    /// The unit, or the scope of a session.
    pub(super) unit: &'a str,
    /// The user whose manager has it; nobody: the system's.
    pub(super) uid: Option<u32>,
}

impl EndingGroup<'_> {
    fn has(self, cgroup: &str) -> bool {
        let parts: Vec<&str> = cgroup.split('/').collect();
        let manager = self.uid.map(|uid| format!("user@{uid}.service"));
        let start = match &manager {
            Some(manager) => parts.iter().position(|part| part == manager),
            None => Some(0),
        };
        start.is_some_and(|start| parts[start..].contains(&self.unit))
    }
}

impl SimulatedFiles {
    /// The processes of a group end; their folders are kept in this one.
    pub(super) fn end_processes(&self, group: EndingGroup<'_>, kept: &Path) -> io::Result<()> {
        let proc = self.root.join("proc");
        let Ok(entries) = fs::read_dir(&proc) else { return Ok(()) };
        for entry in entries {
            let name = entry?.file_name();
            let Ok(text) = fs::read_to_string(proc.join(&name).join("cgroup")) else { continue };
            let mut groups = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
            if groups.any(|path| group.has(path)) {
                let kept = self.kept(kept);
                fs::create_dir_all(&kept)?;
                fs::rename(proc.join(&name), kept.join(&name))?;
            }
        }
        Ok(())
    }

    /// Those that were kept run again.
    pub(super) fn start_processes(&self, kept: &Path) -> io::Result<()> {
        let kept = self.kept(kept);
        let Ok(entries) = fs::read_dir(&kept) else { return Ok(()) };
        for entry in entries {
            let name = entry?.file_name();
            fs::rename(kept.join(&name), self.root.join("proc").join(&name))?;
        }
        fs::remove_dir(kept)
    }

    /// Sets fields of a thread's file in `/proc`.
    pub(super) fn set_stat(&self, stat: &Path, fields: &[(usize, i32)]) -> io::Result<()> {
        crate::failpoint::reached("setting");
        self.faults.before_write(stat)?;
        let text = self.text(stat).map_err(|_| Errno::ESRCH)?;
        let (start, rest) = text.rsplit_once(") ").ok_or(Errno::EINVAL)?;
        let mut values: Vec<String> = rest.split(' ').map(str::to_owned).collect();
        for (field, value) in fields {
            // The third field is the first after the name.
            *values.get_mut(field - 3).ok_or(Errno::EINVAL)? = value.to_string();
        }
        self.set(stat, &format!("{start}) {}", values.join(" ")))
    }

    fn kept(&self, folder: &Path) -> PathBuf {
        self.root.join(folder.strip_prefix("/").unwrap_or(folder)).join("processes")
    }
}

/// Fields of `proc_pid_stat(5)`, counted from 1.
pub(super) const NICE: usize = 19;
pub(super) const RT_PRIORITY: usize = 40;
pub(super) const POLICY: usize = 41;

/// The line of a manifest for a thread of a process, which the kernel schedules as it does without a word.
#[must_use]
pub fn qemu_thread(pid: i32, thread: i32, name: &str) -> String {
    // `starttime` is the 22nd field.
    let fields = format!("{}{} {}", "0 ".repeat(18), 10_000 + thread, "0 ".repeat(30));
    format!("/proc/{pid}/task/{thread}/stat = {thread} ({name}) S {}\n", fields.trim_end())
}

/// The control group in which libvirt has a guest's QEMU, with machined and without its help for odd names.
#[must_use]
pub fn qemu_scope(name: &str) -> String {
    format!(r"/sys/fs/cgroup/machine.slice/machine-qemu\x2d1\x2d{name}.scope")
}

/// The lines of a manifest for a thread of the kernel's, with flags beside that of all such (`PF_KTHREAD`).
#[must_use]
pub fn kernel_thread(pid: i32, name: &str, flags: u32, cpus: &str) -> String {
    let flags = flags | 0x0020_0000;
    let fields = format!("S 2 0 0 0 -1 {flags} {}{} {}", "0 ".repeat(12), 1000 + pid, "0 ".repeat(30));
    format!(
        "/proc/{pid}/stat = {pid} ({name}) {}\n/proc/{pid}/status = Name: {name}\\nCpus_allowed_list: {cpus}\n",
        fields.trim_end()
    )
}

/// The lines of a manifest for a guest's QEMU as libvirt starts it: the process, and its control group.
#[must_use]
pub fn qemu_process(pid: i32, guest: GuestUuid, name: &str) -> String {
    // `starttime` is the 22nd field.
    let fields = format!("{}4242 {}", "0 ".repeat(18), "0 ".repeat(30));
    format!(
        "/proc/{pid}/cmdline = qemu\0-uuid\0{guest}\0\n\
         /proc/{pid}/stat = {pid} (qemu) S {fields}\n\
         {}/libvirt/cgroup.procs = {pid}\n",
        qemu_scope(name)
    )
}
