//! Carrying a plan out: the ledger first, then each change, then the ledger again.

use std::collections::BTreeSet;

use super::combine::combine;
use super::error::LedgerError;
use super::foreign::adopt_foreign_change;
use super::knob::{Knob, OnRefusal, Pace, Settles, Turn};
use super::open::Ledger;
use super::plan::{Change, Note, Plan};
use super::record::{Entry, Lease, Pending, Phase};
use super::value::Value;
use crate::deadline::Deadline;
use crate::event::Operation;
use crate::guest::GuestUuid;

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The changes made, in their order.
    pub changes: Vec<Change>,
    /// What a person should know.
    pub notes: Vec<Note>,
    /// Knobs that could not be given back or set again; they stay in the ledger for the next try.
    pub failures: Vec<String>,
}

impl Outcome {
    /// Adds what another step did.
    pub fn absorb(&mut self, other: Self) {
        self.changes.extend(other.changes);
        self.notes.extend(other.notes);
        self.failures.extend(other.failures);
    }
}

impl Ledger<'_> {
    /// Announces a plan: after this the file holds all baselines, claims and values to come.
    pub(super) fn announce(
        &mut self,
        plan: &Plan,
        beneficiary: Option<GuestUuid>,
    ) -> Result<(), LedgerError> {
        self.record = plan.record.clone();
        for change in &plan.changes {
            if let Some(entry) = self.record.entry_mut(&change.knob) {
                entry.pending = Some(Pending { value: change.then.clone(), beneficiary });
            }
        }
        self.store()
    }

    pub(super) fn carry_out_taking(
        &mut self,
        uuid: GuestUuid,
        mut plan: Plan,
        on_shortage: OnRefusal,
    ) -> Result<Outcome, LedgerError> {
        let mut outcome = Outcome { notes: plan.notes.clone(), ..Outcome::default() };
        self.announce(&plan, Some(uuid))?;
        let (turns, known_notes) = (self.turns, self.recovered.notes.len());
        let mut of_turn = |turn| plan.changes.extract_if(.., |change| change.knob.turn() == turn).collect();
        let (around, cards, within): (Vec<_>, Vec<_>, Vec<_>) =
            (of_turn(Turn::AroundCommands), of_turn(Turn::Cards), of_turn(Turn::WithinCommands));
        self.write_each(uuid, around, &mut outcome)?;
        self.run_commands(uuid, Operation::Prepare, "", &mut outcome)?;
        self.take_cards(uuid, cards, &mut outcome)?;
        self.gather_pages(uuid, &within, on_shortage, &mut outcome)?;
        outcome.notes.extend(self.recovered.notes.drain(known_notes..));
        let within = if self.turns == turns {
            within.into_iter().filter(|change| !matches!(change.knob, Knob::PagePool(_))).collect()
        } else {
            self.announce_again(uuid, within, &mut outcome)?
        };
        self.write_each(uuid, within, &mut outcome)?;
        for entry in self.record.entries.iter_mut().filter(|entry| matches!(entry.knob, Knob::PagePool(_))) {
            entry.pending = None;
        }
        let lease = self.record.leases.get_mut(&uuid).ok_or(LedgerError::GivenBack)?;
        lease.phase = Phase::Prepared;
        self.store()?;
        Ok(outcome)
    }

    /// Makes a guest's changes, one after the other. A refusal that matters ends it.
    pub(super) fn write_each(
        &mut self,
        uuid: GuestUuid,
        changes: Vec<Change>,
        outcome: &mut Outcome,
    ) -> Result<(), LedgerError> {
        for change in changes {
            if self.deadline.has_passed() {
                return Err(LedgerError::TimedOut("taking what the guest needs".to_owned()));
            }
            let written = match change.knob.pace() {
                Pace::Quick => self.write(&change),
                Pace::Slow => self.write_unlocked(uuid, &change),
            };
            match written {
                Ok(()) => outcome.changes.push(change),
                Err(LedgerError::Host(error)) if change.knob.on_refusal(&error) == OnRefusal::Skip => {
                    let text = format!("{} left alone: {error}", change.knob);
                    // A host that refuses is normal here; a daemon that hangs is not.
                    let hangs = error.kind() == Some(std::io::ErrorKind::TimedOut);
                    outcome.notes.push(if hangs { Note::warning(text) } else { Note::info(text) });
                    self.forget_claim(uuid, &change.knob);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sets again what is upheld, and takes what was added to a lease. A refusal is told, ends nothing, and is tried
    /// again.
    pub(super) fn carry_out_upholding(
        &mut self,
        uuid: GuestUuid,
        plan: Plan,
    ) -> Result<Outcome, LedgerError> {
        let mut outcome = Outcome { notes: plan.notes.clone(), ..Outcome::default() };
        if plan.is_empty() && plan.record == self.record {
            return Ok(outcome);
        }
        self.announce(&plan, Some(uuid))?;
        for change in plan.changes {
            match self.write(&change) {
                Ok(()) => outcome.changes.push(change),
                Err(LedgerError::Host(error)) if change.knob.on_refusal(&error) == OnRefusal::Skip => {
                    self.forget_claim(uuid, &change.knob);
                }
                Err(error) => {
                    outcome.failures.push(format!("{} not set again: {error}", change.knob));
                    if let Some(entry) = self.record.entry_mut(&change.knob) {
                        entry.pending = None;
                    }
                }
            }
        }
        self.store()?;
        Ok(outcome)
    }

    /// While the lock was given up others may have come, gone or changed a knob: what is not written yet is computed
    /// and announced again.
    fn announce_again(
        &mut self,
        uuid: GuestUuid,
        planned: Vec<Change>,
        outcome: &mut Outcome,
    ) -> Result<Vec<Change>, LedgerError> {
        let online = self.host.online_cpus()?;
        let mut changes = Vec::with_capacity(planned.len());
        let is_pool = |change: &Change| matches!(change.knob, Knob::PagePool(_));
        for mut change in planned.into_iter().filter(|change| !is_pool(change)) {
            let Some(entry) = self.record.entry_mut(&change.knob) else { continue };
            let now = match change.knob.settles() {
                Settles::Later => Ok(entry.written.clone()),
                _ => change.knob.read(self.host, self.deadline),
            };
            // A knob that cannot be read now says why when it is written.
            if let Ok(now) = now {
                outcome.notes.extend(adopt_foreign_change(entry, &now));
                // Conflicts were found when each of the guests made its plan.
                change.then = combine(entry, &now, &online).unwrap_or(change.then);
                change.now = now;
            }
            if change.then.means_the_same(&change.now) {
                entry.written = change.now;
                entry.pending = None;
            } else {
                entry.pending = Some(Pending { value: change.then.clone(), beneficiary: Some(uuid) });
                changes.push(change);
            }
        }
        self.store()?;
        Ok(changes)
    }

    /// Gives back as much as the host takes: one refusal does not keep the rest from coming back. Leases that end with it
    /// stay until then, as being given back by this process, so that who looks meanwhile sees whose they are.
    pub(super) fn carry_out_giving_back(&mut self, mut plan: Plan) -> Result<Outcome, LedgerError> {
        let mut outcome =
            Outcome { notes: plan.notes.clone(), failures: plan.failures.clone(), ..Outcome::default() };
        let ending = self.keep_ending_leases(&mut plan);
        self.announce(&plan, None)?;
        for change in plan.changes {
            match self.write(&change) {
                Ok(()) => {
                    outcome.changes.push(change);
                }
                Err(error) => {
                    self.remember_stuck(&change.knob, &error);
                    outcome.failures.push(format!("{} not given back: {error}", change.knob));
                }
            }
        }
        let (host, deadline) = (&*self.host, self.deadline);
        // One that does not say what it holds may still hold what was given back.
        let is_seen_back = |entry: &Entry| match entry.knob.read(host, deadline) {
            Ok(now) => now == entry.baseline,
            Err(error) => error.is_absent(),
        };
        let mut entries = std::mem::take(&mut self.record.entries);
        entries.retain(|entry| {
            !entry.claims.is_empty()
                || entry.pending.is_some()
                || (entry.is_fading() && !is_seen_back(entry))
                || self.record.is_quarantined(&entry.knob)
        });
        self.record.entries = entries;
        self.record.leases.retain(|uuid, _| !ending.contains(uuid));
        self.store()?;
        Ok(outcome)
    }

    /// Keeps what a plan takes out of the ledger for as long as it is carried out. Without a change to be made nobody has
    /// anything to see.
    fn keep_ending_leases(&self, plan: &mut Plan) -> BTreeSet<GuestUuid> {
        if plan.is_empty() {
            return BTreeSet::new();
        }
        let by = self.host.this_process();
        let staying: BTreeSet<GuestUuid> = plan.record.leases.keys().copied().collect();
        let ending = self.record.leases.iter().filter(|(uuid, _)| !staying.contains(*uuid));
        for (uuid, lease) in ending.clone() {
            plan.record.leases.insert(*uuid, Lease { phase: Phase::GivingBack(by), ..lease.clone() });
        }
        ending.map(|(uuid, _)| *uuid).collect()
    }

    /// Whoever comes next leaves alone what the kernel hangs in, and does not keep the others from the ledger with it.
    pub(super) fn remember_stuck(&mut self, knob: &Knob, error: &LedgerError) {
        if let (LedgerError::Host(error), Some(entry)) = (error, self.record.entry_mut(knob)) {
            entry.stuck = error.stuck_process();
        }
    }

    /// The one place where a knob is written.
    fn write(&mut self, change: &Change) -> Result<(), LedgerError> {
        change.knob.write(self.host, &change.then, self.deadline)?;
        // The kernel may keep less than it was given (pages in use, CPUs that went offline): what it kept is what
        // later is compared with.
        let kept = match change.knob.settles() {
            Settles::Now => change.knob.read_back(self.host, self.deadline)?,
            Settles::OutOfSight | Settles::Later => change.then.clone(),
        };
        if let Some(entry) = self.record.entry_mut(&change.knob) {
            entry.written = kept;
            entry.pending = None;
        }
        Ok(())
    }

    /// A write that may take seconds: others get at the ledger meanwhile.
    fn write_unlocked(&mut self, uuid: GuestUuid, change: &Change) -> Result<(), LedgerError> {
        let deadline = match change.knob {
            Knob::Service(_) | Knob::Trigger(_) => self.unit_deadline,
            Knob::CardUsers(_) | Knob::GraphicalSessions => Deadline::after(self.card_patience.users),
            _ => Deadline::after(self.card_patience.drivers),
        };
        let deadline = deadline.earlier(self.deadline);
        let kept = self.unlocked(|host, end| {
            change.knob.write(host, &change.then, deadline)?;
            // Whoever waited for something to end may have no patience left, but has to see that it did.
            change.knob.read_back(host, end)
        })?;
        if !self.record.leases.contains_key(&uuid) {
            return Err(LedgerError::GivenBack);
        }
        if let Some(entry) = self.record.entry_mut(&change.knob) {
            entry.written = kept?;
            entry.pending = None;
        }
        Ok(())
    }

    /// Grows or shrinks a pool as announced; what came of it is in the entry.
    pub(super) fn write_pool(&mut self, knob: &Knob, then: u64) -> Result<(), LedgerError> {
        let now = knob.read(self.host, self.deadline)?;
        self.write(&Change { knob: knob.clone(), now, then: Value::Pages(then) })
    }

    /// A knob that refused is not held by the guest. Its entry stays if another guest holds it, if an earlier one could
    /// not give it back, or if it may still turn out not to have refused.
    fn forget_claim(&mut self, uuid: GuestUuid, knob: &Knob) {
        if let Some(entry) = self.record.entry_mut(knob) {
            entry.claims.remove(&uuid);
            entry.pending = None;
        }
        let is_at_baseline = |entry: &Entry| {
            entry.knob.settles() != Settles::Later && entry.written.means_the_same(&entry.baseline)
        };
        self.record
            .entries
            .retain(|entry| entry.knob != *knob || !entry.claims.is_empty() || !is_at_baseline(entry));
    }
}
