//! Who uses a card: a driver may not be taken from a card that programs have open.
//!
//! Unbinding it all the same is the classic way to an oops or to a hang that only a reboot ends.

mod disks;
mod driver_nodes;
mod holder_unit;
mod holders;
mod let_go;
mod nodes;
mod search;
#[cfg(test)]
mod tests;

pub use holder_unit::{HolderUnit, UnitOwner};
pub use holders::{HeldNode, Holder};
pub use nodes::{CardNode, DeviceClass, DeviceNumber, NodeKind};
pub use search::Hold;
