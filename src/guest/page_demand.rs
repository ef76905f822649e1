//! How many huge pages a guest needs, and from which nodes of the host.
//!
//! Follows `qemuBuildMemoryBackendProps` in libvirt's `src/qemu/qemu_command.c`: each cell and each memory device is
//! one piece of memory in QEMU, with a page size and a NUMA policy of its own, rounded up to whole pages by itself.

use std::collections::BTreeMap;

use super::error::{GuestError, ValueError};
use super::memory::{MemoryDevice, MemoryModel};
use super::numa::{NumaMode, NumaPlacement};
use super::{Guest, HugepagesPage};
use crate::cpuset::NodeSet;
use crate::pages::{MemorySize, PageSize};

/// The page that every x86_64 machine has: asking for "huge" pages of this size is asking for none.
const SMALL_PAGE_KIB: u64 = 4;

/// Huge pages of one size that have to be free when QEMU starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageDemand {
    /// Their size.
    pub size: PageSize,
    /// The number of pages.
    pub pages: u64,
    /// From where.
    pub placement: Placement,
}

/// Which of the host's nodes pages may come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Placement {
    /// Any.
    Anywhere,
    /// Any, these first.
    Prefer(NodeSet),
    /// Only these.
    Strict(NodeSet),
}

impl Guest {
    /// The huge pages this guest needs, one entry for each size and placement, in that order.
    ///
    /// # Errors
    /// A memory device that belongs to a cell the guest has not.
    pub fn page_demands(&self, default_size: PageSize) -> Result<Vec<PageDemand>, GuestError> {
        let mut demands = BTreeMap::<_, u64>::new();
        let mut add = |size: Option<PageSize>, memory: MemorySize, placement: Placement| {
            let Some(size) = size.filter(|size| size.kib() > SMALL_PAGE_KIB) else { return };
            let pages = demands.entry((size, placement)).or_default();
            *pages = pages.saturating_add(memory.pages(size));
        };
        if self.numa_cells.is_empty() {
            add(
                self.page_size(None, default_size),
                self.memory_without_devices(),
                self.placement(None, None),
            );
        }
        for cell in &self.numa_cells {
            let size = self.page_size(Some(cell.id), default_size);
            add(size, cell.memory, self.placement(Some(cell.id), None));
        }
        for (position, device) in self.memory_devices.iter().enumerate() {
            let Some(memory) = memory_at_start(device) else { continue };
            let cell = self.cell_of(position, device)?;
            let size = device.page_size.or_else(|| self.page_size(cell, default_size));
            add(size, memory, self.placement(cell, device.source_nodes.as_ref()));
        }
        let demands = demands.into_iter().filter(|(_, pages)| *pages > 0);
        Ok(demands.map(|((size, placement), pages)| PageDemand { size, pages, placement }).collect())
    }

    /// `<memory>` includes the devices.
    fn memory_without_devices(&self) -> MemorySize {
        self.memory_devices.iter().fold(self.memory, |memory, device| memory.minus(device.size))
    }

    /// The cell a device belongs to. A guest without cells has none, whatever the device says.
    fn cell_of(&self, position: usize, device: &MemoryDevice) -> Result<Option<u32>, GuestError> {
        let Some(node) = device.guest_node.filter(|_| !self.numa_cells.is_empty()) else { return Ok(None) };
        if self.numa_cells.iter().any(|cell| cell.id == node) {
            return Ok(Some(node));
        }
        Err(GuestError::BadValue {
            place: format!("devices/memory[number={position}]/target/node"),
            value: node.to_string(),
            reason: ValueError::NoSuchCell,
        })
    }

    /// The size of the huge pages of a cell, or of a guest without cells; none if its memory is of small pages.
    fn page_size(&self, cell: Option<u32>, default_size: PageSize) -> Option<PageSize> {
        let pages = self.hugepages.as_ref()?;
        if pages.is_empty() {
            return Some(default_size);
        }
        // libvirt takes nodeset='0' for a guest without cells too, if it is the only entry.
        let is_for = |page: &&HugepagesPage| {
            page.guest_nodes.as_ref().is_some_and(|nodes| nodes.contains(cell.unwrap_or(0)))
        };
        let entry = match cell {
            Some(_) => pages.iter().find(is_for).or_else(|| general(pages)),
            None => general(pages).or_else(|| pages.iter().find(is_for)),
        };
        entry.map(|page| page.size.unwrap_or(default_size))
    }

    /// Where the memory of a cell, or of a guest without cells, comes from; a device may name nodes of its own.
    fn placement(&self, cell: Option<u32>, own_nodes: Option<&NodeSet>) -> Placement {
        let memnode = self.memnodes.iter().find(|memnode| Some(memnode.cell) == cell);
        let general = self.numa_memory.as_ref();
        let mode = memnode.map(|memnode| memnode.mode).or(general.map(|memory| memory.mode));
        let nodes = own_nodes.or_else(|| match (memnode, general) {
            (Some(memnode), _) => Some(&memnode.nodes),
            (None, Some(memory)) if memory.placement == NumaPlacement::Static => memory.nodes.as_ref(),
            _ => None,
        });
        match (nodes, mode) {
            (None, _) => Placement::Anywhere,
            (Some(nodes), Some(NumaMode::Preferred)) => Placement::Prefer(nodes.clone()),
            (Some(nodes), _) => Placement::Strict(nodes.clone()),
        }
    }
}

/// The entry for all cells that have none of their own.
fn general(pages: &[HugepagesPage]) -> Option<&HugepagesPage> {
    pages.iter().find(|page| page.guest_nodes.is_none())
}

/// How much of a device is filled when QEMU starts; none if its memory is a file or an enclave.
fn memory_at_start(device: &MemoryDevice) -> Option<MemorySize> {
    match device.model {
        MemoryModel::Dimm => Some(device.size),
        MemoryModel::VirtioMem => Some(device.requested.unwrap_or(device.size)),
        MemoryModel::Nvdimm | MemoryModel::VirtioPmem | MemoryModel::SgxEpc | MemoryModel::Other(_) => None,
    }
}

#[cfg(test)]
#[path = "page_demand_tests.rs"]
mod tests;
