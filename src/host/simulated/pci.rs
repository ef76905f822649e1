//! The kernel's part in PCI on a host in a folder: which driver gets a function, what a reset, a removal and a new look at
//! the bus do (`drivers/pci/pci-sysfs.c`, `drivers/base/bus.c`, `drivers/base/dd.c`).
//!
//! A manifest lays out `/sys/devices/pci0000:00/…` and the links in `/sys/bus/pci/devices`, and a folder in
//! `/sys/bus/pci/drivers` for each driver with `bind` and `unbind`. What else there may be:
//!
//! | file | what |
//! |---|---|
//! | `/simulated/pci/drivers/NAME` | the models (`1002:73bf`) and classes (`class 0604`) that a driver knows, a line each; the first driver by name that knows a function and may have it takes it |
//! | `/simulated/pci/ADDRESS/fault` | what is the matter with a function or a port, a line each |
//! | `/simulated/pci/ADDRESS/room` | the largest size of a BAR that the ports above have room for, such as `16 GiB` |
//! | `/simulated/pci/ADDRESS/sizes` | the sizes that the function offers for its BARs, a line each; any where absent |
//! | `/simulated/pci/ADDRESS/reset_methods` | the resets that it has |
//! | `/simulated/pci/removed/` | functions that were removed |
//! | `/simulated/pci/log` | gets a line for everything that is done |
//!
//! Faults: `dead` (reads ff, and no driver but vfio's takes it), `dead until WHAT` (the same, until `reset`,
//! `reset_subordinate`, `rescan`, `power` or `mem` was tried), `config-hangs`, `unbind-hangs`, `probe-hangs`,
//! `remove-hangs`, `reset-hangs` (the kernel does not come back; a number after it is that of the process left behind,
//! otherwise 1), `probe-fails` (all three of `probe` with the name of a driver after it where it is only that one),
//! `stays-away` (does not come back after it was removed).

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

use super::SimulatedFiles;
use super::i2c::bytes_of;
use crate::host::files::{Files, list_sorted, make_link, make_with_folders};
use crate::host::process::ProcessId;
use crate::pci::{PciAddress, PciSlot};

const DEVICES: &str = "/sys/bus/pci/devices";
const DRIVERS: &str = "/sys/bus/pci/drivers";
const KNOWN: &str = "/simulated/pci/drivers";
const REMOVED: &str = "/simulated/pci/removed";
const LOG: &str = "/simulated/pci/log";
const POWER_STATE: &str = "/sys/power/state";
const MEM_SLEEP: &str = "/sys/power/mem_sleep";
const WAKE_ALARM: &str = "/sys/class/rtc/rtc0/wakealarm";
const NO_OVERRIDE: &str = "(null)";

/// The kernel did not come back from something: the process that hangs there.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("process {0} hangs in the kernel")]
struct Hangs(i32);

/// The process that was left behind in the kernel, where that is what an error of a host in a folder says.
pub(in crate::host) fn stuck_process(error: &io::Error) -> Option<ProcessId> {
    let Hangs(pid) = *error.get_ref()?.downcast_ref::<Hangs>()?;
    Some(ProcessId::of(pid).unwrap_or(ProcessId { pid, start_time: 0 }))
}

