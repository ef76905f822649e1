//! How PCI names things: addresses, cards, models and classes.

mod address;
mod id;

pub use address::{ParsePciError, PciAddress, PciSlot};
pub use id::{ParsePciIdError, PciClass, PciId};
