//! What is the matter with functions of a host in a folder.

use std::fs;
use std::io;

use super::{DEVICES, about, folder};
use crate::host::files::{Files, list_sorted};
use crate::host::simulated::SimulatedFiles;
use crate::pci::PciAddress;
use crate::process_id::ProcessId;

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

/// A signal ended the process that was at work in the kernel.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the process that did it was ended by SIGKILL")]
struct Signalled;

/// The number of a process that is ended by a signal on a host in a folder.
const WRITER: i32 = 4711;

/// The process that a signal ended, where that is what an error of a host in a folder says.
pub(in crate::host) fn signalled_process(error: &io::Error) -> Option<i32> {
    error.get_ref()?.downcast_ref::<Signalled>().map(|_| WRITER)
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

    /// The kernel may hang in something, fail in it, or have a signal for the process that it does it for: `what` is
    /// `unbind`, `probe`, `reset`, `remove` or `config`. Where it failed it has the function locked from then on.
    pub(super) fn may_hang(&self, function: PciAddress, what: &str, driver: Option<&str>) -> io::Result<()> {
        if self.has_fault_with(function, &format!("{what}-oopses"), driver) {
            if what == "unbind"
                && let Some(driver) = driver
            {
                // `driver_sysfs_remove` comes before the driver's own part.
                self.detach(function, driver)?;
            }
            self.says(&format!("BUG: kernel NULL pointer dereference, address: {:016x}", 8))?;
            self.says("Oops: Oops: 0000 [#1] SMP NOPTI")?;
            self.says(&format!("CPU: 3 UID: 0 PID: {WRITER} Comm: vfio-hook Not tainted 7.0.11 #1"))?;
            let locked = ["config", "unbind", "probe", "reset", "remove"].map(|what| format!("{what}-hangs"));
            self.set(&about(function, "fault"), &locked.join("\n"))?;
            return Err(io::Error::other(Signalled));
        }
        if self.has_fault_with(function, &format!("{what}-is-killed"), driver) {
            return Err(io::Error::other(Signalled));
        }
        self.hangs_at(function, &format!("{what}-hangs"), driver)
    }

    /// A line for the kernel's log.
    fn says(&self, text: &str) -> io::Result<()> {
        let log = self.text("/dev/kmsg".as_ref()).unwrap_or_default();
        let last = log.lines().last().and_then(|line| line.split(',').nth(1)?.parse::<u64>().ok());
        let number = last.map_or(0, |last| last + 1);
        self.set("/dev/kmsg".as_ref(), format!("{log}\n1,{number},9999,-;{text}").trim())
    }

    fn hangs_at(&self, function: PciAddress, name: &str, driver: Option<&str>) -> io::Result<()> {
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
