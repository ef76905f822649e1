//! What storage is built of upon drives: arrays, encrypted volumes, LVM, swap and mounts. Each can be taken down, and
//! brought back as it was.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One layer of storage.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerName {
    /// A file system that is mounted at this path.
    Mount(String),
    /// A device that is swapped to, by a path that stays.
    Swap(String),
    /// An encrypted volume, by its name in `/etc/crypttab`.
    Crypt(String),
    /// A logical volume, `GROUP/VOLUME`.
    Volume(String),
    /// A RAID array, by its UUID as `mdadm` writes it.
    Array(String),
}

/// What a layer is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerState {
    /// It is not there.
    Down,
    /// The volume or array is there.
    Up,
    /// It is mounted so.
    Mounted(Box<MountSpec>),
    /// It is swapped to.
    Swapped {
        /// Its priority.
        priority: i32,
    },
    /// The array is there, under this name.
    Assembled {
        /// The path in `/dev` that it was assembled under: `md/games`, `md127`.
        name: String,
    },
}

/// How a file system is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Its device, by a path that stays.
    pub source: String,
    /// `ext4`.
    pub fs_type: String,
    /// The options of this mount, as `mountinfo` has them: `rw,noatime`.
    pub options: String,
    /// The options of the file system: `rw,errors=remount-ro`.
    pub super_options: String,
    /// The mount that it is in, where that is not the root file system's: it comes back first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// Whether mounts below it are seen in other namespaces, and the other way round.
    pub sharing: MountSharing,
}

/// How a mount is connected with those of other namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountSharing {
    /// `shared`.
    Shared,
    /// `private`.
    Private,
}

/// A layer, and how far above the drive it is: those above are taken down first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackedLayer {
    /// Layers between it and the drive; mounts are above all of them, the inner ones above the outer.
    pub height: u16,
    /// The layer.
    pub layer: LayerName,
}

impl LayerState {
    /// Whether the layer is there, in whatever way.
    #[must_use]
    pub fn is_there(&self) -> bool {
        *self != Self::Down
    }
}

impl LayerName {
    /// The folder of a host in a folder that stands for it.
    pub(super) fn simulated(&self) -> PathBuf {
        let (kind, name) = match self {
            Self::Mount(path) => ("mount", path),
            Self::Swap(path) => ("swap", path),
            Self::Crypt(name) => ("crypt", name),
            Self::Volume(name) => ("volume", name),
            Self::Array(uuid) => ("array", uuid),
        };
        let name = name.trim_start_matches('/').replace('/', "-");
        PathBuf::from(format!("/simulated/storage/{kind}-{name}/state"))
    }
}

impl fmt::Display for LayerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount(path) => write!(f, "mount {path}"),
            Self::Swap(path) => write!(f, "swap {path}"),
            Self::Crypt(name) => write!(f, "encrypted volume {name}"),
            Self::Volume(name) => write!(f, "LVM volume {name}"),
            Self::Array(uuid) => write!(f, "RAID array {uuid}"),
        }
    }
}

impl fmt::Display for LayerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => f.write_str("down"),
            Self::Up => f.write_str("up"),
            Self::Mounted(spec) => write!(f, "{} ({})", spec.fs_type, spec.options),
            Self::Swapped { priority } => write!(f, "swap, priority {priority}"),
            Self::Assembled { name } => write!(f, "/dev/{name}"),
        }
    }
}
