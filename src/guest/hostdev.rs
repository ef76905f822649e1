//! The host's PCI devices that a guest gets, wherever they stand in its XML.

use std::fmt;

use super::error::{GuestError, ValueError};
use super::qemu_arguments;
use super::xml::Element;
use crate::pci::PciAddress;

/// A PCI device of the host that is handed through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciHostdev {
    /// Its address on the host, not the one the guest sees.
    pub address: PciAddress,
    /// Who changes its driver.
    pub managed: Managed,
    /// Where it stands in the XML.
    pub place: HostdevPlace,
}

/// Who binds a device to VFIO and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Managed {
    /// libvirt.
    Yes,
    /// The caller binds the device before the start.
    #[default]
    No,
}

/// The element that hands a PCI device over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostdevPlace {
    /// `<hostdev mode='subsystem' type='pci'>`.
    Hostdev,
    /// `<interface type='hostdev'>`, or one of a network that libvirt chose a virtual function of.
    Interface,
    /// `<disk type='nvme'>`.
    NvmeDisk,
    /// `-device vfio-pci` in `<qemu:commandline>`, of which libvirt knows nothing.
    QemuArgument,
}

impl fmt::Display for HostdevPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hostdev => "<hostdev>",
            Self::Interface => "<interface type='hostdev'>",
            Self::NvmeDisk => "<disk type='nvme'>",
            Self::QemuArgument => "<qemu:commandline>",
        })
    }
}

impl fmt::Display for PciHostdev {
    /// The address, and where it stands if that is not where one looks for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            HostdevPlace::Hostdev => self.address.fmt(f),
            place => write!(f, "{} ({place})", self.address),
        }
    }
}

/// Reads all of them, each once: several namespaces of one NVMe drive are several disks.
pub(super) fn pci_hostdevs(domain: &Element<'_>) -> Result<Vec<PciHostdev>, GuestError> {
    let mut devices: Vec<PciHostdev> = Vec::new();
    let sources = [hostdevs, interfaces, nvme_disks, qemu_arguments::vfio_devices];
    for read in sources {
        for device in read(domain)? {
            if devices.iter().all(|known| known.address != device.address) {
                devices.push(device);
            }
        }
    }
    Ok(devices)
}

/// How many mediated devices of the host's cards the guest gets: `<hostdev type='mdev'>`.
pub(super) fn mediated_devices(domain: &Element<'_>) -> Result<usize, GuestError> {
    let hostdevs = domain.find_all("devices/hostdev")?;
    Ok(hostdevs.iter().filter(|hostdev| hostdev.attribute("type") == Some("mdev")).count())
}

/// How many network interfaces the guest has for which libvirt may yet choose a virtual function of the host: those of
/// a network, as only libvirt knows which networks hand devices over.
pub(super) fn network_interfaces(domain: &Element<'_>) -> Result<usize, GuestError> {
    let interfaces = domain.find_all("devices/interface")?;
    Ok(interfaces.iter().filter(|interface| interface.attribute("type") == Some("network")).count())
}

/// `<hostdev type='pci'>`. Without a mode it is libvirt's default, subsystem.
fn hostdevs(domain: &Element<'_>) -> Result<Vec<PciHostdev>, GuestError> {
    let is_pci = |hostdev: &Element<'_>| {
        hostdev.attribute("mode").is_none_or(|mode| mode == "subsystem")
            && hostdev.attribute("type") == Some("pci")
    };
    let read = |hostdev: Element<'_>| {
        // The direct child <address> is where the guest sees the device.
        let address = hostdev.find("source/address").ok_or_else(|| hostdev.missing("source/address"))?;
        device(&hostdev, &address, HostdevPlace::Hostdev)
    };
    numbered(domain, "devices/hostdev")?.filter(is_pci).map(read).collect()
}

/// `<interface type='hostdev'>`. While the guest runs, libvirt writes one of a network that hands devices over so too
/// (`virDomainNetDefFormat` in `src/conf/domain_conf.c`), and into its own files as `<actual type='hostdev'>`.
fn interfaces(domain: &Element<'_>) -> Result<Vec<PciHostdev>, GuestError> {
    let mut devices = Vec::new();
    for interface in numbered(domain, "devices/interface")? {
        let is_hostdev = |element: &Element<'_>| element.attribute("type") == Some("hostdev");
        let actual = interface.find("actual").filter(is_hostdev);
        if actual.is_none() && !is_hostdev(&interface) {
            continue;
        }
        let holder = actual.unwrap_or_else(|| interface.clone());
        let address = holder.find("source/address").ok_or_else(|| interface.missing("source/address"))?;
        // A USB device can be an interface as well.
        if address.attribute("type").is_none_or(|kind| kind == "pci") {
            devices.push(device(&holder, &address, HostdevPlace::Interface)?);
        }
    }
    Ok(devices)
}

