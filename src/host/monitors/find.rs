//! Which monitors are there.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::problem::MonitorProblem;
use super::survey::{Adapter, Connector, Plug, Survey};
use crate::deadline::Deadline;
use crate::host::i2c::{BusJob, Conversation, I2cBus, MonitorTrouble};
use crate::host::i2c_dev::I2cDev;
use crate::host::{Host, HostError};
use crate::monitor::{EdidIdentity, MonitorKey, MonitorPlace};
use crate::pci::PciAddress;

/// How long buses are asked who is at their end. An EDID takes 15 ms; another program may have the bus for a second.
const LOOK: Duration = Duration::from_secs(2);

/// A monitor and the bus that leads to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorFound {
    /// Which.
    pub key: MonitorKey,
    /// The bus, until a driver is loaded or unloaded.
    pub bus: I2cBus,
}

/// The monitors that are there, and what keeps others from being found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorsFound {
    /// Those on connectors first.
    pub monitors: Vec<MonitorFound>,
    /// The problems.
    pub problems: Vec<MonitorProblem>,
}

/// What is known after a look.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) found: MonitorsFound,
    pub(super) survey: Survey,
}

/// What buses say of who is at their end; none where they were only opened.
pub(super) type Seen = BTreeMap<I2cBus, Result<Option<EdidIdentity>, MonitorTrouble>>;

/// What is asked of a bus.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    /// Whether it can be opened: nothing is said on it.
    Open,
    /// Who is at its end.
    Edid,
}

/// Looks at all of them.
pub(super) fn all(host: &Host, deadline: Deadline) -> Result<Look, HostError> {
    let survey = Survey::of(host)?;
    let seen = ask(host, &questions(&survey), deadline);
    let found = Finding { survey: &survey, seen: &seen, found: MonitorsFound::default() }.carry_out(host);
    Ok(Look { found, survey })
}

/// Asks buses, all at once, in at most half of the time: one that hangs leaves the rest for the others.
pub(super) fn ask(host: &Host, questions: &BTreeMap<I2cBus, Asked>, deadline: Deadline) -> Seen {
    let deadline = Deadline::after(LOOK.min(deadline.remaining() / 2));
    let job = |asked| -> BusJob<Result<Option<EdidIdentity>, MonitorTrouble>> {
        Box::new(move |buses, bus, deadline| match asked {
            Asked::Open => buses.open(bus).map(|_| None).map_err(|error| MonitorTrouble::of_open(&error)),
            Asked::Edid => Conversation::open(buses, bus, deadline)?.edid().map(Some),
        })
    };
    let jobs = questions.iter().map(|(bus, asked)| (*bus, job(*asked))).collect();
    let answers = host.buses.on_each(jobs, deadline).into_iter().map(Result::flatten);
    questions.keys().copied().zip(answers).collect()
}

/// A connector with one bus and an EDID that the kernel knows leaves nothing to ask.
fn questions(survey: &Survey) -> BTreeMap<I2cBus, Asked> {
    let connected = survey.connectors.iter().filter(|connector| connector.plug == Plug::Connected);
    let of_connectors = connected.flat_map(|connector| {
        let is_clear = connector.edid.is_ok() && connector.adapters.len() == 1;
        let asked = if is_clear { Asked::Open } else { Asked::Edid };
        connector.adapters.iter().map(move |adapter| (adapter.bus, asked))
    });
    of_connectors.chain(survey.loose.iter().map(|adapter| (adapter.bus, Asked::Edid))).collect()
}

struct Finding<'a> {
    survey: &'a Survey,
    seen: &'a Seen,
    found: MonitorsFound,
}

