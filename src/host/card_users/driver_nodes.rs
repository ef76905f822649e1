//! Nodes that a card's driver keeps outside the card's folder in sysfs.

use std::path::{Path, PathBuf};

use super::nodes::{CardNode, DeviceClass, DeviceNumber, NodeKind};
use crate::host::{Host, HostError};
use crate::pci::PciAddress;

const KFD: &str = "/sys/class/kfd/kfd";

/// What NVIDIA's own driver says of its cards; it has no devices in sysfs.
const NVIDIA_CARDS: &str = "/proc/driver/nvidia/gpus";

/// The number of NVIDIA's own driver, and that of `/dev/nvidia-modeset` at it
/// (`kernel-open/common/inc/nv-chardev-numbers.h` of open-gpu-kernel-modules).
const NVIDIA_MAJOR: u64 = 195;
const NVIDIA_MODESET_MINOR: u64 = 254;

/// Adds those of these functions.
pub(super) fn add(host: &Host, functions: &[PciAddress], nodes: &mut Vec<CardNode>) -> Result<(), HostError> {
    for function in functions {
        nodes.extend(vfio_group(host, *function)?);
        nodes.extend(nvidia(host, *function)?);
    }
    nodes.extend(nvidia_modeset(host, functions)?);
    if is_computed_on(host, functions)? {
        nodes.extend(CardNode::of_device(host, KFD.as_ref())?);
    }
    Ok(())
}

/// `/dev/vfio/GROUP`, there while a vfio driver has a function of the group.
fn vfio_group(host: &Host, function: PciAddress) -> Result<Option<CardNode>, HostError> {
    let link = format!("/sys/bus/pci/devices/{function}/iommu_group");
    let Some(group) = host.link_name(link.as_ref())? else { return Ok(None) };
    // Without an IOMMU the node has another name (`drivers/vfio/group.c`).
    for name in [group.clone(), format!("noiommu-{group}")] {
        let folder = PathBuf::from(format!("/sys/class/vfio/{name}"));
        if let Some(number) = host.text_if_present(folder.join("dev"))? {
            return Ok(Some(CardNode {
                path: Path::new("/dev/vfio").join(name),
                kind: NodeKind::Vfio,
                number: DeviceNumber::from_dev(&number, DeviceClass::Character),
            }));
        }
    }
    Ok(None)
}

/// Whether one of the functions is a node of AMD's compute driver. A process with `/dev/kfd` open counts as a user of
/// each of them: the driver prepares all cards for every process.
fn is_computed_on(host: &Host, functions: &[PciAddress]) -> Result<bool, HostError> {
    let nodes = format!("{KFD}/topology/nodes");
    for node in host.names_if_present(&nodes)? {
        let properties = host.text_if_present(format!("{nodes}/{node}/properties"))?.unwrap_or_default();
        if kfd_address(&properties).is_some_and(|address| functions.contains(&address)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `domain` and `location_id` (bus, slot and function in 8, 5 and 3 bits: `drivers/gpu/drm/amd/amdkfd/kfd_topology.c`);
/// none for a processor, which has no `simd_count`.
fn kfd_address(properties: &str) -> Option<PciAddress> {
    let property = |name: &str| -> Option<u32> {
        properties.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    };
    if property("simd_count")? == 0 {
        return None;
    }
    let [_, _, bus, slot_and_function] = property("location_id")?.to_be_bytes();
    PciAddress::new(property("domain").unwrap_or(0), bus, slot_and_function >> 3, slot_and_function & 7)
}

fn nvidia(host: &Host, function: PciAddress) -> Result<Option<CardNode>, HostError> {
    let Some(information) = host.text_if_present(format!("{NVIDIA_CARDS}/{function}/information"))? else {
        return Ok(None);
    };
    let number = information.lines().find_map(|line| line.strip_prefix("Device Minor:"));
    Ok(number
        .and_then(|number| number.trim().parse().ok())
        .map(|minor: u64| nvidia_node(&minor.to_string(), minor)))
}

/// `/dev/nvidia-modeset` is one for all cards, and names none of them: it tells something only where no other card is
/// the driver's. `/dev/nvidiactl` is left out for the same reason; a process that uses a card through it has that
/// card's node too.
fn nvidia_modeset(host: &Host, functions: &[PciAddress]) -> Result<Option<CardNode>, HostError> {
    let cards = host.names_if_present(NVIDIA_CARDS)?;
    let is_ours = |card: &String| card.parse().is_ok_and(|card| functions.contains(&card));
    let is_alone = !cards.is_empty() && cards.iter().all(is_ours);
    Ok(is_alone.then(|| nvidia_node("-modeset", NVIDIA_MODESET_MINOR)))
}

fn nvidia_node(name: &str, minor: u64) -> CardNode {
    CardNode {
        path: PathBuf::from(format!("/dev/nvidia{name}")),
        kind: NodeKind::Nvidia,
        number: Some(DeviceNumber { class: DeviceClass::Character, major: NVIDIA_MAJOR, minor }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compute_nodes_are_functions() {
        // As Linux 6.12 shows a Navi 21 at 0000:03:00.0 and a processor.
        let card = "cpu_cores_count 0\nsimd_count 144\nlocation_id 768\ndomain 0\ndrm_render_minor 128\n";
        assert_eq!(kfd_address(card), "0000:03:00.0".parse().ok());
        let other = "simd_count 144\nlocation_id 25345\ndomain 1\n";
        assert_eq!(kfd_address(other), "0001:63:00.1".parse().ok());
        let processor = "cpu_cores_count 32\nsimd_count 0\nlocation_id 0\ndomain 0\n";
        assert_eq!(kfd_address(processor), None);
        assert_eq!(kfd_address(""), None);
    }
}
