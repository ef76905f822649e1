//! Virtual functions of a device (SR-IOV): how many it has, who uses them, and another number of them
//! (`drivers/pci/iov.c`, `Documentation/ABI/testing/sysfs-bus-pci`).

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{file, folder};
use crate::deadline::Deadline;
use crate::host::{Host, HostError};
use crate::pci::{PciAddress, listed};

/// How long it may be looked for users of virtual functions.
const LOOK_FOR_USERS: Duration = Duration::from_secs(3);

/// How long `sriov_numvfs` may take to be read.
const READ: Duration = Duration::from_secs(5);

/// Of an interface's `flags`: it is up (`IFF_UP` in `include/uapi/linux/if.h`).
const IFF_UP: u32 = 1;

/// The network interfaces of the host, by their names.
const INTERFACES: &str = "/sys/class/net";

/// How many virtual functions a device has, and who may have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualFunctions {
    /// `sriov_numvfs`.
    pub count: u16,
    /// `sriov_drivers_autoprobe`.
    pub host_drivers: HostDrivers,
}

/// Whether drivers of the host take virtual functions that are made (`sriov_drivers_autoprobe`). A function whose
/// `driver_override` names a driver goes to that one in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostDrivers {
    /// They do. Kernels before 4.12 have no other way.
    TakeThem,
    /// They do not.
    KeptAway,
}

impl HostDrivers {
    const fn as_sysfs(self) -> &'static str {
        match self {
            Self::TakeThem => "1",
            Self::KeptAway => "0",
        }
    }
}

impl fmt::Display for VirtualFunctions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            0 => f.write_str("none")?,
            count => count.fmt(f)?,
        }
        match self.host_drivers {
            HostDrivers::TakeThem => Ok(()),
            HostDrivers::KeptAway => f.write_str(", without drivers of the host"),
        }
    }
}

/// What a device says of its virtual functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SriovCapability {
    /// `sriov_totalvfs`: how many its driver lets it have at most.
    pub most: u16,
    /// `sriov_offset`: how far the first one's routing number is from the device's own.
    offset: u16,
    /// `sriov_stride`: how far they are from each other.
    stride: u16,
}

impl SriovCapability {
    /// The address of a virtual function of a device, counted from 0, whether it is there or not; none for one that
    /// cannot be.
    #[must_use]
    pub fn address_of(&self, device: PciAddress, number: u16) -> Option<PciAddress> {
        device.at_distance(u32::from(self.offset) + u32::from(self.stride) * u32::from(number))
    }

    /// Which of a device's virtual functions an address is, counted from 0; none where it is none that the device can have.
    #[must_use]
    pub fn number_of(&self, device: PciAddress, function: PciAddress) -> Option<u16> {
        (0..self.most).find(|number| self.address_of(device, *number) == Some(function))
    }
}

impl Host {
    /// What a device says of its virtual functions; none where it can have none.
    ///
    /// # Errors
    /// sysfs cannot be read.
    pub fn sriov_capability(&self, device: PciAddress) -> Result<Option<SriovCapability>, HostError> {
        let number = |name: &str| -> Result<Option<u16>, HostError> {
            let path = file(device, name);
            let Some(text) = self.text_if_present(&path)? else { return Ok(None) };
            text.parse().map(Some).map_err(|_| {
                HostError::content(&path, format!("`{}` is no such number", text.escape_debug()))
            })
        };
        let Some(most) = number("sriov_totalvfs")? else { return Ok(None) };
        let (offset, stride) = (number("sriov_offset")?, number("sriov_stride")?);
        Ok(Some(SriovCapability { most, offset: offset.unwrap_or(0), stride: stride.unwrap_or(0) }))
    }

    /// How many virtual functions a device has. The kernel tells it only while no driver is at work with the device
    /// (`sriov_numvfs_show`).
    ///
    /// # Errors
    /// There is no such device, or it can have none ([`HostError::is_absent`]); a driver that hangs keeps the kernel from
    /// telling ([`HostError::stuck_process`]).
    pub fn virtual_functions(
        &self,
        device: PciAddress,
        deadline: Deadline,
    ) -> Result<VirtualFunctions, HostError> {
        let paths = ["sriov_numvfs", "sriov_drivers_autoprobe"].map(|name| file(device, name));
        let [path, _] = &paths;
        let texts = self.read_bounded(&paths, Deadline::after(READ).earlier(deadline))?;
        let mut texts = texts.into_iter();
        let (count, autoprobe) = (texts.next().flatten(), texts.next().flatten());
        let Some(text) = count else {
            return Err(HostError::gone(format!("{device} has no virtual functions any more")));
        };
        let count = text
            .parse()
            .map_err(|_| HostError::content(path, format!("`{}` is no such number", text.escape_debug())))?;
        let host_drivers = match autoprobe.as_deref() {
            Some("0") => HostDrivers::KeptAway,
            _ => HostDrivers::TakeThem,
        };
        Ok(VirtualFunctions { count, host_drivers })
    }