impl SimulatedFiles {
    /// What is written into a file of PCI's; none where the file is an ordinary one.
    pub(super) fn write_pci(&self, path: &Path, value: &str) -> Option<io::Result<()>> {
        let name = path.file_name()?.to_str()?;
        if path == Path::new("/sys/bus/pci/drivers_probe") {
            return Some(self.on_function(value, |function| self.probe(function)));
        }
        match path.to_str()? {
            POWER_STATE => return Some(self.sleep(path, value)),
            MEM_SLEEP => return Some(self.choose_sleep(path, value)),
            WAKE_ALARM => return Some(self.set(path, if value == "0" { "" } else { value })),
            _ => {}
        }
        if let Ok(rest) = path.strip_prefix(DRIVERS) {
            let driver = rest.parent()?.to_str()?;
            return match name {
                "unbind" => Some(self.on_function(value, |function| self.unbind(function, driver))),
                "bind" => Some(self.on_function(value, |function| self.bind(function, driver))),
                _ => None,
            };
        }
        if path.starts_with("/sys/bus/pci/slots") && name == "power" {
            return Some(self.switch_slot(path, value));
        }
        let rest = path.strip_prefix(DEVICES).ok()?;
        let function: PciAddress = rest.iter().next()?.to_str()?.parse().ok()?;
        let done = match name {
            "driver_override" => {
                let value = if value.is_empty() { NO_OVERRIDE } else { value };
                self.log(&format!("{function} driver_override {value}"));
                self.set(path, value)
            }
            "control" if rest.parent().is_some_and(|folder| folder.ends_with("power")) => {
                self.set_power_control(function, value)
            }
            "d3cold_allowed" => self.set_one_of(path, value, &["0", "1"]),
            "reset_method" => self.set_reset_method(function, value),
            "reset" | "reset_subordinate" => self.reset(function, path, value),
            "remove" => self.remove_function(function, value),
            "rescan" => self.rescan(function, value),
            _ => {
                let bar = name.strip_prefix("resource")?.strip_suffix("_resize")?.parse().ok()?;
                self.resize_bar(function, bar, path, value)
            }
        };
        Some(done)
    }

