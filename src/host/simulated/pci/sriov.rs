//! Virtual functions of a device of a host in a folder (`drivers/pci/iov.c`, `sriov_numvfs_store` and `sriov_enable`).

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;

use super::{NO_OVERRIDE, folder, from};
use crate::host::files::{Files, list_sorted, make_link, make_with_folders};
use crate::host::simulated::SimulatedFiles;
use crate::pci::PciAddress;

/// The first IOMMU group of virtual functions: each has one of its own.
const FIRST_GROUP: u32 = 1000;

impl SimulatedFiles {
    /// `sriov_numvfs`.
    pub(super) fn set_numvfs(&self, device: PciAddress, path: &Path, value: &str) -> io::Result<()> {
        let (now, most) = (self.number(path)?, self.number(&folder(device).join("sriov_totalvfs"))?);
        let wanted: u64 = value.parse().map_err(|_| Errno::EINVAL)?;
        self.log(&format!("{device} sriov_numvfs {wanted}"));
        if wanted > most {
            return Err(Errno::ERANGE.into());
        }
        if wanted == now {
            return Ok(());
        }
        if self.driver_of(device).is_none() {
            return Err(Errno::ENOENT.into());
        }
        self.may_hang(device, "sriov", None)?;
        if wanted == 0 {
            for function in self.virtual_functions_of(device)?.into_iter().rev() {
                self.take_away(function)?;
            }
            for name in virtfns(self, device)? {
                fs::remove_file(self.locate(&folder(device).join(name)))?;
            }
        } else if now != 0 {
            return Err(Errno::EBUSY.into());
        } else {
            for number in 0..wanted {
                self.make_virtual_function(device, u32::try_from(number).map_err(|_| Errno::EINVAL)?)?;
            }
        }
        self.set(path, value)
    }

    /// Whether drivers may have a function of their own accord (`pci_device_can_probe` in `drivers/pci/pci-driver.c`).
    pub(super) fn may_be_probed(&self, function: PciAddress) -> bool {
        let autoprobe = folder(function).join("physfn/sriov_drivers_autoprobe");
        self.text(&autoprobe).is_ok_and(|text| text == "1") || !self.locate(&autoprobe).exists()
    }

    fn virtual_functions_of(&self, device: PciAddress) -> io::Result<Vec<PciAddress>> {
        let mut functions = Vec::new();
        for name in virtfns(self, device)? {
            let target = fs::read_link(self.locate(&folder(device).join(name)))?;
            functions.extend(target.file_name().and_then(|name| name.to_str()?.parse::<PciAddress>().ok()));
        }
        functions.sort_unstable();
        Ok(functions)
    }

    fn make_virtual_function(&self, device: PciAddress, number: u32) -> io::Result<()> {
        let of_device = |name: &str| folder(device).join(name);
        let part = |name: &str| -> io::Result<u32> {
            u32::try_from(self.number(&of_device(name))?).map_err(|_| Errno::EINVAL.into())
        };
        let distance = part("sriov_offset")? + part("sriov_stride")? * number;
        let function = device.at_distance(distance).ok_or(Errno::EINVAL)?;
        let of_real_device = self.real_folder(device)?;
        let real = of_real_device.parent().unwrap_or(&of_real_device).join(function.to_string());
        let id = self.text(&of_device("sriov_vf_device")).unwrap_or_default();
        for (file, value) in [
            ("vendor", self.text(&of_device("vendor"))?),
            ("device", format!("0x{id}")),
            ("class", self.text(&of_device("class"))?),
            ("driver_override", NO_OVERRIDE.to_owned()),
            ("power/control", "on".to_owned()),
        ] {
            make_with_folders(&self.locate(&real.join(file)), format!("{value}\n").as_bytes())?;
        }
        make_link(&self.locate(&real.join("physfn")), &Path::new("..").join(device.to_string()))?;
        let virtfn = of_real_device.join(format!("virtfn{number}"));
        make_link(&self.locate(&virtfn), &Path::new("..").join(function.to_string()))?;
        let group = format!("/sys/kernel/iommu_groups/{}", FIRST_GROUP + distance);
        make_link(&self.locate(&real.join("iommu_group")), &from(&real, &group))?;
        let mut found = Vec::new();
        self.link_functions(&real, "sriov", &mut found)?;
        found.into_iter().try_for_each(|function| self.probe(function))
    }

    fn take_away(&self, function: PciAddress) -> io::Result<()> {
        if let Some(driver) = self.driver_of(function) {
            self.detach(function, &driver)?;
        }
        let real = self.real_folder(function)?;
        if let Some(entry) = self.group_entry(function) {
            fs::remove_file(self.locate(&entry))?;
        }
        fs::remove_file(self.locate(&folder(function)))?;
        fs::remove_dir_all(self.locate(&real))
    }
}

/// The links of a device to its virtual functions.
fn virtfns(files: &SimulatedFiles, device: PciAddress) -> io::Result<Vec<String>> {
    let names = list_sorted(&files.locate(&folder(device)))?;
    let names = names.into_iter().filter_map(|name| name.into_string().ok());
    Ok(names.filter(|name| name.starts_with("virtfn")).collect())
}
