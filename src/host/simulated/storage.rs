//! What is built upon the drives of a host in a folder: mounts, encrypted volumes, LVM, arrays.
//!
//! A folder `/simulated/storage/NAME` stands for each: `state`, `device` (its name in sysfs), and either `mount` or `swap`, its
//! line in `mountinfo` or `/proc/swaps`, or `bases`, the names of the devices that it is made of. While it is down its folder of sysfs is here.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;

use super::SimulatedFiles;
use crate::host::files::{Files, list_sorted};

pub(super) const STORAGE: &str = "/simulated/storage";

const MOUNTS: &str = "/proc/1/mountinfo";

const SWAPS: &str = "/proc/swaps";

/// The place of the mount's path in a line of `mountinfo`.
const MOUNT_POINT: usize = 4;

impl SimulatedFiles {
    /// What a write to `state` does: the kernel refuses what is in use, and what has lost its base.
    pub(super) fn set_storage(&self, path: &Path, to: &str) -> io::Result<()> {
        let folder = path.parent().unwrap_or(path);
        if self.text(path)? == to {
            return Ok(());
        }
        let device = self.text(&folder.join("device"))?;
        let line = |name: &str| self.text(&folder.join(name)).ok();
        match (line("mount"), line("swap"), to) {
            (Some(line), _, "up") => self.add_line(&device, MOUNTS, &line)?,
            (Some(line), _, _) => self.unmount(&line)?,
            (None, Some(line), "up") => self.add_line(&device, SWAPS, &line)?,
            (None, Some(line), _) => self.remove_line(SWAPS, &line)?,
            (None, None, "up") => self.show_volume(folder, &device)?,
            (None, None, _) => self.hide_volume(folder, &device)?,
        }
        self.set(path, to)
    }

    fn add_line(&self, device: &str, file: &str, line: &str) -> io::Result<()> {
        self.text(&Path::new("/sys/class/block").join(device).join("dev")).map_err(|_| Errno::ENODEV)?;
        let lines = self.text(file.as_ref())?;
        self.set(file.as_ref(), &format!("{lines}\n{line}"))
    }

    fn remove_line(&self, file: &str, line: &str) -> io::Result<()> {
        let lines = self.text(file.as_ref())?;
        let rest: Vec<&str> = lines.lines().filter(|other| *other != line).collect();
        self.set(file.as_ref(), &rest.join("\n"))
    }

    fn unmount(&self, line: &str) -> io::Result<()> {
        let mounts = self.text(MOUNTS.as_ref())?;
        let at = |line: &str| line.split(' ').nth(MOUNT_POINT).unwrap_or_default().to_owned();
        let path = at(line);
        let is_below = |other: &str| Path::new(&at(other)).starts_with(&path) && at(other) != path;
        if mounts.lines().any(is_below) {
            return Err(Errno::EBUSY.into());
        }
        self.remove_line(MOUNTS, line)
    }

    fn hide_volume(&self, folder: &Path, device: &str) -> io::Result<()> {
        let block = Path::new("/sys/devices/virtual/block").join(device);
        let number = self.text(&block.join("dev")).map_err(|_| Errno::ENODEV)?;
        let holders = list_sorted(&self.locate(&block.join("holders"))).unwrap_or_default();
        let is_mounted =
            self.text(MOUNTS.as_ref())?.lines().any(|line| line.split(' ').nth(2) == Some(&number));
        if is_mounted || !holders.is_empty() {
            return Err(Errno::EBUSY.into());
        }
        for base in self.text(&folder.join("bases"))?.split_whitespace() {
            fs::remove_file(self.holder(base, device))?;
        }
        fs::rename(self.locate(&block), self.locate(&folder.join("hidden")))
    }

    fn show_volume(&self, folder: &Path, device: &str) -> io::Result<()> {
        let bases = self.text(&folder.join("bases"))?;
        for base in bases.split_whitespace() {
            self.text(&Path::new("/sys/class/block").join(base).join("dev")).map_err(|_| Errno::ENODEV)?;
        }
        let block = Path::new("/sys/devices/virtual/block").join(device);
        fs::rename(self.locate(&folder.join("hidden")), self.locate(&block))?;
        for base in bases.split_whitespace() {
            fs::write(self.holder(base, device), "\n")?;
        }
        Ok(())
    }

    fn holder(&self, base: &str, device: &str) -> std::path::PathBuf {
        self.locate(&Path::new("/sys/class/block").join(base).join("holders").join(device))
    }
}
