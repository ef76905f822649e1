//! Monitors that follow a guest: switched by its keeper once the guest is up, held there for a while, and switched back
//! when it is gone. A claim on a monitor stays in the ledger until the monitor is back, so that nobody but the guest's
//! keeper, or whoever ends the lease without one, ever talks to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::carry_out::Outcome;
use super::combine::combine;
use super::error::LedgerError;
use super::foreign::adopt_foreign_change;
use super::knob::Knob;
use super::open::Ledger;
use super::plan::{Change, Note, Plan};
use super::record::{Entry, Lease};
use super::value::{MonitorClaim, MonitorTurn, Value, Want};
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::HostError;
use crate::monitor::{MonitorFeature, Reading, VcpValue};

/// How long one try may take, all monitors together.
const ONE_TRY: Duration = Duration::from_secs(3);

/// What a guest wants of a monitor once it is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorWish {
    /// Of what.
    pub feature: MonitorFeature,
    /// The value.
    pub value: VcpValue,
    /// What is to be there after the guest: this, or what was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub afterwards: Option<VcpValue>,
    /// What was there before the guest had a picture, once that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<VcpValue>,
    /// How long after the guest is up.
    pub delay: Duration,
}

/// Whether something is tried again where it does not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Try {
    /// It is: nothing is given up yet.
    Another,
    /// It is not.
    Last,
}

/// What came of a try.
#[derive(Debug, Default)]
pub struct Tried {
    /// What was done.
    pub outcome: Outcome,
    /// How many features are not yet as they are to be.
    pub unfinished: usize,
}

impl From<Outcome> for Tried {
    fn from(outcome: Outcome) -> Self {
        let unfinished = outcome.failures.len();
        Self { outcome, unfinished }
    }
}

/// What a monitor says after a write.
type Written = Result<Option<VcpValue>, HostError>;

impl MonitorWish {
    /// Its knob.
    #[must_use]
    pub fn knob(&self) -> Knob {
        Knob::MonitorFeature(self.feature.clone())
    }

    /// A value as its knob holds it.
    #[must_use]
    pub fn holds(&self, value: VcpValue) -> Value {
        self.knob().value_of_vcp(value)
    }
}

impl Lease {
    fn wish_mut(&mut self, feature: &MonitorFeature) -> Option<&mut MonitorWish> {
        self.monitors.iter_mut().find(|wish| wish.feature == *feature)
    }
}

