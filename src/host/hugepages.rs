//! Pools of huge pages, one for each node and size.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Host, HostError};
use crate::cpuset::NodeSet;
use crate::pages::PageSize;

const NODES: &str = "/sys/devices/system/node";
const GLOBAL: &str = "/sys/kernel/mm/hugepages";

/// The pool of one size on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PagePool {
    /// The host's node.
    pub node: u32,
    /// The size of its pages.
    pub size: PageSize,
}

/// What a pool holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolCount {
    /// Pages that stay until they are taken away: `nr_hugepages` less the surplus that goes with its users. This is what
    /// a write sets.
    pub persistent: u64,
    /// Of all pages, those nobody uses.
    pub free: u64,
    /// Of the persistent ones, those that the kernel counts as surplus though nobody uses them, so that nothing frees
    /// them. A write that shrinks a pool leaves such ones where surplus pages are in use, on any node:
    /// `set_max_huge_pages` in `mm/hugetlb.c` compares the pages in use of all nodes with the persistent ones alone.
    pub stranded: u64,
}

impl PagePool {
    fn folder(self) -> String {
        format!("{NODES}/node{}/hugepages/hugepages-{}kB", self.node, self.size.kib())
    }

    /// The attribute that sizes it.
    #[must_use]
    pub fn nr_hugepages_path(self) -> PathBuf {
        PathBuf::from(format!("{}/nr_hugepages", self.folder()))
    }
}

impl fmt::Display for PagePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pages on node {}", self.size, self.node)
    }
}

impl Host {
    /// The page sizes of this kernel, the smallest first.
    ///
    /// # Errors
    /// The kernel has no huge pages at all.
    pub fn huge_page_sizes(&self) -> Result<Vec<PageSize>, HostError> {
        let mut sizes: Vec<PageSize> = self
            .names(GLOBAL)?
            .iter()
            .filter_map(|name| {
                let kib = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?;
                PageSize::from_kib(kib.parse().ok()?)
            })
            .collect();
        sizes.sort_unstable();
        Ok(sizes)
    }

    /// The nodes that have memory.
    ///
    /// # Errors
    /// The kernel shows no nodes.
    pub fn memory_nodes(&self) -> Result<NodeSet, HostError> {
        match self.value(format!("{NODES}/has_memory")) {
            Err(error) if error.is_absent() => Ok(self.numbered(NODES, "node")?.into_iter().collect()),
            nodes => nodes,
        }
    }

    /// What a pool holds: `nr_hugepages`, `surplus_hugepages` and `free_hugepages`.
    ///
    /// # Errors
    /// The node or size does not exist.
    pub fn page_pool(&self, pool: PagePool) -> Result<PoolCount, HostError> {
        let folder = pool.folder();
        let total: u64 = self.value(format!("{folder}/nr_hugepages"))?;
        let surplus: u64 = self.value(format!("{folder}/surplus_hugepages"))?;
        let free: u64 = self.value(format!("{folder}/free_hugepages"))?;
        let stranded = match surplus.min(free) {
            0 => 0,
            // Surplus pages are free, too, between the promise to a mapping and their first use.
            unused => unused.min(free.saturating_sub(self.resv_hugepages(pool.size)?)),
        };
        Ok(PoolCount { persistent: total.saturating_sub(surplus) + stranded, free, stranded })
    }

    /// `resv_hugepages`: pages promised to mappings but not yet taken, over all nodes.
    ///
    /// # Errors
    /// The size does not exist.
    pub fn resv_hugepages(&self, size: PageSize) -> Result<u64, HostError> {
        self.value(format!("{GLOBAL}/hugepages-{}kB/resv_hugepages", size.kib()))
    }

    /// Sets the number of persistent pages. The kernel reports success even when it found fewer: read the pool again.
    ///
    /// # Errors
    /// EINVAL for 1 GiB pages on a kernel that cannot make them at run time (no `CONFIG_CONTIG_ALLOC`). Pages are left
    /// stranded: the same write frees them once the surplus pages of others are free.
    pub fn set_nr_hugepages(&mut self, pool: PagePool, pages: u64) -> Result<(), HostError> {
        let path = pool.nr_hugepages_path();
        let before = self.page_pool(pool)?;
        if before.stranded > 0 && pages < before.persistent {
            // Only what the kernel counts as persistent can go.
            self.set(&path, &before.persistent.to_string())?;
        }
        self.set(&path, &pages.to_string())?;
        let PoolCount { persistent, stranded, .. } = self.page_pool(pool)?;
        if stranded == 0 || persistent <= pages {
            return Ok(());
        }
        let kept = persistent - pages;
        let reason = format!("the kernel keeps {kept} free pages while surplus pages of others are in use");
        Err(HostError::written_otherwise(&path, &pages.to_string(), reason))
    }

    /// The mount points of `hugetlbfs` with pages of this size, from `/proc/mounts`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn hugetlbfs_mounts(&self, size: PageSize) -> Result<Vec<String>, HostError> {
        let mounts = self.text("/proc/mounts")?;
        let wanted = mounts.lines().filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (target, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            let pagesize = options.split(',').find_map(|option| option.strip_prefix("pagesize="))?;
            (kind == "hugetlbfs" && mount_page_size(pagesize)? == size).then(|| target.to_owned())
        });
        Ok(wanted.collect())
    }
}

/// `pagesize=2M` as `hugetlbfs_show_options` in `fs/hugetlbfs/inode.c` prints it.
fn mount_page_size(text: &str) -> Option<PageSize> {
    let (number, factor) = match text.strip_suffix('M') {
        Some(number) => (number, 1024),
        None => match text.strip_suffix('G') {
            Some(number) => (number, 1024 * 1024),
            None => (text.strip_suffix('K')?, 1),
        },
    };
    PageSize::from_kib(number.parse::<u64>().ok()?.checked_mul(factor)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_page_size_of_a_mount() {
        assert_eq!(mount_page_size("2M"), Some(PageSize::MIB_2));
        assert_eq!(mount_page_size("1024M"), Some(PageSize::GIB_1));
        assert_eq!(mount_page_size("1G"), Some(PageSize::GIB_1));
        assert_eq!(mount_page_size("64K"), PageSize::from_kib(64));
        assert_eq!(mount_page_size("?"), None);
    }
}
