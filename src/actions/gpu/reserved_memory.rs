//! Memory that the firmware wants mapped for a device at all times. A guest that had the device would take the mapping away,
//! so the kernel does not give it to any: QEMU would fail after the desktop was stopped.

use std::collections::BTreeMap;

use super::DEVICES;
use crate::actions::{Proposal, Situation};
use crate::gpu::KernelVersion;
use crate::host::{HostError, IommuMaker, ReservedRegion};
use crate::pci::{PciAddress, listed};

/// The first Linux that refuses such a device with every IOMMU ("iommu: Prevent RESV_DIRECT devices from blocking
/// domains"; `__iommu_device_set_domain` in `drivers/iommu/iommu.c`). Intel's driver did before
/// (`device_is_rmrr_locked` in `drivers/iommu/intel/iommu.c`).
const REFUSES_ALL: KernelVersion = KernelVersion { major: 6, minor: 6 };

/// What a person can do: the memory is asked for by a table of the firmware (RMRR of Intel, IVMD of AMD).
const HELP: &str = "update the firmware, or switch off there what uses the device before the system starts: its boot ROM or network \
                    boot, a management controller (iLO, iDRAC), USB keyboard emulation, DMA protection. The kernel has no switch \
                    for it";

/// Looks at the IOMMU group of everything that is handed over, also of what libvirt binds: VFIO takes groups as a whole.
pub(super) fn propose(situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
    let mut groups: BTreeMap<u32, Vec<PciAddress>> = BTreeMap::new();
    for hostdev in &situation.guest.pci_hostdevs {
        if let Some(group) = situation.host.pci_iommu_group(hostdev.address)? {
            groups.entry(group).or_default().push(hostdev.address);
        }
    }
    for (group, members) in groups {
        let regions = situation.host.reserved_regions(group)?;
        let identity: Vec<&ReservedRegion> =
            regions.iter().filter(|region| region.is_identity_map()).collect();
        let (Some(first), Some(member)) = (identity.first(), members.first()) else { continue };
        let more = match identity.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let what = format!(
            "{}: the firmware wants memory mapped 1:1 for IOMMU group {group} at all times ({first}{more})",
            listed(&members)
        );
        if is_refused(*member, situation)? {
            proposal.refuse(DEVICES, format!("{what}, so this kernel gives it to no guest"), HELP);
        } else {
            proposal.warn(format!(
                "{what}; this kernel gives it to a guest all the same, but the firmware may miss that memory, and Linux \
                 {REFUSES_ALL} and later refuse it"
            ));
        }
    }
    Ok(())
}

/// A kernel whose release is not understood is taken for a new one.
fn is_refused(member: PciAddress, situation: Situation<'_>) -> Result<bool, HostError> {
    let version = KernelVersion::of_release(&situation.host.kernel_release()?);
    let is_new = version.is_none_or(|version| version >= REFUSES_ALL);
    Ok(is_new || situation.host.iommu_maker(member)? == IommuMaker::Intel)
}
