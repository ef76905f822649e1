//! Block devices: drives, partitions, and the volumes and arrays upon them.

mod device;
mod exclusive;
mod find;
mod identity;
mod mounts;
mod uses;

pub use device::BlockDevice;
pub use identity::DriveIdentity;
pub use uses::{DiskUse, DiskUseKind};