/// `<disk type='nvme'>`, and a disk that only builds upon such a drive (`<backingStore>`).
fn nvme_disks(domain: &Element<'_>) -> Result<Vec<PciHostdev>, GuestError> {
    /// More images upon each other than libvirt reads (`QEMU_DOMAIN_STORAGE_SOURCE_CHAIN_MAX_DEPTH`).
    const MAX_CHAIN: usize = 200;
    let mut devices = Vec::new();
    for disk in numbered(domain, "devices/disk")? {
        let mut image = Some(disk);
        for _ in 0..MAX_CHAIN {
            let Some(of) = image else { break };
            if of.attribute("type") == Some("nvme")
                && let Some(source) = of.find("source")
            {
                let address = source.find("address").ok_or_else(|| source.missing("address"))?;
                devices.push(device(&source, &address, HostdevPlace::NvmeDisk)?);
            }
            image = of.find("backingStore");
        }
    }
    Ok(devices)
}

/// The elements on a path, each known by its number.
fn numbered<'a>(domain: &Element<'a>, path: &str) -> Result<impl Iterator<Item = Element<'a>>, GuestError> {
    let elements = domain.find_all(path)?.into_iter();
    Ok((0_u32..).zip(elements).map(|(position, element)| element.known_by("number", position)))
}

/// `managed` stands on the element that names the device.
fn device(
    element: &Element<'_>,
    address: &Element<'_>,
    place: HostdevPlace,
) -> Result<PciHostdev, GuestError> {
    let managed = element.choice("managed", &[("yes", Managed::Yes), ("no", Managed::No)], "yes, no")?;
    Ok(PciHostdev { address: pci_address(address)?, managed: managed.unwrap_or_default(), place })
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
               <interface type='hostdev'><source><address type='usb' bus='1' device='2'/></source></interface>
               <interface type='network'><source network='default'/><address type='pci' bus='0x01'/></interface>
               <disk type='file'><source file='/a'/><address type='pci' bus='0x01'/></disk>
               <hostdev mode='subsystem' type='pci' managed='yes'>
                 <address type='pci' bus='0x02'/><source><address bus='0x03'/></source>
               </hostdev>
             </devices>",
        );
        let address = "0000:03:00.0".parse().unwrap();
        let place = HostdevPlace::Hostdev;
        assert_eq!(guest.pci_hostdevs, [PciHostdev { address, managed: Managed::Yes, place }]);
        assert_eq!(guest.mediated_devices, 1);
        assert_eq!(guest.network_interfaces, 1);
    }

    #[test]
    fn finds_the_devices_of_every_element_once() {
        let guest = guest(
            "<devices>
               <interface type='hostdev' managed='yes'>
                 <source><address type='pci' bus='1'/></source><address type='pci' bus='9'/>
               </interface>
               <interface type='network'>
                 <source network='pool'/>
                 <actual type='hostdev' managed='yes'><source><address type='pci' bus='2'/></source></actual>
               </interface>
               <disk type='nvme'><source type='pci' managed='yes' namespace='1'><address bus='3'/></source></disk>
               <disk type='nvme'><source type='pci' managed='yes' namespace='2'><address bus='3'/></source></disk>
               <disk type='file'><source file='/a'/><backingStore type='nvme'>
                 <source type='pci' namespace='1'><address bus='4'/></source></backingStore></disk>
               <hostdev mode='subsystem' type='pci'><source><address bus='0'/></source></hostdev>
               <hostdev mode='subsystem' type='pci'><source><address bus='3'/></source></hostdev>
             </devices>",
        );
        let found: Vec<String> = guest
            .pci_hostdevs
            .iter()
            .map(|device| format!("{} {} {:?}", device.address, device.place, device.managed))
            .collect();
        assert_eq!(
            found,
            [
                "0000:00:00.0 <hostdev> No",
                "0000:03:00.0 <hostdev> No",
                "0000:01:00.0 <interface type='hostdev'> Yes",
                "0000:02:00.0 <interface type='hostdev'> Yes",
                "0000:04:00.0 <disk type='nvme'> No",
            ]
        );
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
            (
                "<devices><interface type='hostdev'><source/></interface></devices>".to_owned(),
                "the guest's XML has no devices/interface[number=0]: source/address",
            ),
            (
                "<devices><disk type='nvme'><source><address slot='99'/></source></disk></devices>"
                    .to_owned(),
                "devices/disk[number=0]/source/address: slot `99`: no PCI device has that",
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
