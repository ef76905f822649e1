//! Firmware framebuffers: the picture that the firmware left on a card, as a platform device of its own.
//!
//! There is at most one, made at boot (`drivers/firmware/sysfb.c`). A driver for the whole card takes it away; where
//! none was bound since, it lies in the card's memory, and its driver would go on to draw there while a guest has the
//! card.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use procfs::{FromBufRead, Iomem};

use crate::deadline::Deadline;
use crate::host::sysfs::pci_ancestor;
use crate::host::{Host, HostError};
use crate::pci::PciAddress;
use crate::serde_as_text::serde_as_text;

const PLATFORM: &str = "/sys/bus/platform";
const IOMEM: &str = "/proc/iomem";

/// The kinds of platform devices that the firmware's picture can be.
const KINDS: [&str; 3] = ["efi-framebuffer", "vesa-framebuffer", "simple-framebuffer"];

/// Names under which `/proc/iomem` shows the memory of the picture: `BOOTFB` for the device itself
/// (`drivers/firmware/sysfb_simplefb.c`), the others for its drivers (`drivers/video/fbdev`, `drivers/gpu/drm/sysfb`).
const REGIONS: [&str; 7] = ["BOOTFB", "efifb", "efidrm", "simplefb", "simpledrm", "vesafb", "vesadrm"];

/// A platform device, by its name: `efi-framebuffer.0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FirmwareFramebuffer(String);

/// A driver of a firmware framebuffer, by the name of its folder: `efi-framebuffer`, `simple-framebuffer`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FramebufferDriver(String);

impl FirmwareFramebuffer {
    /// Its folder among the platform devices, a link.
    pub(in crate::host) fn folder(&self) -> PathBuf {
        Path::new(PLATFORM).join("devices").join(&self.0)
    }
}

impl FromStr for FirmwareFramebuffer {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let is_known = name
            .split_once('.')
            .is_some_and(|(kind, number)| KINDS.contains(&kind) && number.parse::<u32>().is_ok());
        if is_known { Ok(Self(name.to_owned())) } else { Err(format!("`{name}` is no firmware framebuffer")) }
    }
}

impl FromStr for FramebufferDriver {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let is_name = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if is_name { Ok(Self(name.to_owned())) } else { Err(format!("`{name}` is no driver's name")) }
    }
}

impl fmt::Display for FirmwareFramebuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for FramebufferDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(FirmwareFramebuffer);
serde_as_text!(FramebufferDriver);

impl Host {
    /// The firmware framebuffers on these functions: those that lie below one of them in sysfs (Linux 6.9 and newer),
    /// or whose memory is a part of one's. None is normal: a card's own driver takes them away.
    ///
    /// # Errors
    /// sysfs or `/proc/iomem` cannot be read.
    pub fn firmware_framebuffers_on(
        &self,
        functions: &[PciAddress],
    ) -> Result<Vec<FirmwareFramebuffer>, HostError> {
        let mut found = Vec::new();
        for name in self.names_if_present(format!("{PLATFORM}/devices"))? {
            let Ok(framebuffer) = name.parse::<FirmwareFramebuffer>() else { continue };
            let parent = self.real_path(&framebuffer.folder())?.and_then(|path| pci_ancestor(&path));
            let is_on_them = match parent {
                Some(function) => functions.contains(&function),
                None => self.has_picture_memory(functions)?,
            };
            if is_on_them {
                found.push(framebuffer);
            }
        }
        Ok(found)
    }

    /// `driver` of a firmware framebuffer; none where it has no driver.
    ///
    /// # Errors
    /// There is no such device (any more).
    pub fn firmware_framebuffer_driver(
        &self,
        framebuffer: &FirmwareFramebuffer,
    ) -> Result<Option<FramebufferDriver>, HostError> {
        let folder = framebuffer.folder();
        if !self.is_present(&folder) {
            return Err(HostError::gone(format!("the host has no {framebuffer}")));
        }
        let Some(name) = self.link_name(&folder.join("driver"))? else { return Ok(None) };
        name.parse().map(Some).map_err(|reason: String| HostError::content(&folder.join("driver"), reason))
    }

