//! Talks with monitors, by a worker. A driver that hangs in a transfer keeps the whole process from ending that made
//! it, and this one is waited for, by libvirt or by systemd; a worker can be left behind.

use std::fmt::Display;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Failure, MonitorFound, MonitorsFound};
use crate::deadline::Deadline;
use crate::host::error::rounded;
use crate::host::i2c::I2cBus;
use crate::host::worker::{End, Heard, Said};
use crate::host::{Host, HostError};
use crate::monitor::{MonitorFeature, VcpValue};

/// What is said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::host) enum Talk {
    /// Who is there?
    Find,
    /// What are the values of these features?
    Get(Vec<MonitorFeature>),
    /// Set these.
    Set(Vec<(MonitorFeature, VcpValue)>),
    /// Set these, and say what the monitors tell then.
    SetAndRead(Vec<(MonitorFeature, VcpValue)>),
}

/// What comes of each [`Talk`]: its answer alone, which the parent knows how to read.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Talked {
    Found(MonitorsFound),
    Got(Vec<Result<VcpValue, Failure>>),
    Set(Vec<Result<(), Failure>>),
    SetAndRead(Vec<Result<Option<VcpValue>, Failure>>),
}

impl Host {
    /// Has a worker talk; none where this process is to do it itself.
    ///
    /// # Errors
    /// No process can be started; it cannot do it; it does not answer in time, which it should in spite of all monitors.
    pub(super) fn talk_by_worker<T: DeserializeOwned>(
        &self,
        talk: Talk,
        deadline: Deadline,
    ) -> Result<Option<T>, HostError> {
        let waited = deadline.remaining();
        let failed = |reason: &dyn Display| HostError::call("a worker", "the monitors", reason);
        let heard =
            self.workers.talk(talk, self.recently_found.get(), deadline).map_err(|error| failed(&error))?;
        let Some(Heard { answers, end }) = heard else { return Ok(None) };
        match (answers.into_iter().next(), end) {
            (Some(Ok(Said { answer, .. })), _) => answer.map(Some).map_err(|reason| failed(&reason)),
            (Some(Err(refusal)), _) => Err(failed(&std::io::Error::from(refusal))),
            (None, End::Died(reason) | End::Signalled { reason, .. }) => Err(failed(&reason)),
            (None, End::Stuck(process)) => Err(failed(&format_args!(
                "process {} took longer than {}, and does not end",
                process.pid,
                rounded(waited)
            ))),
            (None, End::Answered | End::Killed) => {
                Err(failed(&format_args!("it took longer than {}", rounded(waited))))
            }
        }
    }
}

/// What a worker does: it talks, until the deadline at the latest, but not over buses that hang. Its parent may just have
/// found the monitors.
pub(in crate::host) fn talk_in_worker(
    talk: &Talk,
    found: &[MonitorFound],
    hanging: &[I2cBus],
    deadline: Deadline,
) -> Said<impl Serialize + use<>> {
    let host = Host::for_worker(found, hanging);
    let answer = match talk {
        Talk::Find => host.monitors_here(deadline).map(Talked::Found).map_err(|error| error.to_string()),
        Talk::Get(asked) => Ok(Talked::Got(host.get_here(asked, deadline))),
        Talk::Set(orders) => Ok(Talked::Set(host.set_here(orders, deadline))),
        Talk::SetAndRead(orders) => Ok(Talked::SetAndRead(host.set_and_read_here(orders, deadline))),
    };
    Said { answer, hanging: host.buses.hanging() }
}
