//! Which driver has a function of a host in a folder (`drivers/base/bus.c`, `drivers/base/dd.c`).

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;

use super::{DRIVERS, KNOWN, NO_OVERRIDE, folder, from, text_of};
use crate::host::DriverName;
use crate::host::files::{Files, list_sorted, make_link};
use crate::host::simulated::SimulatedFiles;
use crate::pci::PciAddress;

impl SimulatedFiles {
    /// The drivers that may have a function: the one that its override names, or those that know it.
    pub(super) fn candidates(&self, function: PciAddress) -> io::Result<Vec<String>> {
        let is_there = |driver: &str| self.locate(format!("{DRIVERS}/{driver}").as_ref()).is_dir();
        let text = |name: &str| self.text(&folder(function).join(name));
        let named = text("driver_override").unwrap_or_else(|_| NO_OVERRIDE.to_owned());
        if named != NO_OVERRIDE && !named.is_empty() {
            return Ok(if is_there(&named) { vec![named] } else { Vec::new() });
        }
        if !self.may_be_probed(function) {
            return Ok(Vec::new());
        }
        let bare = |number: String| number.trim_start_matches("0x").to_owned();
        let id = format!("{}:{}", bare(text("vendor")?), bare(text("device")?));
        let class = format!("class {}", bare(text("class")?).get(..4).unwrap_or_default());
        let knows = |driver: &str| {
            let known = self.text(format!("{KNOWN}/{driver}").as_ref()).unwrap_or_default();
            known.lines().any(|line| line.trim() == id || line.trim() == class)
        };
        let drivers = list_sorted(&self.locate(KNOWN.as_ref())).unwrap_or_default();
        let drivers = drivers.into_iter().filter_map(|name| name.into_string().ok());
        Ok(drivers.filter(|driver| is_there(driver) && knows(driver)).collect())
    }

    pub(super) fn driver_of(&self, function: PciAddress) -> Option<String> {
        let target = fs::read_link(self.locate(&folder(function).join("driver"))).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// `device_attach`: the first driver whose probe succeeds. That none does is no error.
    pub(super) fn probe(&self, function: PciAddress) -> io::Result<()> {
        self.log(&format!("{function} drivers_probe"));
        if self.driver_of(function).is_some() {
            return Ok(());
        }
        for driver in self.candidates(function)? {
            self.may_hang(function, "probe", Some(&driver))?;
            if self.takes(function, &driver) {
                return self.attach(function, &driver);
            }
        }
        Ok(())
    }

    pub(super) fn takes(&self, function: PciAddress, driver: &str) -> bool {
        let is_missed = self.is_dead(function) && !is_vfio(driver);
        !is_missed && !self.has_fault_with(function, "probe-fails", Some(driver))
    }

    pub(super) fn bind(&self, function: PciAddress, driver: &str) -> io::Result<()> {
        self.log(&format!("{function} bind {driver}"));
        if self.driver_of(function).is_some() {
            return Err(Errno::EBUSY.into());
        }
        if !self.candidates(function)?.iter().any(|candidate| candidate == driver) {
            return Err(Errno::ENODEV.into());
        }
        self.may_hang(function, "probe", Some(driver))?;
        if !self.takes(function, driver) {
            return Err(Errno::EIO.into());
        }
        self.attach(function, driver)
    }

    pub(super) fn unbind(&self, function: PciAddress, driver: &str) -> io::Result<()> {
        self.log(&format!("{function} unbind {driver}"));
        if self.driver_of(function).as_deref() != Some(driver) {
            return Err(Errno::ENODEV.into());
        }
        self.may_hang(function, "unbind", Some(driver))?;
        self.detach(function, driver)
    }

    pub(super) fn attach(&self, function: PciAddress, driver: &str) -> io::Result<()> {
        let real = self.real_folder(function)?;
        make_link(&self.locate(&real.join("driver")), &from(&real, &format!("{DRIVERS}/{driver}")))?;
        let entry = format!("{DRIVERS}/{driver}/{function}");
        make_link(
            &self.locate(entry.as_ref()),
            &from(Path::new(&entry).parent().unwrap_or(&real), &text_of(&real)),
        )?;
        // `vfio_pci_core_register_device` lets it sleep.
        if is_vfio(driver) {
            self.set_power_control(function, "auto")
        } else {
            self.announce_display(function, "add")
        }
    }

    pub(super) fn detach(&self, function: PciAddress, driver: &str) -> io::Result<()> {
        fs::remove_file(self.locate(&folder(function).join("driver")))?;
        fs::remove_file(self.locate(format!("{DRIVERS}/{driver}/{function}").as_ref()))?;
        // `vfio_pci_core_unregister_device` does not.
        if is_vfio(driver) {
            self.set_power_control(function, "on")
        } else {
            self.announce_display(function, "remove")
        }
    }
}

fn is_vfio(driver: &str) -> bool {
    driver.parse::<DriverName>().is_ok_and(|driver| driver.is_vfio())
}
