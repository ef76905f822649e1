//! systemd's units over its bus.

use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zbus::{Connection, OwnedVariant, Variant};

use super::error::HostError;
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::failpoint;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "/org/freedesktop/systemd1";
const PROPERTY: &str = "AllowedCPUs";

/// The longest wait for one answer of systemd; it answers in milliseconds unless it is stuck.
const ANSWER: Duration = Duration::from_secs(4);

/// A unit as systemd names it, with its type: `system.slice`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnitName(String);

impl UnitName {
    /// A unit that has a control group: a slice, scope, service, mount, socket or swap. None for any other name.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let unit = Self(name.to_owned());
        let (stem, _) = name.rsplit_once('.')?;
        (!stem.is_empty() && !unit.section().is_empty()).then_some(unit)
    }

    /// The section of its unit file, which is also the name of its interface on the bus.
    #[must_use]
    pub fn section(&self) -> &'static str {
        match self.0.rsplit_once('.').map(|(_, kind)| kind) {
            Some("slice") => "Slice",
            Some("scope") => "Scope",
            Some("service") => "Service",
            Some("mount") => "Mount",
            Some("socket") => "Socket",
            Some("swap") => "Swap",
            _ => "",
        }
    }

    /// The file that `SetUnitProperties` leaves behind for a property set at run time (`src/core/unit.c`,
    /// `unit_write_setting`).
    #[must_use]
    pub fn allowed_cpus_drop_in(&self) -> PathBuf {
        PathBuf::from(format!("/run/systemd/system.control/{}.d/50-{PROPERTY}.conf", self.0))
    }

    /// Its object on the bus: every byte that is no letter or digit becomes `_xx` (`bus_label_escape`).
    fn object_path(&self) -> String {
        let mut path = format!("{MANAGER}/unit/");
        for (index, byte) in self.0.bytes().enumerate() {
            if byte.is_ascii_alphabetic() || (index > 0 && byte.is_ascii_digit()) {
                path.push(char::from(byte));
            } else {
                path.push_str(&format!("_{byte:02x}"));
            }
        }
        path
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The properties of units that the program reads and sets.
pub trait Units: Send + Sync {
    /// `AllowedCPUs` of each unit, in their order; empty where none is set.
    ///
    /// # Errors
    /// The bus or systemd does not answer, or does not know a unit.
    fn allowed_cpus(&self, units: &[UnitName], deadline: Deadline) -> Result<Vec<CpuSet>, HostError>;

    /// Sets `AllowedCPUs` until the next boot; the empty set takes the setting away.
    ///
    /// # Errors
    /// The bus or systemd does not answer, or refuses.
    fn set_allowed_cpus(&self, unit: &UnitName, cpus: &CpuSet, deadline: Deadline) -> Result<(), HostError>;
}

/// systemd on the system bus; connected at the first call, so that a host without work never pays for it.
#[derive(Debug, Default)]
pub(super) struct SystemBus(OnceLock<Connection>);

impl SystemBus {
    async fn connection(&self) -> zbus::Result<&Connection> {
        if let Some(connection) = self.0.get() {
            return Ok(connection);
        }
        let connection = zbus::connection::Builder::system().method_timeout(ANSWER).build().await?;
        Ok(self.0.get_or_init(|| connection))
    }

    async fn get_allowed_cpus(&self, unit: &UnitName) -> zbus::Result<CpuSet> {
        let reply = self
            .connection()
            .await?
            .call_method(
                Some(SYSTEMD),
                unit.object_path(),
                Some("org.freedesktop.DBus.Properties"),
                "Get",
                &(format!("{SYSTEMD}.{}", unit.section()), PROPERTY),
            )
            .await?;
        let value: OwnedVariant = reply.body().deserialize()?;
        let bytes: Vec<u8> = Vec::try_from(value)?;
        Ok(CpuSet::from_bytes(&bytes))
    }

    async fn call_set_unit_properties(&self, unit: &UnitName, cpus: &CpuSet) -> zbus::Result<()> {
        let properties = [(PROPERTY, Variant::from(cpus.to_bytes()))];
        let runtime = true;
        self.connection()
            .await?
            .call_method(
                Some(SYSTEMD),
                MANAGER,
                Some("org.freedesktop.systemd1.Manager"),
                "SetUnitProperties",
                &(unit.as_str(), runtime, &properties[..]),
            )
            .await?;
        Ok(())
    }
}

impl Units for SystemBus {
    fn allowed_cpus(&self, units: &[UnitName], deadline: Deadline) -> Result<Vec<CpuSet>, HostError> {
        let mut all = Vec::with_capacity(units.len());
        for unit in units {
            let cpus = within(deadline, self.get_allowed_cpus(unit))
                .map_err(|reason| HostError::call("Get AllowedCPUs", unit.as_str(), reason))?;
            all.push(cpus);
        }
        Ok(all)
    }

    fn set_allowed_cpus(&self, unit: &UnitName, cpus: &CpuSet, deadline: Deadline) -> Result<(), HostError> {
        failpoint::reached("knob");
        within(deadline, self.call_set_unit_properties(unit, cpus)).map_err(|reason| {
            HostError::call("SetUnitProperties", unit.as_str(), format!("AllowedCPUs={cpus}: {reason}"))
        })?;
        failpoint::reached("knob");
        Ok(())
    }
}

/// Waits for an answer, but not for longer than is left.
fn within<T>(deadline: Deadline, call: impl Future<Output = zbus::Result<T>>) -> Result<T, String> {
    if deadline.has_passed() {
        return Err("no time is left".to_owned());
    }
    zbus::block_on(call).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_units_and_their_bus_names() {
        let unit = UnitName::new("user.slice").unwrap();
        assert_eq!(unit.object_path(), "/org/freedesktop/systemd1/unit/user_2eslice");
        assert_eq!(unit.section(), "Slice");
        let unit = UnitName::new("init.scope").unwrap();
        assert_eq!(unit.object_path(), "/org/freedesktop/systemd1/unit/init_2escope");
        assert_eq!(
            unit.allowed_cpus_drop_in(),
            PathBuf::from("/run/systemd/system.control/init.scope.d/50-AllowedCPUs.conf")
        );
        for name in ["docker", "cpuset.cpus", ".slice", "a.target"] {
            assert_eq!(UnitName::new(name), None, "{name}");
        }
    }
}
