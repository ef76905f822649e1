//! systemd's units over its bus.

mod bus;
mod executor;
mod signals;
mod system_units;
mod transient;
mod unit_calls;
mod user_units;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::HostError;
use super::service::{SystemState, UnitManager, UnitStatus};
use super::user::User;
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::unit_file_name::UnitFileName;

pub(super) use bus::{Bus, Object, connect, within};
pub use signals::{BusSignal, watch_bus_signals};
pub(super) use system_units::SystemUnits;
pub(super) use transient::{ServicePurpose, StartFailure, TransientService, restart_given_up, stop_service};

pub(super) const SYSTEMD: &str = "org.freedesktop.systemd1";
pub(super) const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
pub(super) const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const ALLOWED_CPUS: &str = "AllowedCPUs";

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

    /// The files of which `SetUnitProperties` leaves one behind for a property set at run time: the second one for a
    /// transient unit, which `init.scope` is on every host (`src/core/unit.c`, `unit_drop_in_dir`).
    #[must_use]
    pub fn allowed_cpus_drop_ins(&self) -> [PathBuf; 2] {
        ["system.control", "transient"]
            .map(|folder| PathBuf::from(format!("/run/systemd/{folder}/{}.d/50-{ALLOWED_CPUS}.conf", self.0)))
    }

    fn object_path(&self) -> String {
        object_path(&self.0)
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

/// A unit's object on the bus: every byte that is no letter or digit becomes `_xx` (`bus_label_escape`).
fn object_path(unit: &str) -> String {
    let mut path = format!("{MANAGER_PATH}/unit/");
    for (index, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (index > 0 && byte.is_ascii_digit()) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
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

    /// What a manager says about a unit, whether it is loaded or not.
    ///
    /// # Errors
    /// The manager does not answer.
    fn unit_status(
        &self,
        manager: &UnitManager,
        unit: &UnitFileName,
        deadline: Deadline,
    ) -> Result<UnitStatus, HostError>;

    /// What a user's service manager gives its units, a line each, as `systemctl show-environment` prints it.
    ///
    /// # Errors
    /// The manager does not answer.
    fn environment(&self, user: &User, deadline: Deadline) -> Result<Vec<String>, HostError>;

    /// `SystemState`: whether the host is being shut down or rebooted.
    ///
    /// # Errors
    /// systemd does not answer.
    fn system_state(&self, deadline: Deadline) -> Result<SystemState, HostError>;

    /// When the state of a unit of the system changed last, in seconds since 1970: it was started, reloaded or stopped.
    /// None for one that never was (`StateChangeTimestamp` in org.freedesktop.systemd1(5)).
    ///
    /// # Errors
    /// systemd does not answer.
    fn state_changed_at(&self, unit: &UnitFileName, deadline: Deadline) -> Result<Option<i64>, HostError>;

    /// `Reload`: has systemd read all unit files again. It forgets run-time settings where there is a persistent one.
    ///
    /// # Errors
    /// systemd does not answer, or takes longer than there is time.
    fn reload(&self, deadline: Deadline) -> Result<(), HostError>;

    /// `StopUnit`, and waits until the unit has stopped.
    ///
    /// # Errors
    /// The manager refuses, or it takes longer than there is time.
    fn stop_unit(
        &self,
        manager: &UnitManager,
        unit: &UnitFileName,
        deadline: Deadline,
    ) -> Result<(), HostError>;

    /// `ResetFailedUnit`, so that no start limit is in the way, and `StartUnit`; waits until it has begun to start.
    ///
    /// # Errors
    /// The manager refuses, or the unit fails at once.
    fn start_unit(
        &self,
        manager: &UnitManager,
        unit: &UnitFileName,
        deadline: Deadline,
    ) -> Result<(), HostError>;
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
            unit.allowed_cpus_drop_ins(),
            ["system.control", "transient"].map(|folder| PathBuf::from(format!(
                "/run/systemd/{folder}/init.scope.d/50-AllowedCPUs.conf"
            )))
        );
        for name in ["docker", "cpuset.cpus", ".slice", "a.target"] {
            assert_eq!(UnitName::new(name), None, "{name}");
        }
    }
}
