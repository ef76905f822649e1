//! logind (or elogind): who may put the host to sleep, and when.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use zbus::{DBusError, OwnedObjectPath, OwnedVariant, fdo};

use super::display::{LoginSession, SessionActivity, SessionClass, SessionId, SessionType};
use super::systemd::{Bus, MANAGER, MANAGER_PATH, Object, SYSTEMD, within};
use super::{Host, HostError};
use crate::deadline::Deadline;
use crate::failpoint;

pub(super) const LOGIND: &str = "org.freedesktop.login1";
pub(super) const LOGIN_MANAGER: Object<'_> =
    Object { service: LOGIND, path: "/org/freedesktop/login1", interface: "org.freedesktop.login1.Manager" };

const SESSION: &str = "org.freedesktop.login1.Session";

/// What logind says of a session that has ended (`src/login/logind-dbus.c`).
const NO_SUCH_SESSION: &str = "org.freedesktop.login1.NoSuchSession";

/// The beginning of the names of errors where a service could not be started.
const SPAWN_ERRORS: &str = "org.freedesktop.DBus.Error.Spawn.";

/// How often a session that ends is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Who holds a lock, as `systemd-inhibit --list` shows it.
const WHO: &str = "vfio-hook";

/// The signal at which logind reads its configuration again, on every version.
const SIGHUP: i32 = nix::sys::signal::Signal::SIGHUP as i32;

/// Whether the host is awake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SleepState {
    /// No sleep is under way or about to begin.
    Awake,
    /// It is about to sleep, or was just woken (`PreparingForSleep`).
    GoingToSleep,
    /// Nobody knows: neither logind nor elogind answers.
    NoLogind,
}

/// What the program needs of logind.
pub trait Logind: Send + Sync {
    /// Whether the host is about to sleep.
    ///
    /// # Errors
    /// logind is there but does not answer.
    fn sleep_state(&self, deadline: Deadline) -> Result<SleepState, HostError>;

    /// Has it read its configuration again.
    ///
    /// # Errors
    /// systemd does not answer.
    fn reload(&self, deadline: Deadline) -> Result<(), HostError>;

    /// `Inhibit`, mode `block`: a lock that lasts as long as the descriptor is open anywhere.
    ///
    /// # Errors
    /// There is no logind, it refuses, or a sleep is under way (`OperationInProgress`).
    fn inhibit(&self, what: &str, why: &str, deadline: Deadline) -> Result<OwnedFd, HostError>;

    /// `ListSessions` and the properties of each; none where there is no logind.
    ///
    /// # Errors
    /// logind is there but does not answer.
    fn sessions(&self, deadline: Deadline) -> Result<Vec<LoginSession>, HostError>;

    /// `TerminateSession`, and waits until the session is gone. One that is gone already is no error.
    ///
    /// # Errors
    /// logind refuses, or it takes longer than there is time.
    fn terminate_session(&self, id: &SessionId, deadline: Deadline) -> Result<(), HostError>;
}

/// logind on the system bus.
#[derive(Debug)]
pub(super) struct LoginManager(Arc<Bus>);

impl LoginManager {
    pub(super) fn new(bus: Arc<Bus>) -> Self {
        Self(bus)
    }

    async fn list_sessions(&self) -> zbus::Result<Vec<ListedSession>> {
        self.0.call(LOGIN_MANAGER, "ListSessions", &()).await?.body().deserialize()
    }

    async fn session(&self, listed: &ListedSession) -> zbus::Result<Option<LoginSession>> {
        let (id, uid, user, seat, path) = listed;
        let Ok(id) = id.parse() else { return Ok(None) };
        let interface = "org.freedesktop.DBus.Properties";
        let object = Object { service: LOGIND, path: path.as_str(), interface };
        let reply = self.0.call(object, "GetAll", &SESSION).await?;
        let properties: HashMap<String, OwnedVariant> = reply.body().deserialize()?;
        let text = |name: &str| -> String {
            properties.get(name).and_then(|value| String::try_from(value.clone()).ok()).unwrap_or_default()
        };
        let is_active = properties.get("Active").and_then(|value| bool::try_from(value.clone()).ok());
        let leader = properties.get("Leader").and_then(|value| u32::try_from(value.clone()).ok());
        Ok(Some(LoginSession {
            id,
            uid: *uid,
            user: user.clone(),
            seat: Some(seat.clone()).filter(|seat| !seat.is_empty()),
            session_type: SessionType::from_property(&text("Type")),
            class: SessionClass::from_property(&text("Class")),
            activity: match is_active {
                Some(true) => SessionActivity::Active,
                _ => SessionActivity::Inactive,
            },
            leader: leader.unwrap_or_default(),
            scope: text("Scope"),
        }))
    }
}

/// A session's name, its user's number and name, its seat and its object.
type ListedSession = (String, u32, String, String, OwnedObjectPath);

/// Whether there is no logind: no bus, or nobody on it who can be started under this name. One that does not answer in
/// time is there.
pub(super) fn is_absent(error: &zbus::Error) -> bool {
    use fdo::Error::{
        NameHasNoOwner, ServiceUnknown, UnknownInterface, UnknownMethod, UnknownObject, UnknownProperty,
    };
    match error {
        zbus::Error::InputOutput(error) | zbus::Error::Connection(error, _) => {
            error.kind() != io::ErrorKind::TimedOut
        }
        zbus::Error::MethodError(..) => true,
        // `DBUS_SYSTEM_BUS_ADDRESS=disabled:`, or what listens there is no bus.
        zbus::Error::Address(_) | zbus::Error::Handshake(_) | zbus::Error::Unsupported => true,
        // The library has values of their own for the errors that the D-Bus specification names.
        zbus::Error::FDO(error) => {
            let is_named = matches!(
                **error,
                ServiceUnknown(_)
                    | NameHasNoOwner(_)
                    | UnknownObject(_)
                    | UnknownInterface(_)
                    | UnknownMethod(_)
                    | UnknownProperty(_)
            );
            is_named || error.name().as_str().starts_with(SPAWN_ERRORS)
        }
        _ => false,
    }
}

