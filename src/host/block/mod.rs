//! Block devices: drives, partitions, and the volumes and arrays upon them.

mod crypttab;
mod device;
mod exclusive;
mod find;
mod holders;
mod identity;
mod layer;
mod mounted;
mod mounts;
mod stack;
mod take_down;
mod uses;

pub use device::BlockDevice;
pub use holders::PathHolder;
pub use identity::DriveIdentity;
pub use layer::{LayerName, LayerState, MountSharing, MountSpec, StackedLayer};
pub use stack::{StackObstacle, StorageStack};
pub use uses::{DiskUse, DiskUseKind};
