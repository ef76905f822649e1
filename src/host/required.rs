//! What a guest may require of the host: that a path or a USB device is there.

use std::path::Path;

use super::bounded_look::BoundedLook;
use super::presence::is_there;
use super::{Host, HostError};
use crate::deadline::Deadline;

/// Where the kernel lists USB devices (`Documentation/ABI/stable/sysfs-bus-usb`).
const USB_DEVICES: &str = "/sys/bus/usb/devices";

impl Host {
    /// Whether there is something at a path, links followed. The server of a network file system that is away keeps
    /// nobody waiting.
    ///
    /// # Errors
    /// Its file system does not answer in time.
    pub fn is_path_there(&self, path: &Path, deadline: Deadline) -> Result<bool, HostError> {
        if let Some(is_there) = self.early_answers.path(path) {
            return Ok(is_there);
        }
        let look = BoundedLook { call: "stat", path, silent: "its file system does not answer" };
        let is_there = self.look_in_time(look, deadline, |path| Ok(is_there(path)))?;
        self.early_answers.keep_path(path, is_there);
        Ok(is_there)
    }

    /// Whether a USB device with these numbers is plugged in.
    ///
    /// # Errors
    /// The list of them cannot be read.
    pub fn has_usb_device(&self, vendor: u16, product: u16) -> Result<bool, HostError> {
        let number = |device: &str, name: &str| {
            // It may be unplugged just now.
            let text = self.text(format!("{USB_DEVICES}/{device}/{name}")).ok()?;
            u16::from_str_radix(&text, 16).ok()
        };
        let devices = self.names_if_present(USB_DEVICES)?;
        Ok(devices.iter().any(|device| {
            number(device, "idVendor") == Some(vendor) && number(device, "idProduct") == Some(product)
        }))
    }
}
