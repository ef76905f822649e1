//! The kernel's part in PCI on a host in a folder: which driver gets a function, what a reset, a removal and a new look
//! at the bus do (`drivers/pci/pci-sysfs.c`, `drivers/base/bus.c`, `drivers/base/dd.c`).
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
//! `reset_subordinate`, `rescan`, `power` or `mem` was tried), `stays-away` (does not come back after it was removed),
//! `probe-fails`, and where the kernel does not come back: `config-hangs`, `probe-hangs`, `unbind-hangs`,
//! `remove-hangs`, `sriov-hangs` and `reset-hangs`. With `-oopses` in place of `-hangs` it fails there, and with `-is-killed` a signal
//! ends the process that asked for it. What concerns one driver only has its name after it; a number is that of the
//! process left behind, which is 1 otherwise.

mod bus;
mod drivers;
mod faults;
mod settings;
mod sriov;

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::SimulatedFiles;
use super::i2c::bytes_of;
use crate::host::files::{Files, make_with_folders};
use crate::pci::PciAddress;

pub(in crate::host::simulated) use faults::hangs;
pub(in crate::host) use faults::{signalled_process, stuck_process};

const DEVICES: &str = "/sys/bus/pci/devices";
const DRIVERS: &str = "/sys/bus/pci/drivers";
const KNOWN: &str = "/simulated/pci/drivers";
const REMOVED: &str = "/simulated/pci/removed";
const LOG: &str = "/simulated/pci/log";
const NO_OVERRIDE: &str = "(null)";

impl SimulatedFiles {
    /// What is written into a file of PCI's; none where the file is an ordinary one.
    pub(in crate::host::simulated) fn write_pci(&self, path: &Path, value: &str) -> Option<io::Result<()>> {
        let name = path.file_name()?.to_str()?;
        if path == Path::new("/sys/bus/pci/drivers_probe") {
            return Some(self.on_function(value, |function| self.probe(function)));
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
            "sriov_numvfs" => self.set_numvfs(function, path, value),
            "sriov_drivers_autoprobe" => self.set_one_of(path, value, &["0", "1"]),
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
    pub(in crate::host::simulated) fn read_pci_config(
        &self,
        path: &Path,
        bytes: &[u8],
    ) -> io::Result<Vec<u8>> {
        let mut config = bytes_of(&String::from_utf8_lossy(bytes)).ok_or(Errno::EINVAL)?;
        let function = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse().ok());
        if let Some(function) = function {
            self.may_hang(function, "config", None)?;
            if self.is_dead(function) {
                config.fill(0xff);
            }
        }
        Ok(config)
    }

    /// A module was loaded: its driver is there.
    pub(in crate::host::simulated) fn load_pci_driver(&self, module: &str) -> io::Result<()> {
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

    fn set_one_of(&self, path: &Path, value: &str, known: &[&str]) -> io::Result<()> {
        if known.contains(&value) { self.set(path, value) } else { Err(Errno::EINVAL.into()) }
    }

    /// Notes what is done, where the host has a log of it.
    pub(in crate::host::simulated) fn log(&self, line: &str) {
        if let Ok(log) = self.text(LOG.as_ref()) {
            // A log that cannot be written is no fault of the host.
            let _ = self.set(LOG.as_ref(), format!("{log}\n{line}").trim());
        }
    }
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
