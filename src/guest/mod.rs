//! The guest's XML as typed values.
//!
//! libvirt gives the hook the whole domain XML at every event. What is here is what the actions need of it; all else
//! is passed over, so that no new element of libvirt's is an error.

use std::collections::BTreeMap;

use crate::cpuset::CpuSet;
use crate::pages::MemorySize;

mod bounds;
mod error;
mod hostdev;
mod lifecycle;
mod memory;
mod name;
mod numa;
mod page_demand;
mod parse;
mod scaled;
#[cfg(test)]
mod testing;
mod uuid;
mod vcpus;
mod xml;

pub use error::{GuestError, MAX_XML_BYTES, Position, ValueError};
pub use hostdev::{Managed, PciHostdev};
pub use lifecycle::LifecycleAction;
pub use memory::{HugepagesPage, MemoryDevice, MemoryModel, MemorySource};
pub use name::GuestName;
pub use numa::{MemNode, NumaCell, NumaMemory, NumaMode, NumaPlacement};
pub use page_demand::{PageDemand, Placement};
pub use uuid::{GuestUuid, ParseUuidError};
pub use vcpus::VcpuCount;

/// A guest as its XML describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its name as the XML has it; to print it or look for its file, make a [`GuestName`] of it.
    pub name: String,
    /// Its UUID.
    pub uuid: GuestUuid,
    /// All its memory, devices included.
    pub memory: MemorySize,
    /// What `<hugepages>` says; none without it, nothing in it for the host's default size.
    pub hugepages: Option<Vec<HugepagesPage>>,
    /// What backs the memory.
    pub memory_source: MemorySource,
    /// The NUMA nodes the guest sees.
    pub numa_cells: Vec<NumaCell>,
    /// Where the memory of all cells comes from.
    pub numa_memory: Option<NumaMemory>,
    /// Where the memory of single cells comes from.
    pub memnodes: Vec<MemNode>,
    /// Devices that add memory.
    pub memory_devices: Vec<MemoryDevice>,
    /// How many vCPUs it has, and where those without a pin of their own may run.
    pub vcpus: VcpuCount,
    /// Where each vCPU may run.
    pub vcpu_pins: BTreeMap<u32, CpuSet>,
    /// Where QEMU's own threads may run.
    pub emulator_pin: Option<CpuSet>,
    /// Where each I/O thread may run.
    pub iothread_pins: BTreeMap<u32, CpuSet>,
    /// The cgroup partition, if it is not libvirt's default.
    pub partition: Option<String>,
    /// The host's PCI devices that it gets.
    pub pci_hostdevs: Vec<PciHostdev>,
    /// How many mediated devices it gets: parts of cards that stay with the host.
    pub mediated_devices: usize,
    /// What happens when the guest reboots.
    pub on_reboot: LifecycleAction,
}
