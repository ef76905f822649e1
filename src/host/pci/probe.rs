//! Whether functions answer: a look at their registers, by a worker.
//!
//! A passed probe means that a function is on the bus, no more: a card whose firmware hangs answers all of this.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::config_space::{Kind, Link, Said, look};
use super::{PciFunction, PowerState, file};
use crate::deadline::Deadline;
use crate::host::error::is_shortage;
use crate::host::files::{Files, KernelFiles};
use crate::host::simulated::stuck_process;
use crate::host::worker::{End, Heard, Order};
use crate::host::{Host, HostError, ProcessId};
use crate::pci::{PciAddress, PciId, listed};

/// From here on an answer is slow. Waking up from D3cold takes 100 ms by the specification, and some devices longer.
const SLOW: Duration = Duration::from_secs(1);

/// A function, and what it should say it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Where it is.
    pub address: PciAddress,
    /// Its model.
    pub id: PciId,
}

impl From<&PciFunction> for Expected {
    fn from(function: &PciFunction) -> Self {
        Self { address: function.address, id: function.id }
    }
}

/// Whether a function or a port answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// It does, and what it says makes sense.
    Answers,
    /// It does, but it took so many milliseconds.
    Slow(u64),
    /// The kernel has no such function: it was removed, or fell off the bus.
    Absent,
    /// It does not, or what it says makes no sense: the evidence, in one printable line with the address.
    Dead(String),
    /// The time was over before it answered.
    TimedOut,
}

impl Health {
    /// Whether it can be worked with.
    #[must_use]
    pub const fn is_well(&self) -> bool {
        matches!(self, Self::Answers | Self::Slow(_))
    }
}

/// What is known of a function or a port after a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// Whether it answers.
    pub health: Health,
    /// Its link; none where it has none, or did not answer.
    pub link: Option<Link>,
    /// How much it slept, before it was asked.
    pub power_state: PowerState,
    /// BARs of memory that have no place: a driver that wants them fails, and amdgpu may hang. Empty for ports.
    pub unplaced_bars: Vec<u8>,
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// The ports above the functions.
    pub ports: BTreeMap<PciAddress, Probed>,
    /// The functions.
    pub functions: BTreeMap<PciAddress, Probed>,
    /// The child that hangs in the kernel, where one does.
    pub stuck: Option<ProcessId>,
}

impl ProbeReport {
    /// Whether all ports and functions answer.
    #[must_use]
    pub fn all_answer(&self) -> bool {
        self.ports.values().chain(self.functions.values()).all(|probed| probed.health.is_well())
    }

    /// Whether a host's driver may be bound: all answer, and all BARs have their place.
    #[must_use]
    pub fn is_fit_for_host_driver(&self) -> bool {
        self.all_answer() && self.functions.values().all(|probed| probed.unplaced_bars.is_empty())
    }

    /// What speaks against them, a printable line each; empty where nothing does.
    #[must_use]
    pub fn evidence(&self) -> Vec<String> {
        let ports = self.ports.iter().map(|(address, probed)| (format!("port {address}"), probed));
        let functions = self.functions.iter().map(|(address, probed)| (address.to_string(), probed));
        let mut lines = Vec::new();
        for (name, probed) in ports.chain(functions) {
            match &probed.health {
                Health::Answers => {}
                Health::Slow(milliseconds) => lines.push(format!("{name}: took {milliseconds} ms to answer")),
                Health::Absent => lines.push(format!("{name}: the kernel has no such function")),
                Health::Dead(evidence) => lines.push(evidence.clone()),
                Health::TimedOut => lines.push(format!("{name}: did not answer in time")),
            }
            lines.extend(probed.unplaced_bars.iter().map(|bar| format!("{name}: BAR {bar} has no place")));
        }
        if let Some(process) = self.stuck {
            lines.push(format!("process {} hangs in the kernel since it read config space", process.pid));
        }
        lines
    }
}

/// One that is to be looked at.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(in crate::host) struct Look {
    address: PciAddress,
    kind: Kind,
}

/// What came of it. The evidence does not name the function yet: the order does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::host) struct Looked {
    health: Health,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<Link>,
}

impl Host {
    /// Looks whether functions answer: first the ports above them from the processor on, then the functions. Below what
    /// does not answer nothing is asked. `ports` are those of [`Host::pci_ports_above`], the nearest first.
    ///
    /// What is not answered at the deadline is [`Health::TimedOut`].
    ///
    /// # Errors
    /// No process can be started, or it fails. That a function does not answer is no error.
    pub fn probe_pci(
        &self,
        expected: &[Expected],
        ports: &[PciAddress],
        deadline: Deadline,
    ) -> Result<ProbeReport, HostError> {
        let mut report = ProbeReport { ports: BTreeMap::new(), functions: BTreeMap::new(), stuck: None };
        let mut looks = Vec::new();
        for address in ports.iter().rev() {
            report.ports.insert(*address, self.not_looked_at(*address)?);
            looks.push(Look { address: *address, kind: Kind::Port });
        }
        for Expected { address, id } in expected {
            let is_virtual = self.is_virtual_function(*address)?;
            let kind = if is_virtual { Kind::VirtualFunction } else { Kind::Function(*id) };
            let mut probed = self.not_looked_at(*address)?;
            if probed.health != Health::Absent && !is_virtual {
                probed.unplaced_bars = self.pci_unplaced_bars(*address)?;
            }
            report.functions.insert(*address, probed);
            looks.push(Look { address: *address, kind });
        }
        looks.retain(|look| self.is_pci_function(look.address));
        let (answers, stuck) = self.look_bounded(&looks, deadline)?;
        report.stuck = stuck;
        for (Look { address, kind }, Looked { health, link }) in looks.iter().zip(answers) {
            let of_function = report.functions.get_mut(address);
            if let Some(probed) = of_function.or(report.ports.get_mut(address)) {
                let name = if *kind == Kind::Port { "port " } else { "" };
                probed.health = match health {
                    Health::Dead(evidence) => Health::Dead(format!("{name}{address}: {evidence}")),
                    health => health,
                };
                probed.link = link;
            }
        }
        Ok(report)
    }

