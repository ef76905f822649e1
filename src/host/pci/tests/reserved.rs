//! What the IOMMU keeps back.

use super::*;
use crate::host::IommuMaker;

#[test]
fn regions_are_read_as_the_kernel_writes_them() {
    let machine = Machine::new();
    machine.add(
        r"/sys/kernel/iommu_groups/24/reserved_regions = 0x000000009d000000 0x000000009d7fffff direct\n0x00000000db000000 0x00000000df1fffff direct-relaxable\n0x00000000fee00000 0x00000000feefffff msi",
    );
    let host = machine.host();
    let regions = host.reserved_regions(24).unwrap();
    assert_eq!(regions.len(), 3);
    let identity: Vec<String> =
        regions.iter().filter(|region| region.is_identity_map()).map(ToString::to_string).collect();
    assert_eq!(identity, ["0x9d000000-0x9d7fffff"]);
    assert!(host.reserved_regions(99).unwrap().is_empty(), "a kernel without the file");
    machine.add("/sys/kernel/iommu_groups/24/reserved_regions = what is this");
    host.reserved_regions(24).unwrap_err();
}

#[test]
fn the_iommu_has_the_name_that_its_driver_gives_it() {
    let machine = Machine::new();
    let (intel, other) = (address("0000:03:00.0"), address("0000:03:00.1"));
    machine.add("/sys/bus/pci/devices/0000:03:00.0/iommu -> ../../../../virtual/iommu/dmar1");
    machine.add("/sys/bus/pci/devices/0000:03:00.1/iommu -> ../../../../virtual/iommu/ivhd0");
    let host = machine.host();
    assert_eq!(host.iommu_maker(intel).unwrap(), IommuMaker::Intel);
    assert_eq!(host.iommu_maker(other).unwrap(), IommuMaker::Other);
    assert_eq!(host.iommu_maker(address("0000:0e:00.0")).unwrap(), IommuMaker::Other, "without a link");
}