    /// What a read of the configuration space gives: ones where a function or a port above it is dead.
    pub(super) fn read_pci_config(&self, path: &Path, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut config = bytes_of(&String::from_utf8_lossy(bytes)).ok_or(Errno::EINVAL)?;
        let function = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse().ok());
        if let Some(function) = function {
            self.may_hang(function, "config-hangs", None)?;
            if self.is_dead(function) {
                config.fill(0xff);
            }
        }
        Ok(config)
    }

    /// A module was loaded: its driver is there.
    pub(super) fn load_pci_driver(&self, module: &str) -> io::Result<()> {
        if !module.ends_with("vfio_pci") {
            return Ok(());
        }
        let driver = if module == "vfio_pci" { "vfio-pci" } else { module };
        self.log(&format!("modprobe {module}"));
        for name in ["bind", "unbind"] {
            make_with_folders(&self.locate(format!("{DRIVERS}/{driver}/{name}").as_ref()), b"\n")?;
        }
        Ok(())
    }

    fn on_function(&self, value: &str, then: impl FnOnce(PciAddress) -> io::Result<()>) -> io::Result<()> {
        let function: PciAddress = value.parse().map_err(|_| Errno::ENODEV)?;
        if !self.is_function(function) {
            return Err(Errno::ENODEV.into());
        }
        then(function)
    }

    fn is_function(&self, function: PciAddress) -> bool {
        self.locate(&folder(function)).exists()
    }

    /// Every word of a fault after its name; none where the function does not have it.
    fn fault(&self, function: PciAddress, name: &str) -> Option<String> {
        let text = self.text(&about(function, "fault")).ok()?;
        text.lines().find_map(|line| match line.trim().split_once(' ') {
            Some((first, rest)) => (first == name).then(|| rest.trim().to_owned()),
            None => (line.trim() == name).then(String::new),
        })
    }

    /// Whether a fault concerns this driver.
    fn has_fault_with(&self, function: PciAddress, name: &str, driver: Option<&str>) -> bool {
        let Some(words) = self.fault(function, name) else { return false };
        let named = words.split_whitespace().find(|word| word.parse::<i32>().is_err());
        named.is_none() || named == driver
    }

    fn may_hang(&self, function: PciAddress, name: &str, driver: Option<&str>) -> io::Result<()> {
        if !self.has_fault_with(function, name, driver) {
            return Ok(());
        }
        let words = self.fault(function, name).unwrap_or_default();
        let pid = words.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or(1);
        Err(io::Error::other(Hangs(pid)))
    }

    /// Whether it, or a port above it, is off the bus.
    fn is_dead(&self, function: PciAddress) -> bool {
        let Ok(target) = fs::read_link(self.locate(&folder(function))) else { return true };
        let path = target.iter().filter_map(|name| name.to_str()?.parse::<PciAddress>().ok());
        path.into_iter().any(|function| self.fault(function, "dead").is_some())
    }

    /// Something was tried that may bring it back.
    fn heal(&self, function: PciAddress, how: &str) -> io::Result<()> {
        let path = about(function, "fault");
        let Ok(text) = self.text(&path) else { return Ok(()) };
        let healed = format!("dead until {how}");
        let rest: Vec<&str> = text.lines().filter(|line| line.trim() != healed).collect();
        self.set(&path, &rest.join("\n"))
    }

    fn driver_of(&self, function: PciAddress) -> Option<String> {
        let target = fs::read_link(self.locate(&folder(function).join("driver"))).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// The drivers that may have a function: the one that its override names, or those that know it.
    fn candidates(&self, function: PciAddress) -> io::Result<Vec<String>> {
        let is_there = |driver: &str| self.locate(format!("{DRIVERS}/{driver}").as_ref()).is_dir();
        let text = |name: &str| self.text(&folder(function).join(name));
        let named = text("driver_override").unwrap_or_else(|_| NO_OVERRIDE.to_owned());
        if named != NO_OVERRIDE && !named.is_empty() {
            return Ok(if is_there(&named) { vec![named] } else { Vec::new() });
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

    /// `device_attach`: the first driver whose probe succeeds. That none does is no error.
    fn probe(&self, function: PciAddress) -> io::Result<()> {
        self.log(&format!("{function} drivers_probe"));
        if self.driver_of(function).is_some() {
            return Ok(());
        }
        for driver in self.candidates(function)? {
            self.may_hang(function, "probe-hangs", Some(&driver))?;
            if self.takes(function, &driver) {
                return self.attach(function, &driver);
            }
        }
        Ok(())
    }

    fn takes(&self, function: PciAddress, driver: &str) -> bool {
        let is_missed = self.is_dead(function) && !is_vfio(driver);
        !is_missed && !self.has_fault_with(function, "probe-fails", Some(driver))
    }

    fn bind(&self, function: PciAddress, driver: &str) -> io::Result<()> {
        self.log(&format!("{function} bind {driver}"));
        if self.driver_of(function).is_some() {
            return Err(Errno::EBUSY.into());
        }
        if !self.candidates(function)?.iter().any(|candidate| candidate == driver) {
            return Err(Errno::ENODEV.into());
        }
        self.may_hang(function, "probe-hangs", Some(driver))?;
        if !self.takes(function, driver) {
            return Err(Errno::EIO.into());
        }
        self.attach(function, driver)
    }

    fn unbind(&self, function: PciAddress, driver: &str) -> io::Result<()> {
        self.log(&format!("{function} unbind {driver}"));
        if self.driver_of(function).as_deref() != Some(driver) {
            return Err(Errno::ENODEV.into());
        }
        self.may_hang(function, "unbind-hangs", Some(driver))?;
        self.detach(function, driver)
    }

    fn attach(&self, function: PciAddress, driver: &str) -> io::Result<()> {
        let real = self.real_folder(function)?;
        make_link(&self.locate(&real.join("driver")), &from(&real, &format!("{DRIVERS}/{driver}")))?;
        let entry = format!("{DRIVERS}/{driver}/{function}");
        make_link(
            &self.locate(entry.as_ref()),
            &from(Path::new(&entry).parent().unwrap_or(&real), &text_of(&real)),
        )?;
        // `vfio_pci_core_register_device` lets it sleep.
        if is_vfio(driver) { self.set_power_control(function, "auto") } else { Ok(()) }
    }

    fn detach(&self, function: PciAddress, driver: &str) -> io::Result<()> {
        fs::remove_file(self.locate(&folder(function).join("driver")))?;
        fs::remove_file(self.locate(format!("{DRIVERS}/{driver}/{function}").as_ref()))?;
        // `vfio_pci_core_unregister_device` does not.
        if is_vfio(driver) { self.set_power_control(function, "on") } else { Ok(()) }
    }

    fn set_power_control(&self, function: PciAddress, value: &str) -> io::Result<()> {
        let path = folder(function).join("power/control");
        if !self.locate(&path).exists() {
            return Ok(());
        }
        self.set_one_of(&path, value, &["on", "auto"])
    }

    fn set_one_of(&self, path: &Path, value: &str, known: &[&str]) -> io::Result<()> {
        if known.contains(&value) { self.set(path, value) } else { Err(Errno::EINVAL.into()) }
    }

    fn set_reset_method(&self, function: PciAddress, value: &str) -> io::Result<()> {
        let known = self.text(&about(function, "reset_methods")).unwrap_or_default();
        let value = if value == "default" { &known } else { value };
        if value.split_whitespace().any(|name| !known.split_whitespace().any(|known| known == name)) {
            return Err(Errno::EINVAL.into());
        }
        self.set(&folder(function).join("reset_method"), value)
    }

    /// `reset` of a function, `reset_subordinate` of a port.
    fn reset(&self, function: PciAddress, path: &Path, value: &str) -> io::Result<()> {
        fs::metadata(self.locate(path))?;
        is_one(value)?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        self.log(&format!("{function} {name}"));
        self.may_hang(function, "reset-hangs", None)?;
        if name == "reset" {
            if self.text(&folder(function).join("reset_method")).is_ok_and(|text| text.is_empty()) {
                return Err(Errno::ENOTTY.into());
            }
            return self.heal(function, name);
        }
        self.functions_behind(function)?.into_iter().try_for_each(|behind| self.heal(behind, name))
    }

    fn functions_behind(&self, port: PciAddress) -> io::Result<Vec<PciAddress>> {
        let real = self.real_folder(port)?;
        let names = list_sorted(&self.locate(DEVICES.as_ref()))?;
        let functions = names.iter().filter_map(|name| name.to_str()?.parse::<PciAddress>().ok());
        let is_behind = |function: &PciAddress| {
            *function != port && self.real_folder(*function).is_ok_and(|folder| folder.starts_with(&real))
        };
        Ok(functions.filter(is_behind).collect())
    }

    /// With a port goes everything behind it.
    fn remove_function(&self, function: PciAddress, value: &str) -> io::Result<()> {
        fs::metadata(self.locate(&folder(function)))?;
        is_one(value)?;
        self.log(&format!("{function} remove"));
        let mut gone = self.functions_behind(function)?;
        gone.insert(0, function);
        for function in gone.iter().rev() {
            self.may_hang(*function, "remove-hangs", None)?;
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
    fn rescan(&self, port: PciAddress, value: &str) -> io::Result<()> {
        is_one(value)?;
        self.log(&format!("{port} rescan"));
        let real = self.real_folder(port)?;
        self.find_again(&real, "rescan")
    }

    /// What was removed below this folder comes back, without override and settings.
    fn find_again(&self, parent: &Path, how: &str) -> io::Result<()> {
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
        if self.text("/sys/bus/pci/drivers_autoprobe".as_ref()).is_ok_and(|text| text == "1") {
            found.into_iter().try_for_each(|function| self.probe(function))?;
        }
        Ok(())
    }

    /// A function's place among the members of its IOMMU group.
    fn group_entry(&self, function: PciAddress) -> Option<PathBuf> {
        let group = fs::read_link(self.locate(&folder(function).join("iommu_group"))).ok()?;
        let group = group.file_name()?.to_str()?.to_owned();
        Some(PathBuf::from(format!("/sys/kernel/iommu_groups/{group}/devices/{function}")))
    }

    /// Links for a function that was found and for all behind it.
    fn link_functions(&self, real: &Path, how: &str, found: &mut Vec<PciAddress>) -> io::Result<()> {
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
    fn switch_slot(&self, path: &Path, value: &str) -> io::Result<()> {
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

    /// `mem` into `/sys/power/state`: back again at once, and cards had no power where it was a deep sleep.
    fn sleep(&self, path: &Path, value: &str) -> io::Result<()> {
        fs::metadata(self.locate(path))?;
        self.log(&format!("sleep {value}"));
        if value != "mem" {
            return Err(Errno::EINVAL.into());
        }
        self.set(WAKE_ALARM.as_ref(), "")?;
        if !self.text(MEM_SLEEP.as_ref())?.contains("[deep]") {
            return Ok(());
        }
        let names = list_sorted(&self.locate(DEVICES.as_ref()))?;
        let functions = names.iter().filter_map(|name| name.to_str()?.parse::<PciAddress>().ok());
        functions.into_iter().try_for_each(|function| self.heal(function, "mem"))
    }

    /// The kinds of sleep that there are, the chosen one in brackets.
    fn choose_sleep(&self, path: &Path, value: &str) -> io::Result<()> {
        let text = self.text(path)?;
        let names: Vec<&str> = text.split_whitespace().map(|name| name.trim_matches(['[', ']'])).collect();
        if !names.contains(&value) {
            return Err(Errno::EINVAL.into());
        }
        let shown =
            names.iter().map(|name| if *name == value { format!("[{name}]") } else { (*name).to_owned() });
        self.set(path, &shown.collect::<Vec<_>>().join(" "))
    }

    /// `__resource_resize_store`: not with a driver; a BAR that finds no room loses its place.
    fn resize_bar(&self, function: PciAddress, bar: usize, path: &Path, value: &str) -> io::Result<()> {
        fs::metadata(self.locate(path))?;
        self.log(&format!("{function} resource{bar}_resize {value}"));
        let log2_mib: u32 = value.parse().map_err(|_| Errno::EINVAL)?;
        if self.driver_of(function).is_some() {
            return Err(Errno::EBUSY.into());
        }
        let offered = self.text(&about(function, "sizes"));
        let bytes = 1u64.checked_shl(log2_mib + 20).ok_or(Errno::EINVAL)?;
        let is_offered = |line: &str| line.trim().parse().is_ok_and(|size: BarBytes| size.0 == bytes);
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
        let fits = room.is_none_or(|room: BarBytes| bytes <= room.0);
        // Somewhere above 4 GiB, each BAR in a part of its own.
        let start = if fits { (bar as u64 + 1) << 44 } else { 0 };
        let flags = if fits { flags & !0x2000_0000 } else { flags | 0x2000_0000 };
        *line = format!("{start:#018x} {:#018x} {flags:#018x}", start + (bytes - 1));
        self.set(&resource, &lines.join("\n"))?;
        if fits { Ok(()) } else { Err(Errno::ENOSPC.into()) }
    }

    /// Where a function's folder really is, as a path of the host.
    fn real_folder(&self, function: PciAddress) -> io::Result<PathBuf> {
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

    fn log(&self, line: &str) {
        if let Ok(log) = self.text(LOG.as_ref()) {
            // A log that cannot be written is no fault of the host.
            let _ = self.set(LOG.as_ref(), format!("{log}\n{line}").trim());
        }
    }
}

/// A size of a BAR in a host's own files.
struct BarBytes(u64);

impl std::str::FromStr for BarBytes {
    type Err = crate::host::BarSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<crate::host::BarSize>().map(|size| Self(size.bytes()))
    }
}

fn is_vfio(driver: &str) -> bool {
    driver.parse::<crate::host::DriverName>().is_ok_and(|driver| driver.is_vfio())
}

fn is_one(value: &str) -> io::Result<()> {
    if value == "1" { Ok(()) } else { Err(Errno::EINVAL.into()) }
}

fn folder(function: PciAddress) -> PathBuf {
    PathBuf::from(format!("{DEVICES}/{function}"))
}

fn about(function: PciAddress, name: &str) -> PathBuf {
    PathBuf::from(format!("/simulated/pci/{function}/{name}"))
}

fn text_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The target of a link in a folder that leads to a path, as sysfs writes it.
fn from(folder: &Path, path: &str) -> PathBuf {
    let inside = |path: &Path| path.strip_prefix("/sys").unwrap_or(path).to_owned();
    let up = inside(folder).components().count();
    std::iter::repeat_n("..", up).collect::<PathBuf>().join(inside(Path::new(path)))
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
