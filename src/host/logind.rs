//! logind (or elogind): who may put the host to sleep, and when.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use zbus::OwnedVariant;

use super::systemd::{Bus, MANAGER, MANAGER_PATH, Object, SYSTEMD, within};
use super::{Host, HostError};
use crate::deadline::Deadline;

pub(super) const LOGIND: &str = "org.freedesktop.login1";
const LOGIN_MANAGER: Object<'_> =
    Object { service: LOGIND, path: "/org/freedesktop/login1", interface: "org.freedesktop.login1.Manager" };

/// Who holds a lock, as `systemd-inhibit --list` shows it.
const WHO: &str = "vfio-hook";

/// The signal at which logind reads its configuration again, on every version.
const SIGHUP: i32 = nix::sys::signal::Signal::SIGHUP as i32;

/// Whether the host is awake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SleepState {
    /// It is.
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
}

/// logind on the system bus.
#[derive(Debug)]
pub(super) struct LoginManager(Arc<Bus>);

impl LoginManager {
    pub(super) fn new(bus: Arc<Bus>) -> Self {
        Self(bus)
    }
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
            // No bus, or nobody on it who can be started under this name.
            Err(zbus::Error::InputOutput(_) | zbus::Error::MethodError(..)) => Ok(SleepState::NoLogind),
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
