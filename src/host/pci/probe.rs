//! Whether functions answer: a look at their registers, in a child that can be left behind.
//!
//! A passed probe means that a function is on the bus, no more: a card whose firmware hangs answers all of this.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::config_space::{Kind, Link, Said, look};
use super::{PciFunction, PowerState, file};
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::host::bounded::{Aside, AsideEnd, Output, aside, of_child};
use crate::host::simulated::stuck_process;
use crate::host::{Host, HostError, ProcessId};
use crate::pci::{PciAddress, PciId, listed};

/// The hidden first argument of the child.
pub const PROBE_PCI: &str = "probe-pci";

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
struct Look {
    address: PciAddress,
    kind: Kind,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Looked {
    address: PciAddress,
    health: Health,
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
        let (answers, stuck) =
            if self.is_real() { look_aside(&looks, deadline)? } else { self.look_here(&looks)? };
        report.stuck = stuck;
        for Looked { address, health, link } in answers {
            let of_function = report.functions.get_mut(&address);
            if let Some(probed) = of_function.or(report.ports.get_mut(&address)) {
                probed.health = health;
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

    /// On a host in a folder, where nothing hangs but what is said to.
    fn look_here(&self, looks: &[Look]) -> Result<(Vec<Looked>, Option<ProcessId>), HostError> {
        let mut answers = Vec::new();
        match self.look_at_all(looks, |looked| {
            answers.push(looked);
            Ok(())
        }) {
            Ok(()) => Ok((answers, None)),
            Err(error) => match stuck_process(&error) {
                Some(process) => Ok((answers, Some(process))),
                None => Err(probe_failed(looks, error)),
            },
        }
    }

    /// Looks at one after the other, and tells each answer at once.
    fn look_at_all(&self, looks: &[Look], mut tell: impl FnMut(Looked) -> io::Result<()>) -> io::Result<()> {
        let mut dead_port = None;
        // Said only where something below does not answer.
        let mut down = String::new();
        for Look { address, kind } in looks {
            let address = *address;
            if let Some(port) = dead_port {
                let name = if *kind == Kind::Port { "port " } else { "" };
                let evidence = format!("{name}{address}: port {port} above it does not answer");
                tell(Looked { address, health: Health::Dead(evidence), link: None })?;
                continue;
            }
            let path = file(address, "config");
            let asked = Instant::now();
            let said = look(*kind, |offset, length| self.files.read_at(&path, offset, length));
            let looked = match said {
                Ok(Said::Well(link)) => Looked { address, health: of_wait(asked.elapsed()), link },
                Ok(Said::LinkDown(link)) => {
                    down = format!("; port {address} reports its link as down");
                    Looked { address, health: of_wait(asked.elapsed()), link }
                }
                Ok(Said::Dead(evidence)) => dead(address, *kind, &format!("{evidence}{down}")),
                Err(error) if stuck_process(&error).is_some() => return Err(error),
                Err(error) => dead(address, *kind, &format!("config space cannot be read: {error}")),
            };
            if *kind == Kind::Port && !looked.health.is_well() {
                dead_port = Some(address);
            }
            tell(looked)?;
        }
        Ok(())
    }
}

fn dead(address: PciAddress, kind: Kind, evidence: &str) -> Looked {
    let name = if kind == Kind::Port { "port " } else { "" };
    Looked { address, health: Health::Dead(format!("{name}{address}: {evidence}")), link: None }
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
    HostError::call(PROBE_PCI, &listed(&functions), reason)
}

fn look_aside(looks: &[Look], deadline: Deadline) -> Result<(Vec<Looked>, Option<ProcessId>), HostError> {
    if looks.is_empty() {
        return Ok((Vec::new(), None));
    }
    let order = serde_json::to_string(looks).map_err(|error| probe_failed(looks, error))?;
    let Aside { output, end } = aside(&[PROBE_PCI.as_ref(), order.as_ref()], Output::Heard, deadline)
        .map_err(|error| probe_failed(looks, error))?;
    let lines = output.split(|byte| *byte == b'\n');
    let answers = lines.map_while(|line| serde_json::from_slice(line).ok()).collect();
    match end {
        AsideEnd::Ended(status) => {
            of_child(status).map(|()| (answers, None)).map_err(|error| probe_failed(looks, error))
        }
        AsideEnd::Killed => Ok((answers, None)),
        AsideEnd::Stuck(process) => Ok((answers, Some(process))),
    }
}

/// What the child does: a line of JSON for each answer, as soon as it is there.
///
/// # Errors
/// Nobody is there any more to hear the answers; what it is given to do makes no sense.
pub fn probe_pci(order: &str) -> io::Result<Exit> {
    let looks: Vec<Look> = serde_json::from_str(order)?;
    Host::real().look_at_all(&looks, |looked| {
        let mut line = serde_json::to_vec(&looked)?;
        line.push(b'\n');
        io::stdout().write_all(&line)?;
        io::stdout().flush()
    })?;
    Ok(Exit::Done)
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
        let address: PciAddress = "0000:03:00.0".parse().unwrap();
        for health in
            [Health::Answers, Health::Slow(7), Health::Absent, Health::Dead("x".into()), Health::TimedOut]
        {
            let looked = Looked { address, health: health.clone(), link: None };
            let again: Looked = serde_json::from_slice(&serde_json::to_vec(&looked).unwrap()).unwrap();
            assert_eq!(again.health, health);
        }
    }
}
