//! Monitors: which are there, and what is read and set of them.
//!
//! Nothing is guessed: a bus is talked on only where a connector of a graphics card names it, or where it is an adapter
//! on a graphics card with an EDID at its end.

mod find;
mod locate;
mod problem;
mod survey;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

pub use find::{MonitorFound, MonitorsFound};
pub use problem::MonitorProblem;

use super::i2c::{BusJob, Conversation, I2cBus, MonitorTrouble};
use super::i2c_dev::I2cDev;
use super::{Host, HostError};
use crate::deadline::Deadline;
use crate::failpoint;
use crate::monitor::{FeatureControl, MonitorFeature, VcpValue};

/// What one monitor is asked or told, and the place of the answer.
type Orders<O> = Vec<(usize, FeatureControl, O)>;

impl Host {
    /// The monitors that are there, and what keeps others from being found.
    ///
    /// # Errors
    /// sysfs cannot be listed. What concerns one monitor is a problem, no error.
    pub fn monitors(&self, deadline: Deadline) -> Result<MonitorsFound, HostError> {
        Ok(find::all(self, deadline)?.found)
    }

    /// The values of features; the answers in the order of the questions. All monitors are asked at once, each in its
    /// own thread; one whose bus hangs costs the others nothing.
    ///
    /// A thread that hangs in the kernel keeps the whole process from ending, so nothing that libvirt waits for may
    /// call this.
    ///
    /// The errors tell a monitor that is not there ([`HostError::is_absent`]) from one that does not answer
    /// ([`HostError::is_unanswered`]) and one that has no such feature ([`HostError::is_unreadable_feature`]).
    #[must_use]
    pub fn vcp_features(
        &self,
        asked: &[MonitorFeature],
        deadline: Deadline,
    ) -> Vec<Result<VcpValue, HostError>> {
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
        let orders: Vec<_> = orders.iter().map(|(feature, value)| (feature, *value)).collect();
        self.talk("set", &orders, deadline, |conversation, control, value| {
            failpoint::reached("knob");
            conversation.set(control, value)?;
            failpoint::reached("knob");
            Ok(())
        })
    }

    fn talk<O: Copy + Send + 'static, T: Send + 'static>(
        &self,
        verb: &str,
        orders: &[(&MonitorFeature, O)],
        deadline: Deadline,
        say: fn(&mut Conversation, FeatureControl, O) -> Result<T, MonitorTrouble>,
    ) -> Vec<Result<T, HostError>> {
        let failed = |feature: &dyn fmt::Display, bus: Option<I2cBus>, trouble| {
            let has_no_nodes = trouble == MonitorTrouble::NoBus && self.i2c_dev() == I2cDev::Absent;
            let trouble = if has_no_nodes { MonitorTrouble::NoI2cDev } else { trouble };
            let bus = bus.map(|bus| bus.to_string()).unwrap_or_default();
            HostError::monitor(format!("{verb} {feature}"), &bus, trouble)
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
        let mut answers: Vec<Option<Result<T, HostError>>> = Vec::new();
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
