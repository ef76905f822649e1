//! What is mounted and swapped to on the host, and from which block devices.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use procfs::FromBufRead;
use procfs::process::{MountInfo, MountInfos};

use super::device::BlockDevice;
use crate::host::{Host, HostError};

/// The mounts of the first process: those of the host, wherever this program runs.
const MOUNTS: &str = "/proc/1/mountinfo";

const SWAPS: &str = "/proc/swaps";

const BTRFS: &str = "/sys/fs/btrfs";

/// What a look at the host found.
pub(super) struct InUse {
    mounts: Vec<MountInfo>,
    /// The devices that are swapped to.
    swaps: Vec<BlockDevice>,
    /// The kernel's names of the devices of each btrfs that is mounted.
    btrfs: Vec<BTreeSet<String>>,
    /// Loop devices, and the files that they are made of.
    loops: Vec<(String, PathBuf)>,
}

impl InUse {
    pub(super) fn read(host: &Host) -> Result<Self, HostError> {
        let mounts = host.text_if_present(MOUNTS)?.unwrap_or_default();
        let mounts = MountInfos::from_buf_read(mounts.as_bytes())
            .map_err(|error| HostError::content(MOUNTS.as_ref(), error))?;
        let mut swaps = Vec::new();
        for line in host.text_if_present(SWAPS)?.unwrap_or_default().lines().skip(1) {
            let path = line.split_whitespace().next().unwrap_or_default();
            swaps.extend(host.block_device_at(Path::new(path))?);
        }
        let mut btrfs = Vec::new();
        for file_system in host.names_if_present(BTRFS)? {
            let devices = host.names_if_present(Path::new(BTRFS).join(file_system).join("devices"))?;
            btrfs.push(devices.into_iter().collect());
        }
        let mut loops = Vec::new();
        for name in host.names_if_present(super::device::BLOCK)? {
            if name.starts_with("loop")
                && let Some(file) = host
                    .text_if_present(Path::new(super::device::BLOCK).join(&name).join("loop/backing_file"))?
            {
                loops.push((name, PathBuf::from(file)));
            }
        }
        Ok(Self { mounts: mounts.0, swaps, btrfs, loops })
    }

    /// Where a device is mounted.
    pub(super) fn mounted_at(&self, host: &Host, device: &BlockDevice) -> Result<Vec<PathBuf>, HostError> {
        // A file system of several devices has a number of its own, and names one of its devices.
        let mates = self.btrfs.iter().find(|devices| devices.contains(device.name()));
        let mut places = Vec::new();
        for mount in &self.mounts {
            let source = mount.mount_source.as_deref().unwrap_or_default();
            let is_it = match mount.fs_type.as_str() {
                _ if mount.majmin == device.number() => true,
                "btrfs" => match host.block_device_at(Path::new(source))? {
                    Some(one) => one == *device || mates.is_some_and(|mates| mates.contains(one.name())),
                    None => false,
                },
                "bcachefs" => source.split(':').any(|source| Path::new(source) == device.path()),
                // Of any other the source is what its maker says: a user's FUSE may say anything.
                _ => false,
            };
            if is_it && !places.contains(&mount.mount_point) {
                places.push(mount.mount_point.clone());
            }
        }
        Ok(places)
    }

    /// Whether a device is swapped to.
    pub(super) fn is_swap(&self, device: &BlockDevice) -> bool {
        self.swaps.contains(device)
    }

    /// The loop device that is made of a device.
    pub(super) fn loop_on(&self, device: &BlockDevice) -> Option<&str> {
        let (name, _) = self.loops.iter().find(|(_, file)| *file == device.path())?;
        Some(name)
    }
}