impl Finding<'_> {
    fn carry_out(mut self, host: &Host) -> MonitorsFound {
        let survey = self.survey;
        for connector in survey.connectors.iter().filter(|connector| connector.plug == Plug::Connected) {
            self.connected(connector);
        }
        for adapter in &survey.loose {
            self.loose(adapter);
        }
        self.troubles(host);
        self.found
    }

    fn connected(&mut self, connector: &Connector) {
        let reads = |adapter: &&Adapter, identity: Option<&EdidIdentity>| match self.seen.get(&adapter.bus) {
            Some(Ok(Some(seen))) => identity.is_none_or(|identity| seen == identity),
            _ => false,
        };
        let adapters = &connector.adapters;
        let found = match &connector.edid {
            Ok(identity) => {
                let fitting = adapters.iter().find(|adapter| reads(adapter, Some(identity)));
                fitting.or(adapters.first()).map(|adapter| (identity.clone(), adapter))
            }
            Err(_) => adapters.iter().find(|adapter| reads(adapter, None)).and_then(|adapter| {
                let identity = self.seen.get(&adapter.bus)?.clone().ok()??;
                Some((identity, adapter))
            }),
        };
        if let Some((identity, adapter)) = found {
            self.add(identity, adapter.place.clone(), adapter.bus);
            return;
        }
        let problem = match (&connector.edid, adapters.is_empty()) {
            // One of the adapters that belong to no connector may lead to it.
            (Ok(identity), _) if self.leads_to(identity, connector.card).next().is_some() => return,
            (identity, true) => MonitorProblem::NoBusKnown {
                connector: connector.name.clone(),
                monitor: identity.as_ref().ok().cloned(),
            },
            (Err(error), false) => MonitorProblem::Unknown {
                connector: connector.name.clone(),
                trouble: MonitorTrouble::Edid(error.clone()),
            },
            // An adapter and an identity make a monitor.
            (Ok(_), false) => return,
        };
        self.found.problems.push(problem);
    }

    /// Loose adapters of a card with this monitor at their end.
    fn leads_to(&self, identity: &EdidIdentity, card: Option<PciAddress>) -> impl Iterator<Item = &Adapter> {
        let seen = move |adapter: &&Adapter| match self.seen.get(&adapter.bus) {
            Some(Ok(Some(seen))) => seen == identity,
            _ => false,
        };
        self.survey.loose.iter().filter(move |adapter| adapter.place.card == card).filter(seen)
    }

    fn loose(&mut self, adapter: &Adapter) {
        let Some(Ok(Some(identity))) = self.seen.get(&adapter.bus) else { return };
        let card = adapter.place.card;
        let same: Vec<&Connector> = self
            .survey
            .connectors
            .iter()
            .filter(|connector| connector.card == card && connector.edid.as_ref() == Ok(identity))
            .collect();
        // The pins of a DisplayPort read the same EDID as its own bus.
        if same.iter().any(|connector| !connector.adapters.is_empty()) {
            return;
        }
        let is_only_one = self.leads_to(identity, card).count() == 1;
        let mut place = adapter.place.clone();
        if let ([connector], true) = (&same[..], is_only_one) {
            place.connector = Some(connector.name.clone());
        }
        self.add(identity.clone(), place, adapter.bus);
    }

    fn add(&mut self, identity: EdidIdentity, place: MonitorPlace, bus: I2cBus) {
        self.found.monitors.push(MonitorFound { key: MonitorKey { identity, place }, bus });
    }

    /// What buses say that cannot be used at all.
    fn troubles(&mut self, host: &Host) {
        let mut not_permitted = Vec::new();
        let mut is_without_nodes = false;
        for (bus, seen) in self.seen {
            let Err(trouble) = seen else { continue };
            match trouble {
                MonitorTrouble::NotPermitted => not_permitted.push(*bus),
                MonitorTrouble::Hangs => self.found.problems.push(MonitorProblem::Hangs(*bus)),
                MonitorTrouble::NoBus if host.i2c_dev() == I2cDev::Absent => is_without_nodes = true,
                // Most adapters of a card lead to nobody.
                MonitorTrouble::Silent(_) | MonitorTrouble::Edid(_) | MonitorTrouble::SmbusOnly => {}
                other => {
                    let trouble = other.clone();
                    self.found.problems.push(MonitorProblem::Unusable { bus: *bus, trouble });
                }
            }
        }
        if !not_permitted.is_empty() {
            self.found.problems.push(MonitorProblem::NotPermitted(not_permitted));
        }
        if is_without_nodes {
            self.found.problems.push(MonitorProblem::NoI2cDev);
        }
    }
}
