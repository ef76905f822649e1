//! The guest that libvirt calls the hook for.

mod name;
mod printable;
mod uuid;

pub use name::GuestName;
pub use uuid::{GuestUuid, ParseUuidError};
