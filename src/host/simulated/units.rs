//! systemd's part of a host in a folder.

use std::fs;
use std::path::{Path, PathBuf};

use super::SimulatedFiles;
use super::processes::EndingGroup;
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::host::error::HostError;
use crate::host::files::Files;
use crate::host::service::{SystemState, UnitManager, UnitPresence, UnitRelations, UnitState, UnitStatus};
use crate::host::systemd::{UnitName, Units};
use crate::host::user::User;
use crate::unit_file_name::UnitFileName;

/// Where the simulated systemd keeps a unit's property.
fn property_path(unit: &UnitName) -> PathBuf {
    PathBuf::from(format!("/simulated/systemd/{unit}/AllowedCPUs"))
}

/// The units of a host in a folder.
#[derive(Debug)]
pub struct SimulatedUnits(SimulatedFiles);

impl SimulatedUnits {
    /// The units of this host.
    #[must_use]
    pub fn new(files: SimulatedFiles) -> Self {
        Self(files)
    }

    /// The control group follows where the host has one for the unit.
    fn confine(&self, unit: &UnitName, cpus: &CpuSet) -> std::io::Result<()> {
        let effective = PathBuf::from(format!("/sys/fs/cgroup/{unit}/cpuset.cpus.effective"));
        if !self.0.locate(&effective).exists() {
            return Ok(());
        }
        let online = self.0.text("/sys/devices/system/cpu/online".as_ref())?;
        let then = if cpus.is_empty() { online } else { cpus.to_string() };
        self.0.set(&effective, &then)
    }
}

impl SimulatedUnits {
    fn set_active_state(
        &self,
        manager: &UnitManager,
        unit: &UnitFileName,
        state: &str,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        let path = unit_folder(manager, unit).join("ActiveState");
        in_time(&path, deadline)?;
        self.0.write(&path, state).map_err(|error| HostError::write(&path, state, error))
    }
}

/// A call that may take no time is not made.
fn in_time(path: &Path, deadline: Deadline) -> Result<(), HostError> {
    if deadline.has_passed() {
        return Err(HostError::late_call("systemd", &path.to_string_lossy(), "no time is left"));
    }
    Ok(())
}

impl Units for SimulatedUnits {
    fn allowed_cpus(&self, units: &[UnitName], deadline: Deadline) -> Result<Vec<CpuSet>, HostError> {
        let read = |unit| {
            let path = property_path(unit);
            in_time(&path, deadline)?;
            let text = self.0.text(&path).map_err(|error| HostError::read(&path, error))?;
            text.parse().map_err(|reason| HostError::content(&path, reason))
        };
        units.iter().map(read).collect()
    }

    fn set_allowed_cpus(&self, unit: &UnitName, cpus: &CpuSet, deadline: Deadline) -> Result<(), HostError> {
        let path = property_path(unit);
        in_time(&path, deadline)?;
        let [of_others, of_transient] = unit.allowed_cpus_drop_ins();
        let drop_in = self.0.locate(if unit.as_str() == "init.scope" { &of_transient } else { &of_others });
        let write = || {
            self.0.write(&path, &cpus.to_string())?;
            self.confine(unit, cpus)?;
            fs::create_dir_all(drop_in.parent().unwrap_or(Path::new("/")))?;
            fs::write(&drop_in, format!("[{}]\nAllowedCPUs={cpus}\n", unit.section()))
        };
        write().map_err(|error| HostError::write(&path, &cpus.to_string(), error))
    }

    fn unit_status(
        &self,
        manager: &UnitManager,
        unit: &UnitFileName,
        deadline: Deadline,
    ) -> Result<UnitStatus, HostError> {
        let folder = unit_folder(manager, unit);
        in_time(&folder, deadline)?;
        let list = |name: &str| -> Vec<String> {
            let text = self.0.text(&folder.join(name)).unwrap_or_default();
            text.split_whitespace().map(str::to_owned).collect()
        };
        let path = folder.join("ActiveState");
        let state = self.0.text(&path);
        self.0.faults.after_answer(&path);
        Ok(UnitStatus {
            presence: if state.is_ok() { UnitPresence::Loaded } else { UnitPresence::Absent },
            fragment: String::new(),
            state: UnitState::from_active_state(state.as_deref().unwrap_or("inactive")),
            relations: UnitRelations {
                stop_with_it: list("RequiredBy"),
                triggered_by: list("TriggeredBy"),
                starts: list("Requires"),
            },
        })
    }

    fn environment(&self, user: &User, deadline: Deadline) -> Result<Vec<String>, HostError> {
        let path = PathBuf::from(format!("/simulated/systemd-of-{}/environment", user.uid));
        in_time(&path, deadline)?;
        let text = self.0.text(&path).unwrap_or_default();
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn system_state(&self, deadline: Deadline) -> Result<SystemState, HostError> {
        let path = Path::new("/simulated/systemd/SystemState");
        in_time(path, deadline)?;
        Ok(SystemState::from_systemd(self.0.text(path).unwrap_or_default().trim()))
    }

    fn state_changed_at(&self, unit: &UnitFileName, deadline: Deadline) -> Result<Option<i64>, HostError> {
        let path = unit_folder(&UnitManager::System, unit).join("StateChangeTimestamp");
        in_time(&path, deadline)?;
        let micros = self.0.number(&path).ok();
        Ok(micros.and_then(|micros| i64::try_from(micros / 1_000_000).ok()))
    }

    fn reload(&self, deadline: Deadline) -> Result<(), HostError> {
        in_time("/run/systemd/system".as_ref(), deadline)
    }

    fn stop_unit(
        &self,
        manager: &UnitManager,
        unit: &UnitFileName,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        if self.0.locate(&unit_folder(manager, unit).join("stops")).exists() {
            return Err(HostError::late_call("StopUnit", unit.as_str(), "it is still deactivating"));
        }
        self.set_active_state(manager, unit, "inactive", deadline)?;
        let mut ending = vec![unit.clone()];
        let with_it = self.unit_status(manager, unit, deadline)?.relations.stop_with_it;
        ending.extend(with_it.iter().filter_map(|other| UnitFileName::new(other).ok()));
        for unit in &ending {
            let folder = unit_folder(manager, unit);
            self.0
                .end_processes(group_of(manager, unit), &folder)
                .map_err(|error| HostError::write(&folder, "inactive", error))?;
        }
        Ok(())
    }

    fn start_unit(
        &self,
        manager: &UnitManager,
        unit: &UnitFileName,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        let folder = unit_folder(manager, unit);
        // One that fails, or does not come up.
        let state = self.0.text(&folder.join("starts_as")).unwrap_or_else(|_| "active".to_owned());
        self.set_active_state(manager, unit, state.trim(), deadline)?;
        self.0.start_processes(&folder).map_err(|error| HostError::write(&folder, "active", error))
    }
}

fn group_of<'a>(manager: &UnitManager, unit: &'a UnitFileName) -> EndingGroup<'a> {
    let uid = match manager {
        UnitManager::System => None,
        UnitManager::User(user) => Some(user.uid),
    };
    EndingGroup { unit: unit.as_str(), uid }
}

/// Where the simulated systemd keeps what it knows of a unit.
fn unit_folder(manager: &UnitManager, unit: &UnitFileName) -> PathBuf {
    match manager {
        UnitManager::System => PathBuf::from(format!("/simulated/systemd/{unit}")),
        UnitManager::User(user) => PathBuf::from(format!("/simulated/systemd-of-{}/{unit}", user.uid)),
    }
}
