//! The host's memory: how much there is, how much is left, and how to gather it.

use std::path::PathBuf;

use super::error::rounded;
use super::worker::{End, Heard, Order};
use super::{Host, HostError};
use crate::deadline::Deadline;
use crate::pages::{MemorySize, PageSize};

impl Host {
    /// `MemTotal` of `/proc/meminfo`.
    ///
    /// # Errors
    /// The file or the line is missing.
    pub fn mem_total(&self) -> Result<MemorySize, HostError> {
        self.meminfo("MemTotal")
    }

    /// `MemAvailable` of `/proc/meminfo`: what can be had without swapping.
    ///
    /// # Errors
    /// The file or the line is missing.
    pub fn mem_available(&self) -> Result<MemorySize, HostError> {
        self.meminfo("MemAvailable")
    }

    /// `MemFree` of `/proc/meminfo`: what nothing uses at all.
    ///
    /// # Errors
    /// The file or the line is missing.
    pub fn mem_free(&self) -> Result<MemorySize, HostError> {
        self.meminfo("MemFree")
    }

    /// Writes back all files that were changed in memory, in a worker that can be left behind: a network file system
    /// whose server is away never comes back (`sync(2)`).
    ///
    /// # Errors
    /// It is not over at the deadline; no process can be started.
    pub fn sync_files(&mut self, deadline: Deadline) -> Result<(), HostError> {
        const PLACE: &str = "all file systems";
        let waited = rounded(deadline.remaining());
        let failed = |error| HostError::call("sync", PLACE, error);
        // A host in a folder has nothing to write back.
        let Some(Heard { end, .. }) = self.workers.ask::<()>(&Order::Sync, deadline).map_err(failed)? else {
            return Ok(());
        };
        let late = |process: String| {
            HostError::late_call("sync", PLACE, format!("it took longer than {waited}{process}"))
        };
        match end {
            End::Answered => Ok(()),
            End::Died(error) | End::Signalled { reason: error, .. } => Err(failed(error)),
            End::Killed => Err(late(String::new())),
            End::Stuck(process) => Err(late(format!(", and process {} hangs in the kernel", process.pid))),
        }
    }

    /// `Hugepagesize` of `/proc/meminfo`: the size that is meant where none is named.
    ///
    /// # Errors
    /// The file or the line is missing.
    pub fn default_huge_page_size(&self) -> Result<PageSize, HostError> {
        let kib = self.meminfo("Hugepagesize")?.bytes() / 1024;
        PageSize::from_kib(kib)
            .ok_or_else(|| HostError::content("/proc/meminfo".as_ref(), "Hugepagesize is 0"))
    }

    /// What a node could give: free memory, page cache that can be dropped and reclaimable slab.
    ///
    /// # Errors
    /// The node does not exist.
    pub fn node_mem_available(&self, node: u32) -> Result<MemorySize, HostError> {
        let path = format!("/sys/devices/system/node/node{node}/meminfo");
        let text = self.text(&path)?;
        // "Node 0 MemFree:  123 kB"
        let field = |name: &str| {
            text.lines().find_map(|line| kib_after(line, &format!(" {name}:"))).unwrap_or(MemorySize::ZERO)
        };
        let fields = ["MemFree", "Active(file)", "Inactive(file)", "SReclaimable"];
        Ok(fields.into_iter().map(field).fold(MemorySize::ZERO, MemorySize::plus))
    }

    /// `/proc/sys/vm/drop_caches`; `1` drops the page cache and leaves dentries alone.
    #[must_use]
    pub fn drop_caches_path(&self) -> PathBuf {
        PathBuf::from("/proc/sys/vm/drop_caches")
    }

    /// `/sys/devices/system/node/nodeN/compact`: gathers the node's free memory when written.
    #[must_use]
    pub fn compact_path(&self, node: u32) -> PathBuf {
        PathBuf::from(format!("/sys/devices/system/node/node{node}/compact"))
    }

    fn meminfo(&self, name: &str) -> Result<MemorySize, HostError> {
        const MEMINFO: &str = "/proc/meminfo";
        let text = self.text(MEMINFO)?;
        text.lines()
            .find_map(|line| kib_after(line, &format!("{name}:")))
            .ok_or_else(|| HostError::content(MEMINFO.as_ref(), format!("there is no line {name}")))
    }
}

fn kib_after(line: &str, name: &str) -> Option<MemorySize> {
    let start = line.find(name)?;
    // `MemFree:` must not be found inside `HighMemFree:`.
    if start > 0 && !name.starts_with(' ') {
        return None;
    }
    line[start + name.len()..].trim().strip_suffix("kB")?.trim().parse().ok().map(MemorySize::from_kib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines_of_both_meminfo_files() {
        assert_eq!(kib_after("MemFree:   12 kB", "MemFree:"), Some(MemorySize::from_kib(12)));
        assert_eq!(kib_after("HighMemFree:   12 kB", "MemFree:"), None);
        assert_eq!(kib_after("Node 0 MemFree:   12 kB", " MemFree:"), Some(MemorySize::from_kib(12)));
        assert_eq!(kib_after("HugePages_Total:  12", "HugePages_Total:"), None);
    }
}
