//! Units that step aside for a guest: the system's services and those of users.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::unit_file_name::UnitFileName;
use super::user::User;
use super::user_name::UserName;
use super::{Host, HostError};
use crate::deadline::Deadline;

/// A unit of the system, or of one user's own manager.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceUnit {
    /// Its name.
    pub unit: UnitFileName,
    /// Whose it is; nobody: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
}

/// Which systemd has a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitManager {
    /// The system's.
    System,
    /// That of a user.
    User(User),
}

/// Whether a unit runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitActivity {
    /// `active`, `activating` or `reloading`.
    Running,
    /// Anything else.
    Stopped,
}

/// Whether a unit is there (`LoadState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitPresence {
    /// It is.
    Loaded,
    /// It is, but cannot be started.
    Masked,
    /// There is none of this name, or its file is broken.
    Absent,
}

/// What systemd says about a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitStatus {
    /// Whether it is there.
    pub presence: UnitPresence,
    /// Whether it runs.
    pub activity: UnitActivity,
    /// Its unit file; empty where there is none.
    pub fragment: String,
    /// Its relations to others.
    pub relations: UnitRelations,
}

/// What else stops or starts with a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitRelations {
    /// Units that stop when it stops (`RequiredBy`, `BoundBy`, `ConsistsOf`, `PropagatesStopTo`).
    pub stop_with_it: Vec<String>,
    /// Sockets, timers and paths that start it again (`TriggeredBy`).
    pub triggered_by: Vec<String>,
}

impl UnitActivity {
    /// What `ActiveState` means.
    #[must_use]
    pub fn from_active_state(state: &str) -> Self {
        match state {
            "active" | "activating" | "reloading" | "refreshing" => Self::Running,
            _ => Self::Stopped,
        }
    }
}

impl fmt::Display for UnitActivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
        })
    }
}

impl FromStr for UnitActivity {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "running" => Ok(Self::Running),
            "stopped" => Ok(Self::Stopped),
            other => Err(format!("`{other}` is neither running nor stopped")),
        }
    }
}

impl fmt::Display for ServiceUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.unit.fmt(f)?;
        match &self.user {
            Some(user) => write!(f, " of {user}"),
            None => Ok(()),
        }
    }
}

impl Host {
    /// What systemd says about a unit.
    ///
    /// # Errors
    /// systemd does not answer. Its user does not exist or has no manager now: then the unit counts as gone.
    pub fn unit_status(&self, unit: &ServiceUnit, deadline: Deadline) -> Result<UnitStatus, HostError> {
        self.units.unit_status(&self.manager_of(unit)?, &unit.unit, deadline)
    }

    /// Whether a unit runs.
    ///
    /// # Errors
    /// As [`Self::unit_status`].
    pub fn unit_activity(&self, unit: &ServiceUnit, deadline: Deadline) -> Result<UnitActivity, HostError> {
        Ok(self.unit_status(unit, deadline)?.activity)
    }

    /// `StopUnit`, and waits until it has stopped; or `ResetFailedUnit` and `StartUnit`, and waits until it has begun
    /// to start.
    ///
    /// # Errors
    /// systemd refuses, or it takes longer than there is time.
    pub fn set_unit_activity(
        &mut self,
        unit: &ServiceUnit,
        activity: UnitActivity,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        let manager = self.manager_of(unit)?;
        match activity {
            UnitActivity::Stopped => self.units.stop_unit(&manager, &unit.unit, deadline),
            UnitActivity::Running => self.units.start_unit(&manager, &unit.unit, deadline),
        }
    }

    fn manager_of(&self, unit: &ServiceUnit) -> Result<UnitManager, HostError> {
        let Some(name) = &unit.user else { return Ok(UnitManager::System) };
        let user = self
            .user(name.as_str())?
            .ok_or_else(|| HostError::gone(format!("the host has no user {name}")))?;
        if self.is_present(format!("{}/systemd/private", user_runtime_dir(user.uid))) {
            Ok(UnitManager::User(user))
        } else {
            Err(HostError::gone(format!("{name} is not logged in, so that none of the user's units runs")))
        }
    }
}

/// Where the sockets of a user's session are (`pam_systemd(8)`), that of the user's systemd among them.
pub(super) fn user_runtime_dir(uid: u32) -> String {
    format!("/run/user/{uid}")
}
