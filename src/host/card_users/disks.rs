//! Disks behind functions that the host has in use without any program having them open: mounted, swapped to, or a part
//! of a volume.

use std::path::Path;

use procfs::FromBufRead;
use procfs::process::MountInfos;

use super::nodes::{CardNode, DeviceClass};
use crate::host::{Host, HostError};
use crate::pci::PciAddress;

/// The mounts of the first process: those of the host, wherever this program runs.
const MOUNTS: &str = "/proc/1/mountinfo";

const SWAPS: &str = "/proc/swaps";

impl Host {
    /// What the host uses of the disks behind these functions, a line each: `/home is mounted from /dev/nvme0n1p2`.
    ///
    /// # Errors
    /// sysfs or `/proc` cannot be read.
    pub fn disks_in_use(&self, functions: &[PciAddress]) -> Result<Vec<String>, HostError> {
        let mut disks = self.device_nodes_of(functions)?;
        disks.retain(|node| node.number.is_some_and(|number| number.class == DeviceClass::Block));
        if disks.is_empty() {
            return Ok(Vec::new());
        }
        let mut uses = self.mounts_from(&disks)?;
        let swaps = self.text_if_present(SWAPS)?.unwrap_or_default();
        for disk in &disks {
            let path = disk.path.display().to_string();
            if swaps.lines().skip(1).any(|line| line.split_whitespace().next() == Some(path.as_str())) {
                uses.push(format!("{path} is swapped to"));
            }
            let name = disk.path.file_name().unwrap_or_default();
            for holder in self.names_if_present(Path::new("/sys/class/block").join(name).join("holders"))? {
                uses.push(format!("{path} is a part of {holder}"));
            }
        }
        Ok(uses)
    }

    /// A file system of several disks has a number of its own: its mounts are known by where they say they come from.
    fn mounts_from(&self, disks: &[CardNode]) -> Result<Vec<String>, HostError> {
        let Some(text) = self.text_if_present(MOUNTS)? else { return Ok(Vec::new()) };
        let mounts = MountInfos::from_buf_read(text.as_bytes())
            .map_err(|error| HostError::content(MOUNTS.as_ref(), error))?;
        let mut uses = Vec::new();
        for mount in mounts.0 {
            let is_on = |disk: &&CardNode| {
                disk.number.is_some_and(|number| number.to_string() == mount.majmin)
                    || mount.mount_source.as_deref().is_some_and(|source| Path::new(source) == disk.path)
            };
            if let Some(disk) = disks.iter().find(is_on) {
                uses.push(format!("{} is mounted from {}", mount.mount_point.display(), disk.path.display()));
            }
        }
        Ok(uses)
    }
}
