//! What comes and goes on the bus of a host in a folder.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

use super::{DEVICES, NO_OVERRIDE, REMOVED, folder, from, is_one, text_of};
use crate::host::RescanBinding;
use crate::host::files::{Files, list_sorted, make_link};
use crate::host::simulated::SimulatedFiles;
use crate::pci::{PciAddress, PciSlot};

impl SimulatedFiles {
    /// Where a function's folder really is, as a path of the host.
    pub(super) fn real_folder(&self, function: PciAddress) -> io::Result<PathBuf> {
        let target = fs::read_link(self.locate(&folder(function)))?;
        let mut path = PathBuf::from(DEVICES);
        for component in target.components() {
            match component {
                Component::ParentDir => drop(path.pop()),
                other => path.push(other),
            }
        }
        Ok(path)
    }

    pub(super) fn functions_behind(&self, port: PciAddress) -> io::Result<Vec<PciAddress>> {
        let real = self.real_folder(port)?;
        let names = list_sorted(&self.locate(DEVICES.as_ref()))?;
        let functions = names.iter().filter_map(|name| name.to_str()?.parse::<PciAddress>().ok());
        let is_behind = |function: &PciAddress| {
            *function != port && self.real_folder(*function).is_ok_and(|folder| folder.starts_with(&real))
        };
        Ok(functions.filter(is_behind).collect())
    }

    /// With a port goes everything behind it.
    pub(super) fn remove_function(&self, function: PciAddress, value: &str) -> io::Result<()> {
        fs::metadata(self.locate(&folder(function)))?;
        is_one(value)?;
        self.log(&format!("{function} remove"));
        let mut gone = self.functions_behind(function)?;
        gone.insert(0, function);
        for function in gone.iter().rev() {
            self.may_hang(*function, "remove", None)?;
            if let Some(driver) = self.driver_of(*function) {
                self.detach(*function, &driver)?;
            }
        }
        let real = self.real_folder(function)?;
        for function in &gone {
            if let Some(entry) = self.group_entry(*function) {
                fs::remove_file(self.locate(&entry))?;
            }
            fs::remove_file(self.locate(&folder(*function)))?;
        }
        let kept = self.locate(REMOVED.as_ref()).join(real.strip_prefix("/").unwrap_or(&real));
        // What was removed from below it before goes with it.
        if kept.is_dir() {
            merge(&kept, &self.locate(&real))?;
        }
        fs::create_dir_all(kept.parent().unwrap_or(&kept))?;
        fs::rename(self.locate(&real), kept)
    }

    /// `bus_rescan_store` of the bus below a port.
    pub(super) fn rescan(&self, port: PciAddress, value: &str) -> io::Result<()> {
        is_one(value)?;
        self.log(&format!("{port} rescan"));
        let real = self.real_folder(port)?;
        self.find_again(&real, "rescan")
    }

    /// What was removed below this folder comes back, without override and settings.
    pub(super) fn find_again(&self, parent: &Path, how: &str) -> io::Result<()> {
        let removed = self.locate(REMOVED.as_ref()).join(parent.strip_prefix("/").unwrap_or(parent));
        let mut found = Vec::new();
        for name in list_sorted(&removed).unwrap_or_default() {
            let Some(function) = name.to_str().and_then(|name| name.parse::<PciAddress>().ok()) else {
                continue;
            };
            let (kept, real) = (removed.join(&name), parent.join(&name));
            // One whose port is still away waits below a folder of the same name.
            if self.fault(function, "stays-away").is_some() || !kept.join("vendor").exists() {
                continue;
            }
            fs::rename(kept, self.locate(&real))?;
            self.link_functions(&real, how, &mut found)?;
        }
        let release = self.text("/proc/sys/kernel/osrelease".as_ref())?;
        let is_autoprobing =
            self.text("/sys/bus/pci/drivers_autoprobe".as_ref()).is_ok_and(|text| text == "1");
        if is_autoprobing || RescanBinding::of_kernel(&release) == RescanBinding::AtOnce {
            found.into_iter().try_for_each(|function| self.probe(function))?;
        }
        Ok(())
    }

    /// A function's place among the members of its IOMMU group.
    pub(super) fn group_entry(&self, function: PciAddress) -> Option<PathBuf> {
        let group = fs::read_link(self.locate(&folder(function).join("iommu_group"))).ok()?;
        let group = group.file_name()?.to_str()?.to_owned();
        Some(PathBuf::from(format!("/sys/kernel/iommu_groups/{group}/devices/{function}")))
    }

    /// Links for a function that was found and for all behind it.
    pub(super) fn link_functions(
        &self,
        real: &Path,
        how: &str,
        found: &mut Vec<PciAddress>,
    ) -> io::Result<()> {
        let name = real.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Ok(function) = name.parse::<PciAddress>() else { return Ok(()) };
        make_link(&self.locate(&folder(function)), &from(Path::new(DEVICES), &text_of(real)))?;
        if let Some(entry) = self.group_entry(function) {
            make_link(&self.locate(&entry), &from(entry.parent().unwrap_or(&entry), &text_of(real)))?;
        }
        for (file, value) in
            [("driver_override", NO_OVERRIDE), ("power/control", "on"), ("d3cold_allowed", "1")]
        {
            let path = real.join(file);
            if self.locate(&path).exists() {
                self.set(&path, value)?;
            }
        }
        self.heal(function, how)?;
        found.push(function);
        for name in list_sorted(&self.locate(real))? {
            self.link_functions(&real.join(name), how, found)?;
        }
        Ok(())
    }

    /// `power` of a slot: without power there are no functions.
    pub(super) fn switch_slot(&self, path: &Path, value: &str) -> io::Result<()> {
        let held: PciSlot = self.text(&path.with_file_name("address"))?.parse().map_err(|_| Errno::EINVAL)?;
        self.log(&format!("slot {held} power {value}"));
        self.set_one_of(path, value, &["0", "1"])?;
        if value == "0" {
            let mut there: Vec<PciAddress> =
                held.functions().filter(|function| self.is_function(*function)).collect();
            there.reverse();
            return there.into_iter().try_for_each(|function| self.remove_function(function, "1"));
        }
        let removed = self.locate(REMOVED.as_ref());
        let parent = parent_of_slot(&removed, held).ok_or(Errno::ENODEV)?;
        let parent = Path::new("/").join(parent.strip_prefix(&removed).unwrap_or(&parent));
        self.find_again(&parent, "power")
    }
}

/// Moves all that is in a folder into another, which may have folders of the same names.
fn merge(folder: &Path, into: &Path) -> io::Result<()> {
    for name in list_sorted(folder)? {
        let (path, target) = (folder.join(&name), into.join(&name));
        if target.is_dir() { merge(&path, &target)? } else { fs::rename(path, target)? }
    }
    fs::remove_dir(folder)
}

/// The folder, among those that were removed, that holds the functions of a slot.
fn parent_of_slot(folder: &Path, slot: PciSlot) -> Option<PathBuf> {
    for name in list_sorted(folder).ok()? {
        let function = name.to_str().and_then(|name| name.parse::<PciAddress>().ok());
        let path = folder.join(&name);
        if function.is_some_and(|function| function.slot() == slot) && path.join("vendor").exists() {
            return Some(folder.to_owned());
        }
        if path.is_dir()
            && !path.is_symlink()
            && let Some(found) = parent_of_slot(&path, slot)
        {
            return Some(found);
        }
    }
    None
}
