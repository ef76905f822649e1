//! Monitors that follow a guest: switched by its keeper once the guest is up, held there for a while, and switched back
//! when it is gone. A claim on a monitor stays in the ledger until the monitor is back, so that nobody but the guest's
//! keeper, or the process that ends the lease without one, ever talks to it.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::carry_out::Outcome;
use super::entry::{Change, Entry};
use super::error::LedgerError;
use super::executor::Kept;
use super::open::Ledger;
use super::plan::Note;
use super::record::{Lease, Record};
use super::rule::Rule;
use super::setting::Setting;
use super::settings::{Evidence, Listed, MonitorClaim, MonitorSetting, MonitorTurn, Shown};
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::HostError;
use crate::monitor::{MonitorFeature, Reading, VcpValue};

/// How long one try may take, all monitors together: the first of a card, and each further one, which may have to wait for
/// those before it.
const ONE_TRY: Duration = Duration::from_secs(3);
const EACH_FURTHER: Duration = Duration::from_millis(300);

fn one_try(monitors: usize) -> Duration {
    ONE_TRY + EACH_FURTHER * u32::try_from(monitors.saturating_sub(1)).unwrap_or(u32::MAX).min(16)
}

/// What a guest wants of a monitor once it is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorWish {
    /// The monitor, and which of its features.
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
    /// What does not succeed now is given up.
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

/// What is to be done with monitors.
struct MonitorPlan {
    /// The ledger while it is done.
    record: Record,
    changes: Vec<(MonitorSetting, Change)>,
    notes: Vec<Note>,
}

impl MonitorPlan {
    /// Has a monitor show something.
    fn change(&mut self, setting: MonitorSetting, now: Shown, then: Shown, guest: GuestUuid) {
        let change = Change::of(&setting, &now, &then);
        if let Some(entry) = self.record.entry_mut(&setting) {
            entry.announce(then, Some(guest));
        }
        self.changes.push((setting, change));
    }
}

impl MonitorWish {
    /// Its setting.
    #[must_use]
    pub fn setting(&self) -> MonitorSetting {
        MonitorSetting(self.feature.clone())
    }

