//! Who uses a block device on the host.

use std::fmt;
use std::path::{Path, PathBuf};

use super::device::BlockDevice;
use super::mounts::InUse;
use crate::deadline::Deadline;
use crate::host::{Host, HostError};

/// The folders that the host itself lives in: nothing takes their drive away and leaves a host.
const SYSTEM: [&str; 6] = ["/", "/usr", "/var", "/etc", "/nix", "/nix/store"];

/// What udev calls the part of a ZFS pool.
const ZFS_MEMBER: &str = "zfs_member";

/// The pools that are imported have folders here.
const ZFS_POOLS: &str = "/proc/spl/kstat/zfs";

/// Who uses a block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskUse {
    /// The device: the one that was asked for, a part of it, or a volume upon it.
    pub device: BlockDevice,
    /// By whom.
    pub kind: DiskUseKind,
}

/// By whom a block device is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskUseKind {
    /// It is mounted here.
    Mounted(PathBuf),
    /// It is swapped to.
    Swap,
    /// It is open as an encrypted volume of this name.
    Crypt(String),
    /// It is a part of an active logical volume, `GROUP/VOLUME`.
    LogicalVolume(String),
    /// It is a part of another device of the device mapper, of this name.
    Mapped(String),
    /// It is a part of a RAID array that runs, with this path.
    Array(PathBuf),
    /// It is the base of a loop device of this name.
    Loop(String),
    /// It is a part of something else with this path: bcache, DRBD.
    PartOf(PathBuf),
    /// It is a part of a ZFS pool that is imported.
    ZfsPool(String),
    /// It has an exclusive owner that sysfs does not show: a mount of another namespace, a pool, a program.
    Exclusive,
}

impl DiskUse {
    /// What takes the use away; none where that is not known.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        Some(match &self.kind {
            DiskUseKind::Mounted(path) => format!("umount {}", path.display()),
            DiskUseKind::Swap => format!("swapoff {}", self.device),
            DiskUseKind::Crypt(name) => format!("cryptsetup close {name}"),
            DiskUseKind::LogicalVolume(volume) => format!("lvchange -an {volume}"),
            DiskUseKind::Mapped(name) => format!("dmsetup remove {name}"),
            DiskUseKind::Array(path) => format!("mdadm --stop {}", path.display()),
            DiskUseKind::Loop(name) => format!("losetup -d /dev/{name}"),
            DiskUseKind::ZfsPool(pool) => format!("zpool export {pool}"),
            DiskUseKind::PartOf(_) | DiskUseKind::Exclusive => return None,
        })
    }

    /// Whether the host itself lives there.
    #[must_use]
    pub fn is_of_system(&self) -> bool {
        matches!(&self.kind, DiskUseKind::Mounted(path) if SYSTEM.iter().any(|system| path == Path::new(system)))
    }
}

impl fmt::Display for DiskUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = &self.device;
        match &self.kind {
            DiskUseKind::Mounted(path) => write!(f, "{device} is mounted at {}", path.display()),
            DiskUseKind::Swap => write!(f, "{device} is swapped to"),
            DiskUseKind::Crypt(name) => write!(f, "{device} is open as encrypted volume {name}"),
            DiskUseKind::LogicalVolume(volume) => {
                write!(f, "{device} is a part of active LVM volume {volume}")
            }
            DiskUseKind::Mapped(name) => write!(f, "{device} is a part of /dev/mapper/{name}"),
            DiskUseKind::Array(path) => write!(f, "{device} is a part of RAID array {}", path.display()),
            DiskUseKind::Loop(name) => write!(f, "{device} is the base of /dev/{name}"),
            DiskUseKind::PartOf(path) => write!(f, "{device} is a part of {}", path.display()),
            DiskUseKind::ZfsPool(pool) => write!(f, "{device} is a part of ZFS pool {pool}"),
            DiskUseKind::Exclusive => write!(f, "{device} is in use by a program or the kernel"),
        }
    }
}

/// One look at all that is upon a device.
struct Walk<'a> {
    host: &'a Host,
    in_use: InUse,
    /// How long drivers may take to answer; none where they are not asked.
    asks: Option<Deadline>,
    seen: Vec<BlockDevice>,
    uses: Vec<DiskUse>,
}

impl Host {
    /// Who uses a device on the host, from the device upwards: its partitions, what is built upon each, and what that is
    /// mounted as. Where no use is seen, the kernel is asked whether it has an exclusive owner.
    ///
    /// # Errors
    /// sysfs or `/proc` cannot be read; its driver does not answer in time.
    pub fn disk_uses(&self, device: &BlockDevice, deadline: Deadline) -> Result<Vec<DiskUse>, HostError> {
        Walk::run(self, device, Some(deadline))
    }

    /// The same as far as it is to be seen without asking the drive's driver, which may not answer.
    ///
    /// # Errors
    /// sysfs or `/proc` cannot be read.
    pub fn disk_uses_to_be_seen(&self, device: &BlockDevice) -> Result<Vec<DiskUse>, HostError> {
        Walk::run(self, device, None)
    }

