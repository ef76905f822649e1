//! PCI functions as sysfs shows them.
//!
//! All of this the kernel tells from memory: nothing here asks the device, resumes it or waits for a driver
//! (`drivers/pci/pci-sysfs.c`, `drivers/base/power/sysfs.c`). That is also why the link's speed and width are not here:
//! `current_link_speed` and `current_link_width` read the device's registers, as [`Host::probe_pci`] does in a child.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{DEVICES, DriverName, file, folder};
use crate::host::{Host, HostError};
use crate::pci::{PciAddress, PciClass, PciId, PciSlot};

/// A PCI function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciFunction {
    /// Where it is.
    pub address: PciAddress,
    /// Its model.
    pub id: PciId,
    /// Its kind: graphics, sound, a bridge.
    pub class: PciClass,
    /// Its driver; none where it has none.
    pub driver: Option<DriverName>,
    /// The number of its IOMMU group; none without an IOMMU.
    pub iommu_group: Option<u32>,
}

/// How much a function sleeps, as the kernel last knew (`pci_power_names` in `drivers/pci/pci.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PowerState {
    /// Awake.
    D0,
    /// A little asleep.
    D1,
    /// More asleep.
    D2,
    /// Asleep with power, answers when its registers are read.
    D3hot,
    /// Without power. A device that did not wake up is also said to be here.
    D3cold,
    /// The kernel does not know.
    Unknown,
    /// The kernel met an error.
    Error,
}

impl PowerState {
    fn from_sysfs(text: &str) -> Self {
        match text {
            "D0" => Self::D0,
            "D1" => Self::D1,
            "D2" => Self::D2,
            "D3hot" => Self::D3hot,
            "D3cold" => Self::D3cold,
            "error" => Self::Error,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::D0 => "D0",
            Self::D1 => "D1",
            Self::D2 => "D2",
            Self::D3hot => "D3hot",
            Self::D3cold => "D3cold",
            Self::Unknown => "unknown",
            Self::Error => "error",
        })
    }
}

impl Host {
    /// A function, from its `vendor`, `device` and `class` and its links to driver and IOMMU group.
    ///
    /// # Errors
    /// There is no such function ([`HostError::is_absent`]).
    pub fn pci_function(&self, address: PciAddress) -> Result<PciFunction, HostError> {
        let id = PciId {
            vendor: self.hexadecimal(address, "vendor")?,
            device: self.hexadecimal(address, "device")?,
        };
        Ok(PciFunction {
            address,
            id,
            class: PciClass(self.hexadecimal(address, "class")?),
            driver: self.pci_driver(address)?,
            iommu_group: self.pci_iommu_group(address)?,
        })
    }

    /// All functions of the host, lowest first; none on a host without PCI.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn pci_functions(&self) -> Result<Vec<PciAddress>, HostError> {
        let mut functions = match self.names(DEVICES) {
            Ok(names) => names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect(),
            Err(error) if error.is_absent() => Vec::new(),
            Err(error) => return Err(error),
        };
        functions.sort_unstable();
        Ok(functions)
    }

    /// The functions of one card that are there, lowest first.
    #[must_use]
    pub fn pci_functions_of(&self, slot: PciSlot) -> Vec<PciAddress> {
        slot.functions().filter(|function| self.is_pci_function(*function)).collect()
    }

    /// Whether there is such a function.
    #[must_use]
    pub fn is_pci_function(&self, address: PciAddress) -> bool {
        self.is_present(folder(address))
    }

    /// Whether it is a virtual function of another (SR-IOV): only those have a `physfn`.
    ///
    /// # Errors
    /// The link cannot be read.
    pub fn is_virtual_function(&self, address: PciAddress) -> Result<bool, HostError> {
        Ok(self.link_target(&file(address, "physfn"))?.is_some())
    }

    /// Whether the firmware showed its first picture on it (`boot_vga`). Only VGA controllers have the file.
    pub(in crate::host) fn is_boot_vga(&self, address: PciAddress) -> bool {
        self.text(file(address, "boot_vga")).is_ok_and(|text| text == "1")
    }

    /// `numa_node` of a function; none where there is no such function or the firmware does not say (`-1`).
    #[must_use]
    pub fn pci_numa_node(&self, address: PciAddress) -> Option<u32> {
        self.value(file(address, "numa_node")).ok()
    }

    /// `power_state`: what the kernel last knew, without asking the device. Old kernels have no such file.
    #[must_use]
    pub fn pci_power_state(&self, address: PciAddress) -> PowerState {
        self.text(file(address, "power_state"))
            .map_or(PowerState::Unknown, |text| PowerState::from_sysfs(&text))
    }

    /// The names in `reset_method`, in the order in which the kernel tries them; none where the function cannot be
    /// reset by itself, or before Linux 5.15.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn pci_reset_methods(&self, address: PciAddress) -> Result<Vec<String>, HostError> {
        let text = self.text_if_present(file(address, "reset_method"))?.unwrap_or_default();
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }

    /// The driver a function is bound to, by its link `driver`.
    ///
    /// # Errors
    /// There is no such function ([`HostError::is_absent`]), the link cannot be read, or the driver's name is none.
    pub fn pci_driver(&self, address: PciAddress) -> Result<Option<DriverName>, HostError> {
        let path = file(address, "driver");
        let Some(target) = self.link_target(&path)? else {
            if self.is_pci_function(address) {
                return Ok(None);
            }
            return Err(HostError::gone(format!("there is no PCI function {address}")));
        };
        let name = target.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.parse().map(Some).map_err(|error| HostError::content(&path, error))
    }

    /// The number of the function's IOMMU group, by its link `iommu_group`.
    ///
    /// # Errors
    /// The link cannot be read.
    pub fn pci_iommu_group(&self, address: PciAddress) -> Result<Option<u32>, HostError> {
        Ok(self.link_name(&file(address, "iommu_group"))?.and_then(|number| number.parse().ok()))
    }

    /// A number such as `0x1002`.
    fn hexadecimal<T: TryFrom<u32>>(&self, address: PciAddress, name: &str) -> Result<T, HostError> {
        let path = file(address, name);
        let text = self.text(&path)?;
        let number = text.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let number = number.and_then(|number| T::try_from(number).ok());
        number
            .ok_or_else(|| HostError::content(&path, format!("`{}` is no such number", text.escape_debug())))
    }
}
