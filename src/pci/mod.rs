//! How PCI names things: addresses, cards, models, classes and the sizes of BARs.

mod address;
mod bar_size;
mod class_words;
mod functions;
mod id;

pub use address::{ParsePciError, PciAddress, PciSlot};
pub use bar_size::{BarSize, ParseBarSizeError};
pub use functions::PciFunctions;
pub(crate) use functions::listed;
pub use id::{ParsePciIdError, PciClass, PciId};
