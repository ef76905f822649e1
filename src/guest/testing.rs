//! Small guests for the tests of this module.

use super::{Guest, GuestError};

/// A guest of 1 GiB with these elements.
pub(super) fn guest(elements: &str) -> Guest {
    guest_with_memory(elements).unwrap()
}

/// Why the guest with these elements is refused.
pub(super) fn refusal(elements: &str) -> String {
    guest_with_memory(elements).unwrap_err().to_string()
}

fn guest_with_memory(elements: &str) -> Result<Guest, GuestError> {
    guest_without_memory(&format!("<memory unit='GiB'>1</memory>{elements}"))
}

/// A guest of a name and a UUID with these elements.
pub(super) fn guest_without_memory(elements: &str) -> Result<Guest, GuestError> {
    let uuid = "c0ffee00-1111-4222-8333-444455556666";
    Guest::parse(format!("<domain><name>win11</name><uuid>{uuid}</uuid>{elements}</domain>").as_bytes())
}
