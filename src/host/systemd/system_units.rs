//! The system's units, over the system bus.

use std::sync::Arc;

use zbus::{OwnedVariant, Variant};

use super::bus::{Bus, Object, within};
use super::{ALLOWED_CPUS, MANAGER, MANAGER_PATH, SYSTEMD, UnitName, Units, unit_calls, user_units};
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::failpoint;
use crate::host::HostError;
use crate::host::service::{SystemState, UnitManager, UnitStatus};
use crate::host::user::User;
use crate::unit_file_name::UnitFileName;

/// The units of the running system.
#[derive(Debug)]
pub(in crate::host) struct SystemUnits(Arc<Bus>);

impl SystemUnits {
    pub(in crate::host) fn new(bus: Arc<Bus>) -> Self {
        Self(bus)
    }
}

impl SystemUnits {
    async fn get_allowed_cpus(&self, unit: &UnitName) -> zbus::Result<CpuSet> {
        let interface = format!("{SYSTEMD}.{}", unit.section());
        let path = unit.object_path();
        let object = Object { service: SYSTEMD, path: &path, interface: "org.freedesktop.DBus.Properties" };
        let reply = self.0.call(object, "Get", &(interface, ALLOWED_CPUS)).await?;
        let value: OwnedVariant = reply.body().deserialize()?;
        let bytes: Vec<u8> = Vec::try_from(value)?;
        Ok(CpuSet::from_bytes(&bytes))
    }

    async fn call_set_unit_properties(&self, unit: &UnitName, cpus: &CpuSet) -> zbus::Result<()> {
        let properties = [(ALLOWED_CPUS, Variant::from(cpus.to_bytes()))];
        let runtime = true;
        let object = Object { service: SYSTEMD, path: MANAGER_PATH, interface: MANAGER };
        self.0.call(object, "SetUnitProperties", &(unit.as_str(), runtime, &properties[..])).await?;
        Ok(())
    }
}

impl Units for SystemUnits {
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
        failpoint::reached("setting");
        within(deadline, self.call_set_unit_properties(unit, cpus)).map_err(|reason| {
            HostError::call("SetUnitProperties", unit.as_str(), format!("AllowedCPUs={cpus}: {reason}"))
        })?;
        failpoint::reached("setting");
        Ok(())
    }

    fn unit_status(
        &self,
        manager: &UnitManager,
        unit: &UnitFileName,
        deadline: Deadline,
    ) -> Result<UnitStatus, HostError> {
        match manager {
            UnitManager::System => unit_calls::unit_status(&self.0, unit, deadline),
            UnitManager::User(user) => user_units::unit_status(user, unit, &unit_calls::PROPERTIES, deadline),
        }
    }

    fn environment(&self, user: &User, deadline: Deadline) -> Result<Vec<String>, HostError> {
        user_units::environment(user, deadline)
    }

    fn system_state(&self, deadline: Deadline) -> Result<SystemState, HostError> {
        let get = async {
            let object =
                Object { service: SYSTEMD, path: MANAGER_PATH, interface: "org.freedesktop.DBus.Properties" };
            let reply = self.0.call(object, "Get", &(MANAGER, "SystemState")).await?;
            String::try_from(reply.body().deserialize::<OwnedVariant>()?)
        };
        let state = within(deadline, get);
        let state = state.map_err(|reason| HostError::call("Get SystemState", "systemd", reason))?;
        Ok(SystemState::from_systemd(&state))
    }

    fn state_changed_at(&self, unit: &UnitFileName, deadline: Deadline) -> Result<Option<i64>, HostError> {
        unit_calls::state_changed_at(&self.0, unit, deadline)
    }

    fn reload(&self, deadline: Deadline) -> Result<(), HostError> {
        unit_calls::reload(deadline)
    }

    fn stop_unit(
        &self,
        manager: &UnitManager,
        unit: &UnitFileName,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        match manager {
            UnitManager::System => unit_calls::stop_unit(&self.0, unit, deadline),
            UnitManager::User(user) => user_units::stop_unit(user, unit, deadline),
        }
    }

    fn start_unit(
        &self,
        manager: &UnitManager,
        unit: &UnitFileName,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        match manager {
            UnitManager::System => unit_calls::start_unit(&self.0, unit, deadline),
            UnitManager::User(user) => user_units::start_unit(user, unit, deadline),
        }
    }
}
