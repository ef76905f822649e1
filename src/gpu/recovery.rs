//! What can be tried with a card that does not answer.

use super::named_enum;

/// One step of a recovery, from the mildest to the one that halts the whole host for seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecoveryStep {
    /// The functions are reset by the methods they have.
    Reset,
    /// The secondary bus reset of the port above the card.
    BusReset,
    /// The functions are removed, and looked for again by the port above them.
    Rescan,
    /// The same with the card's own switch, by the root port.
    RescanCard,
    /// The slot's power is turned off and on, where the board can do that.
    SlotPower,
    /// The driver of the host gets a card that answers once more: amdgpu resets one that still runs its firmware.
    HostDriver,
    /// The host sleeps for two seconds (S3), which takes the slot's power away.
    DeepSleep,
}

impl RecoveryStep {
    /// All there are, the mildest first.
    pub const ALL: &'static [Self] = &[
        Self::Reset,
        Self::BusReset,
        Self::Rescan,
        Self::RescanCard,
        Self::SlotPower,
        Self::HostDriver,
        Self::DeepSleep,
    ];

    /// Those that need no driver of the host's: they can be made whatever the card's state.
    pub const WITHOUT_DRIVER: &'static [Self] =
        &[Self::Reset, Self::BusReset, Self::Rescan, Self::RescanCard, Self::SlotPower, Self::DeepSleep];

    /// Whether the kernel finds the functions anew, and would bind drivers to them.
    #[must_use]
    pub const fn finds_anew(self) -> bool {
        matches!(self, Self::Rescan | Self::RescanCard | Self::SlotPower)
    }

    /// The word for it in the YAML file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::BusReset => "bus-reset",
            Self::Rescan => "rescan",
            Self::RescanCard => "rescan-card",
            Self::SlotPower => "slot-power",
            Self::HostDriver => "host-driver",
            Self::DeepSleep => "deep-sleep",
        }
    }
}

named_enum!(RecoveryStep, "step of a recovery");
