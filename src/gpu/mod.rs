//! Graphics cards: what is known of them, what is done with one, and in which words. Nothing here touches a machine.

mod compositors;
mod device_names;
mod family;
mod guest_reboot;
mod id_range;
mod keep_awake;
mod kernel_line;
mod known_kernel_lines;
mod known_services;
mod line_pattern;
mod recognised_lines;
mod recovery;
mod reset_method;
mod restarts;
mod return_to;
mod vendor_reset;
mod words;

pub use compositors::{Compositor, compositor_of};
pub use family::{Family, FamilyName, Integration, Robustness, VENDOR_RESET, VendorReset};
pub use guest_reboot::GuestReboot;
pub use id_range::{IdRange, ParseIdRangeError};
pub use keep_awake::KeepAwake;
pub use kernel_line::{KernelLine, KernelLineName, KernelVersion, Severity};
pub use known_kernel_lines::{KERNEL_LINES, known_kernel_lines};
pub use known_services::{services_of_desktops, services_of_driver};
pub(crate) use line_pattern::pasted;
pub use line_pattern::{LinePattern, ParseLinePatternError};
pub use recognised_lines::{RecognisedLine, lines_of_trouble, recognised_lines, records_about};
pub use recovery::RecoveryStep;
pub use reset_method::ResetMethod;
pub use restarts::{MOST_RESTARTS, RESTARTS_WITHIN, RestartAnswer, Restarts};
pub use return_to::ReturnTo;
pub use vendor_reset::has_line_of_vendor_reset;
pub use words::UnknownWord;

use words::named_enum;
