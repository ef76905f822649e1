//! One block device, as sysfs has it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::host::{Host, HostError};

/// Where sysfs lists all block devices, partitions among them.
pub(super) const BLOCK: &str = "/sys/class/block";

/// A block device: a drive, a partition, a volume, an array.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockDevice {
    /// The kernel's name: `nvme0n1p2`, `dm-3`.
    name: String,
    /// What the kernel counts it by: `259:2`.
    number: String,
}

impl BlockDevice {
    /// The device of this name; none where there is no such.
    pub(super) fn named(host: &Host, name: &str) -> Result<Option<Self>, HostError> {
        if name.is_empty() || name.contains('/') {
            return Ok(None);
        }
        let number = host.text_if_present(Path::new(BLOCK).join(name).join("dev"))?;
        Ok(number.map(|number| Self { name: name.to_owned(), number }))
    }

    /// The kernel's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the kernel counts it by, as `mountinfo` has it.
    pub(super) fn number(&self) -> &str {
        &self.number
    }

    /// Its folder in sysfs.
    pub(super) fn folder(&self) -> PathBuf {
        Path::new(BLOCK).join(&self.name)
    }

    /// Its file. The kernel has `!` where the file's path has another folder (`cciss!c0d0`).
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(self.name.replace('!', "/"))
    }

    /// Whether it is a part of a drive.
    pub(super) fn is_partition(&self, host: &Host) -> bool {
        host.is_present(self.folder().join("partition"))
    }

    /// Its partitions, by their names.
    pub(super) fn partitions(&self, host: &Host) -> Result<Vec<Self>, HostError> {
        let mut partitions = Vec::new();
        for name in host.names_if_present(self.folder())? {
            if host.is_present(self.folder().join(&name).join("partition")) {
                partitions.extend(Self::named(host, &name)?);
            }
        }
        Ok(partitions)
    }

    /// The drive that a partition is of; itself for all else.
    pub(super) fn drive(&self, host: &Host) -> Result<Self, HostError> {
        if !self.is_partition(host) {
            return Ok(self.clone());
        }
        let folder = host.real_path(&self.folder())?;
        let parent = folder.as_deref().and_then(Path::parent).and_then(Path::file_name);
        let parent = match parent.and_then(|name| name.to_str()) {
            Some(parent) => Self::named(host, parent)?,
            None => None,
        };
        Ok(parent.unwrap_or_else(|| self.clone()))
    }

    /// What is built upon it: the volumes and arrays that it is a part of.
    pub(super) fn holders(&self, host: &Host) -> Result<Vec<Self>, HostError> {
        let mut holders = Vec::new();
        for name in host.names_if_present(self.folder().join("holders"))? {
            holders.extend(Self::named(host, &name)?);
        }
        Ok(holders)
    }
}

impl fmt::Display for BlockDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path().display().fmt(f)
    }
}