/// Whether it is an answer of the kind: there is no such session.
fn is_no_such_session(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(name, ..) if name.as_str() == NO_SUCH_SESSION)
}

impl Logind for LoginManager {
    fn sleep_state(&self, deadline: Deadline) -> Result<SleepState, HostError> {
        let object = Object { interface: "org.freedesktop.DBus.Properties", ..LOGIN_MANAGER };
        let get = async {
            let body = (LOGIN_MANAGER.interface, "PreparingForSleep");
            let value: OwnedVariant = self.0.call(object, "Get", &body).await?.body().deserialize()?;
            bool::try_from(value)
        };
        match within(deadline, get) {
            Ok(true) => Ok(SleepState::GoingToSleep),
            Ok(false) => Ok(SleepState::Awake),
            Err(error) if is_absent(&error) => Ok(SleepState::NoLogind),
            Err(error) => Err(HostError::call("Get PreparingForSleep", LOGIND, error)),
        }
    }

    fn reload(&self, deadline: Deadline) -> Result<(), HostError> {
        let systemd = Object { service: SYSTEMD, path: MANAGER_PATH, interface: MANAGER };
        let body = ("systemd-logind.service", "main", SIGHUP);
        within(deadline, self.0.call(systemd, "KillUnit", &body))
            .map(drop)
            .map_err(|error| HostError::call("KillUnit", "systemd-logind.service", error))
    }

    fn inhibit(&self, what: &str, why: &str, deadline: Deadline) -> Result<OwnedFd, HostError> {
        let call = async {
            let reply = self.0.call(LOGIN_MANAGER, "Inhibit", &(what, WHO, why, "block")).await?;
            let lock: zbus::OwnedFd = reply.body().deserialize()?;
            Ok(lock.into())
        };
        within(deadline, call).map_err(|error| HostError::call("Inhibit", LOGIND, error))
    }

    fn sessions(&self, deadline: Deadline) -> Result<Vec<LoginSession>, HostError> {
        let listed = match within(deadline, self.list_sessions()) {
            Ok(listed) => listed,
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            Err(error) => return Err(HostError::call("ListSessions", LOGIND, error)),
        };
        let mut sessions = Vec::with_capacity(listed.len());
        for one in &listed {
            match within(deadline, self.session(one)) {
                Ok(session) => sessions.extend(session),
                // It has ended meanwhile.
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(HostError::call("GetAll", one.4.as_str(), error)),
            }
        }
        Ok(sessions)
    }

    fn terminate_session(&self, id: &SessionId, deadline: Deadline) -> Result<(), HostError> {
        let failed = |reason: String| HostError::call("TerminateSession", &format!("session {id}"), reason);
        failpoint::reached("setting");
        match within(deadline, self.0.call(LOGIN_MANAGER, "TerminateSession", &id.as_str())) {
            Ok(_) => {}
            Err(error) if is_no_such_session(&error) => return Ok(()),
            Err(error) => return Err(failed(error.to_string())),
        }
        // It stays as long as one of its processes does.
        loop {
            let listed = within(deadline, self.list_sessions()).map_err(|error| failed(error.to_string()))?;
            if listed.iter().all(|(other, ..)| other != id.as_str()) {
                failpoint::reached("setting");
                return Ok(());
            }
            deadline.pause(LOOK);
            if deadline.has_passed() {
                return Err(failed("some of its processes have not ended in time".to_owned()));
            }
        }
    }
}

impl Host {
    /// Whether the host is about to sleep.
    ///
    /// # Errors
    /// logind is there but does not answer.
    pub fn sleep_state(&self, deadline: Deadline) -> Result<SleepState, HostError> {
        self.logind.sleep_state(deadline)
    }

    /// Takes a sleep lock, which lasts as long as the descriptor is open anywhere. `what` are logind's words, joined by
    /// colons; `why` is shown to people.
    ///
    /// # Errors
    /// There is no logind, it refuses, or a sleep is under way.
    pub fn inhibit(&self, what: &str, why: &str, deadline: Deadline) -> Result<OwnedFd, HostError> {
        self.logind.inhibit(what, why, deadline)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_logind_that_is_not_there_is_told_from_one_that_does_not_answer() {
        let standard = |error: fdo::Error| zbus::Error::FDO(Box::new(error));
        let io = |kind: io::ErrorKind| zbus::Error::InputOutput(Arc::new(kind.into()));
        let text = String::new;
        for absent in [
            io(io::ErrorKind::NotFound),
            io(io::ErrorKind::ConnectionRefused),
            zbus::Error::Address("unsupported transport 'disabled'".to_owned()),
            zbus::Error::Handshake("Unknown command: hello".to_owned()),
            standard(fdo::Error::ServiceUnknown(text())),
            standard(fdo::Error::UnknownObject(text())),
            standard(fdo::Error::SpawnChildExited(text())),
        ] {
            assert!(is_absent(&absent), "{absent}");
        }
        for there in [
            io(io::ErrorKind::TimedOut),
            standard(fdo::Error::NoReply(text())),
            standard(fdo::Error::AccessDenied(text())),
            zbus::Error::Failure("no time is left".to_owned()),
        ] {
            assert!(!is_absent(&there), "{there}");
        }
    }
}
