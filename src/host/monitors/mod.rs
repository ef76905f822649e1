//! Monitors: which are there, and what is read and set of them.
//!
//! Nothing is guessed: a bus is talked on only where a connector of a graphics card names it, or where it is an adapter
//! on a graphics card with an EDID at its end.

mod aside;
mod find;
mod locate;
mod problem;
mod survey;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

pub use aside::{TALK_TO_MONITORS, talk_to_monitors};
pub use find::{MonitorFound, MonitorsFound};
pub use problem::MonitorProblem;

use serde::{Deserialize, Serialize};

use super::i2c::{BusJob, Conversation, I2cBus, MonitorTrouble};
use super::i2c_dev::I2cDev;
use super::{Host, HostError, Talks};
use crate::deadline::Deadline;
use crate::failpoint;
use crate::monitor::{FeatureControl, MonitorFeature, VcpValue};
use aside::Talk;

/// What one monitor is asked or told, and the place of the answer.
type Orders<O> = Vec<(usize, FeatureControl, O)>;

/// Why one feature was not read or set.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Failure {
    /// What was tried.
    attempt: String,
    /// Over which bus, as far as that is known.
    bus: Option<I2cBus>,
    trouble: MonitorTrouble,
}

impl Host {
    /// The monitors that are there, and what keeps others from being found.
    ///
    /// # Errors
    /// sysfs cannot be listed. What concerns one monitor is a problem, no error.
    pub fn monitors(&self, deadline: Deadline) -> Result<MonitorsFound, HostError> {
        match self.talks {
            Talks::Here => self.monitors_here(deadline),
            Talks::Aside => aside::aside(Talk::Find, deadline),
        }
    }

    fn monitors_here(&self, deadline: Deadline) -> Result<MonitorsFound, HostError> {
        Ok(find::all(self, deadline)?.found)
    }

    /// The values of features; the answers in the order of the questions. All monitors are asked at once, each in its
    /// own thread; one whose bus hangs costs the others nothing.
    ///
    /// The errors tell a monitor that is not there ([`HostError::is_absent`]) from one that does not answer
    /// ([`HostError::is_unanswered`]) and one that has no such feature ([`HostError::is_unreadable_feature`]).
    #[must_use]
    pub fn vcp_features(
        &self,
        asked: &[MonitorFeature],
        deadline: Deadline,
    ) -> Vec<Result<VcpValue, HostError>> {
        let answers = match self.talks {
            _ if asked.is_empty() => return Vec::new(),
            Talks::Here => self.get_here(asked, deadline),
            Talks::Aside => answers(aside::aside(Talk::Get(asked.to_vec()), deadline), asked, "read"),
        };
        answers.into_iter().map(|answer| answer.map_err(HostError::from)).collect()
    }

    fn get_here(&self, asked: &[MonitorFeature], deadline: Deadline) -> Vec<Result<VcpValue, Failure>> {
        let questions: Vec<_> = asked.iter().map(|feature| (feature, ())).collect();
        self.talk("read", &questions, deadline, |conversation, control, ()| conversation.get(control))
    }

    /// Sets features, in the order given on each monitor, and otherwise like [`Self::vcp_features`]. That a monitor
    /// acknowledges does not say that it does it.
    #[must_use]
    pub fn set_vcp_features(
        &mut self,
        orders: &[(MonitorFeature, VcpValue)],
        deadline: Deadline,
    ) -> Vec<Result<(), HostError>> {
        failpoint::reached("knob");
        let answers = match self.talks {
            _ if orders.is_empty() => return Vec::new(),
            Talks::Here => self.set_here(orders, deadline),
            Talks::Aside => {
                let features: Vec<_> = orders.iter().map(|(feature, _)| feature.clone()).collect();
                answers(aside::aside(Talk::Set(orders.to_vec()), deadline), &features, "set")
            }
        };
        failpoint::reached("knob");
        answers.into_iter().map(|answer| answer.map_err(HostError::from)).collect()
    }

    fn set_here(
        &self,
        orders: &[(MonitorFeature, VcpValue)],
        deadline: Deadline,
    ) -> Vec<Result<(), Failure>> {
        let orders: Vec<_> = orders.iter().map(|(feature, value)| (feature, *value)).collect();
        self.talk("set", &orders, deadline, Conversation::set)
    }

