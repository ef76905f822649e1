//! logind's part of a host in a folder.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::SimulatedFiles;
use super::processes::EndingGroup;
use crate::deadline::Deadline;
use crate::host::display::{LoginSession, SessionActivity, SessionClass, SessionId, SessionType};
use crate::host::error::HostError;
use crate::host::files::{Files, remove_any};
use crate::host::logind::{LOGIND, Logind, SleepState};

/// There where the host has a logind; `yes` while it is about to sleep.
const PREPARING_FOR_SLEEP: &str = "/simulated/logind/PreparingForSleep";

/// A file for each session, named after it, with the properties that are read: `User=1000 Name=anna Seat=seat0
/// Type=wayland Class=user Active=yes Leader=900`. A session without a seat has no `Seat=`.
const SESSIONS: &str = "/simulated/logind/sessions";

/// Where the processes of sessions that have ended go.
const ENDED: &str = "/simulated/ended";

/// The logind of a host in a folder. It takes no locks: the simulated keepers only note them.
#[derive(Debug)]
pub struct SimulatedLogind(SimulatedFiles);

impl SimulatedLogind {
    /// The logind of this host.
    #[must_use]
    pub fn new(files: SimulatedFiles) -> Self {
        Self(files)
    }

    fn session(&self, id: SessionId) -> std::io::Result<LoginSession> {
        let text = self.0.text(&Path::new(SESSIONS).join(id.as_str()))?;
        let property = |name: &str| {
            text.split_whitespace()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
                .unwrap_or_default()
        };
        Ok(LoginSession {
            uid: property("User").parse().unwrap_or_default(),
            user: property("Name").to_owned(),
            seat: Some(property("Seat").to_owned()).filter(|seat| !seat.is_empty()),
            session_type: SessionType::from_property(property("Type")),
            class: SessionClass::from_property(property("Class")),
            activity: match property("Active") {
                "yes" => SessionActivity::Active,
                _ => SessionActivity::Inactive,
            },
            leader: property("Leader").parse().unwrap_or_default(),
            scope: id.scope(),
            id,
        })
    }
}

impl Logind for SimulatedLogind {
    fn sleep_state(&self, _: Deadline) -> Result<SleepState, HostError> {
        Ok(match self.0.text(PREPARING_FOR_SLEEP.as_ref()).as_deref() {
            Ok("yes") => SleepState::GoingToSleep,
            Ok(_) => SleepState::Awake,
            Err(_) => SleepState::NoLogind,
        })
    }

    fn reload(&self, _: Deadline) -> Result<(), HostError> {
        self.0
            .faults
            .before_write(PREPARING_FOR_SLEEP.as_ref())
            .map_err(|error| HostError::call("KillUnit", "systemd-logind.service", error))
    }

    fn inhibit(&self, _: &str, _: &str, _: Deadline) -> Result<OwnedFd, HostError> {
        // It locks nothing, but is there until it is closed.
        let lock = File::open("/dev/null").map_err(|error| HostError::call("Inhibit", LOGIND, error))?;
        Ok(lock.into())
    }

    fn sessions(&self, deadline: Deadline) -> Result<Vec<LoginSession>, HostError> {
        if deadline.has_passed() {
            return Err(HostError::call("ListSessions", LOGIND, "no time is left"));
        }
        let names = self.0.list(SESSIONS.as_ref()).unwrap_or_default();
        let ids = names.iter().filter_map(|name| name.to_str()?.parse().ok());
        ids.map(|id| self.session(id).map_err(|error| HostError::call("GetAll", LOGIND, error))).collect()
    }

    /// With all its processes.
    fn terminate_session(&self, id: &SessionId, deadline: Deadline) -> Result<(), HostError> {
        let file: PathBuf = Path::new(SESSIONS).join(id.as_str());
        let failed = |reason: String| HostError::call("TerminateSession", &format!("session {id}"), reason);
        if deadline.has_passed() {
            return Err(failed("no time is left".to_owned()));
        }
        if !self.0.locate(&file).exists() {
            return Ok(());
        }
        let terminate = || {
            self.0.faults.before_write(&file)?;
            let scope = id.scope();
            self.0.end_processes(EndingGroup { unit: &scope, uid: None }, ENDED.as_ref())?;
            remove_any(&self.0.locate(&file))
        };
        terminate().map_err(|error| failed(error.to_string()))
    }
}
