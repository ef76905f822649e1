//! The settings of a function that a guest may need otherwise.

use std::fmt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::{STEP, file};
use crate::deadline::Deadline;
use crate::host::{Host, HostError};
use crate::pci::PciAddress;

/// A setting of a function (`Documentation/ABI/testing/sysfs-bus-pci`, `sysfs-devices-power`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PciAttribute {
    /// `d3cold_allowed`: whether its power may be cut while it is idle (`0` or `1`).
    D3coldAllowed,
    /// `power/control`: whether it may sleep while it is idle (`auto`), or not (`on`).
    PowerControl,
    /// `reset_method`: how it is reset, by names in the order in which they are tried; empty for not at all.
    ResetMethod,
}

impl PciAttribute {
    /// Its file, below the function's folder.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::D3coldAllowed => "d3cold_allowed",
            Self::PowerControl => "power/control",
            Self::ResetMethod => "reset_method",
        }
    }

    /// Its file.
    #[must_use]
    pub fn path(self, address: PciAddress) -> PathBuf {
        file(address, self.file_name())
    }
}

impl fmt::Display for PciAttribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file_name())
    }
}

/// The kernel lists `bus` for the first function of a card, which it found before the others, and neither resets it
/// that way nor takes the word back (`pci_parent_bus_reset` in `drivers/pci/pci.c`). None where it is not there.
fn without_bus(methods: &str) -> Option<String> {
    let is_of_bus = |method: &&str| matches!(*method, "bus" | "cxl_bus");
    let rest: Vec<&str> = methods.split_whitespace().filter(|method| !is_of_bus(method)).collect();
    (rest.len() < methods.split_whitespace().count()).then(|| rest.join(" "))
}

impl Host {
    /// The value of a setting; the kernel has it in memory.
    ///
    /// # Errors
    /// The function has no such setting, or is not there ([`HostError::is_absent`]).
    pub fn pci_attribute(&self, address: PciAddress, attribute: PciAttribute) -> Result<String, HostError> {
        self.text(attribute.path(address))
    }

    /// Sets it, in a child: the kernel wakes a sleeping function up when `power/control` becomes `on`, and before it
    /// looks which resets there are. Of `reset_method`, what the kernel lists but does not take back is left out.
    ///
    /// # Errors
    /// EINVAL for a value the function does not know; it takes too long ([`HostError::stuck_process`]).
    pub fn set_pci_attribute(
        &mut self,
        address: PciAddress,
        attribute: PciAttribute,
        value: &str,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        let path = attribute.path(address);
        match self.set_device_attribute(&path, value, deadline) {
            Err(error)
                if attribute == PciAttribute::ResetMethod
                    && error.raw_os_error() == Some(Errno::EINVAL as i32) =>
            {
                match without_bus(value) {
                    Some(rest) => self.set_device_attribute(&path, &rest, deadline),
                    None => Err(error),
                }
            }
            written => written,
        }
    }

    /// Sets an attribute for which the kernel may wake up a device or wait for a driver, in a child, within 30 s.
    ///
    /// # Errors
    /// The kernel refuses the value; it takes too long ([`HostError::stuck_process`]).
    pub fn set_device_attribute(
        &mut self,
        path: &Path,
        value: &str,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        // Nothing at all cannot be written into a file of sysfs, and the kernel takes an empty line for it.
        let value = if value.is_empty() { "\n" } else { value };
        self.write_bounded(path, value, deadline.earlier(Deadline::after(STEP)))
    }
}
