//! Resets and settings of functions of a host in a folder (`drivers/pci/pci-sysfs.c`).

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;

use super::{about, folder, is_one};
use crate::host::files::Files;
use crate::host::simulated::SimulatedFiles;
use crate::pci::BarSize;
use crate::pci::PciAddress;

impl SimulatedFiles {
    pub(super) fn set_power_control(&self, function: PciAddress, value: &str) -> io::Result<()> {
        let path = folder(function).join("power/control");
        if !self.locate(&path).exists() {
            return Ok(());
        }
        self.set_one_of(&path, value, &["on", "auto"])
    }

    pub(super) fn set_reset_method(&self, function: PciAddress, value: &str) -> io::Result<()> {
        let known = self.text(&about(function, "reset_methods")).unwrap_or_default();
        let value = if value == "default" { &known } else { value };
        if value.split_whitespace().any(|name| !known.split_whitespace().any(|known| known == name)) {
            return Err(Errno::EINVAL.into());
        }
        self.set(&folder(function).join("reset_method"), value)
    }

    /// `reset` of a function, `reset_subordinate` of a port.
    pub(super) fn reset(&self, function: PciAddress, path: &Path, value: &str) -> io::Result<()> {
        fs::metadata(self.locate(path))?;
        is_one(value)?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        self.log(&format!("{function} {name}"));
        self.may_hang(function, "reset", None)?;
        if name == "reset" {
            if self.text(&folder(function).join("reset_method")).is_ok_and(|text| text.is_empty()) {
                return Err(Errno::ENOTTY.into());
            }
            return self.heal(function, name);
        }
        self.functions_behind(function)?.into_iter().try_for_each(|behind| self.heal(behind, name))
    }

    /// `__resource_resize_store`: not with a driver; a BAR that finds no room loses its place.
    pub(super) fn resize_bar(
        &self,
        function: PciAddress,
        bar: usize,
        path: &Path,
        value: &str,
    ) -> io::Result<()> {
        fs::metadata(self.locate(path))?;
        self.log(&format!("{function} resource{bar}_resize {value}"));
        let log2_mib: u32 = value.parse().map_err(|_| Errno::EINVAL)?;
        if self.driver_of(function).is_some() {
            return Err(Errno::EBUSY.into());
        }
        let offered = self.text(&about(function, "sizes"));
        let bytes = 1u64.checked_shl(log2_mib + 20).ok_or(Errno::EINVAL)?;
        let is_offered = |line: &str| line.trim().parse().is_ok_and(|size: BarSize| size.bytes() == bytes);
        if offered.is_ok_and(|offered| !offered.lines().any(is_offered)) {
            return Err(Errno::EINVAL.into());
        }
        let resource = folder(function).join("resource");
        let text = self.text(&resource)?;
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let line = lines.get_mut(bar).ok_or(Errno::EINVAL)?;
        let numbers: Vec<u64> = line
            .split_whitespace()
            .filter_map(|number| u64::from_str_radix(number.strip_prefix("0x")?, 16).ok())
            .collect();
        let [_, _, flags] = numbers[..] else { return Err(Errno::EINVAL.into()) };
        let room = self.text(&about(function, "room")).ok().and_then(|text| text.parse().ok());
        let fits = room.is_none_or(|room: BarSize| bytes <= room.bytes());
        // Somewhere above 4 GiB, each BAR in a part of its own.
        let start = if fits { (bar as u64 + 1) << 44 } else { 0 };
        let flags = if fits { flags & !0x2000_0000 } else { flags | 0x2000_0000 };
        *line = format!("{start:#018x} {:#018x} {flags:#018x}", start + (bytes - 1));
        self.set(&resource, &lines.join("\n"))?;
        if fits { Ok(()) } else { Err(Errno::ENOSPC.into()) }
    }
}
