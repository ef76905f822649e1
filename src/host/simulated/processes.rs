//! Processes of a host in a folder: those in a unit's control group end when it stops, and are there again when it
//! starts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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

    fn kept(&self, folder: &Path) -> PathBuf {
        self.root.join(folder.strip_prefix("/").unwrap_or(folder)).join("processes")
    }
}

/// The control group in which libvirt has a guest's QEMU, with machined and without its help for odd names.
#[must_use]
pub fn qemu_scope(name: &str) -> String {
    format!(r"/sys/fs/cgroup/machine.slice/machine-qemu\x2d1\x2d{name}.scope")
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
