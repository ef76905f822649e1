//! Where a card goes when its guest is gone.

use super::named_enum;

/// Whom a card is bound to when its guest is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReturnTo {
    /// The drivers of the host that it had before.
    #[default]
    Host,
    /// It stays on the VFIO driver.
    Vfio,
    /// The drivers of the host, if nothing points to a card in disorder; else it stays on the VFIO driver.
    HostIfClean,
}

impl ReturnTo {
    /// All there are.
    pub const ALL: &'static [Self] = &[Self::Host, Self::Vfio, Self::HostIfClean];

    /// The word for it in the YAML file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Vfio => "vfio",
            Self::HostIfClean => "host-if-clean",
        }
    }
}

named_enum!(ReturnTo, "place for a card to return to");
