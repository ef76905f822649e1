//! PCI devices of hosts in folders.

mod binding;
mod probe;
mod recovery;
mod reserved;
mod seen;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::deadline::Deadline;
use crate::host::manifest::lay_out;
use crate::host::simulated::{Faults, SimulatedKernel};
use crate::host::{Host, HostError};

/// A desktop with a Radeon RX 6800 behind a switch of its own, graphics in the processor, and a USB controller.
const DESKTOP: &str = include_str!("../../commands/demo/ryzen-7950x.host");

struct Machine {
    folder: TempDir,
    faults: Faults,
}

impl Machine {
    /// The desktop, of which only what PCI needs is laid out.
    fn new() -> Self {
        let kept = ["/sys/bus/", "/sys/devices/pci", "/sys/kernel/iommu", "/sys/power", "/sys/class/rtc"];
        let others = ["/simulated/pci", "/proc/sys/kernel/osrelease", "/lib/modules", "/dev/"];
        let is_kept = |line: &&str| kept.iter().chain(&others).any(|start| line.starts_with(start));
        let lines: Vec<&str> = DESKTOP.lines().filter(is_kept).collect();
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let machine = Self { folder: tempfile::tempdir_in(parent).unwrap(), faults: Faults::default() };
        machine.add(&lines.join("\n"));
        machine.add("/simulated/pci/log =");
        machine
    }

    fn add(&self, manifest: &str) {
        lay_out(manifest, self.folder.path()).unwrap();
    }

    fn fault(&self, function: &str, fault: &str) {
        self.add(&format!("/simulated/pci/{function}/fault = {fault}"));
    }

    fn host(&self) -> Host {
        Host::simulated(self.folder.path(), &self.faults)
    }

    /// What an administrator does with `echo`.
    fn echo(&self, path: &str, value: &str) {
        SimulatedKernel::new(self.folder.path().to_owned(), Faults::default()).write(path, value).unwrap();
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    fn get(&self, path: &str) -> String {
        fs::read_to_string(self.path(path))
            .unwrap_or_else(|error| panic!("{path}: {error}"))
            .trim()
            .to_owned()
    }

    fn set(&self, path: &str, value: &str) {
        assert!(self.path(path).exists(), "{path}");
        fs::write(self.path(path), format!("{value}\n")).unwrap();
    }

    /// What was done, a line each, and forgotten then.
    fn log(&self) -> Vec<String> {
        let text = self.get("/simulated/pci/log");
        self.set("/simulated/pci/log", "");
        text.lines().map(str::to_owned).collect()
    }

    /// All that is there of PCI, but what the kernel side keeps for itself.
    fn everything(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.path("/sys")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_symlink() {
                    found.insert(path.clone(), fs::read_link(path).unwrap().display().to_string());
                } else if path.is_dir() {
                    found.insert(path.clone(), "a folder".to_owned());
                    folders.push(path);
                } else {
                    found.insert(path.clone(), fs::read_to_string(path).unwrap());
                }
            }
        }
        found
    }
}

fn address(text: &str) -> PciAddress {
    text.parse().unwrap()
}

fn driver(name: &str) -> DriverName {
    name.parse().unwrap()
}

/// The functions of the card.
fn card() -> [PciAddress; 4] {
    ["0000:03:00.0", "0000:03:00.1", "0000:03:00.2", "0000:03:00.3"].map(address)
}

/// Their drivers on the host.
const HOST_DRIVERS: [&str; 4] = ["amdgpu", "snd_hda_intel", "xhci_hcd", "i2c-designware-pci"];

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

/// What a failure says to a person: the error, and what to do.
fn told(error: &HostError) -> String {
    match error.help() {
        Some(help) => format!("{error}\nhelp: {help}"),
        None => error.to_string(),
    }
}