    fn talk<O: Copy + Send + 'static, T: Send + 'static>(
        &self,
        verb: &str,
        orders: &[(&MonitorFeature, O)],
        deadline: Deadline,
        say: fn(&mut Conversation, FeatureControl, O) -> Result<T, MonitorTrouble>,
    ) -> Vec<Result<T, Failure>> {
        let failed = |feature: &dyn fmt::Display, bus: Option<I2cBus>, trouble| {
            let has_no_nodes = trouble == MonitorTrouble::NoBus && self.i2c_dev() == I2cDev::Absent;
            let trouble = if has_no_nodes { MonitorTrouble::NoI2cDev } else { trouble };
            Failure { attempt: format!("{verb} {feature}"), bus, trouble }
        };
        let keys = orders.iter().map(|(feature, _)| &feature.monitor);
        let seats = match locate::buses_of(self, &keys.collect::<Vec<_>>(), deadline) {
            Ok(seats) => seats,
            Err(error) => {
                let trouble = MonitorTrouble::Unfindable(error.to_string());
                return orders
                    .iter()
                    .map(|(feature, _)| Err(failed(feature, None, trouble.clone())))
                    .collect();
            }
        };
        let mut by_bus: BTreeMap<I2cBus, Orders<O>> = BTreeMap::new();
        let mut answers: Vec<Option<Result<T, Failure>>> = Vec::new();
        for (place, ((feature, order), seat)) in orders.iter().zip(&seats).enumerate() {
            answers.push(match seat {
                Ok(bus) => {
                    by_bus.entry(*bus).or_default().push((place, feature.control, *order));
                    None
                }
                Err(trouble) => Some(Err(failed(feature, None, trouble.clone()))),
            });
        }
        let places: Vec<(I2cBus, Vec<usize>)> = by_bus
            .iter()
            .map(|(bus, orders)| (*bus, orders.iter().map(|(place, ..)| *place).collect()))
            .collect();
        let jobs = by_bus.into_iter().map(|(bus, orders)| (bus, job(orders, say))).collect();
        for ((bus, places), said) in places.into_iter().zip(self.buses.on_each(jobs, deadline)) {
            // None of the answers of a bus that hangs comes back.
            let said = said.unwrap_or_else(|trouble| places.iter().map(|_| Err(trouble.clone())).collect());
            for (place, answer) in places.into_iter().zip(said) {
                let answer = answer.map_err(|trouble| failed(orders[place].0, Some(bus), trouble));
                answers[place] = Some(answer);
            }
        }
        let missing = |place: usize| Err(failed(orders[place].0, None, MonitorTrouble::NoTime));
        let answers = answers.into_iter().enumerate();
        answers.map(|(place, answer)| answer.unwrap_or_else(|| missing(place))).collect()
    }
}

impl From<Failure> for HostError {
    fn from(Failure { attempt, bus, trouble }: Failure) -> Self {
        Self::monitor(attempt, &bus.map(|bus| bus.to_string()).unwrap_or_default(), trouble)
    }
}

/// The answers of another process; where that failed, so did each.
fn answers<T>(
    said: Result<Vec<Result<T, Failure>>, HostError>,
    features: &[MonitorFeature],
    verb: &str,
) -> Vec<Result<T, Failure>> {
    said.unwrap_or_else(|error| {
        let trouble = MonitorTrouble::Unfindable(error.to_string());
        let failed =
            |feature| Failure { attempt: format!("{verb} {feature}"), bus: None, trouble: trouble.clone() };
        features.iter().map(|feature| Err(failed(feature))).collect()
    })
}

/// All that is said to one monitor, under one lock.
fn job<O: Copy + Send + 'static, T: 'static>(
    orders: Orders<O>,
    say: fn(&mut Conversation, FeatureControl, O) -> Result<T, MonitorTrouble>,
) -> BusJob<Vec<Result<T, MonitorTrouble>>> {
    Box::new(move |buses, bus, deadline| {
        let mut conversation = Conversation::open(buses, bus, deadline);
        let answers = orders.iter().map(|(_, control, order)| match &mut conversation {
            Ok(conversation) => say(conversation, *control, *order),
            Err(trouble) => Err(trouble.clone()),
        });
        answers.collect()
    })
}