    /// The change that it is, from what the monitor shows.
    #[must_use]
    pub fn change(&self, now: Option<VcpValue>) -> Change {
        let setting = self.setting();
        Change::of(&setting, &setting.shown_or_unknown(now), &setting.shown(self.value))
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
            .filter(|wish| wish.before.is_none() && self.record.entry(&wish.setting()).is_none())
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
        let due: Vec<&MonitorWish> = lease.monitors.iter().filter(|wish| wish.delay <= up_since).collect();
        // What is not relied on is of use only where nothing else says what to show afterwards.
        let is_of_use = |wish: &&&MonitorWish| {
            wish.feature.control.reading == Reading::Reliable || wish.afterwards.or(wish.before).is_none()
        };
        let asked: Vec<MonitorFeature> =
            due.iter().filter(is_of_use).map(|wish| wish.feature.clone()).collect();
        let due: Vec<MonitorFeature> = due.into_iter().map(|wish| wish.feature.clone()).collect();
        let seen = self.look_at_monitors(&asked)?;
        let mut seen: BTreeMap<MonitorFeature, Result<VcpValue, HostError>> =
            asked.into_iter().zip(seen).collect();
        let mut plan = self.plan();
        let mut tried = Tried::default();
        for feature in due {
            let seen = seen.remove(&feature);
            // Others had the ledger meanwhile.
            let Some(lease) = plan.record.leases.get_mut(&uuid) else { return Ok(tried) };
            let Some(at) = lease.monitors.iter().position(|wish| wish.feature == feature) else { continue };
            match seen {
                Some(Err(error)) if error.is_absent() && attempt == Try::Another => tried.unfinished += 1,
                Some(Err(error)) if error.is_absent() => {
                    lease.monitors.remove(at);
                    plan.notes.push(Note::warning(format!("{feature} not switched: {error}")));
                }
                seen => {
                    let wish = lease.monitors.remove(at);
                    claim_monitor(&mut plan, uuid, wish, seen.and_then(Result::ok));
                }
            }
        }
        for (_, change, written) in self.write_monitors(plan, &mut tried.outcome)? {
            match written {
                Ok(_) => tried.outcome.changes.push(change),
                // It is claimed: the guest that holds it writes it again.
                Err(error) => {
                    let note = format!("{} not switched yet: {error}", change.setting);
                    tried.outcome.notes.push(Note::info(note));
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
        let is_written = |entry: &Entry<MonitorSetting>| entry.pending().is_none();
        let held: Vec<MonitorFeature> = self
            .monitors_of(uuid)
            .filter(|feature| {
                // What a monitor says that is not relied on is not asked either.
                let entry = self.record.entry(&MonitorSetting((*feature).clone()));
                feature.control.reading == Reading::Reliable || !entry.is_some_and(is_written)
            })
            .cloned()
            .collect();
        let seen = self.look_at_monitors(&held)?;
        let mut plan = self.plan();
        let mut tried = Tried::default();
        for (feature, seen) in held.into_iter().zip(seen) {
            let setting = MonitorSetting(feature);
            let Some(entry) = plan.record.entry_mut(&setting) else { continue };
            let Some(wanted) = wanted_by(entry, uuid) else { continue };
            let shown = seen.map(|value| setting.shown(value));
            let is_written = is_written(entry);
            if is_written && !is_reliable(&setting) {
                continue;
            }
            if shown.as_ref().is_ok_and(|shown| *shown == wanted) {
                entry.note_evidence();
            }
            match (shown, attempt) {
                (Ok(shown), _) if shown == wanted || (is_written && shown == entry.written) => {
                    entry.confirm(shown);
                }
                (shown, Try::Another) => {
                    tried.unfinished += 1;
                    let went_back = shown.as_ref().is_ok_and(|shown| *shown == entry.baseline);
                    if went_back || !is_written {
                        plan.change(setting, shown.unwrap_or(Shown::Unknown), wanted, uuid);
                    }
                }
                (Err(error), Try::Last) if !is_written => {
                    plan.notes.push(Note::warning(format!("{setting} not switched: {error}")));
                    entry.withdraw();
                }
                (Ok(shown), Try::Last) if shown == entry.baseline => {
                    plan.notes.push(Note::warning(match entry.evidence() {
                        Evidence::Seen => {
                            format!(
                                "{setting} goes back to {shown} each time: has the guest a picture there?"
                            )
                        }
                        Evidence::None => format!(
                            "{setting} reads {shown} after each write, so it is not verifiable: either it \
                             goes back each time (has the guest a picture there?), or it says so of every \
                             input"
                        ),
                    }));
                    entry.withdraw();
                }
                (Ok(shown), Try::Last) => {
                    plan.notes.push(Note::info(format!("{setting} reads {shown} instead of {wanted}")));
                    entry.confirm(shown);
                }
                (Err(error), Try::Last) => {
                    plan.notes.push(Note::info(format!("{setting} cannot be verified: {error}")));
                }
            }
        }
        for (_, change, written) in self.write_monitors(plan, &mut tried.outcome)? {
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
            let entry = self.record.entry_mut(&MonitorSetting(feature.clone()));
            if let Some(claim) = entry.and_then(|entry| entry.claims.get_mut(&uuid)) {
                claim.turn = MonitorTurn::Over;
            }
        }
        let asked: Vec<MonitorFeature> =
            going.iter().filter(|feature| self.tells_what_it_shows(feature)).cloned().collect();
        let seen = self.look_at_monitors(&asked)?;
        let seen: BTreeMap<MonitorFeature, VcpValue> =
            asked.into_iter().zip(seen).filter_map(|(feature, seen)| Some((feature, seen.ok()?))).collect();
        let mut plan = self.plan();
        for feature in going {
            let seen = seen.get(&feature).copied();
            self.plan_return(&mut plan, uuid, feature, seen);
        }
        for (setting, change, written) in self.write_monitors(plan, &mut tried.outcome)? {
            // Before anything of its reading is known, it may say this without showing it.
            let tells = self.tells_what_it_shows(&setting.0);
            let is_back = match &written {
                Ok(Some(value)) => setting.shown(*value).to_string() == change.then,
                Ok(None) => !is_reliable(&setting),
                Err(_) => false,
            };
            if is_back {
                if is_reliable(&setting) && !tells {
                    tried.outcome.notes.push(Note::info(format!(
                        "{setting} was told to show {}, which is not verifiable: its reading never followed \
                         what it was told",
                        change.then
                    )));
                }
                drop_claim(&mut self.record, uuid, &setting);
                tried.outcome.changes.push(change);
            } else if attempt == Try::Another {
                tried.unfinished += 1;
            } else {
                drop_claim(&mut self.record, uuid, &setting);
                let reason = match written {
                    Ok(Some(value)) => format!("it reads {}", setting.shown(value)),
                    Ok(None) => "it was told to, but does not answer".to_owned(),
                    Err(error) => error.to_string(),
                };
                tried.outcome.notes.push(Note::warning(format!(
                    "{setting} may not be back at {}: {reason}; the monitor's own button brings it there",
                    change.then
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

    fn tells_what_it_shows(&self, feature: &MonitorFeature) -> bool {
        let entry = self.record.entry(&MonitorSetting(feature.clone()));
        entry.is_some_and(Entry::tells_what_it_shows)
    }

    fn monitors_of(&self, uuid: GuestUuid) -> impl Iterator<Item = &MonitorFeature> {
        self.record.claims_of::<MonitorSetting>(uuid).map(|(entry, _)| &entry.setting.0)
    }

    /// The values of features; others get at the ledger meanwhile.
    fn look_at_monitors(
        &mut self,
        features: &[MonitorFeature],
    ) -> Result<Vec<Result<VcpValue, HostError>>, LedgerError> {
        if features.is_empty() {
            return Ok(Vec::new());
        }
        self.unlocked(|host, deadline| {
            host.vcp_features(features, Deadline::after(one_try(features.len())).earlier(deadline))
        })
    }

    fn plan_return(
        &self,
        plan: &mut MonitorPlan,
        uuid: GuestUuid,
        feature: MonitorFeature,
        seen: Option<VcpValue>,
    ) {
        let setting = MonitorSetting(feature);
        let Some(entry) = plan.record.entry_mut(&setting) else { return };
        // A new life of the guest wants it again.
        if entry.claims.get(&uuid).is_none_or(|claim| claim.turn != MonitorTurn::Over) {
            return;
        }
        let no_cpus = CpuSet::new();
        let now = match seen {
            Some(value) => {
                let now = setting.shown(value);
                let was_told = entry.written == entry.baseline;
                if !entry.is_ours(&now, &no_cpus) && was_told {
                    let note = format!("{setting} reads {now} instead of {}: left alone", entry.baseline);
                    plan.notes.push(Note::info(note));
                    drop_claim(&mut plan.record, uuid, &setting);
                    return;
                }
                if let Some(note) = entry.adopt_external(&now, &no_cpus) {
                    plan.notes.push(Note::warning(note));
                    drop_claim(&mut plan.record, uuid, &setting);
                    return;
                }
                now
            }
            None => Shown::Unknown,
        };
        let then = <MonitorSetting as Setting>::Rule::combine(&entry.combining(&now, &no_cpus));
        // Turns cannot conflict.
        let then = then.unwrap_or(Shown::Unknown);
        if then == Shown::Unknown {
            plan.notes.push(Note::warning(format!(
                "{setting} is left as it is: what it was before could not be read; `host` in the YAML file \
                 can say"
            )));
        }
        if then == now || then == Shown::Unknown {
            drop_claim(&mut plan.record, uuid, &setting);
        } else {
            plan.change(setting, now, then, uuid);
        }
    }

    fn plan(&self) -> MonitorPlan {
        MonitorPlan { record: self.record.clone(), changes: Vec::new(), notes: Vec::new() }
    }

    /// Announces changes of monitors, makes them all at once, and says what each monitor says then. Others get at the
    /// ledger meanwhile.
    fn write_monitors(
        &mut self,
        mut plan: MonitorPlan,
        outcome: &mut Outcome,
    ) -> Result<Vec<(MonitorSetting, Change, Written)>, LedgerError> {
        outcome.notes.extend(mem::take(&mut plan.notes));
        if plan.changes.is_empty() && plan.record == self.record {
            return Ok(Vec::new());
        }
        self.announce(&plan.record)?;
        let settings: Vec<MonitorSetting> = plan.changes.iter().map(|(setting, _)| setting.clone()).collect();
        if settings.is_empty() {
            return Ok(Vec::new());
        }
        let written = self.execute_together(&settings, |host, orders, deadline| {
            let deadline = Deadline::after(one_try(orders.len())).earlier(deadline);
            let value = |(setting, shown): &(MonitorSetting, Shown)| Some((setting.0.clone(), shown.vcp()?));
            let orders: Vec<(MonitorFeature, VcpValue)> = orders.iter().filter_map(value).collect();
            // What it says right after is often still what it was: only a later look tells.
            let set = host.set_and_read_vcp_features(&orders, deadline);
            set.into_iter().map(|set| set.map(|shown| (Kept::AsAnnounced, shown))).collect()
        })?;
        let changes = plan.changes.into_iter().zip(written);
        let changes: Vec<_> =
            changes.map(|((setting, change), written)| (setting, change, written)).collect();
        let mut is_new = false;
        for (setting, _, written) in &changes {
            let Some(entry) = self.record.entry_mut(setting) else { continue };
            let is_wanted = |value| entry.claims.values().any(|claim| claim.value == value);
            if written.as_ref().is_ok_and(|value| value.is_some_and(is_wanted)) {
                is_new |= entry.evidence() == Evidence::None;
                entry.note_evidence();
            }
        }
        if is_new {
            self.store()?;
        }
        Ok(changes)
    }
}

fn is_reliable(setting: &MonitorSetting) -> bool {
    setting.0.control.reading == Reading::Reliable
}

impl Entry<MonitorSetting> {
    /// What the reading is worth, by all that guests have seen of it.
    fn evidence(&self) -> Evidence {
        let has_seen = self.claims.values().any(|claim| claim.evidence == Evidence::Seen);
        if has_seen { Evidence::Seen } else { Evidence::None }
    }

    fn note_evidence(&mut self) {
        self.claims.values_mut().for_each(|claim| claim.evidence = Evidence::Seen);
    }

    /// Whether what the monitor says tells what it shows: its reading is relied on, and has once followed what was
    /// written. Else it may say the host's input all the time, also while it shows the guest's.
    #[must_use]
    pub fn tells_what_it_shows(&self) -> bool {
        is_reliable(&self.setting) && self.evidence() == Evidence::Seen
    }
}

/// What a guest wants of a feature, if it is its turn.
fn wanted_by(entry: &Entry<MonitorSetting>, uuid: GuestUuid) -> Option<Shown> {
    let claim = entry.claims.get(&uuid)?;
    let last = entry.claims.values().map(|claim| claim.turn).max()?;
    (claim.turn != MonitorTurn::Over && claim.turn == last).then(|| entry.setting.shown(claim.value))
}

fn claim_monitor(plan: &mut MonitorPlan, uuid: GuestUuid, wish: MonitorWish, seen: Option<VcpValue>) {
    let setting = wish.setting();
    let now = setting.shown_or_unknown(seen);
    let mut entry = match plan.record.entry(&setting) {
        Some(entry) => entry.clone(),
        None => {
            let mut entry = Entry::new(setting.clone(), now);
            entry.baseline = setting.shown_or_unknown(wish.afterwards.or(wish.before).or(seen));
            entry
        }
    };
    if entry.baseline == Shown::Unknown {
        plan.notes.push(Note::warning(format!(
            "{setting} cannot be read now, and so not be brought back by itself; `host` in the YAML file can \
             say to what"
        )));
    }
    let turn = entry.claims.values().map(|claim| claim.turn).max();
    let turn = turn.map_or(MonitorTurn::FIRST, MonitorTurn::next);
    // One that says another input than before follows what it does.
    let has_changed = matches!((wish.before, seen), (Some(before), Some(seen)) if before != seen);
    let evidence = if has_changed && is_reliable(&setting) { Evidence::Seen } else { entry.evidence() };
    entry.claims.insert(uuid, MonitorClaim { value: wish.value, turn, evidence });
    let then = setting.shown(wish.value);
    // Where it is to show something else afterwards, its word that it shows this already has to be worth something.
    let is_sure = evidence == Evidence::Seen || entry.baseline == then;
    if then == now && is_sure {
        entry.confirm(now);
        plan.record.put(entry);
    } else if then == now {
        plan.record.put(entry);
        plan.change(setting, Shown::Unknown, then, uuid);
    } else {
        plan.record.put(entry);
        plan.change(setting, now, then, uuid);
    }
}

/// A guest has nothing more to do with a monitor. Other guests may.
fn drop_claim(record: &mut Record, uuid: GuestUuid, setting: &MonitorSetting) {
    let Some(entry) = record.entry_mut(setting) else { return };
    entry.claims.remove(&uuid);
    entry.withdraw();
    if entry.claims.is_empty() {
        record.remove(&setting.clone().key());
    }
}
