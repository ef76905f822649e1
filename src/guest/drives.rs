//! Drives of the host that a guest gets as such: a block device, a SCSI device, a USB device. Those on a controller that
//! is handed over whole are PCI devices.

use std::fmt;
use std::path::PathBuf;

use super::error::GuestError;
use super::xml::Element;

/// A drive of the host that is handed over, or a device that may be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDrive {
    /// Which it is.
    pub source: DriveSource,
    /// Who else may use it.
    pub sharing: DriveSharing,
}

/// How the XML names a drive of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriveSource {
    /// `<disk type='block'>`: a device file or a link to one; a drive, a partition, a volume.
    Block(PathBuf),
    /// `<hostdev type='scsi'>`: the number of its adapter, and bus, target and unit there.
    Scsi([u64; 4]),
    /// `<hostdev type='usb'>` by the numbers of its vendor and its product.
    UsbId(u16, u16),
    /// `<hostdev type='usb'>` by its bus and its number there.
    UsbPlace(u64, u64),
}

/// Who else may use a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriveSharing {
    /// Nobody.
    None,
    /// Guests that share it too: `<shareable/>`.
    Guests,
    /// The guest only reads it: `<readonly/>`, and every `cdrom`.
    Readers,
}

impl fmt::Display for DriveSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(path) => path.display().fmt(f),
            Self::Scsi([host, bus, target, unit]) => write!(f, "SCSI device {host}:{bus}:{target}:{unit}"),
            Self::UsbId(vendor, product) => write!(f, "USB device {vendor:04x}:{product:04x}"),
            Self::UsbPlace(bus, device) => write!(f, "USB device {device} on bus {bus}"),
        }
    }
}

/// Reads them, each once. One that names nothing is passed over: libvirt does not start a guest with it.
pub(super) fn host_drives(domain: &Element<'_>) -> Result<Vec<HostDrive>, GuestError> {
    let disks = domain.find_all("devices/disk")?;
    let hostdevs = domain.find_all("devices/hostdev")?;
    let mut drives: Vec<HostDrive> = Vec::new();
    for drive in disks.iter().filter_map(block_disk).chain(hostdevs.iter().filter_map(hostdev)) {
        if !drives.contains(&drive) {
            drives.push(drive);
        }
    }
    Ok(drives)
}

fn block_disk(disk: &Element<'_>) -> Option<HostDrive> {
    if disk.attribute("type") != Some("block") {
        return None;
    }
    let path = disk.find("source")?.attribute("dev")?;
    Some(HostDrive { source: DriveSource::Block(path.into()), sharing: sharing(disk) })
}

fn hostdev(hostdev: &Element<'_>) -> Option<HostDrive> {
    let source = hostdev.find("source")?;
    let of = |element: &Element<'_>, name: &str| number(element.attribute(name)?);
    let source = match hostdev.attribute("type")? {
        "scsi" => {
            let adapter =
                source.find("adapter")?.attribute("name")?.strip_prefix("scsi_host")?.parse().ok()?;
            let address = source.find("address")?;
            let part = |name: &str| of(&address, name).unwrap_or(0);
            DriveSource::Scsi([adapter, part("bus"), part("target"), part("unit")])
        }
        "usb" => match (source.find("vendor"), source.find("product"), source.find("address")) {
            (Some(vendor), Some(product), _) => {
                let id = |element: &Element<'_>| u16::try_from(of(element, "id")?).ok();
                DriveSource::UsbId(id(&vendor)?, id(&product)?)
            }
            (_, _, Some(address)) => DriveSource::UsbPlace(of(&address, "bus")?, of(&address, "device")?),
            _ => return None,
        },
        _ => return None,
    };
    Some(HostDrive { source, sharing: sharing(hostdev) })
}

fn sharing(element: &Element<'_>) -> DriveSharing {
    let is_read_only = element.find("readonly").is_some() || element.attribute("device") == Some("cdrom");
    match element.find("shareable") {
        _ if is_read_only => DriveSharing::Readers,
        Some(_) => DriveSharing::Guests,
        None => DriveSharing::None,
    }
}

/// A number as libvirt writes it there: decimal, or hexadecimal behind `0x`.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use crate::guest::testing::guest;

    #[test]
    fn drives_of_every_element_are_found_once() {
        let guest = guest(
            "<devices>
               <disk type='block' device='disk'><source dev='/dev/sdb'/></disk>
               <disk type='block' device='lun'><source dev='/dev/disk/by-id/ata-x-part2'/><shareable/></disk>
               <disk type='block' device='cdrom'><source dev='/dev/sr0'/></disk>
               <disk type='block'><source dev='/dev/vg0/games'/><readonly/></disk>
               <disk type='block'><source dev='/dev/sdb'/></disk>
               <disk type='block' device='cdrom'/>
               <disk type='file'><source file='/a.qcow2'/></disk>
               <hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host2'/>
                 <address bus='0' target='1' unit='3'/></source></hostdev>
               <hostdev mode='subsystem' type='usb'><source><vendor id='0x0951'/><product id='0x1666'/></source></hostdev>
               <hostdev mode='subsystem' type='usb'><source><address bus='4' device='12'/></source></hostdev>
               <hostdev mode='subsystem' type='usb'><source/></hostdev>
               <hostdev mode='subsystem' type='mdev'><source><address uuid='x'/></source></hostdev>
             </devices>",
        );
        let found: Vec<String> =
            guest.host_drives.iter().map(|drive| format!("{} {:?}", drive.source, drive.sharing)).collect();
        assert_eq!(
            found,
            [
                "/dev/sdb None",
                "/dev/disk/by-id/ata-x-part2 Guests",
                "/dev/sr0 Readers",
                "/dev/vg0/games Readers",
                "SCSI device 2:0:1:3 None",
                "USB device 0951:1666 None",
                "USB device 12 on bus 4 None",
            ]
        );
    }
}
