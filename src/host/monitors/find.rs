//! Which monitors are there.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::problem::MonitorProblem;
use super::survey::{Adapter, Connector, Plug, Survey};
use crate::deadline::Deadline;
use crate::host::Host;
use crate::host::i2c::{BusJob, BusOfCard, Conversation, I2cBus, MonitorTrouble};
use crate::host::i2c_dev::I2cDev;
use crate::monitor::{EdidIdentity, MonitorKey, MonitorPlace};
use crate::pci::PciAddress;

/// How long buses are asked who is at their end. An EDID takes 15 ms; another program may have the bus for a second.
const LOOK: Duration = Duration::from_secs(2);

/// A monitor and the bus that leads to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorFound {
    /// Its identity and its place.
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

/// What buses say of who is at their end; none where they were only opened.
pub(super) type Answers = BTreeMap<I2cBus, Result<Option<EdidIdentity>, MonitorTrouble>>;

/// What is asked of a bus.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    /// Whether it can be opened: nothing is said on it.
    Open,
    /// Who is at its end.
    Edid,
}

/// The buses to be asked.
pub(super) type Questions = BTreeMap<BusOfCard, Asked>;

/// Looks at all of them; what some say is known already.
pub(super) fn all(host: &Host, survey: &Survey, answers: &mut Answers, deadline: Deadline) -> MonitorsFound {
    ask(host, first_questions(survey), answers, deadline);
    ask(host, further_questions(survey, answers), answers, deadline);
    Finding { survey, answers, found: MonitorsFound::default() }.carry_out(host)
}

/// Asks buses that have not answered yet, in at most half of the time: one that hangs leaves the rest for the others.
pub(super) fn ask(host: &Host, mut questions: Questions, answers: &mut Answers, deadline: Deadline) {
    questions.retain(|at, _| !answers.contains_key(&at.bus));
    let deadline = Deadline::after(LOOK.min(deadline.remaining() / 2));
    let job = |asked| -> BusJob<Result<Option<EdidIdentity>, MonitorTrouble>> {
        Box::new(move |turn| match asked {
            Asked::Open => turn.can_be_opened().map(|()| None),
            Asked::Edid => Conversation::open(turn)?.edid().map(Some),
        })
    };
    let buses: Vec<I2cBus> = questions.keys().map(|at| at.bus).collect();
    let jobs = questions.into_iter().map(|(at, asked)| (at, job(asked))).collect();
    let said = host.buses.on_each(jobs, deadline).into_iter().map(Result::flatten);
    answers.extend(buses.into_iter().zip(said));
}

/// A connector with one bus and an EDID that the kernel knows leaves nothing to ask. Of several buses the likeliest is
/// asked first. Adapters that belong to no connector are asked where a monitor may be at their end: some connector of
/// their card has a monitor and no bus, or the card has no connectors at all.
fn first_questions(survey: &Survey) -> Questions {
    let of_connectors = connected(survey).flat_map(|connector| {
        let is_clear = connector.edid.is_ok() && connector.adapters.len() == 1;
        let asked = if is_clear { Asked::Open } else { Asked::Edid };
        connector.adapters.first().map(|adapter| (adapter.at.clone(), asked))
    });
    let may_lead_somewhere = |adapter: &&Adapter| {
        let mut of_card = survey.connectors.iter().filter(|connector| connector.card == adapter.place.card);
        let lacks_a_bus = |connector: &Connector| connector.adapters.is_empty();
        of_card.clone().next().is_none()
            || of_card.any(|connector| connector.plug == Plug::Connected && lacks_a_bus(connector))
    };
    let loose = survey.loose.iter().filter(may_lead_somewhere);
    of_connectors.chain(loose.map(|adapter| (adapter.at.clone(), Asked::Edid))).collect()
}

/// The other buses of connectors whose first one does not lead to the monitor.
fn further_questions(survey: &Survey, answers: &Answers) -> Questions {
    let unanswered = connected(survey).filter(|connector| {
        let first = connector.adapters.first().and_then(|adapter| answers.get(&adapter.bus()));
        match (first, &connector.edid) {
            (Some(Ok(Some(seen))), Ok(identity)) => seen != identity,
            (Some(Ok(_)), _) => false,
            _ => true,
        }
    });
    let others = unanswered.flat_map(|connector| connector.adapters.iter().skip(1));
    others.map(|adapter| (adapter.at.clone(), Asked::Edid)).collect()
}

fn connected(survey: &Survey) -> impl Iterator<Item = &Connector> {
    survey.connectors.iter().filter(|connector| connector.plug == Plug::Connected)
}

struct Finding<'a> {
    survey: &'a Survey,
    answers: &'a Answers,
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
        let reads =
            |adapter: &&Adapter, identity: Option<&EdidIdentity>| match self.answers.get(&adapter.bus()) {
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
                let identity = self.answers.get(&adapter.bus())?.clone().ok()??;
                Some((identity, adapter))
            }),
        };
        if let Some((identity, adapter)) = found {
            self.add(identity, adapter.place.clone(), adapter.bus());
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
        let seen = move |adapter: &&Adapter| match self.answers.get(&adapter.bus()) {
            Some(Ok(Some(seen))) => seen == identity,
            _ => false,
        };
        self.survey.loose.iter().filter(move |adapter| adapter.place.card == card).filter(seen)
    }

    fn loose(&mut self, adapter: &Adapter) {
        let Some(Ok(Some(identity))) = self.answers.get(&adapter.bus()) else { return };
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
        self.add(identity.clone(), place, adapter.bus());
    }

    fn add(&mut self, identity: EdidIdentity, place: MonitorPlace, bus: I2cBus) {
        self.found.monitors.push(MonitorFound { key: MonitorKey { identity, place }, bus });
    }

    /// What buses say that cannot be used at all.
    fn troubles(&mut self, host: &Host) {
        let mut not_permitted = Vec::new();
        let mut is_without_nodes = false;
        for (bus, seen) in self.answers {
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
