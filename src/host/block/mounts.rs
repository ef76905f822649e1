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
    swaps: Vec<(BlockDevice, i32)>,
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
            let mut columns = line.split_whitespace();
            let path = columns.next().unwrap_or_default();
            let priority = columns.last().and_then(|number| number.parse().ok()).unwrap_or(-1);
            swaps.extend(host.block_device_at(Path::new(path))?.map(|device| (device, priority)));
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
        let mut mounts = mounts.0;
        for mount in &mut mounts {
            mount.mount_point = unescaped(&mount.mount_point);
        }
        Ok(Self { mounts, swaps, btrfs, loops })
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
        self.swaps.iter().any(|(swap, _)| swap == device)
    }

    /// The priority of a device that is swapped to.
    pub(super) fn swap_priority(&self, device: &BlockDevice) -> i32 {
        self.swaps.iter().find(|(swap, _)| swap == device).map_or(-1, |(_, priority)| *priority)
    }

    /// All mounts, in the order in which they were made.
    pub(super) fn mounts(&self) -> &[MountInfo] {
        &self.mounts
    }

    /// Where the mount is that another one is in; none where that is the root file system's.
    pub(super) fn mount_above(&self, mount: &MountInfo) -> Option<String> {
        let above =
            self.mounts.iter().find(|above| above.mnt_id == mount.pid && above.mnt_id != mount.mnt_id)?;
        let path = above.mount_point.to_str()?;
        (path != "/").then(|| path.to_owned())
    }

    /// The device that a mount is of; of several the one that it names.
    pub(super) fn device_of(&self, host: &Host, mount: &MountInfo) -> Result<Option<BlockDevice>, HostError> {
        if mount.fs_type == "btrfs" {
            return host.block_device_at(Path::new(mount.mount_source.as_deref().unwrap_or_default()));
        }
        for name in host.names_if_present(super::device::BLOCK)? {
            if let Some(device) = BlockDevice::named(host, &name)?
                && device.number() == mount.majmin
            {
                return Ok(Some(device));
            }
        }
        Ok(None)
    }

    /// All devices that a mount is of.
    pub(super) fn devices_of(&self, host: &Host, mount: &MountInfo) -> Result<Vec<BlockDevice>, HostError> {
        let Some(device) = self.device_of(host, mount)? else { return Ok(Vec::new()) };
        let mates = self.btrfs.iter().find(|devices| devices.contains(device.name()));
        let mut devices = Vec::new();
        for mate in mates.into_iter().flatten() {
            devices.extend(BlockDevice::named(host, mate)?);
        }
        Ok(if devices.is_empty() { vec![device] } else { devices })
    }

    /// The loop device that is made of a device.
    pub(super) fn loop_on(&self, device: &BlockDevice) -> Option<&str> {
        let (name, _) = self.loops.iter().find(|(_, file)| *file == device.path())?;
        Some(name)
    }
}

/// A path as it is: the kernel writes blanks, tabs, newlines and backslashes in octal (`mangle` in `fs/proc_namespace.c`).
fn unescaped(path: &Path) -> PathBuf {
    let Some(text) = path.to_str().filter(|text| text.contains('\\')) else { return path.to_owned() };
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(u8::is_ascii);
        match code {
            Some(code) => {
                plain.push(char::from(code));
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                plain.push('\\');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    PathBuf::from(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_blanks_are_read() {
        assert_eq!(unescaped(Path::new("/mnt/my\\040games\\134x")), Path::new("/mnt/my games\\x"));
        assert_eq!(unescaped(Path::new("/mnt/a\\")), Path::new("/mnt/a\\"));
    }
}
