//! The guest's XML as typed values.
//!
//! libvirt gives the hook the whole domain XML at every event. What is here is what the actions need of it; all else
//! is passed over, so that no new element of libvirt's is an error.

use std::collections::BTreeMap;

use crate::cpuset::CpuSet;
use crate::pages::MemorySize;

mod bounds;
mod cgroup_path;
mod drives;
mod error;
mod hostdev;
mod lifecycle;
mod memory;
mod name;
mod name_pattern;
mod numa;
mod page_demand;
mod parse;
mod qemu_arguments;
mod qemu_threads;
mod scaled;
mod schedulers;
mod shmem;
#[cfg(test)]
mod testing;
mod uuid;
mod vcpus;
mod xml;

pub use drives::{DriveSharing, DriveSource, HostDrive};
pub use error::{GuestError, MAX_XML_BYTES, Position, ValueError};
pub use hostdev::{HostdevPlace, Managed, PciHostdev};
pub use lifecycle::LifecycleAction;
pub use memory::{HugepagesPage, MemoryDevice, MemoryModel, MemorySource};
pub use name::GuestName;
pub use name_pattern::{NamePattern, ParsePatternError};
pub use numa::{MemNode, NumaCell, NumaMemory, NumaMode, NumaPlacement};
pub use page_demand::{PageDemand, Placement};
pub use qemu_threads::QemuThreads;
pub use schedulers::XmlSchedulers;
pub use shmem::Shmem;
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
    /// How many vCPUs it has, which of them run, and where those without a pin of their own may run.
    pub vcpus: VcpuCount,
    /// Where each vCPU may run.
    pub vcpu_pins: BTreeMap<u32, CpuSet>,
    /// QEMU's own threads, and where they may run.
    pub qemu_threads: QemuThreads,
    /// Which threads the XML has the kernel schedule in a way of their own.
    pub schedulers: XmlSchedulers,
    /// Memory that it shares with the host.
    pub shmems: Vec<Shmem>,
    /// The cgroup partition, if it is not libvirt's default.
    pub partition: Option<String>,
    /// The host's PCI devices that it gets, wherever they stand in the XML.
    pub pci_hostdevs: Vec<PciHostdev>,
    /// The host's drives that it gets as such, and USB devices that may be some.
    pub host_drives: Vec<HostDrive>,
    /// How many mediated devices it gets: parts of cards that stay with the host.
    pub mediated_devices: usize,
    /// How many interfaces it has of libvirt's networks: libvirt may choose a device of the host for them later.
    pub network_interfaces: usize,
    /// What happens when the guest reboots.
    pub on_reboot: LifecycleAction,
    /// Prefixes that are declared nowhere, as `qemu` without `xmlns:qemu`: libvirt passes over what has them.
    pub undeclared_prefixes: Vec<String>,
}
