//! What is read of functions, ports and groups.

use nix::errno::Errno;

use super::*;
use crate::pci::{PciClass, PciId};

#[test]
fn a_function_is_what_sysfs_says() {
    let machine = Machine::new();
    let host = machine.host();
    let function = host.pci_function(address("0000:03:00.0")).unwrap();
    assert_eq!(
        function,
        PciFunction {
            address: address("0000:03:00.0"),
            id: PciId { vendor: PciId::AMD, device: 0x73bf },
            class: PciClass(0x03_0000),
            driver: Some(driver("amdgpu")),
            iommu_group: Some(24),
        }
    );
    assert_eq!(host.pci_power_state(function.address), PowerState::D0);
    assert_eq!(host.pci_numa_node(function.address), None);
    assert!(!host.is_virtual_function(function.address).unwrap());
    machine.add("/sys/bus/pci/devices/0000:03:00.1/physfn -> ../0000:03:00.0");
    assert!(host.is_virtual_function(address("0000:03:00.1")).unwrap());
}

#[test]
fn the_boot_display_is_the_processors() {
    let machine = Machine::new();
    let host = machine.host();
    let functions = host.pci_functions().unwrap();
    assert_eq!(functions.len(), 12);
    let boot: Vec<_> = functions.into_iter().filter(|function| host.is_boot_vga(*function)).collect();
    assert_eq!(boot, [address("0000:0e:00.0")]);
}

#[test]
fn what_is_not_there_is_absent() {
    let machine = Machine::new();
    let host = machine.host();
    let gone = address("0000:04:00.0");
    assert!(host.pci_function(gone).unwrap_err().is_absent());
    assert!(host.pci_driver(gone).unwrap_err().is_absent());
    assert!(host.pci_ports_above(gone).unwrap_err().is_absent());
    assert!(host.vfio_driver_for(gone).unwrap_err().is_absent());
    assert!(host.pci_attribute(gone, PciAttribute::PowerControl).unwrap_err().is_absent());
    assert!(host.bindings(&[gone], &AskedBars::new()).unwrap_err().is_absent());
    assert_eq!(host.pci_functions_of(gone.slot()), []);
    assert_eq!(host.pci_functions_of(card()[0].slot()), card());
    let empty = tempfile::tempdir().unwrap();
    let none = Host::simulated(empty.path(), &Faults::default());
    assert_eq!(none.pci_functions().unwrap(), []);
}

/// A driver that cannot be seen is not "none", nor are others that may be behind a port.
#[test]
fn what_cannot_be_read_is_not_absent() {
    let machine = Machine::new();
    let (faults, display, host) = (&machine.faults, address("0000:03:00.0"), machine.host());
    let at = |file: &str| format!("/sys/bus/pci/devices/{display}{file}");
    faults.refuse_read(at("/driver"), Errno::EIO);
    for error in [
        host.pci_driver(display).unwrap_err(),
        host.pci_function(display).unwrap_err(),
        host.bindings(&card(), &AskedBars::new()).unwrap_err(),
    ] {
        assert!(told(&error).starts_with(&format!("failed to read {}: ", at("/driver"))), "{error}");
    }
    faults.clear();
    faults.refuse_read(at("/physfn"), Errno::EIO);
    host.is_virtual_function(display).unwrap_err();
    faults.clear();
    faults.refuse_read(at("/iommu_group"), Errno::EIO);
    host.pci_iommu_group(display).unwrap_err();
    host.device_nodes_of(&card()).unwrap_err();
    faults.clear();
    faults.refuse_read(at(""), Errno::EIO);
    host.pci_functions_behind(address("0000:01:00.0")).unwrap_err();
    host.pci_ports_above(display).unwrap_err();
}

