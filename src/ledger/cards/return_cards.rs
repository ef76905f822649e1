//! The way home: from the guest to where the card was, or to the certainty that it does not come back.

use std::collections::BTreeSet;
use std::time::Duration;

use super::verdict::{Destination, destination};
use super::{CardTerms, Failure, Verdict};
use crate::deadline::Deadline;
use crate::gpu::Rung;
use crate::guest::GuestUuid;
use crate::host::Bindings;
use crate::ledger::carry_out::Outcome;
use crate::ledger::error::LedgerError;
use crate::ledger::foreign::adopt_foreign_change;
use crate::ledger::knob::Turn;
use crate::ledger::open::Ledger;
use crate::ledger::plan::{Change, Extent, Note, Plan};
use crate::ledger::record::{Entry, Pending};
use crate::ledger::value::Value;
use crate::pci::PciFunctions;

/// How long one setting may take: the kernel may wake the device up for it, or wait for whoever draws on a console.
const SETTING: Duration = Duration::from_secs(30);

impl Ledger<'_> {
    /// Whether a guest has cards that are to be taken back.
    #[must_use]
    pub fn has_cards(&self, uuid: GuestUuid) -> bool {
        self.record.entries_of(uuid).any(|entry| entry.knob.turn() == Turn::Cards)
    }

    /// Takes a guest's cards back: each ends where it belongs, or in quarantine. Others get at the ledger meanwhile.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub(in crate::ledger) fn return_cards(&mut self, uuid: GuestUuid) -> Result<Outcome, LedgerError> {
        let mut outcome = Outcome::default();
        let cards = self.record.leases.get(&uuid).map(|lease| lease.cards.clone()).unwrap_or_default();
        for terms in &cards {
            self.return_card(uuid, terms, &mut outcome)?;
        }
        // Their power, consoles and framebuffers.
        outcome.absorb(self.give_back_what_is_left(&[uuid].into(), None)?);
        Ok(outcome)
    }

    fn return_card(
        &mut self,
        uuid: GuestUuid,
        terms: &CardTerms,
        outcome: &mut Outcome,
    ) -> Result<(), LedgerError> {
        let knob = terms.knob();
        if !self.record.entry(&knob).is_some_and(|entry| entry.claims.contains_key(&uuid)) {
            // Whoever put it into quarantine may have been killed before it was aside.
            let quarantine = self.record.quarantine_of(&terms.functions).cloned();
            return quarantine.map_or(Ok(()), |quarantine| self.set_aside(&quarantine.terms, outcome));
        }
        // What hangs in the kernel has the device locked: whoever reads would hang beside it.
        let now = match terms.stuck_operation(self.host) {
            Some(operation) => {
                return self.quarantine(uuid, terms, Failure::Stuck(operation.clone()), outcome);
            }
            None => knob.read(self.host, self.deadline),
        };
        let Some(entry) = self.record.entry_mut(&knob) else { return Ok(()) };
        match now {
            // It was never taken, somebody else has brought it home, or whoever did was killed before he had looked.
            Ok(Value::Bindings(now)) if is_home(entry, &now) => {
                return match self.bind(terms, &now, outcome)? {
                    Ok(()) => self.forget_card(uuid, terms),
                    Err(failure) => self.quarantine(uuid, terms, failure, outcome),
                };
            }
            Ok(now) => {
                if let Some(note) = adopt_foreign_change(entry, &now) {
                    outcome.notes.push(note);
                    return self.forget_card(uuid, terms);
                }
            }
            // What is gone is looked for like what does not answer.
            Err(_) => {}
        }
        match self.find_way_home(uuid, terms, &terms.recover, outcome)? {
            Ok(()) => self.forget_card(uuid, terms),
            Err(failure) => self.quarantine(uuid, terms, failure, outcome),
        }
    }

    /// Examines a card, brings it where it belongs, and tries the rungs of the ladder, each once, as long as it does
    /// not get there.
    pub(super) fn find_way_home(
        &mut self,
        owner: GuestUuid,
        terms: &CardTerms,
        ladder: &[Rung],
        outcome: &mut Outcome,
    ) -> Result<Result<(), Failure>, LedgerError> {
        let mut evidence = Vec::new();
        let mut since = terms.log_position;
        let mut doubt = None;
        let mut ladder = ladder.iter();
        loop {
            let failure = match self.examine(owner, terms, since)? {
                Err(failure) => return Ok(Err(failure)),
                Ok(Verdict::Dead(lines)) => Failure::Refused(lines),
                Ok(Verdict::Stuck(operation)) => Failure::Stuck(operation),
                Ok(answers) => match self.bring_home(terms, &answers.but(doubt.take()), outcome)? {
                    Ok(()) => return Ok(Ok(())),
                    Err(failure) => failure,
                },
            };
            match failure {
                Failure::Refused(lines) => add_new(lines, &mut evidence),
                stuck @ Failure::Stuck(_) => return Ok(Err(stuck)),
            }
            let Some(rung) = ladder.next() else { return Ok(Err(Failure::Refused(evidence))) };
            outcome.notes.push(Note::warning(format!("{} does not come back: trying `{rung}`", terms.name)));
            // What was said before speaks of the card as it was then.
            since = self.host.kernel_log_position().unwrap_or(since);
            doubt = Some(format!("it came back only after `{rung}`"));
            match self.climb(owner, terms, *rung, outcome)? {
                Ok(()) => {}
                Err(Failure::Refused(lines)) => add_new(lines, &mut evidence),
                Err(stuck) => return Ok(Err(stuck)),
            }
        }
    }

    /// Brings a card that answers where it belongs.
    fn bring_home(
        &mut self,
        terms: &CardTerms,
        verdict: &Verdict,
        outcome: &mut Outcome,
    ) -> Result<Result<(), Failure>, LedgerError> {
        let Some(Value::Bindings(baseline)) = self.record.entry(&terms.knob()).map(|entry| &entry.baseline)
        else {
            return Ok(Ok(()));
        };
        let then = match destination(terms.return_to, terms.usage, baseline, verdict) {
            Destination::Baseline => baseline.clone(),
            Destination::Vfio => terms.handed_over.clone(),
        };
        if let Verdict::Doubtful(signs) = verdict {
            let then = if then.has_host_driver() { "" } else { "; it stays with VFIO" };
            outcome.notes.push(Note::warning(format!("{}: {}{then}", terms.name, signs.join("; "))));
        }
        self.bind(terms, &then, outcome)
    }

    /// The one place where the drivers of a card are changed on its way home.
    pub(super) fn bind(
        &mut self,
        terms: &CardTerms,
        then: &Bindings,
        outcome: &mut Outcome,
    ) -> Result<Result<(), Failure>, LedgerError> {
        let knob = terms.knob();
        let Some(entry) = self.record.entry_mut(&knob) else { return Ok(Ok(())) };
        let known = entry.written.clone();
        entry.pending = Some(Pending { value: Value::Bindings(then.clone()), beneficiary: None });
        let (now, done, kept) = self.unlocked(|host, deadline| {
            // A rung, or a driver that failed, may have left it otherwise than it was written.
            let now = knob.read(host, deadline).unwrap_or(known);
            let done = super::examine::bind_and_look(host, terms, then, deadline);
            (now, done, knob.read(host, deadline))
        })?;
        if let (Some(entry), Ok(kept)) = (self.record.entry_mut(&knob), kept) {
            entry.written = kept;
            entry.pending = None;
        }
        self.store()?;
        if done.is_ok() && now != Value::Bindings(then.clone()) {
            outcome.changes.push(Change { knob, now, then: Value::Bindings(then.clone()) });
        }
        Ok(done)
    }

    /// Gives back what else was taken for cards: their power, consoles and framebuffers. Others get at the ledger
    /// meanwhile, and leave alone what still has a claim or belongs to the card that is being cleared.
    pub(super) fn give_back_what_is_left(
        &mut self,
        leaving: &BTreeSet<GuestUuid>,
        cleared: Option<&PciFunctions>,
    ) -> Result<Outcome, LedgerError> {
        let mut outcome = Outcome::default();
        let mut refused = Vec::new();
        let Plan { changes, record: planned, .. } = self.plan_rest(leaving, cleared)?;
        for change in changes {
            if let Some(entry) = self.record.entry_mut(&change.knob) {
                // What was announced before and is there now was written by us, whoever was killed after it.
                entry.written = change.now.clone();
                if let Some(planned) = planned.entry(&change.knob) {
                    entry.baseline = planned.baseline.clone();
                }
                entry.pending = Some(Pending { value: change.then.clone(), beneficiary: None });
            }
            let written = self.unlocked(|host, end| {
                change.knob.write(host, &change.then, Deadline::after(SETTING).earlier(end))?;
                change.knob.read_back(host, end)
            })?;
            match (written, self.record.entry_mut(&change.knob)) {
                (Ok(kept), Some(entry)) => {
                    entry.written = kept;
                    entry.pending = None;
                    outcome.changes.push(change);
                }
                (Ok(_), None) => outcome.changes.push(change),
                (Err(error), _) => {
                    let error = LedgerError::from(error);
                    self.remember_stuck(&change.knob, &error);
                    outcome.failures.push(format!("{} not given back: {error}", change.knob));
                    refused.push(change);
                }
            }
        }
        // By now there is nothing to write, or somebody else changed it meanwhile.
        let mut plan = self.plan_rest(leaving, cleared)?;
        plan.changes.retain(|change| refused.iter().all(|refused| refused.knob != change.knob));
        for change in refused {
            if let Some(entry) = plan.record.entry_mut(&change.knob) {
                entry.pending = Some(Pending { value: change.then, beneficiary: None });
            }
        }
        outcome.absorb(self.carry_out_giving_back(plan)?);
        Ok(outcome)
    }

    fn plan_rest(
        &self,
        leaving: &BTreeSet<GuestUuid>,
        cleared: Option<&PciFunctions>,
    ) -> Result<Plan, LedgerError> {
        let mut record = self.record.clone();
        record.quarantines.retain(|quarantine| Some(&quarantine.terms.functions) != cleared);
        Plan::give_back(&record, self.host, leaving, Extent::Cards, self.deadline)
    }

    /// The card is where it belongs, and the guest holds it no more.
    fn forget_card(&mut self, uuid: GuestUuid, terms: &CardTerms) -> Result<(), LedgerError> {
        let knob = terms.knob();
        if let Some(entry) = self.record.entry_mut(&knob) {
            entry.claims.remove(&uuid);
        }
        self.record.entries.retain(|entry| entry.knob != knob || !entry.claims.is_empty());
        self.store()
    }
}

/// Whether the host's drivers have it as they had it before. One that was not theirs is looked at all the same: nothing
/// tells by its driver whether a guest has had it.
fn is_home(entry: &Entry, now: &Bindings) -> bool {
    now.has_host_driver() && entry.baseline == Value::Bindings(now.clone())
}

/// Each rung may find the card as the one before left it: that is said once.
fn add_new(lines: Vec<String>, evidence: &mut Vec<String>) {
    for line in lines {
        if !evidence.contains(&line) {
            evidence.push(line);
        }
    }
}
