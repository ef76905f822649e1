//! How a guest's threads are to be scheduled, once they are there.

use serde::{Deserialize, Serialize};

use crate::host::ThreadRole;
use crate::scheduling::{Nice, WantedScheduling};

/// How a guest's threads are to be scheduled: kept with its lease, since they come with QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSchedule {
    /// Those of its virtual CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<WantedScheduling>,
    /// QEMU's first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emulator: Option<Nice>,
    /// Those for input and output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<Nice>,
}

impl GuestSchedule {
    /// What a thread is to have.
    #[must_use]
    pub fn of(&self, role: ThreadRole) -> Option<WantedScheduling> {
        match role {
            ThreadRole::Vcpu(_) => self.vcpus,
            ThreadRole::Emulator => self.emulator.map(WantedScheduling::Nice),
            ThreadRole::Io(_) => self.io.map(WantedScheduling::Nice),
        }
    }

    /// What is done once QEMU runs, a line each.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let kinds = [
            ("threads of the vCPUs", self.vcpus),
            ("QEMU's main thread", self.emulator.map(WantedScheduling::Nice)),
            ("threads of <iothreads>", self.io.map(WantedScheduling::Nice)),
        ];
        kinds.into_iter().filter_map(|(kind, want)| Some(format!("{kind}: {}, once QEMU runs", want?)))
    }
}
