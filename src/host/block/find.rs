//! Which block devices are meant: by a path, or by the device that they are on.

use std::path::{Component, Path, PathBuf};

use super::device::{BLOCK, BlockDevice};
use crate::host::card_users::{DeviceClass, DeviceNumber};
use crate::host::sysfs::pci_ancestor;
use crate::host::{Host, HostError};
use crate::pci::PciAddress;

const USB_DEVICES: &str = "/sys/bus/usb/devices";

/// What stands in the path of a namespace that the kernel reaches through several controllers
/// (`drivers/nvme/host/multipath.c`): it is not below its controller.
const NVME_SUBSYSTEM: &str = "/nvme-subsystem/";

impl Host {
    /// The block device that a path in `/dev` leads to; none where there is none.
    ///
    /// # Errors
    /// `/dev` or sysfs cannot be read.
    pub fn block_device_at(&self, path: &Path) -> Result<Option<BlockDevice>, HostError> {
        // Another file system may not answer.
        let leads_out = path.components().any(|part| part == Component::ParentDir);
        if !path.starts_with("/dev") || leads_out {
            return Ok(None);
        }
        let Some(there) = self.real_path(path)? else { return Ok(None) };
        if let Some(number) = DeviceNumber::of_link(&self.files.locate(&there)) {
            if number.class != DeviceClass::Block {
                return Ok(None);
            }
            let name = self.link_name(format!("/sys/dev/block/{number}").as_ref())?;
            return name.map_or(Ok(None), |name| BlockDevice::named(self, &name));
        }
        let name = there.strip_prefix("/dev").unwrap_or(&there).to_string_lossy().replace('/', "!");
        BlockDevice::named(self, &name)
    }

    /// The drives of a controller, by their names; none while no driver of the host's has it.
    ///
    /// # Errors
    /// sysfs cannot be read.
    pub fn drives_of_function(&self, function: PciAddress) -> Result<Vec<BlockDevice>, HostError> {
        match self.pci_folder(function)? {
            Some(folder) => self.drives_below(&folder, |path| pci_ancestor(path) == Some(function)),
            None => Ok(Vec::new()),
        }
    }

    /// The controller that a drive is on; none for what is on none, and for what is made of several drives.
    ///
    /// # Errors
    /// sysfs cannot be read.
    pub fn function_of_drive(&self, device: &BlockDevice) -> Result<Option<PciAddress>, HostError> {
        let Some(path) = self.real_path(&device.drive(self)?.folder())? else { return Ok(None) };
        if path.to_string_lossy().contains(NVME_SUBSYSTEM) {
            return Ok(self.controllers_of_namespace(&path)?.iter().find_map(|path| pci_ancestor(path)));
        }
        Ok(pci_ancestor(&path))
    }

    /// The drives of a SCSI device: the number of its host, its bus, its target and its unit there.
    ///
    /// # Errors
    /// sysfs cannot be read.
    pub fn drives_of_scsi(&self, [host, bus, target, unit]: [u64; 4]) -> Result<Vec<BlockDevice>, HostError> {
        let device = format!("/sys/bus/scsi/devices/{host}:{bus}:{target}:{unit}");
        match self.real_path(device.as_ref())? {
            Some(folder) => self.drives_below(&folder, |_| true),
            None => Ok(Vec::new()),
        }
    }

    /// The drives of USB devices with these numbers of vendor and product.
    ///
    /// # Errors
    /// sysfs cannot be read.
    pub fn drives_of_usb_id(&self, vendor: u16, product: u16) -> Result<Vec<BlockDevice>, HostError> {
        self.drives_of_usb([("idVendor", 16, vendor.into()), ("idProduct", 16, product.into())])
    }

    /// The drives of the USB device with this number on a bus.
    ///
    /// # Errors
    /// sysfs cannot be read.
    pub fn drives_of_usb_place(&self, bus: u64, device: u64) -> Result<Vec<BlockDevice>, HostError> {
        self.drives_of_usb([("busnum", 10, bus), ("devnum", 10, device)])
    }

    fn drives_of_usb(&self, attributes: [(&str, u32, u64); 2]) -> Result<Vec<BlockDevice>, HostError> {
        let mut drives = Vec::new();
        for device in self.names_if_present(USB_DEVICES)? {
            let folder = Path::new(USB_DEVICES).join(device);
            let is_it = attributes.iter().all(|(name, base, number)| {
                // It may be unplugged just now.
                let text = self.text(folder.join(name)).unwrap_or_default();
                u64::from_str_radix(&text, *base) == Ok(*number)
            });
            if is_it && let Some(folder) = self.real_path(&folder)? {
                drives.extend(self.drives_below(&folder, |_| true)?);
            }
        }
        drives.sort_unstable();
        drives.dedup();
        Ok(drives)
    }

    fn drives_below(
        &self,
        folder: &Path,
        is_its: impl Fn(&Path) -> bool,
    ) -> Result<Vec<BlockDevice>, HostError> {
        let is_its = |path: &Path| path.starts_with(folder) && is_its(path);
        let mut drives = Vec::new();
        for name in self.names_if_present(BLOCK)? {
            let Some(path) = self.real_path(&Path::new(BLOCK).join(&name))? else { continue };
            let is_here = is_its(&path)
                || path.to_string_lossy().contains(NVME_SUBSYSTEM)
                    && self.controllers_of_namespace(&path)?.iter().any(|controller| is_its(controller));
            if is_here
                && let Some(device) = BlockDevice::named(self, &name)?
                && !device.is_partition(self)
            {
                drives.push(device);
            }
        }
        Ok(drives)
    }

    /// The controllers through which a namespace of an NVMe subsystem is reached: links beside it.
    fn controllers_of_namespace(&self, namespace: &Path) -> Result<Vec<PathBuf>, HostError> {
        let Some(subsystem) = namespace.parent() else { return Ok(Vec::new()) };
        let mut controllers = Vec::new();
        for name in self.names_if_present(subsystem)? {
            let link = subsystem.join(&name);
            let number = name.strip_prefix("nvme").unwrap_or_default();
            let is_controller = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
            if is_controller && self.link_target(&link)?.is_some() {
                controllers.extend(self.real_path(&link)?);
            }
        }
        Ok(controllers)
    }
}
