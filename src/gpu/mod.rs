//! Graphics cards: what is done with one and in which words. Nothing here touches a machine; that is
//! [`crate::host`]'s.

mod bar_size;
mod guest_reboot;
mod recovery;
mod reset_method;
mod return_to;
mod words;

pub use bar_size::{BarSize, ParseBarSizeError};
pub use guest_reboot::GuestReboot;
pub use recovery::Rung;
pub use reset_method::ResetMethod;
pub use return_to::ReturnTo;
pub use words::UnknownWord;

use words::in_words;
