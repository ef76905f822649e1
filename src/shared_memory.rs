//! Memory that a guest shares with programs of the host: which files it may be in, and what such a file is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::pages::MemorySize;
use crate::serde_as_text::serde_as_text;

const SHM: &str = "/dev/shm/";
const KVMFR: &str = "/dev/kvmfr";

/// A file directly in `/dev/shm`, or a device `/dev/kvmfrN` of Looking Glass's kernel module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SharedMemoryPath(String);

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedMemoryKind {
    /// A file in memory, which is made where it is missing.
    File,
    /// The device with this number, which its module makes.
    Kvmfr(usize),
}

impl SharedMemoryPath {
    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder that it is in, and its name there.
    #[must_use]
    pub fn split(&self) -> (&str, &str) {
        self.0.rsplit_once('/').unwrap_or(("", &self.0))
    }

    /// What kind of file it is.
    #[must_use]
    pub fn kind(&self) -> SharedMemoryKind {
        match self.0.strip_prefix(KVMFR).and_then(|number| number.parse().ok()) {
            Some(number) => SharedMemoryKind::Kvmfr(number),
            None => SharedMemoryKind::File,
        }
    }
}

impl fmt::Display for SharedMemoryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SharedMemoryPath {
    type Err = String;

    fn from_str(path: &str) -> Result<Self, String> {
        let is_name = |name: &str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
            !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && name.bytes().all(is_plain)
        };
        let is_number = |number: &str| {
            (1..=3).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
        };
        let is_allowed =
            path.strip_prefix(SHM).is_some_and(is_name) || path.strip_prefix(KVMFR).is_some_and(is_number);
        if is_allowed { Ok(Self(path.to_owned())) } else { Err(format!("`{path}` is no shared memory")) }
    }
}

serde_as_text!(SharedMemoryPath);

/// What is at such a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SharedMemory {
    /// Nothing.
    Absent,
    /// A file or a device.
    There {
        /// How large it is; zero for a device.
        size: MemorySize,
        /// The owner's number.
        owner: u32,
        /// The group's number.
        group: u32,
        /// The permission bits.
        mode: u32,
    },
}

impl fmt::Display for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("none"),
            Self::There { size, owner, group, mode } => {
                if *size != MemorySize::ZERO {
                    write!(f, "{size}, ")?;
                }
                write!(f, "owner {owner}, group {group}, mode {mode:04o}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_directly_in_one_folder_and_devices_of_one_module_are_taken() {
        for (path, kind) in [
            ("/dev/shm/looking-glass", SharedMemoryKind::File),
            ("/dev/shm/a.b:c_1", SharedMemoryKind::File),
            ("/dev/kvmfr0", SharedMemoryKind::Kvmfr(0)),
            ("/dev/kvmfr12", SharedMemoryKind::Kvmfr(12)),
        ] {
            assert_eq!(path.parse::<SharedMemoryPath>().unwrap().kind(), kind, "{path}");
        }
        for path in [
            "/dev/shm/",
            "/dev/shm/..",
            "/dev/shm/.x",
            "/dev/shm/a/b",
            "/dev/shm/a/../../sda",
            "/dev/kvmfr",
            "/dev/kvmfr0/x",
            "/dev/kvmfr-1",
            "/dev/kvm",
            "/dev/sda",
            "dev/shm/a",
            "/tmp/a",
            "/dev/shm/a b",
            "/dev//shm/a",
            "",
        ] {
            path.parse::<SharedMemoryPath>().unwrap_err();
        }
    }
}