    /// The device, its partitions, and all that is built upon them.
    ///
    /// # Errors
    /// sysfs cannot be read.
    pub fn devices_upon(&self, device: &BlockDevice) -> Result<Vec<BlockDevice>, HostError> {
        let mut all = vec![device.clone()];
        let mut next = 0;
        while let Some(device) = all.get(next).cloned() {
            next += 1;
            for upon in device.partitions(self)?.into_iter().chain(device.holders(self)?) {
                if !all.contains(&upon) {
                    all.push(upon);
                }
            }
        }
        Ok(all)
    }

    /// What a device of the device mapper is; none for any other device.
    fn mapped_as(&self, device: &BlockDevice) -> Result<Option<DiskUseKind>, HostError> {
        let Some(name) = self.text_if_present(device.folder().join("dm/name"))? else { return Ok(None) };
        let uuid = self.text_if_present(device.folder().join("dm/uuid"))?.unwrap_or_default();
        Ok(Some(match uuid.split('-').next() {
            Some("CRYPT") => DiskUseKind::Crypt(name),
            Some("LVM") => DiskUseKind::LogicalVolume(volume_of(&name)),
            _ => DiskUseKind::Mapped(name),
        }))
    }

    /// The imported ZFS pool that a device is a part of.
    fn zfs_pool_of(&self, device: &BlockDevice) -> Result<Option<String>, HostError> {
        if self.udev_property(device, "ID_FS_TYPE")?.as_deref() != Some(ZFS_MEMBER) {
            return Ok(None);
        }
        let pool = self.udev_property(device, "ID_FS_LABEL")?;
        let is_imported =
            |pool: &String| !pool.contains('/') && self.is_present(Path::new(ZFS_POOLS).join(pool));
        Ok(pool.filter(is_imported))
    }
}

impl<'a> Walk<'a> {
    fn run(host: &'a Host, device: &BlockDevice, asks: Option<Deadline>) -> Result<Vec<DiskUse>, HostError> {
        let mut walk = Self { host, in_use: InUse::read(host)?, asks, seen: Vec::new(), uses: Vec::new() };
        walk.device_and_partitions(device)?;
        Ok(walk.uses)
    }

    fn device_and_partitions(&mut self, device: &BlockDevice) -> Result<(), HostError> {
        let partitions = device.partitions(self.host)?;
        let before = self.uses.len();
        for partition in &partitions {
            self.device(partition)?;
        }
        let is_used_in_part = self.uses.len() > before;
        self.uses_of(device)?;
        // Who has a partition has the drive as far as others want all of it.
        if !is_used_in_part && self.uses.len() == before {
            self.ask(device)?;
        }
        Ok(())
    }

    fn device(&mut self, device: &BlockDevice) -> Result<(), HostError> {
        let before = self.uses.len();
        self.uses_of(device)?;
        if self.uses.len() == before {
            self.ask(device)?;
        }
        Ok(())
    }

    fn uses_of(&mut self, device: &BlockDevice) -> Result<(), HostError> {
        if self.seen.contains(device) {
            return Ok(());
        }
        self.seen.push(device.clone());
        let mut found = |kind| self.uses.push(DiskUse { device: device.clone(), kind });
        for path in self.in_use.mounted_at(self.host, device)? {
            found(DiskUseKind::Mounted(path));
        }
        if self.in_use.is_swap(device) {
            found(DiskUseKind::Swap);
        }
        if let Some(name) = self.in_use.loop_on(device) {
            found(DiskUseKind::Loop(name.to_owned()));
        }
        if let Some(pool) = self.host.zfs_pool_of(device)? {
            found(DiskUseKind::ZfsPool(pool));
        }
        for holder in device.holders(self.host)? {
            // What is upon it is to be taken away first.
            self.uses_of(&holder)?;
            for partition in holder.partitions(self.host)? {
                self.uses_of(&partition)?;
            }
            let kind = match self.host.mapped_as(&holder)? {
                Some(kind) => kind,
                None if self.host.is_present(holder.folder().join("md")) => DiskUseKind::Array(holder.path()),
                None => DiskUseKind::PartOf(holder.path()),
            };
            self.uses.push(DiskUse { device: device.clone(), kind });
        }
        Ok(())
    }

    fn ask(&mut self, device: &BlockDevice) -> Result<(), HostError> {
        if let Some(deadline) = self.asks
            && self.host.is_held_exclusively(device, deadline)?
        {
            self.uses.push(DiskUse { device: device.clone(), kind: DiskUseKind::Exclusive });
        }
        Ok(())
    }
}

/// `GROUP/VOLUME` of a name of the device mapper: one hyphen stands between the two, and those within are doubled
/// (`dm_build_dm_name` in LVM's `libdm`).
pub(super) fn volume_of(name: &str) -> String {
    const HYPHEN: &str = "\0";
    let marked = name.replace("--", HYPHEN);
    marked.replacen('-', "/", 1).replace(HYPHEN, "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_volumes_are_read() {
        for (name, volume) in [
            ("vg0-games", "vg0/games"),
            ("my--vg-lv--one", "my-vg/lv-one"),
            ("vg-a----b", "vg/a--b"),
            ("odd", "odd"),
        ] {
            assert_eq!(volume_of(name), volume);
        }
    }
}
