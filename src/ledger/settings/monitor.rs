//! What a monitor shows, or another of its features.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::deadline::Deadline;
use crate::host::{Host, HostError};
use crate::ledger::rule::{Conflict, Rule};
use crate::ledger::setting::{Care, Combining, Locking, Phase, Place, Setting, Traits};
use crate::monitor::{MonitorFeature, VcpFeature, VcpValue, input_name};

/// A feature of a monitor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MonitorSetting(pub MonitorFeature);

/// What a feature is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shown {
    /// An input.
    Input(VcpValue),
    /// The value of another feature.
    Vcp(VcpValue),
    /// It cannot be told.
    Unknown,
}

/// What a guest wants of a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorClaim {
    /// What the feature is to hold while the guest runs.
    pub value: VcpValue,
    /// When it was claimed: the last one counts.
    pub turn: MonitorTurn,
    /// What its reading is worth.
    #[serde(default, skip_serializing_if = "Evidence::is_none")]
    pub evidence: Evidence,
}

/// Whether what a monitor says of a feature is known to follow what it does. Some say the same whatever input they show
/// (<https://github.com/rockowitz/ddcutil/issues/549>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// It is not: it never said what was written, or nothing was written yet.
    #[default]
    None,
    /// It once said what was written, or what another input than before is.
    Seen,
}

impl Evidence {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// The order in which guests came to a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MonitorTurn {
    /// The guest is gone; the monitor is on its way back.
    Over,
    /// The guest with the highest number has the monitor.
    Number(u32),
}

impl MonitorTurn {
    /// That of a guest that came when there was no other.
    pub const FIRST: Self = Self::Number(1);

    /// That of the guest that comes after this one.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::Over => Self::FIRST,
            Self::Number(number) => Self::Number(number.saturating_add(1)),
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(value) => match input_name(*value) {
                Some(name) => f.write_str(name),
                None => value.fmt(f),
            },
            Self::Vcp(value) => value.fmt(f),
            Self::Unknown => f.write_str("(unknown)"),
        }
    }
}

impl Shown {
    /// The value; none where it cannot be told.
    #[must_use]
    pub fn vcp(self) -> Option<VcpValue> {
        match self {
            Self::Input(value) | Self::Vcp(value) => Some(value),
            Self::Unknown => None,
        }
    }
}

impl fmt::Display for MonitorClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl fmt::Display for MonitorSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl MonitorSetting {
    /// A value of this feature.
    #[must_use]
    pub fn shown(&self, value: VcpValue) -> Shown {
        match self.0.control.feature {
            VcpFeature::INPUT_SOURCE => Shown::Input(value),
            _ => Shown::Vcp(value),
        }
    }

    /// The same, where there may be none.
    #[must_use]
    pub fn shown_or_unknown(&self, value: Option<VcpValue>) -> Shown {
        value.map_or(Shown::Unknown, |value| self.shown(value))
    }
}

impl Setting for MonitorSetting {
    type Value = Shown;
    type Want = MonitorClaim;
    type Rule = LastWins;

    fn place(&self) -> Place {
        Place::Monitors
    }

    fn traits(&self) -> Traits {
        Traits { locking: Locking::Released, care: Care::ItsKeeper, ..Traits::of_peer(Phase::AroundCommands) }
    }

    fn read(&self, host: &Host, deadline: Deadline) -> Result<Shown, HostError> {
        let mut values = host.vcp_features(std::slice::from_ref(&self.0), deadline);
        Ok(self.shown(values.remove(0)?))
    }

    fn write(&self, host: &mut Host, shown: &Shown, deadline: Deadline) -> Result<(), HostError> {
        match shown.vcp() {
            Some(value) => host.set_vcp_features(&[(self.0.clone(), value)], deadline).remove(0),
            None => Ok(()),
        }
    }
}

/// What the guest wants that came last, of those that are still there.
#[derive(Debug)]
pub enum LastWins {}

impl Rule<MonitorSetting> for LastWins {
    fn combine(of: &Combining<'_, MonitorSetting>) -> Result<Shown, Conflict> {
        let claims = of.claims.values().filter(|claim| claim.turn != MonitorTurn::Over);
        let last = claims.max_by_key(|claim| claim.turn);
        Ok(last.map_or(*of.baseline, |claim| of.setting.shown(claim.value)))
    }

    fn explains(of: &Combining<'_, MonitorSetting>, value: &Shown) -> bool {
        *of.baseline == *value
            || value.vcp().is_some_and(|value| of.claims.values().any(|claim| claim.value == value))
    }
}