impl Ledger<'_> {
    /// Notes what the monitors show that a guest is going to have, before it has a picture: some follow a new picture
    /// by themselves. One that is on its way back from an earlier life of the guest is known already.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn note_monitors(&mut self, uuid: GuestUuid) -> Result<(), LedgerError> {
        let Some(lease) = self.record.leases.get(&uuid) else { return Ok(()) };
        let asked: Vec<MonitorFeature> = lease
            .monitors
            .iter()
            .filter(|wish| wish.before.is_none() && self.record.entry(&wish.knob()).is_none())
            .map(|wish| wish.feature.clone())
            .collect();
        let seen = self.look_at_monitors(&asked)?;
        let Some(lease) = self.record.leases.get_mut(&uuid) else { return Ok(()) };
        for (feature, seen) in asked.iter().zip(seen) {
            if let (Some(wish), Ok(value)) = (lease.wish_mut(feature), seen) {
                wish.before = Some(value);
            }
        }
        self.store()
    }

    /// Switches the monitors whose delay is not longer than this. One that is not there is tried again, another time.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn switch_monitors(
        &mut self,
        uuid: GuestUuid,
        up_since: Duration,
        attempt: Try,
    ) -> Result<Tried, LedgerError> {
        let Some(lease) = self.record.leases.get(&uuid) else { return Ok(Tried::default()) };
        let due: Vec<MonitorFeature> = lease
            .monitors
            .iter()
            .filter(|wish| wish.delay <= up_since)
            .map(|wish| wish.feature.clone())
            .collect();
        let seen = self.look_at_monitors(&due)?;
        let mut plan = self.plan();
        let mut tried = Tried::default();
        for (feature, seen) in due.into_iter().zip(seen) {
            // Others had the ledger meanwhile.
            let Some(lease) = plan.record.leases.get_mut(&uuid) else { return Ok(tried) };
            let Some(at) = lease.monitors.iter().position(|wish| wish.feature == feature) else { continue };
            match seen {
                Err(error) if error.is_absent() && attempt == Try::Another => tried.unfinished += 1,
                Err(error) if error.is_absent() => {
                    lease.monitors.remove(at);
                    plan.notes.push(Note::warning(format!("{feature} not switched: {error}")));
                }
                seen => {
                    let wish = lease.monitors.remove(at);
                    claim_monitor(&mut plan, uuid, wish, seen.ok());
                }
            }
        }
        for (change, written) in self.write_monitors(uuid, plan, &mut tried.outcome)? {
            match written {
                Ok(_) => tried.outcome.changes.push(change),
                // It is claimed: whoever holds it writes it again.
                Err(error) => {
                    tried.outcome.notes.push(Note::info(format!("{} not switched yet: {error}", change.knob)))
                }
            }
        }
        Ok(tried)
    }

    /// Looks whether the monitors that were switched stayed so, and switches those again that went back: without a
    /// picture they do. The last look says what came of it.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn hold_monitors(&mut self, uuid: GuestUuid, attempt: Try) -> Result<Tried, LedgerError> {
        let held: Vec<MonitorFeature> = self.monitors_of(uuid).cloned().collect();
        let seen = self.look_at_monitors(&held)?;
        let mut plan = self.plan();
        let mut tried = Tried::default();
        for (feature, seen) in held.into_iter().zip(seen) {
            let knob = Knob::MonitorFeature(feature);
            let Some(entry) = plan.record.entry_mut(&knob) else { continue };
            let Some(wanted) = wanted_by(entry, uuid) else { continue };
            let shown = seen.map(|value| knob.value_of_vcp(value));
            let is_written = entry.pending.is_none();
            if is_written && !is_reliable(&knob) {
                continue;
            }
            match (shown, attempt) {
                (Ok(shown), _) if shown == wanted || (is_written && shown == entry.written) => {
                    entry.written = shown;
                    entry.pending = None;
                }
                (shown, Try::Another) => {
                    tried.unfinished += 1;
                    let went_back = shown.as_ref().is_ok_and(|shown| *shown == entry.baseline);
                    if went_back || !is_written {
                        let now = shown.unwrap_or(Value::Unknown);
                        plan.changes.push(Change { knob, now, then: wanted });
                    }
                }
                (Err(error), Try::Last) if !is_written => {
                    plan.notes.push(Note::warning(format!("{knob} not switched: {error}")));
                    entry.pending = None;
                }
                (Ok(shown), Try::Last) if shown == entry.baseline => {
                    plan.notes.push(Note::warning(format!(
                        "{knob} goes back to {shown} each time: has the guest a picture there?"
                    )));
                    entry.pending = None;
                }
                (Ok(shown), Try::Last) => {
                    plan.notes.push(Note::info(format!("{knob} reads {shown} instead of {wanted}")));
                    entry.written = shown;
                    entry.pending = None;
                }
                (Err(error), Try::Last) => {
                    plan.notes.push(Note::info(format!("{knob} cannot be verified: {error}")));
                }
            }
        }
        for (change, written) in self.write_monitors(uuid, plan, &mut tried.outcome)? {
            if written.is_ok() {
                tried.outcome.changes.push(change);
            }
        }
        Ok(tried)
    }

    /// Switches monitors back, all of a guest's but these. One that does not answer is tried again, another time; the
    /// last try gives it up and says so.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn return_monitors(
        &mut self,
        uuid: GuestUuid,
        but: &BTreeSet<MonitorFeature>,
        attempt: Try,
    ) -> Result<Tried, LedgerError> {
        let mut tried = Tried::default();
        let going: Vec<MonitorFeature> =
            self.monitors_of(uuid).filter(|feature| !but.contains(feature)).cloned().collect();
        if going.is_empty() {
            return Ok(tried);
        }
        for feature in &going {
            if let Some(entry) = self.record.entry_mut(&Knob::MonitorFeature(feature.clone()))
                && let Some(Want::Monitor(claim)) = entry.claims.get_mut(&uuid)
            {
                claim.turn = MonitorTurn::Over;
            }
        }
        let seen = self.look_at_monitors(&going)?;
        let mut plan = self.plan();
        for (feature, seen) in going.into_iter().zip(seen) {
            self.plan_return(&mut plan, uuid, feature, seen.ok())?;
        }
        for (change, written) in self.write_monitors(uuid, plan, &mut tried.outcome)? {
            let Knob::MonitorFeature(feature) = &change.knob else { continue };
            let is_back = match &written {
                Ok(Some(value)) => change.knob.value_of_vcp(*value) == change.then,
                Ok(None) => feature.control.reading != Reading::Reliable,
                Err(_) => false,
            };
            if is_back {
                self.drop_monitor(uuid, &change.knob);
                tried.outcome.changes.push(change);
            } else if attempt == Try::Another {
                tried.unfinished += 1;
            } else {
                self.drop_monitor(uuid, &change.knob);
                let reason = match written {
                    Ok(Some(value)) => format!("it reads {}", change.knob.value_of_vcp(value)),
                    Ok(None) => "it was told to, but does not answer".to_owned(),
                    Err(error) => error.to_string(),
                };
                tried.outcome.notes.push(Note::warning(format!(
                    "{} may not be back at {}: {reason}; the monitor's own button brings it there",
                    change.knob, change.then
                )));
            }
        }
        self.store()?;
        Ok(tried)
    }

    /// Whether a guest has monitors that are to be switched back.
    #[must_use]
    pub fn has_monitors(&self, uuid: GuestUuid) -> bool {
        self.has_other_monitors(uuid, &BTreeSet::new())
    }

    /// Whether a guest has monitors that are to be switched back, apart from these.
    #[must_use]
    pub fn has_other_monitors(&self, uuid: GuestUuid, but: &BTreeSet<MonitorFeature>) -> bool {
        self.monitors_of(uuid).any(|feature| !but.contains(feature))
    }

    fn monitors_of(&self, uuid: GuestUuid) -> impl Iterator<Item = &MonitorFeature> {
        self.record.entries_of(uuid).filter_map(|entry| match &entry.knob {
            Knob::MonitorFeature(feature) => Some(feature),
            _ => None,
        })
    }

    /// The value of each feature that can be relied on; others get at the ledger meanwhile.
    fn look_at_monitors(
        &mut self,
        features: &[MonitorFeature],
    ) -> Result<Vec<Result<VcpValue, HostError>>, LedgerError> {
        if features.is_empty() {
            return Ok(Vec::new());
        }
        self.unlocked(|host, deadline| {
            host.vcp_features(features, Deadline::after(ONE_TRY).earlier(deadline))
        })
    }

    fn plan_return(
        &self,
        plan: &mut Plan,
        uuid: GuestUuid,
        feature: MonitorFeature,
        seen: Option<VcpValue>,
    ) -> Result<(), LedgerError> {
        let online = self.host.online_cpus()?;
        let knob = Knob::MonitorFeature(feature);
        let Some(entry) = plan.record.entry_mut(&knob) else { return Ok(()) };
        // A new life of the guest wants it again.
        if !matches!(entry.claims.get(&uuid), Some(Want::Monitor(claim)) if claim.turn == MonitorTurn::Over) {
            return Ok(());
        }
        let now = match seen.filter(|_| is_reliable(&knob)) {
            Some(value) => {
                let now = knob.value_of_vcp(value);
                let was_told = entry.written.means_the_same(&entry.baseline);
                if !entry.is_ours(&now) && was_told {
                    let note = format!("{knob} reads {now} instead of {}: left alone", entry.baseline);
                    plan.notes.push(Note::info(note));
                    drop_claim(&mut plan.record.entries, uuid, &knob);
                    return Ok(());
                }
                if let Some(note) = adopt_foreign_change(entry, &now) {
                    plan.notes.push(note);
                    drop_claim(&mut plan.record.entries, uuid, &knob);
                    return Ok(());
                }
                now
            }
            None => Value::Unknown,
        };
        // Turns cannot conflict.
        let then = combine(entry, &now, &online).unwrap_or(Value::Unknown);
        if then == Value::Unknown {
            plan.notes.push(Note::warning(format!(
                "{knob} is left as it is: what it was before could not be read; `host` in the YAML file can say"
            )));
        }
        if then == now || then == Value::Unknown {
            drop_claim(&mut plan.record.entries, uuid, &knob);
        } else {
            plan.changes.push(Change { knob, now, then });
        }
        Ok(())
    }

    fn plan(&self) -> Plan {
        Plan::without_changes(&self.record)
    }

    /// Announces changes of monitors, makes them all at once, and says what each monitor says then. Others get at the
    /// ledger meanwhile.
    fn write_monitors(
        &mut self,
        uuid: GuestUuid,
        plan: Plan,
        outcome: &mut Outcome,
    ) -> Result<Vec<(Change, Written)>, LedgerError> {
        outcome.notes.extend(plan.notes.iter().cloned());
        if plan.changes.is_empty() && plan.record == self.record {
            return Ok(Vec::new());
        }
        self.announce(&plan, Some(uuid))?;
        let (changes, orders): (Vec<Change>, Vec<(MonitorFeature, VcpValue)>) = plan
            .changes
            .into_iter()
            .filter_map(|change| match (&change.knob, &change.then) {
                (Knob::MonitorFeature(feature), Value::Input(value) | Value::Vcp(value)) => {
                    let order = (feature.clone(), *value);
                    Some((change, order))
                }
                _ => None,
            })
            .unzip();
        if orders.is_empty() {
            return Ok(Vec::new());
        }
        let written = self.unlocked(|host, deadline| {
            let deadline = Deadline::after(ONE_TRY).earlier(deadline);
            let set = host.set_vcp_features(&orders, deadline);
            let asked: Vec<MonitorFeature> = orders
                .iter()
                .zip(&set)
                .filter(|((feature, _), set)| set.is_ok() && feature.control.reading == Reading::Reliable)
                .map(|((feature, _), _)| feature.clone())
                .collect();
            let values = host.vcp_features(&asked, deadline);
            let seen: BTreeMap<&MonitorFeature, VcpValue> = asked
                .iter()
                .zip(values)
                .filter_map(|(feature, value)| Some((feature, value.ok()?)))
                .collect();
            let shown = orders.iter().map(|(feature, _)| seen.get(feature).copied());
            set.into_iter().zip(shown).map(|(set, shown)| set.map(|()| shown)).collect::<Vec<Written>>()
        })?;
        for (change, written) in changes.iter().zip(&written) {
            let Some(entry) = self.record.entry_mut(&change.knob) else { continue };
            let is_announced = entry.pending.as_ref().is_some_and(|pending| pending.value == change.then);
            // What it says right after is often still what it was: only a later look tells.
            if is_announced && written.is_ok() {
                entry.written = change.then.clone();
                entry.pending = None;
            }
        }
        self.store()?;
        Ok(changes.into_iter().zip(written).collect())
    }

    fn drop_monitor(&mut self, uuid: GuestUuid, knob: &Knob) {
        drop_claim(&mut self.record.entries, uuid, knob);
    }
}

