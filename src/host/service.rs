//! Units that step aside for a guest: the system's services and those of users.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::user::User;
use super::{Host, HostError};
use crate::deadline::Deadline;
use crate::unit_file_name::UnitFileName;
use crate::user_name::UserName;

/// How often a unit that is to be up is looked at. For a user's unit that is a process each time.
const LOOK: Duration = Duration::from_millis(50);

/// How long a service has to stay up before it counts: one of `Type=simple` is up as soon as its process is made, before
/// that has read its configuration. Chosen, not measured.
const STAYS_UP: Duration = Duration::from_millis(500);

/// How long a file system may take that a user has mounted. Chosen, as for that user's service manager.
const MOUNTED_BY_USER: Duration = Duration::from_secs(2);

/// A unit of the system, or of one user's own manager.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceUnit {
    /// The unit, with its type.
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
    /// The same, once it is seen to be up: what a guest needs that has it started. Never read.
    Started,
    /// Anything else.
    Stopped,
}

/// How far a unit has come (`ActiveState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitState {
    /// It is up (`active`, `reloading`, `refreshing`).
    Up,
    /// It is on its way there, or waits to be started again (`activating`), or for its turn (`Job`).
    Starting,
    /// It has failed (`failed`).
    Failed,
    /// Anything else.
    Down,
}

/// Whether a unit is there (`LoadState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitPresence {
    /// systemd has read its file.
    Loaded,
    /// It is there, but cannot be started.
    Masked,
    /// There is none of this name, or its file is broken.
    Absent,
}

/// What systemd says about a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitStatus {
    /// Whether it is there.
    pub presence: UnitPresence,
    /// How far it has come.
    pub state: UnitState,
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
    /// Units that start when it starts (`Requires`, `Wants`, `BindsTo`, `Upholds`).
    pub starts: Vec<String>,
}

impl UnitState {
    /// What `ActiveState` means.
    #[must_use]
    pub fn from_active_state(state: &str) -> Self {
        match state {
            "active" | "reloading" | "refreshing" => Self::Up,
            "activating" => Self::Starting,
            "failed" => Self::Failed,
            _ => Self::Down,
        }
    }
}

impl UnitStatus {
    /// Whether it runs.
    #[must_use]
    pub fn activity(&self) -> UnitActivity {
        match self.state {
            UnitState::Up | UnitState::Starting => UnitActivity::Running,
            UnitState::Failed | UnitState::Down => UnitActivity::Stopped,
        }
    }
}

impl fmt::Display for UnitActivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Started => "started",
            Self::Stopped => "stopped",
        })
    }
}

impl FromStr for UnitActivity {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "running" => Ok(Self::Running),
            "started" => Ok(Self::Started),
            "stopped" => Ok(Self::Stopped),
            other => Err(format!("`{other}` is neither running, started nor stopped")),
        }
    }
}

crate::serde_as_text::serde_as_text!(UnitActivity);

impl fmt::Display for ServiceUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.unit.fmt(f)?;
        match &self.user {
            Some(user) => write!(f, " of {user}"),
            None => Ok(()),
        }
    }
}

/// How the whole system is, as its service manager says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemState {
    /// It is being shut down or rebooted.
    Stopping,
    /// It is starting, running, or something else that goes on.
    GoesOn,
}

impl SystemState {
    /// A `SystemState` of systemd's manager (`manager_state_table` in `src/core/manager.c`).
    pub(super) fn from_systemd(state: &str) -> Self {
        if state == "stopping" { Self::Stopping } else { Self::GoesOn }
    }
}

impl Host {
    /// Whether the host is being shut down; it goes on where there is no systemd to say so, or where it does not answer.
    #[must_use]
    pub fn system_state(&self, deadline: Deadline) -> SystemState {
        match self.has_systemd() {
            true => self.units.system_state(deadline).unwrap_or(SystemState::GoesOn),
            false => SystemState::GoesOn,
        }
    }

    /// What systemd says about a unit.
    ///
    /// # Errors
    /// systemd does not answer. Its user does not exist or has no manager now: then the unit counts as gone.
    pub fn unit_status(&self, unit: &ServiceUnit, deadline: Deadline) -> Result<UnitStatus, HostError> {
        match &unit.user {
            None => self.units.unit_status(&UnitManager::System, &unit.unit, deadline),
            Some(user) => self.users_unit_status(unit, user, deadline),
        }
    }

