//! The daemon for power profiles: power-profiles-daemon, or tuned with its `tuned-ppd`, which has the same interface.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use zbus::{Connection, OwnedVariant};

use super::logind::is_absent;
use super::systemd::{Bus, Object, connect, within};
use super::{Host, HostError};
use crate::deadline::Deadline;

/// Its name since 0.20, and that before; newer ones have both.
const NAMES: [Object<'static>; 2] = [
    Object {
        service: "org.freedesktop.UPower.PowerProfiles",
        path: "/org/freedesktop/UPower/PowerProfiles",
        interface: "org.freedesktop.UPower.PowerProfiles",
    },
    Object {
        service: "net.hadess.PowerProfiles",
        path: "/net/hadess/PowerProfiles",
        interface: "net.hadess.PowerProfiles",
    },
];

/// Who holds a profile, as `powerprofilesctl list-holds` shows it.
const WHO: &str = "vfio-hook";

/// A profile that is held until this is dropped: the daemon sees the connection end.
pub struct HeldPowerProfile(
    #[expect(dead_code, reason = "it is there until it is dropped")] Option<Connection>,
);

impl fmt::Debug for HeldPowerProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeldPowerProfile")
    }
}

impl HeldPowerProfile {
    /// One that nothing ends.
    pub(super) fn simulated() -> Self {
        Self(None)
    }
}

/// What the program needs of that daemon.
pub trait PowerProfiles: Send + Sync {
    /// The profiles that there are; none where there is no such daemon.
    ///
    /// # Errors
    /// It is there but does not answer.
    fn profiles(&self, deadline: Deadline) -> Result<Option<Vec<String>>, HostError>;

    /// `HoldProfile`: has this profile chosen until what is returned is dropped.
    ///
    /// # Errors
    /// There is no such daemon, it refuses, or does not answer.
    fn hold(&self, profile: &str, why: &str, deadline: Deadline) -> Result<HeldPowerProfile, HostError>;
}

/// The daemon on the system bus.
#[derive(Debug)]
pub(super) struct PowerProfilesDaemon(Arc<Bus>);

impl PowerProfilesDaemon {
    pub(super) fn new(bus: Arc<Bus>) -> Self {
        Self(bus)
    }

    async fn list(&self, object: Object<'_>) -> zbus::Result<Vec<String>> {
        let properties = Object { interface: "org.freedesktop.DBus.Properties", ..object };
        let reply = self.0.call(properties, "Get", &(object.interface, "Profiles")).await?;
        let value: OwnedVariant = reply.body().deserialize()?;
        let profiles = Vec::<HashMap<String, OwnedVariant>>::try_from(value)?;
        let name =
            |profile: &HashMap<String, OwnedVariant>| String::try_from(profile.get("Profile")?.clone()).ok();
        Ok(profiles.iter().filter_map(name).collect())
    }
}

impl PowerProfiles for PowerProfilesDaemon {
    fn profiles(&self, deadline: Deadline) -> Result<Option<Vec<String>>, HostError> {
        for object in NAMES {
            match within(deadline, self.list(object)) {
                Ok(profiles) => return Ok(Some(profiles)),
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(HostError::call("Get Profiles", object.service, error)),
            }
        }
        Ok(None)
    }

    /// Over a connection of its own, whose end is the end of the hold.
    fn hold(&self, profile: &str, why: &str, deadline: Deadline) -> Result<HeldPowerProfile, HostError> {
        let body = (profile, why, WHO);
        let hold = |object: Object<'static>| async move {
            let connection = connect().await?;
            let (path, interface) = (object.path, Some(object.interface));
            connection.call_method(Some(object.service), path, interface, "HoldProfile", &body).await?;
            Ok(connection)
        };
        let mut absent = None;
        for object in NAMES {
            match within(deadline, hold(object)) {
                Ok(connection) => return Ok(HeldPowerProfile(Some(connection))),
                Err(error) if is_absent(&error) => absent = Some((object, error)),
                Err(error) => return Err(HostError::call("HoldProfile", object.service, error)),
            }
        }
        let (object, reason) = match absent {
            Some((object, error)) => (object.service, error.to_string()),
            None => (NAMES[0].service, "there is no such daemon".to_owned()),
        };
        Err(HostError::call("HoldProfile", object, reason))
    }
}

impl Host {
    /// The power profiles that there are; none where no daemon has such.
    ///
    /// # Errors
    /// It is there but does not answer.
    pub fn power_profiles(&self, deadline: Deadline) -> Result<Option<Vec<String>>, HostError> {
        self.power_profiles.profiles(deadline)
    }

    /// Has a power profile chosen until what is returned is dropped.
    ///
    /// # Errors
    /// There is no such daemon, it refuses, or does not answer.
    pub fn hold_power_profile(
        &self,
        profile: &str,
        why: &str,
        deadline: Deadline,
    ) -> Result<HeldPowerProfile, HostError> {
        self.power_profiles.hold(profile, why, deadline)
    }
}
