//! How PCI names things: addresses, cards, models and classes.

mod address;
mod class_words;
mod functions;
mod id;

pub use address::{ParsePciError, PciAddress, PciSlot};
pub use functions::PciFunctions;
pub(crate) use functions::listed;
pub use id::{ParsePciIdError, PciClass, PciId};