    /// The device that a virtual function belongs to; none for any other function.
    ///
    /// # Errors
    /// The link cannot be read.
    pub fn physical_function(&self, function: PciAddress) -> Result<Option<PciAddress>, HostError> {
        Ok(self.link_name(&file(function, "physfn"))?.and_then(|name| name.parse().ok()))
    }

    /// The device below a network interface of this name; none where there is no such interface, or it is of no PCI device.
    ///
    /// # Errors
    /// The link cannot be read.
    pub fn device_of_interface(&self, name: &str) -> Result<Option<PciAddress>, HostError> {
        let link = PathBuf::from(format!("{INTERFACES}/{name}/device"));
        Ok(self.link_name(&link)?.and_then(|name| name.parse().ok()))
    }

    /// The network interfaces of a device, sorted.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn interfaces_of(&self, device: PciAddress) -> Result<Vec<String>, HostError> {
        self.names_if_present(folder(device).join("net"))
    }

    /// Who uses virtual functions of a device, in words: a program that has one open, an interface that is up, a driver of
    /// the host's whose users cannot be known. A function that waits with VFIO or without a driver is not used.
    ///
    /// # Errors
    /// The processes cannot all be looked at in time.
    pub fn users_of_virtual_functions(
        &self,
        device: PciAddress,
        deadline: Deadline,
    ) -> Result<Vec<String>, HostError> {
        let functions = self.virtual_functions_there(device)?;
        let holders = self.holders_of(&functions, Deadline::after(LOOK_FOR_USERS).earlier(deadline))?;
        let mut users: Vec<String> = holders.iter().map(ToString::to_string).collect();
        for function in functions {
            users.extend(self.host_user_of(function)?);
        }
        Ok(users)
    }

    /// The virtual functions that a device has now, by its links `virtfnN`.
    fn virtual_functions_there(&self, device: PciAddress) -> Result<Vec<PciAddress>, HostError> {
        let mut functions = Vec::new();
        for name in self.names_if_present(folder(device))? {
            if name.strip_prefix("virtfn").is_some_and(|number| number.parse::<u16>().is_ok())
                && let Some(target) = self.link_name(&file(device, &name))?
            {
                functions.extend(target.parse::<PciAddress>());
            }
        }
        functions.sort_unstable();
        Ok(functions)
    }

    /// What of the host's uses a function: its interface, where that is up or part of a bridge, or else its driver.
    fn host_user_of(&self, function: PciAddress) -> Result<Option<String>, HostError> {
        let driver = match self.pci_driver(function) {
            Ok(Some(driver)) if !driver.is_vfio() => driver,
            Ok(_) => return Ok(None),
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(error),
        };
        let interfaces = self.interfaces_of(function)?;
        if interfaces.is_empty() {
            // A network namespace of a container shows its interfaces to nobody else.
            return Ok(Some(format!("the host has {function} ({driver})")));
        }
        for interface in interfaces {
            let folder = format!("{INTERFACES}/{interface}");
            let flags = self.text_if_present(format!("{folder}/flags"))?.unwrap_or_default();
            let flags = flags.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
            if flags.is_none_or(|flags| flags & IFF_UP != 0) {
                return Ok(Some(format!("the host's interface {interface} ({function}) is up")));
            }
            if let Some(master) = self.link_name(format!("{folder}/master").as_ref())? {
                return Ok(Some(format!(
                    "the host's interface {interface} ({function}) is part of {master}"
                )));
            }
        }
        Ok(None)
    }

    /// Gives a device another number of virtual functions, from any number, in a worker. The kernel changes it through 0
    /// only: what there is goes, unless it is in use, and then they are made anew. Whether drivers of the host take
    /// them is set in between.
    ///
    /// # Errors
    /// A function that would go is in use ([`HostError::is_in_use`]); the device's driver refuses; it takes too long
    /// ([`HostError::stuck_process`]).
    pub fn set_virtual_functions(
        &mut self,
        device: PciAddress,
        wanted: &VirtualFunctions,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        let now = self.virtual_functions(device, deadline)?;
        let count = file(device, "sriov_numvfs");
        if now.count != 0 && now.count != wanted.count {
            let users = self.users_of_virtual_functions(device, deadline)?;
            if !users.is_empty() {
                let there = listed(&self.virtual_functions_there(device)?);
                return Err(HostError::in_use(&there, users.join("; ")));
            }
            self.set_device_attribute(&count, "0", deadline)?;
        }
        let autoprobe = file(device, "sriov_drivers_autoprobe");
        if now.host_drivers != wanted.host_drivers && self.is_present(&autoprobe) {
            self.set_device_attribute(&autoprobe, wanted.host_drivers.as_sysfs(), deadline)?;
        }
        if wanted.count != 0 && now.count != wanted.count {
            self.set_device_attribute(&count, &wanted.count.to_string(), deadline)?;
            let made = self.virtual_functions(device, deadline)?.count;
            if made != wanted.count {
                let reason = format!("its driver made {made}");
                return Err(HostError::written_otherwise(&count, &wanted.count.to_string(), reason));
            }
        }
        Ok(())
    }
}