    fn users_unit_status(
        &self,
        unit: &ServiceUnit,
        user: &UserName,
        deadline: Deadline,
    ) -> Result<UnitStatus, HostError> {
        if let Some(status) = self.early_answers.unit(unit) {
            return Ok(status);
        }
        let manager = self.manager_of(unit, deadline)?;
        if self.early_answers.is_silent(user) {
            let reason = "the user's service manager does not answer";
            return Err(HostError::late_call("systemctl --user", &unit.to_string(), reason));
        }
        let status = self.units.unit_status(&manager, &unit.unit, deadline);
        match &status {
            Ok(status) => self.early_answers.keep_unit(unit, status),
            Err(error) if error.ran_out_of_time() => self.early_answers.keep_silent(user),
            Err(_) => {}
        }
        status
    }

    /// Whether a unit runs.
    ///
    /// # Errors
    /// As [`Self::unit_status`].
    pub fn unit_activity(&self, unit: &ServiceUnit, deadline: Deadline) -> Result<UnitActivity, HostError> {
        Ok(self.unit_status(unit, deadline)?.activity())
    }

    /// `StopUnit`, and waits until it has stopped; or `ResetFailedUnit` and `StartUnit`, and waits until it has begun
    /// to start, for [`UnitActivity::Started`] until it is up and stays so for a moment.
    ///
    /// # Errors
    /// systemd refuses, or it takes longer than there is time; one that is to be up fails.
    pub fn set_unit_activity(
        &mut self,
        unit: &ServiceUnit,
        activity: UnitActivity,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        let manager = self.manager_of(unit, deadline)?;
        match activity {
            UnitActivity::Stopped => self.units.stop_unit(&manager, &unit.unit, deadline),
            UnitActivity::Running => self.units.start_unit(&manager, &unit.unit, deadline),
            UnitActivity::Started => {
                self.units.start_unit(&manager, &unit.unit, deadline)?;
                self.see_it_up(&manager, unit, deadline)
            }
        }
    }

    /// Waits until a unit is up. One that fails in the moment after that does not count as up.
    fn see_it_up(
        &self,
        manager: &UnitManager,
        unit: &ServiceUnit,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        let failed = |reason: &str| HostError::call("StartUnit", &unit.to_string(), reason);
        let is_service = unit.unit.as_str().ends_with(".service");
        let mut settled: Option<Deadline> = None;
        let mut is_starting = false;
        loop {
            if is_starting && deadline.has_passed() {
                return Err(HostError::late_call("StartUnit", &unit.to_string(), "it is still activating"));
            }
            let state = self.units.unit_status(manager, &unit.unit, deadline)?.state;
            match state {
                UnitState::Up if settled.is_some_and(Deadline::has_passed) => return Ok(()),
                UnitState::Up if settled.is_none() => {
                    let moment = if is_service && self.is_real() { STAYS_UP } else { Duration::ZERO };
                    settled = Some(Deadline::after(moment).earlier(deadline));
                    continue;
                }
                UnitState::Up => {}
                UnitState::Failed if settled.is_some() => {
                    return Err(failed("it failed right after its start"));
                }
                UnitState::Failed => return Err(failed("it failed")),
                UnitState::Down => {
                    return Err(failed(
                        "it has ended again: a unit that does one thing is no unit that runs",
                    ));
                }
                // One that systemd starts again after it failed.
                UnitState::Starting if settled.is_some() => {
                    return Err(failed("it failed right after its start, and systemd starts it again"));
                }
                UnitState::Starting => {}
            }
            is_starting = state == UnitState::Starting;
            deadline.pause(LOOK);
        }
    }

    fn manager_of(&self, unit: &ServiceUnit, deadline: Deadline) -> Result<UnitManager, HostError> {
        let Some(name) = &unit.user else { return Ok(UnitManager::System) };
        let user = self
            .user(name.as_str())?
            .ok_or_else(|| HostError::gone(format!("the host has no user {name}")))?;
        // The folder is the user's, who may have mounted anything there.
        let socket = format!("{}/systemd/private", user_runtime_dir(user.uid));
        if self.is_path_there(Path::new(&socket), Deadline::after(MOUNTED_BY_USER).earlier(deadline))? {
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
