//! What is the matter with functions of a host in a folder.

use std::fs;
use std::io;

use super::{DEVICES, about, folder};
use crate::host::files::{Files, list_sorted};
use crate::host::process::ProcessId;
use crate::host::simulated::SimulatedFiles;
use crate::pci::PciAddress;

/// The kernel did not come back from something: the process that hangs there.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("process {0} hangs in the kernel")]
struct Hangs(i32);

/// What a host in a folder says where a process hangs in the kernel.
pub(in crate::host::simulated) fn hangs(pid: i32) -> io::Error {
    io::Error::other(Hangs(pid))
}

/// The process that was left behind in the kernel, where that is what an error of a host in a folder says.
pub(in crate::host) fn stuck_process(error: &io::Error) -> Option<ProcessId> {
    let Hangs(pid) = *error.get_ref()?.downcast_ref::<Hangs>()?;
    Some(ProcessId::of(pid).unwrap_or(ProcessId { pid, start_time: 0 }))
}

impl SimulatedFiles {
    /// Every word of a fault after its name; none where the function does not have it.
    pub(super) fn fault(&self, function: PciAddress, name: &str) -> Option<String> {
        let text = self.text(&about(function, "fault")).ok()?;
        text.lines().find_map(|line| match line.trim().split_once(' ') {
            Some((first, rest)) => (first == name).then(|| rest.trim().to_owned()),
            None => (line.trim() == name).then(String::new),
        })
    }

    /// Whether a fault concerns this driver.
    pub(super) fn has_fault_with(&self, function: PciAddress, name: &str, driver: Option<&str>) -> bool {
        let Some(words) = self.fault(function, name) else { return false };
        let named = words.split_whitespace().find(|word| word.parse::<i32>().is_err());
        named.is_none() || named == driver
    }

    pub(super) fn may_hang(&self, function: PciAddress, name: &str, driver: Option<&str>) -> io::Result<()> {
        if !self.has_fault_with(function, name, driver) {
            return Ok(());
        }
        let words = self.fault(function, name).unwrap_or_default();
        let pid = words.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or(1);
        Err(hangs(pid))
    }

    /// Whether it, or a port above it, is off the bus.
    pub(super) fn is_dead(&self, function: PciAddress) -> bool {
        let Ok(target) = fs::read_link(self.locate(&folder(function))) else { return true };
        let path = target.iter().filter_map(|name| name.to_str()?.parse::<PciAddress>().ok());
        path.into_iter().any(|function| self.fault(function, "dead").is_some())
    }

    /// Something was tried that may bring it back.
    pub(super) fn heal(&self, function: PciAddress, how: &str) -> io::Result<()> {
        let path = about(function, "fault");
        let Ok(text) = self.text(&path) else { return Ok(()) };
        let healed = format!("dead until {how}");
        let rest: Vec<&str> = text.lines().filter(|line| line.trim() != healed).collect();
        self.set(&path, &rest.join("\n"))
    }

    /// Something was done that may bring back any function.
    pub(in crate::host::simulated) fn heal_all(&self, how: &str) -> io::Result<()> {
        let names = list_sorted(&self.locate(DEVICES.as_ref()))?;
        let functions = names.iter().filter_map(|name| name.to_str()?.parse::<PciAddress>().ok());
        functions.into_iter().try_for_each(|function| self.heal(function, how))
    }
}
