//! The host's PCI devices that a guest gets.

use super::error::{GuestError, ValueError};
use super::xml::Element;
use crate::pci::PciAddress;

/// A PCI device of the host that is handed through: `<hostdev mode='subsystem' type='pci'>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciHostdev {
    /// Its address on the host, not the one the guest sees.
    pub address: PciAddress,
    /// Who changes its driver.
    pub managed: Managed,
}

/// Who binds a device to VFIO and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Managed {
    /// libvirt.
    Yes,
    /// Whoever starts the guest.
    #[default]
    No,
}

/// Reads the PCI devices among `<hostdev>`.
pub(super) fn pci_hostdevs(domain: &Element<'_>) -> Result<Vec<PciHostdev>, GuestError> {
    (0_u32..)
        .zip(domain.find_all("devices/hostdev")?)
        .filter(|(_, hostdev)| {
            // Without a mode it is libvirt's default, subsystem.
            hostdev.attribute("mode").is_none_or(|mode| mode == "subsystem")
                && hostdev.attribute("type") == Some("pci")
        })
        .map(|(position, hostdev)| pci_hostdev(&hostdev.known_by("number", position)))
        .collect()
}

/// How many mediated devices of the host's cards the guest gets: `<hostdev type='mdev'>`.
pub(super) fn mediated_devices(domain: &Element<'_>) -> Result<usize, GuestError> {
    let hostdevs = domain.find_all("devices/hostdev")?;
    Ok(hostdevs.iter().filter(|hostdev| hostdev.attribute("type") == Some("mdev")).count())
}

fn pci_hostdev(hostdev: &Element<'_>) -> Result<PciHostdev, GuestError> {
    let managed = hostdev.choice("managed", &[("yes", Managed::Yes), ("no", Managed::No)], "yes, no")?;
    // The direct child <address> is where the guest sees the device.
    let address = hostdev.find("source/address").ok_or_else(|| hostdev.missing("source/address"))?;
    Ok(PciHostdev { address: pci_address(&address)?, managed: managed.unwrap_or_default() })
}

fn pci_address(address: &Element<'_>) -> Result<PciAddress, GuestError> {
    let part = |name: &str, max: u8| {
        let number = address.address_part(name)?;
        let part = u8::try_from(number).ok().filter(|part| *part <= max).ok_or(ValueError::Pci);
        address.judge(name, address.attribute(name).unwrap_or_default(), part)
    };
    let (bus, slot, function) = (part("bus", u8::MAX)?, part("slot", 31)?, part("function", 7)?);
    PciAddress::new(address.address_part("domain")?, bus, slot, function)
        .ok_or_else(|| address.bad("slot", address.attribute("slot").unwrap_or_default(), ValueError::Pci))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::testing::{guest, refusal};

    fn hostdev(attributes: &str, address: &str) -> String {
        format!("<devices><hostdev type='pci' {attributes}><source>{address}</source></hostdev></devices>")
    }

    #[test]
    fn reads_the_hosts_address() {
        for (address, expected) in [
            ("<address domain='0x0000' bus='0x0b' slot='0x00' function='0x1'/>", "0000:0b:00.1"),
            ("<address domain='65536' bus='255' slot='31' function='7'/>", "10000:ff:1f.7"),
            ("<address bus='013'/>", "0000:0b:00.0"),
        ] {
            let guest = guest(&hostdev("mode='subsystem'", address));
            assert_eq!(guest.pci_hostdevs[0].address.to_string(), expected);
            assert_eq!(guest.pci_hostdevs[0].managed, Managed::No);
        }
    }

    #[test]
    fn passes_over_what_is_no_pci_device_of_the_host() {
        let guest = guest(
            "<devices>
               <hostdev mode='subsystem' type='usb'><source><address bus='1' device='2'/></source></hostdev>
               <hostdev mode='subsystem' type='mdev'><source><address uuid='x'/></source></hostdev>
               <hostdev mode='capabilities' type='pci'/>
               <interface type='hostdev'><source><address type='pci' bus='0x01'/></source></interface>
               <hostdev mode='subsystem' type='pci' managed='yes'>
                 <address type='pci' bus='0x02'/><source><address bus='0x03'/></source>
               </hostdev>
             </devices>",
        );
        let address = "0000:03:00.0".parse().unwrap();
        assert_eq!(guest.pci_hostdevs, [PciHostdev { address, managed: Managed::Yes }]);
        assert_eq!(guest.mediated_devices, 1);
    }

    #[test]
    fn says_what_is_wrong() {
        for (xml, message) in [
            (
                hostdev("", "<address bus='0x100'/>"),
                "devices/hostdev[number=0]/source/address: bus `0x100`: no PCI device has that",
            ),
            (
                hostdev("", "<address slot='0x20'/>"),
                "devices/hostdev[number=0]/source/address: slot `0x20`: no PCI device has that",
            ),
            (
                hostdev("", "<address function='8'/>"),
                "devices/hostdev[number=0]/source/address: function `8`: no PCI device has that",
            ),
            (
                hostdev("", "<address domain='x'/>"),
                "devices/hostdev[number=0]/source/address: domain `x`: not a whole number",
            ),
            (hostdev("", ""), "the guest's XML has no devices/hostdev[number=0]: source/address"),
            (
                hostdev("managed='maybe'", "<address/>"),
                "devices/hostdev[number=0]: managed `maybe`: not one of yes, no",
            ),
        ] {
            assert_eq!(refusal(&xml), message, "{xml}");
        }
    }
}
