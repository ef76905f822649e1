//! Unbound kernel workqueues and the CPUs they may use.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Host, HostError};
use crate::cpuset::CpuSet;

const WORKQUEUES: &str = "/sys/devices/virtual/workqueue";

/// A `cpumask` of workqueues.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workqueue {
    /// The mask of all unbound workqueues.
    AllUnbound,
    /// One of those that the kernel shows (`WQ_SYSFS`), such as `writeback`.
    Named(String),
}

impl Workqueue {
    fn cpumask_path(&self) -> String {
        match self {
            Self::AllUnbound => format!("{WORKQUEUES}/cpumask"),
            Self::Named(name) => format!("{WORKQUEUES}/{name}/cpumask"),
        }
    }
}

impl fmt::Display for Workqueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllUnbound => f.write_str("all unbound workqueues"),
            Self::Named(name) => write!(f, "workqueue {name}"),
        }
    }
}

impl Host {
    /// The masks there are; none on a kernel without `/sys/devices/virtual/workqueue`.
    #[must_use]
    pub fn workqueues(&self) -> Vec<Workqueue> {
        let named = self.names(WORKQUEUES).unwrap_or_default();
        let named =
            named.iter().filter_map(|name| name.to_str()).map(|name| Workqueue::Named(name.to_owned()));
        std::iter::once(Workqueue::AllUnbound)
            .chain(named)
            .filter(|workqueue| self.is_present(workqueue.cpumask_path()))
            .collect()
    }

    /// `cpumask` of a workqueue.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn workqueue_cpumask(&self, workqueue: &Workqueue) -> Result<CpuSet, HostError> {
        let path = workqueue.cpumask_path();
        CpuSet::from_mask(&self.text(&path)?).map_err(|reason| HostError::content(path.as_ref(), reason))
    }

    /// Sets `cpumask` of a workqueue.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn set_workqueue_cpumask(&mut self, workqueue: &Workqueue, cpus: &CpuSet) -> Result<(), HostError> {
        self.set(workqueue.cpumask_path(), &cpus.to_mask())
    }
}