fn is_reliable(knob: &Knob) -> bool {
    matches!(knob, Knob::MonitorFeature(feature) if feature.control.reading == Reading::Reliable)
}

/// What a guest wants of a feature, if it is its turn.
fn wanted_by(entry: &Entry, uuid: GuestUuid) -> Option<Value> {
    let claim = entry.claims.get(&uuid).and_then(Want::monitor)?;
    let last = entry.claims.values().filter_map(Want::monitor).map(|claim| claim.turn).max()?;
    (claim.turn != MonitorTurn::Over && claim.turn == last).then(|| entry.knob.value_of_vcp(claim.value))
}

fn claim_monitor(plan: &mut Plan, uuid: GuestUuid, wish: MonitorWish, seen: Option<VcpValue>) {
    let knob = wish.knob();
    let value = |vcp: Option<VcpValue>| vcp.map_or(Value::Unknown, |value| knob.value_of_vcp(value));
    let now = value(seen);
    let mut entry = match plan.record.entry(&knob) {
        Some(entry) => entry.clone(),
        None => Entry {
            baseline: value(wish.afterwards.or(wish.before).or(seen)),
            ..Entry::new(knob.clone(), now.clone())
        },
    };
    if entry.baseline == Value::Unknown {
        plan.notes.push(Note::warning(format!(
            "{knob} cannot be read now, and so not be brought back by itself; `host` in the YAML file can say to what"
        )));
    }
    let turns = entry.claims.values().filter_map(Want::monitor).map(|claim| claim.turn);
    let turn = turns.max().map_or(MonitorTurn::FIRST, MonitorTurn::next);
    entry.claims.insert(uuid, Want::Monitor(MonitorClaim { value: wish.value, turn }));
    let then = knob.value_of_vcp(wish.value);
    if then == now {
        entry.written = now.clone();
        entry.pending = None;
    } else {
        plan.changes.push(Change { knob: knob.clone(), now, then });
    }
    plan.record.entries.retain(|other| other.knob != knob);
    plan.record.entries.push(entry);
    plan.record.entries.sort_unstable_by(|left, right| left.knob.cmp(&right.knob));
}

/// A guest has nothing more to do with a monitor. Other guests may.
fn drop_claim(entries: &mut Vec<Entry>, uuid: GuestUuid, knob: &Knob) {
    if let Some(entry) = entries.iter_mut().find(|entry| entry.knob == *knob) {
        entry.claims.remove(&uuid);
        entry.pending = None;
    }
    entries.retain(|entry| entry.knob != *knob || !entry.claims.is_empty());
}