#[test]
fn the_cards_own_switch_is_told_from_the_mainboards() {
    let machine = Machine::new();
    let host = machine.host();
    let above = host.pci_ports_above(card()[2]).unwrap();
    assert_eq!(
        above,
        PortsAbove {
            card: vec![address("0000:02:00.0"), address("0000:01:00.0")],
            mainboard: Vec::new(),
            root: Some(address("0000:00:01.1")),
        }
    );
    assert_eq!(above.card_port(), Some(address("0000:00:01.1")));
    let integrated = host.pci_ports_above(address("0000:0e:00.0")).unwrap();
    assert_eq!(integrated.nearest_first().collect::<Vec<_>>(), [address("0000:00:08.1")]);
    assert_eq!(host.pci_ports_above(address("0000:00:01.1")).unwrap(), PortsAbove::default());

    // A second port below the upper one: it is a mainboard's, with a slot at each port.
    machine.add("/sys/bus/pci/devices/0000:01:00.0/0000:02:01.0/vendor = 0x1022");
    let above = host.pci_ports_above(card()[0]).unwrap();
    assert_eq!(above.card, []);
    assert_eq!(above.mainboard, [address("0000:02:00.0"), address("0000:01:00.0")]);
    assert_eq!(above.card_port(), Some(address("0000:02:00.0")));
    assert_eq!(
        above.nearest_first().collect::<Vec<_>>(),
        ["0000:02:00.0", "0000:01:00.0", "0000:00:01.1"].map(address)
    );
}

#[test]
fn a_bus_reset_takes_all_behind_the_nearest_port() {
    let machine = Machine::new();
    let host = machine.host();
    assert_eq!(host.pci_bus_reset(&card()).unwrap(), BusReset::OnlyThem);
    assert_eq!(host.pci_bus_reset(&card()[..3]).unwrap(), BusReset::Others(vec![card()[3]]));
    assert_eq!(host.pci_bus_reset(&[address("0000:00:01.1")]).unwrap(), BusReset::NoPort);
    assert_eq!(host.pci_bus_reset(&[]).unwrap(), BusReset::NoPort);
    assert!(host.pci_bus_reset(&[address("0000:04:00.0")]).unwrap_err().is_absent());
}

#[test]
fn groups_and_what_is_behind_a_port() {
    let machine = Machine::new();
    let host = machine.host();
    assert_eq!(host.iommu_group_members(24).unwrap(), [card()[0]]);
    assert!(host.iommu_group_members(99).unwrap_err().is_absent());
    let behind = host.pci_functions_behind(address("0000:01:00.0")).unwrap();
    assert_eq!(behind[0], address("0000:02:00.0"));
    assert_eq!(behind[1..], card());
    assert_eq!(host.pci_functions_below(address("0000:02:00.0")).unwrap(), card());
}

#[test]
fn libvirts_choice_of_a_vfio_driver() {
    let machine = Machine::new();
    assert_eq!(machine.host().vfio_driver_for(card()[0]).unwrap(), DriverName::vfio_pci());
    machine.set(
        "/lib/modules/6.12.57+deb13-amd64/modules.alias",
        "alias vfio_pci:v00001002d000073BFsv*sd*bc*sc*i* navi_vfio_pci",
    );
    assert_eq!(machine.host().vfio_driver_for(card()[0]).unwrap(), driver("navi_vfio_pci"));
    assert_eq!(machine.host().vfio_driver_for(card()[1]).unwrap(), DriverName::vfio_pci());
    fs::remove_file(machine.path("/lib/modules/6.12.57+deb13-amd64/modules.alias")).unwrap();
    assert_eq!(machine.host().vfio_driver_for(card()[0]).unwrap(), DriverName::vfio_pci());
}

#[test]
fn attributes_are_read_and_set() {
    let machine = Machine::new();
    let mut host = machine.host();
    let usb = address("0000:0f:00.3");
    for (attribute, before, then) in [
        (PciAttribute::D3coldAllowed, "1", "0"),
        (PciAttribute::PowerControl, "on", "auto"),
        (PciAttribute::ResetMethod, "pm", ""),
    ] {
        assert_eq!(host.pci_attribute(usb, attribute).unwrap(), before);
        host.set_pci_attribute(usb, attribute, then, soon()).unwrap();
        assert_eq!(host.pci_attribute(usb, attribute).unwrap(), then);
        host.set_pci_attribute(usb, attribute, before, soon()).unwrap();
        assert_eq!(host.pci_attribute(usb, attribute).unwrap(), before);
    }
    assert_eq!(host.pci_reset_methods(usb).unwrap(), ["pm"]);
    assert_eq!(host.pci_reset_methods(card()[0]).unwrap(), [""; 0]);
    let error = host.set_pci_attribute(usb, PciAttribute::ResetMethod, "flr", soon()).unwrap_err();
    assert_eq!(error.kind(), Some(std::io::ErrorKind::InvalidInput));
    assert!(told(&error).contains("has no such reset"), "{}", told(&error));
}
