//! What happens when the guest reboots itself.

use super::named_enum;

/// What becomes of a reboot that the guest makes by itself: QEMU stays, and a card that cannot be reset is given to the
/// next start of the guest's system as the last one left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GuestReboot {
    /// The guest is stopped, and stays so.
    Refuse,
    /// The guest is stopped, the card given back, and the guest started again.
    Restart,
    /// QEMU resets what it can, and goes on.
    Allow,
}

impl GuestReboot {
    /// All there are.
    pub const ALL: &'static [Self] = &[Self::Refuse, Self::Restart, Self::Allow];

    /// The word for it in the YAML file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Restart => "restart",
            Self::Allow => "allow",
        }
    }
}

named_enum!(GuestReboot, "way to treat a reboot");
