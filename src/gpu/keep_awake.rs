//! Whether a card that stays with VFIO after its guest is kept awake.

use super::named_enum;

/// What becomes of the power settings of a card that stays with VFIO after its guest. vfio-pci puts an idle card to sleep at
/// once, and some do not wake up from D3cold any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeepAwake {
    /// It stays awake until a driver of the host's has it.
    #[default]
    Auto,
    /// They are what they were before the guest: an idle card sleeps.
    Never,
}

impl KeepAwake {
    /// All there are.
    pub const ALL: &'static [Self] = &[Self::Auto, Self::Never];

    /// The word for it in the YAML file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Never => "never",
        }
    }
}

named_enum!(KeepAwake, "way to treat an idle card");
