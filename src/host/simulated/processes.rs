//! Processes of a host in a folder: those in a unit's control group end when it stops, and are there again when it
//! starts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::SimulatedFiles;

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
