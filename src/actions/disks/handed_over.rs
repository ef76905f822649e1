//! Which drives of the host the guest's XML hands over, wherever they stand there.

use std::fmt;

use crate::actions::Situation;
use crate::guest::{DriveSharing, DriveSource, Guest};
use crate::host::{BlockDevice, DriveIdentity, Host, HostError};
use crate::pci::PciAddress;

/// A drive, a partition or a volume that the guest gets.
pub(super) struct HandedOver {
    pub(super) device: BlockDevice,
    pub(super) identity: DriveIdentity,
    pub(super) sharing: DriveSharing,
    /// How the XML names it: a path, or the controller that it is on.
    pub(super) named: String,
}

impl fmt::Display for HandedOver {
    /// `/dev/nvme0n1 (Samsung SSD 980 PRO 1TB, serial S5GX, PCI device 0000:05:00.0)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.device.to_string();
        let identity = self.identity.to_string();
        let more: Vec<&str> = [identity.as_str(), &self.named]
            .into_iter()
            .filter(|text| !text.is_empty() && *text != path)
            .collect();
        match more.is_empty() {
            true => f.write_str(&path),
            false => write!(f, "{path} ({})", more.join(", ")),
        }
    }
}

/// All drives that the guest gets and that a driver of the host has now.
pub(super) fn drives(situation: Situation<'_>) -> Result<Vec<HandedOver>, HostError> {
    let mut drives: Vec<HandedOver> = Vec::new();
    for (device, sharing, named) in devices(situation.guest, situation.host)? {
        if drives.iter().all(|drive| drive.device != device) {
            let identity = situation.host.drive_identity(&device)?;
            drives.push(HandedOver { device, identity, sharing, named });
        }
    }
    Ok(drives)
}

/// The same of any guest, without what the drives say of themselves.
pub(super) fn devices(
    guest: &Guest,
    host: &Host,
) -> Result<Vec<(BlockDevice, DriveSharing, String)>, HostError> {
    let mut devices = Vec::new();
    for drive in &guest.host_drives {
        let found = match &drive.source {
            DriveSource::Block(path) => host.block_device_at(path)?.into_iter().collect(),
            DriveSource::Scsi(address) => host.drives_of_scsi(*address)?,
            DriveSource::UsbId(vendor, product) => host.drives_of_usb_id(*vendor, *product)?,
            DriveSource::UsbPlace(bus, device) => host.drives_of_usb_place(*bus, *device)?,
        };
        devices.extend(found.into_iter().map(|device| (device, drive.sharing, drive.source.to_string())));
    }
    for address in controllers(guest, host)? {
        let named = format!("PCI device {address}");
        let found = host.drives_of_function(address)?;
        devices.extend(found.into_iter().map(|device| (device, DriveSharing::None, named.clone())));
    }
    Ok(devices)
}

/// The PCI devices of the guest that may have drives: controllers of drives, and of USB.
pub(super) fn controllers(guest: &Guest, host: &Host) -> Result<Vec<PciAddress>, HostError> {
    let mut controllers = Vec::new();
    for hostdev in &guest.pci_hostdevs {
        match host.pci_function(hostdev.address) {
            Ok(function) if function.class.may_have_drives() => controllers.push(hostdev.address),
            Ok(_) => {}
            Err(error) if error.is_absent() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(controllers)
}