    /// `unbind` of the driver it has, and `bind` of the one it is to have.
    ///
    /// # Errors
    /// There is no such device (any more) or driver; the kernel refuses, or takes longer than there is time.
    pub fn set_firmware_framebuffer_driver(
        &mut self,
        framebuffer: &FirmwareFramebuffer,
        driver: Option<&FramebufferDriver>,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        let now = self.firmware_framebuffer_driver(framebuffer)?;
        if now.as_ref() == driver {
            return Ok(());
        }
        let file = |driver: &FramebufferDriver, name: &str| {
            Path::new(PLATFORM).join("drivers").join(&driver.0).join(name)
        };
        if let Some(now) = &now {
            self.write_bounded(&file(now, "unbind"), &framebuffer.0, deadline)?;
        }
        if let Some(driver) = driver {
            self.write_bounded(&file(driver, "bind"), &framebuffer.0, deadline)?;
        }
        let then = self.firmware_framebuffer_driver(framebuffer)?;
        if then.as_ref() == driver {
            return Ok(());
        }
        let word = |driver: Option<&FramebufferDriver>| driver.map_or("none", |driver| &driver.0).to_owned();
        let reason = format!("the driver is {}, not {}", word(then.as_ref()), word(driver));
        Err(HostError::content(&framebuffer.folder().join("driver"), reason))
    }

    /// Whether the memory of the firmware's picture is a part of that of these functions.
    fn has_picture_memory(&self, functions: &[PciAddress]) -> Result<bool, HostError> {
        let Some(text) = self.text_if_present(IOMEM)? else { return Ok(false) };
        let map = Iomem::from_buf_read(text.as_bytes())
            .map_err(|error| HostError::content(IOMEM.as_ref(), error))?;
        // Who is not root sees every address as 0.
        let regions = map.0.into_iter().map(|(_, region)| region).filter(|region| region.address.1 > 0);
        let mut pictures = regions.filter(|region| REGIONS.contains(&region.name.as_str()));
        let mut memory = Vec::new();
        for function in functions {
            let path = format!("/sys/bus/pci/devices/{function}/resource");
            memory.extend(self.text_if_present(path)?.unwrap_or_default().lines().filter_map(range));
        }
        Ok(pictures.any(|picture| {
            let (first, last) = picture.address;
            memory.iter().any(|range| range.contains(&first) && range.contains(&last))
        }))
    }
}

/// A line of `resource`: first address, last address and flags; none where nothing is assigned.
fn range(line: &str) -> Option<RangeInclusive<u64>> {
    let mut numbers =
        line.split_whitespace().map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
    let (first, last) = (numbers.next()??, numbers.next()??);
    (last > first).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_firmware_framebuffers() {
        for name in ["efi-framebuffer.0", "vesa-framebuffer.0", "simple-framebuffer.12"] {
            assert_eq!(name.parse::<FirmwareFramebuffer>().unwrap().to_string(), name);
        }
        for name in ["efi-framebuffer", "efi-framebuffer.", "efi-framebuffer.x", "serial8250.0", "../x.0", ""]
        {
            assert!(name.parse::<FirmwareFramebuffer>().is_err(), "{name}");
        }
        for name in ["", "..", "a/b", "a b"] {
            assert!(name.parse::<FramebufferDriver>().is_err(), "{name}");
        }
    }

    #[test]
    fn what_is_not_assigned_is_no_range() {
        let line = "0x00000000e0000000 0x00000000efffffff 0x000000000014220c";
        assert_eq!(range(line), Some(0xe000_0000..=0xefff_ffff));
        let unassigned = "0x0000000000000000 0x0000000000000000 0x0000000000000000";
        assert_eq!(range(unassigned), None);
        assert_eq!(range(""), None);
    }
}
