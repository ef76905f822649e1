//! Monitors: which are there, and what is read and set of them.
//!
//! Nothing is guessed: a bus is talked on only where a connector of a graphics card names it, or where it is an adapter
//! on a graphics card with an EDID at its end.

mod by_worker;
mod converse;
mod find;
mod left_alone;
mod locate;
mod problem;
mod recent;
mod survey;
#[cfg(test)]
mod tests;

pub(super) use by_worker::{Talk, talk_in_worker};
pub use find::{MonitorFound, MonitorsFound};
pub use problem::MonitorProblem;
pub(super) use recent::RecentlyFound;

use serde::{Deserialize, Serialize};

use find::Answers;
use survey::Survey;

use super::i2c::{Conversation, I2cBus, MonitorTrouble};
use super::{Host, HostError};
use crate::deadline::Deadline;
use crate::failpoint;
use crate::monitor::{MonitorFeature, Reading, VcpValue};

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
        if let Some(found) = self.early_answers.monitors() {
            return Ok(found);
        }
        let found = match self.talk_by_worker(Talk::Find, deadline)? {
            Some(found) => found,
            None => self.monitors_here(deadline)?,
        };
        self.recently_found.remember(&found);
        self.early_answers.keep_monitors(&found);
        Ok(found)
    }

    fn monitors_here(&self, deadline: Deadline) -> Result<MonitorsFound, HostError> {
        Ok(find::all(self, &Survey::of(self)?, &mut Answers::new(), deadline))
    }

    /// The values of features; the answers in the order of the questions. Monitors of different cards are asked at once,
    /// those of one card one after the other, each in a thread of its own; one whose bus hangs is left behind.
    ///
    /// The errors tell a monitor that is not there ([`HostError::is_absent`]) from one that does not answer
    /// ([`HostError::is_unanswered`]) and one that has no such feature ([`HostError::is_unreadable_feature`]).
    #[must_use]
    pub fn vcp_features(
        &self,
        asked: &[MonitorFeature],
        deadline: Deadline,
    ) -> Vec<Result<VcpValue, HostError>> {
        let early: Option<Vec<VcpValue>> =
            asked.iter().map(|feature| self.early_answers.feature(feature)).collect();
        if let Some(early) = early {
            return early.into_iter().map(Ok).collect();
        }
        let answers = match self.talk_by_worker(Talk::Get(asked.to_vec()), deadline) {
            Ok(Some(answers)) => answers,
            Ok(None) => self.get_here(asked, deadline),
            Err(error) => failures(&error, asked, "read"),
        };
        for (feature, answer) in asked.iter().zip(&answers) {
            if let Ok(value) = answer {
                self.early_answers.keep_feature(feature, *value);
            }
        }
        answers.into_iter().map(|answer| answer.map_err(HostError::from)).collect()
    }

    fn get_here(&self, asked: &[MonitorFeature], deadline: Deadline) -> Vec<Result<VcpValue, Failure>> {
        let questions: Vec<_> =
            asked.iter().filter(|feature| can_be_read(feature)).map(|feature| (feature, ())).collect();
        let mut said =
            converse::with_each(self, "read", &questions, deadline, |conversation, control, ()| {
                conversation.get(control)
            })
            .into_iter();
        let answers = asked.iter().map(|feature| {
            let answer = if can_be_read(feature) { said.next() } else { None };
            answer.unwrap_or_else(|| Err(Failure::of("read", feature, None, MonitorTrouble::WriteOnly)))
        });
        answers.collect()
    }

    /// Sets features as [`Self::set_vcp_features`] does, and says what each monitor tells then, in the same conversation:
    /// nothing where its reading is not relied on, or it does not answer.
    #[must_use]
    pub fn set_and_read_vcp_features(
        &mut self,
        orders: &[(MonitorFeature, VcpValue)],
        deadline: Deadline,
    ) -> Vec<Result<Option<VcpValue>, HostError>> {
        failpoint::reached("setting");
        if orders.is_empty() {
            return Vec::new();
        }
        let answers = match self.talk_by_worker(Talk::SetAndRead(orders.to_vec()), deadline) {
            Ok(Some(answers)) => answers,
            Ok(None) => self.set_and_read_here(orders, deadline),
            Err(error) => failures(&error, orders.iter().map(|(feature, _)| feature), "set"),
        };
        failpoint::reached("setting");
        answers.into_iter().map(|answer| answer.map_err(HostError::from)).collect()
    }

    fn set_and_read_here(
        &self,
        orders: &[(MonitorFeature, VcpValue)],
        deadline: Deadline,
    ) -> Vec<Result<Option<VcpValue>, Failure>> {
        let orders: Vec<_> = orders.iter().map(|(feature, value)| (feature, *value)).collect();
        converse::with_each(self, "set", &orders, deadline, |conversation, control, value| {
            conversation.set(control, value)?;
            let is_relied_on = control.reading == Reading::Reliable;
            Ok(is_relied_on.then(|| conversation.get(control).ok()).flatten())
        })
    }

    /// Sets features, in the order given on each monitor, and otherwise like [`Self::vcp_features`]. That a monitor
    /// acknowledges does not say that it does it.
    #[must_use]
    pub fn set_vcp_features(
        &mut self,
        orders: &[(MonitorFeature, VcpValue)],
        deadline: Deadline,
    ) -> Vec<Result<(), HostError>> {
        failpoint::reached("setting");
        if orders.is_empty() {
            return Vec::new();
        }
        let answers = match self.talk_by_worker(Talk::Set(orders.to_vec()), deadline) {
            Ok(Some(answers)) => answers,
            Ok(None) => self.set_here(orders, deadline),
            Err(error) => failures(&error, orders.iter().map(|(feature, _)| feature), "set"),
        };
        failpoint::reached("setting");
        answers.into_iter().map(|answer| answer.map_err(HostError::from)).collect()
    }

    fn set_here(
        &self,
        orders: &[(MonitorFeature, VcpValue)],
        deadline: Deadline,
    ) -> Vec<Result<(), Failure>> {
        let orders: Vec<_> = orders.iter().map(|(feature, value)| (feature, *value)).collect();
        converse::with_each(self, "set", &orders, deadline, Conversation::set)
    }
}

/// Nothing is said to a monitor that is known to tell nothing.
fn can_be_read(feature: &MonitorFeature) -> bool {
    feature.control.reading != Reading::WriteOnly
}

impl Failure {
    fn of(verb: &str, feature: &MonitorFeature, bus: Option<I2cBus>, trouble: MonitorTrouble) -> Self {
        Self { attempt: format!("{verb} {feature}"), bus, trouble }
    }
}

impl From<Failure> for HostError {
    fn from(Failure { attempt, bus, trouble }: Failure) -> Self {
        Self::monitor(attempt, &bus.map(|bus| bus.to_string()).unwrap_or_default(), trouble)
    }
}

/// What became of each feature where a talk failed.
fn failures<'f, T>(
    error: &HostError,
    features: impl IntoIterator<Item = &'f MonitorFeature>,
    verb: &str,
) -> Vec<Result<T, Failure>> {
    let trouble = MonitorTrouble::Unfindable(error.to_string());
    features.into_iter().map(|feature| Err(Failure::of(verb, feature, None, trouble.clone()))).collect()
}
