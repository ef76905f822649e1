//! The top of the control group tree.

use std::fmt;
use std::io;
use std::path::Path;

use nix::errno::Errno;

use super::systemd::UnitName;
use super::{Host, HostError};
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;

const CGROUP: &str = "/sys/fs/cgroup";

/// What stands at the top of the control group tree and has tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopGroups {
    /// systemd's units.
    pub units: Vec<UnitName>,
    /// Groups that systemd did not make.
    pub outside_systemd: Vec<String>,
}

/// A unit's `AllowedCPUs`, and whether a setting made at run time has left its file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AllowedCpus {
    /// Empty where nothing is set.
    pub cpus: CpuSet,
    /// The state of `/run/systemd/system.control/UNIT.d/50-AllowedCPUs.conf`, or of the one in `/run/systemd/transient`.
    pub drop_in: DropIn,
}

impl fmt::Display for AllowedCpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cpus.is_empty() { f.write_str("(none)") } else { self.cpus.fmt(f) }
    }
}

/// Whether a setting made at run time has left its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DropIn {
    /// There is a file.
    Present,
    /// There is none.
    Absent,
}

impl Host {
    /// Whether this is the unified hierarchy with a cpuset controller.
    #[must_use]
    pub fn has_cpuset_v2(&self) -> bool {
        self.text(format!("{CGROUP}/cgroup.controllers"))
            .is_ok_and(|controllers| controllers.split_whitespace().any(|name| name == "cpuset"))
    }

    /// The groups below the root that have tasks (`cgroup.events`: `populated 1`).
    ///
    /// # Errors
    /// The tree cannot be listed.
    pub fn populated_top_groups(&self) -> Result<TopGroups, HostError> {
        let mut groups = TopGroups::default();
        for name in self.names(CGROUP)? {
            let Some(name) = name.to_str() else { continue };
            let events = match self.text_if_present(format!("{CGROUP}/{name}/cgroup.events")) {
                // It was removed meanwhile.
                Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => None,
                // Not a folder.
                Err(error) if error.kind() == Some(io::ErrorKind::NotADirectory) => None,
                events => events?,
            };
            let Some(events) = events else { continue };
            if !events.lines().any(|line| line == "populated 1") {
                continue;
            }
            match UnitName::new(name) {
                Some(unit) => groups.units.push(unit),
                None => groups.outside_systemd.push(name.to_owned()),
            }
        }
        Ok(groups)
    }

    /// `cpuset.cpus.effective` of a group below the root; none where the controller is off.
    ///
    /// # Errors
    /// The file is there but cannot be read.
    pub fn cpuset_cpus_effective(&self, group: &str) -> Result<Option<CpuSet>, HostError> {
        let path = format!("{CGROUP}/{group}/cpuset.cpus.effective");
        match self.text_if_present(&path)? {
            Some(text) => text.parse().map(Some).map_err(|reason| HostError::content(path.as_ref(), reason)),
            None => Ok(None),
        }
    }

    /// `AllowedCPUs` of each unit.
    ///
    /// # Errors
    /// systemd does not answer in time, or does not know a unit.
    pub fn allowed_cpus(
        &self,
        units: &[UnitName],
        deadline: Deadline,
    ) -> Result<Vec<AllowedCpus>, HostError> {
        let values = self.units.allowed_cpus(units, deadline)?;
        let with_drop_in = units.iter().zip(values).map(|(unit, cpus)| AllowedCpus {
            cpus,
            drop_in: if unit.allowed_cpus_drop_ins().into_iter().any(|file| self.is_present(file)) {
                DropIn::Present
            } else {
                DropIn::Absent
            },
        });
        Ok(with_drop_in.collect())
    }

    /// Sets `AllowedCPUs` until the next boot, and takes systemd's file away where there is to be none.
    ///
    /// # Errors
    /// systemd does not answer in time, or refuses.
    pub fn set_allowed_cpus(
        &mut self,
        unit: &UnitName,
        value: &AllowedCpus,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        self.units.set_allowed_cpus(unit, &value.cpus, deadline)?;
        if value.cpus.is_empty() {
            self.widen_cpuset_cpus(unit)?;
        }
        if value.drop_in == DropIn::Absent {
            for file in unit.allowed_cpus_drop_ins() {
                self.remove_if_present(&file)?;
                // systemd made the folder for the file; other files in it keep it.
                if let Some(folder) = file.parent() {
                    let _ = self.files.remove(folder);
                }
            }
            // As this one, which it makes with the first setting.
            let _ = self.files.remove(Path::new("/run/systemd/system.control"));
        }
        Ok(())
    }

    /// Lets a group whose setting was taken away use all CPUs again.
    ///
    /// systemd writes an empty `cpuset.cpus`, which the kernel refuses for a group with tasks (ENOSPC,
    /// `validate_change` in `kernel/cgroup/cpuset.c`). The file goes away when nothing on the host needs the controller
    /// any more; until then, as long as another guest runs, the old list would go on to act.
    fn widen_cpuset_cpus(&mut self, unit: &UnitName) -> Result<(), HostError> {
        let path = format!("{CGROUP}/{unit}/cpuset.cpus");
        let online = self.online_cpus()?;
        match self.text_if_present(&path)?.as_deref() {
            None | Some("") => Ok(()),
            Some(_) => match self.set(&path, &online.to_string()) {
                Err(error) if error.is_absent() || error.raw_os_error() == Some(Errno::ENODEV as i32) => {
                    Ok(())
                }
                widened => widened,
            },
        }
    }
}
