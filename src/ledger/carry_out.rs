//! Carrying a plan out: what is taken, set again, and given back, in their order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;

use super::any_entry::AnyEntry;
use super::claim::TakingTerms;
use super::entry::Change;
use super::error::LedgerError;
use super::open::Ledger;
use super::plan::{Note, On, Plan};
use super::setting::{Locking, OnRefusal, Phase, Place, ReadBack};
use super::settings::{PagePoolSize, SettingKey};
use crate::event::Operation;
use crate::guest::GuestUuid;
use crate::host::HostError;

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The changes made, in their order.
    pub changes: Vec<Change>,
    /// What a person should know.
    pub notes: Vec<Note>,
    /// Settings that could not be given back or set again; they stay in the ledger for the next try.
    pub failures: Vec<String>,
    /// How many settings are left alone until it is known whether a CPU has just come online.
    pub undecided: usize,
}

impl Outcome {
    /// Adds what another step did.
    pub fn absorb(&mut self, other: Self) {
        self.changes.extend(other.changes);
        self.notes.extend(other.notes);
        self.failures.extend(other.failures);
        self.undecided += other.undecided;
    }
}

impl Ledger<'_> {
    pub(super) fn carry_out_taking(
        &mut self,
        uuid: GuestUuid,
        mut plan: Plan,
    ) -> Result<Outcome, LedgerError> {
        let mut outcome = Outcome { notes: plan.notes.clone(), ..Outcome::default() };
        let mut terms = TakingTerms::new(mem::take(&mut plan.terms));
        self.announce(&plan.record)?;
        let (turns, known_notes) = (self.turns, self.recovered.notes.len());
        let mut of_phase = |phase| -> Vec<Change> {
            plan.changes.extract_if(.., |change| change.setting.traits().phase == phase).collect()
        };
        let (mut around, cards, within) =
            (of_phase(Phase::AroundCommands), of_phase(Phase::Cards), of_phase(Phase::WithinCommands));
        // What runs for the guest may need what stepped aside for it out of the way.
        around.sort_by_key(Change::starts_unit);
        self.write_each(uuid, around, &mut terms, &mut outcome)?;
        self.run_commands(uuid, Operation::Prepare, "", &mut outcome)?;
        let (before_cards, within): (Vec<Change>, Vec<Change>) =
            within.into_iter().partition(|change| change.setting.place().is_before_cards());
        let before_cards = if self.turns == turns {
            before_cards
        } else {
            self.announce_again(uuid, before_cards, &mut outcome)?
        };
        self.write_each(uuid, before_cards, &mut terms, &mut outcome)?;
        self.take_cards(uuid, cards, &mut terms, &mut outcome)?;
        self.make_repairs(uuid, mem::take(&mut plan.repairs), &mut outcome)?;
        self.gather_pages(uuid, &within, &mut terms, &mut outcome)?;
        outcome.notes.extend(self.recovered.notes.drain(known_notes..));
        let others = within.into_iter().filter(|change| !is_pool(&change.setting)).collect();
        let within =
            if self.turns == turns { others } else { self.announce_again(uuid, others, &mut outcome)? };
        self.write_each(uuid, within, &mut terms, &mut outcome)?;
        for entry in self.record.each_mut::<PagePoolSize>() {
            entry.withdraw();
        }
        let lease = self.record.leases.get_mut(&uuid).ok_or(LedgerError::GivenBack)?;
        lease.end_taking();
        self.store()?;
        Ok(outcome)
    }

    /// Makes a guest's changes, one after the other. A refusal that matters ends it.
    pub(super) fn write_each(
        &mut self,
        uuid: GuestUuid,
        changes: Vec<Change>,
        terms: &mut TakingTerms,
        outcome: &mut Outcome,
    ) -> Result<(), LedgerError> {
        let mut left = VecDeque::from(changes);
        while let Some(first) = left.front() {
            if self.deadline.has_passed() {
                return Err(LedgerError::TimedOut("taking what the guest needs".to_owned()));
            }
            let written = match first.setting.traits().locking {
                Locking::Held => vec![self.execute(&first.setting)],
                Locking::Released => self.write_released(uuid, &batch(&left), terms)?,
            };
            for (change, written) in left.drain(..written.len()).zip(written) {
                match written {
                    Ok(()) => outcome.changes.push(change),
                    Err(LedgerError::Host(error))
                        if terms.of(&change.setting).on_refusal == OnRefusal::Skip
                            || self.on_refusal(&change.setting, &error) == OnRefusal::Skip =>
                    {
                        let text = format!("{} left alone: {error}", change.setting);
                        // A host that refuses is normal here; a daemon that hangs is not.
                        let hangs = error.kind() == Some(std::io::ErrorKind::TimedOut);
                        outcome.notes.push(if hangs { Note::warning(text) } else { Note::info(text) });
                        self.forget_claim(uuid, &change.setting);
                    }
                    Err(error) => return Err(error.asked_by(&terms.of(&change.setting))),
                }
            }
        }
        Ok(())
    }

    fn on_refusal(&self, setting: &SettingKey, error: &HostError) -> OnRefusal {
        self.record.any(setting).map_or(OnRefusal::Refuse, |entry| entry.on_refusal(error))
    }

    /// Writes that may take seconds, up to the first that fails: others get at the ledger meanwhile.
    fn write_released(
        &mut self,
        uuid: GuestUuid,
        settings: &[SettingKey],
        terms: &mut TakingTerms,
    ) -> Result<Vec<Result<(), LedgerError>>, LedgerError> {
        let Some(first) = settings.first() else { return Ok(Vec::new()) };
        let limit = terms.time_limit(first, self.deadline);
        let written = self.execute_released(settings, || limit.deadline())?;
        if written.iter().all(Result::is_ok) && !self.record.leases.contains_key(&uuid) {
            return Err(LedgerError::GivenBack);
        }
        Ok(written.into_iter().map(|written| written.map_err(LedgerError::from)).collect())
    }

    /// Sets again what was found changed, and takes what was added to a lease. A refusal is told, ends nothing, and is tried
    /// again.
    pub(super) fn carry_out_reconciling(
        &mut self,
        uuid: GuestUuid,
        plan: Plan,
    ) -> Result<Outcome, LedgerError> {
        let (notes, undecided) = (plan.notes.clone(), plan.undecided);
        let mut outcome = Outcome { notes, undecided, ..Outcome::default() };
        if plan.is_empty() && plan.record == self.record {
            return Ok(outcome);
        }
        self.announce(&plan.record)?;
        for change in plan.changes {
            match self.execute(&change.setting) {
                Ok(()) => outcome.changes.push(change),
                Err(LedgerError::Host(error))
                    if self.on_refusal(&change.setting, &error) == OnRefusal::Skip =>
                {
                    self.forget_claim(uuid, &change.setting);
                }
                Err(error) => {
                    outcome.failures.push(format!("{} not set again: {error}", change.setting));
                    if let Some(entry) = self.record.any_mut(&change.setting) {
                        entry.withdraw();
                    }
                }
            }
        }
        self.store()?;
        Ok(outcome)
    }

    /// While the lock was given up others may have come, gone or changed a setting: what is not written yet is computed
    /// and announced again.
    fn announce_again(
        &mut self,
        uuid: GuestUuid,
        planned: Vec<Change>,
        outcome: &mut Outcome,
    ) -> Result<Vec<Change>, LedgerError> {
        let online = self.host.online_cpus()?;
        let on = On { host: &self.host, online: &online, deadline: self.deadline };
        let mut changes = Vec::with_capacity(planned.len());
        for change in planned {
            let Some(entry) = self.record.any_mut(&change.setting) else { continue };
            changes.extend(entry.recompute(uuid, &on, &mut outcome.notes));
        }
        self.store()?;
        Ok(changes)
    }

    /// Gives back as much as the host takes: one refusal does not keep the rest from coming back. Leases that end with it
    /// stay until then, as being given back by this process, so that it can be seen meanwhile whose they are.
    pub(super) fn carry_out_giving_back(&mut self, mut plan: Plan) -> Result<Outcome, LedgerError> {
        let mut outcome =
            Outcome { notes: plan.notes.clone(), failures: plan.failures.clone(), ..Outcome::default() };
        let mut ending = self.keep_ending_leases(&mut plan);
        let owners: BTreeMap<SettingKey, GuestUuid> = plan
            .changes
            .iter()
            .filter_map(|change| {
                let owner = self.record.any(&change.setting)?.owner_among(&plan.leaving)?;
                Some((change.setting.clone(), owner))
            })
            .collect();
        if let Err(error) = self.announce(&plan.record) {
            return Err(self.give_back_unrecorded(plan.changes, error));
        }
        for change in plan.changes {
            let owner = owners.get(&change.setting).copied();
            // It tries again what could not be given back.
            if let SettingKey::Keeper(keeper) = &change.setting
                && (self.record.owed_by(keeper.0).next().is_some() || self.record.has_due_undos(keeper.0))
            {
                self.owe(&change.setting, owner);
                continue;
            }
            match self.execute(&change.setting) {
                Ok(()) => outcome.changes.push(change),
                Err(LedgerError::Host(error)) if error.is_absent() => {
                    outcome.notes.push(self.forget_absent(&change.setting, &error));
                }
                Err(error) => {
                    self.remember_stuck(&change.setting, &error);
                    self.owe(&change.setting, owner);
                    outcome.failures.push(format!("{} not given back: {error}", change.setting));
                }
            }
        }
        let (host, deadline) = (&*self.host, self.deadline);
        let quarantined: BTreeSet<SettingKey> = self
            .record
            .entries()
            .map(AnyEntry::key)
            .filter(|setting| self.record.is_quarantined(setting))
            .collect();
        self.record.retain(|entry| {
            entry.is_claimed()
                || entry.is_pending()
                || (entry.is_fading() && !entry.is_seen_back(host, deadline))
                || quarantined.contains(&entry.key())
        });
        let is_owing = |uuid: &GuestUuid| {
            self.record.owed_by(*uuid).next().is_some() || self.record.has_due_undos(*uuid)
        };
        let owing: BTreeSet<GuestUuid> = ending.iter().copied().filter(is_owing).collect();
        for uuid in owing {
            ending.remove(&uuid);
            if let Some(lease) = self.record.leases.get_mut(&uuid) {
                lease.leave_unfinished();
            }
        }
        self.record.leases.retain(|uuid, _| !ending.contains(uuid));
        self.store()?;
        for uuid in ending {
            self.forget_dead_keeper(uuid);
        }
        Ok(outcome)
    }

    /// A setting that is gone holds nothing any more.
    pub(super) fn forget_absent(&mut self, setting: &SettingKey, error: &HostError) -> Note {
        self.record.remove(setting);
        Note::info(format!("{setting} is gone, nothing to give back: {error}"))
    }

    fn owe(&mut self, setting: &SettingKey, owner: Option<GuestUuid>) {
        if let Some(entry) = self.record.any_mut(setting) {
            entry.owe(owner);
        }
    }

    /// Keeps what a plan takes out of the ledger for as long as it is carried out. Without a change to be made there is
    /// nothing to see.
    fn keep_ending_leases(&self, plan: &mut Plan) -> BTreeSet<GuestUuid> {
        let by = self.host.this_process();
        let staying: BTreeSet<GuestUuid> = plan.record.leases.keys().copied().collect();
        let ending = self.record.leases.iter().filter(|(uuid, _)| !staying.contains(*uuid));
        let has_undos = ending.clone().any(|(uuid, _)| self.record.has_due_undos(*uuid));
        if plan.is_empty() && plan.failures.is_empty() && !has_undos {
            return BTreeSet::new();
        }
        for (uuid, lease) in ending.clone() {
            let mut ending = lease.clone();
            ending.begin_giving_back(by);
            plan.record.leases.insert(*uuid, ending);
        }
        ending.map(|(uuid, _)| *uuid).collect()
    }

    /// A setting that refused is not held by the guest. Its entry stays if another guest holds it, if an earlier one
    /// could not give it back, or if it may still turn out not to have refused.
    fn forget_claim(&mut self, uuid: GuestUuid, setting: &SettingKey) {
        let Some(entry) = self.record.any_mut(setting) else { return };
        entry.drop_claim(uuid);
        entry.withdraw();
        let is_at_baseline = entry.traits().read_back != ReadBack::Later && entry.is_at_baseline();
        if !entry.is_claimed() && is_at_baseline {
            self.record.remove(setting);
        }
    }
}

/// The first of these changes that are written with one announcement: attributes of devices, which take no time where
/// nothing is wrong, together, and anything else alone.
pub(super) fn batch<'a>(changes: impl IntoIterator<Item = &'a Change>) -> Vec<SettingKey> {
    let mut changes = changes.into_iter().map(|change| &change.setting).peekable();
    let Some(first) = changes.next() else { return Vec::new() };
    let mut batch = vec![first.clone()];
    let is_of_device = |setting: &SettingKey| setting.place() == Place::Devices;
    while is_of_device(first)
        && let Some(next) = changes.next_if(|next| is_of_device(next))
    {
        batch.push(next.clone());
    }
    batch
}

pub(super) fn is_pool(setting: &SettingKey) -> bool {
    matches!(setting, SettingKey::PagePool(_))
}
