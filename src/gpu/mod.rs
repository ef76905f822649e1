//! Graphics cards: what is known of them, what is done with one, and in which words. Nothing here touches a machine but
//! through [`crate::host`].

mod bar_size;
mod family;
mod guest_reboot;
mod id_range;
mod known_services;
mod recovery;
mod reset_method;
mod restarts;
mod return_to;
mod signs;
mod words;

pub use bar_size::{BarSize, ParseBarSizeError};
pub use family::{Family, FamilyName, Robustness, VENDOR_RESET, VendorReset};
pub use guest_reboot::GuestReboot;
pub use id_range::{IdRange, ParseIdRangeError};
pub use known_services::services_of_driver;
pub use recovery::Rung;
pub use reset_method::ResetMethod;
pub use restarts::{MOST_RESTARTS, RESTARTS_WITHIN, RestartVerdict, Restarts};
pub use return_to::ReturnTo;
pub use signs::{KnownSign, SIGNS, Severity, Sign, records_about, signs_in};
pub use words::UnknownWord;

use words::in_words;