    /// Gives functions that did not answer some time. Those of a host in a folder do not change by themselves.
    pub fn let_pci_settle(&self, time: Duration, deadline: Deadline) {
        if self.is_real() {
            deadline.pause(time);
        }
    }

    fn not_looked_at(&self, address: PciAddress) -> Result<Probed, HostError> {
        let is_there = self.is_pci_function(address);
        Ok(Probed {
            health: if is_there { Health::TimedOut } else { Health::Absent },
            link: None,
            power_state: self.pci_power_state(address),
            unplaced_bars: Vec::new(),
        })
    }

    /// Looks at one after the other, as far as that goes until the deadline, and says which process hangs in it.
    fn look_bounded(
        &self,
        looks: &[Look],
        deadline: Deadline,
    ) -> Result<(Vec<Looked>, Option<ProcessId>), HostError> {
        if looks.is_empty() {
            return Ok((Vec::new(), None));
        }
        let failed = |error| probe_failed(looks, error);
        let order = Order::Probe(looks.to_owned());
        let Some(Heard { answers, end }) = self.workers.ask(&order, deadline).map_err(failed)? else {
            // On a host in a folder nothing hangs but what is said to.
            let mut answers = Vec::new();
            return match look_at_all(&*self.files, looks, |looked| {
                answers.push(looked);
                Ok(())
            }) {
                Ok(()) => Ok((answers, None)),
                Err(error) => match stuck_process(&error) {
                    Some(process) => {
                        self.workers.lose();
                        Ok((answers, Some(process)))
                    }
                    None => Err(failed(error)),
                },
            };
        };
        let answers =
            answers.into_iter().collect::<Result<_, _>>().map_err(|refusal| failed(refusal.into()))?;
        match end {
            End::Answered | End::Killed => Ok((answers, None)),
            End::Died(reason) | End::Signalled { reason, .. } => Err(failed(reason)),
            End::Stuck(process) => Ok((answers, Some(process))),
        }
    }
}

/// Looks at one after the other, and tells each answer at once.
fn look_at_all(
    files: &dyn Files,
    looks: &[Look],
    mut tell: impl FnMut(Looked) -> io::Result<()>,
) -> io::Result<()> {
    let mut dead_port = None;
    // Said only where something below does not answer.
    let mut down = String::new();
    for Look { address, kind } in looks {
        let address = *address;
        if let Some(port) = dead_port {
            tell(dead(format!("port {port} above it does not answer")))?;
            continue;
        }
        let path = file(address, "config");
        let asked = Instant::now();
        let said = files.registers(&path).and_then(|read| look(*kind, read));
        let looked = match said {
            Ok(Said::Well(link)) => Looked { health: of_wait(asked.elapsed()), link },
            Ok(Said::LinkDown(link)) => {
                down = format!("; port {address} reports its link as down");
                Looked { health: of_wait(asked.elapsed()), link }
            }
            Ok(Said::Dead(evidence)) => dead(evidence + &down),
            Err(error) if stuck_process(&error).is_some() || is_shortage(&error) => {
                return Err(error);
            }
            Err(error) => dead(format!("config space cannot be read: {error}")),
        };
        if *kind == Kind::Port && !looked.health.is_well() {
            dead_port = Some(address);
        }
        tell(looked)?;
    }
    Ok(())
}

/// What a worker does: looks at one after the other, and tells each answer at once. What it lacks to go on is the answer
/// of all that are left.
///
/// # Errors
/// `tell` failed.
pub(in crate::host) fn look_at_each(
    looks: &[Look],
    mut tell: impl FnMut(io::Result<Looked>) -> io::Result<()>,
) -> io::Result<()> {
    let mut told = 0;
    let looked = look_at_all(&KernelFiles, looks, |looked| {
        told += 1;
        tell(Ok(looked))
    });
    let Err(error) = looked else { return Ok(()) };
    let Some(errno) = error.raw_os_error() else { return Err(error) };
    looks[told..].iter().try_for_each(|_| tell(Err(io::Error::from_raw_os_error(errno))))
}

fn dead(evidence: String) -> Looked {
    Looked { health: Health::Dead(evidence), link: None }
}

fn of_wait(wait: Duration) -> Health {
    if wait < SLOW {
        Health::Answers
    } else {
        Health::Slow(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
    }
}

fn probe_failed(looks: &[Look], reason: impl std::fmt::Display) -> HostError {
    let functions: Vec<PciAddress> = looks.iter().map(|look| look.address).collect();
    HostError::call("probe", &listed(&functions), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_long_is_slow() {
        assert_eq!(of_wait(Duration::from_millis(999)), Health::Answers);
        assert_eq!(of_wait(Duration::from_millis(1500)), Health::Slow(1500));
    }

    #[test]
    fn answers_survive_json() {
        for health in
            [Health::Answers, Health::Slow(7), Health::Absent, Health::Dead("x".into()), Health::TimedOut]
        {
            let looked = Looked { health: health.clone(), link: None };
            let again: Looked = serde_json::from_slice(&serde_json::to_vec(&looked).unwrap()).unwrap();
            assert_eq!(again.health, health);
        }
    }
}
