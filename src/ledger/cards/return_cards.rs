//! The way home: from the guest to where the card was, or to the certainty that it does not come back.

use std::collections::BTreeSet;
use std::time::Duration;

use super::examine::probe;
use super::health::{Destination, destination};
use super::{CardHealth, CardTerms, CardUsage, Failure};
use crate::cpuset::CpuSet;
use crate::gpu::RecoveryStep;
use crate::guest::GuestUuid;
use crate::host::{Bindings, Host, SystemState};
use crate::ledger::carry_out::Outcome;
use crate::ledger::entry::{Change, Entry};
use crate::ledger::error::LedgerError;
use crate::ledger::executor::Kept;
use crate::ledger::open::Ledger;
use crate::ledger::plan::{Extent, Note, Plan};
use crate::ledger::record::Record;
use crate::ledger::setting::{Phase, Setting};
use crate::ledger::settings::{Listed, PciBindings};
use crate::pci::PciFunctions;

/// How long one setting may take: the kernel may wake the device up for it, or wait for a program that draws.
const SETTING: Duration = Duration::from_secs(30);

/// Why a card stays with its guest although that has ended.
const WAITS_FOR_LIBVIRT: &str = "the card stays as it is: libvirt has not noticed that the guest is gone, \
                                 and resets the card when it does; start libvirt, or restart it where it \
                                 hangs";

impl Record {
    /// Whether a guest's card that goes back to a host driver has to wait for libvirt. As soon as libvirt notices that
    /// the guest has ended, if only at its next start, it resets each of its devices, whatever driver that has by then,
    /// but for VFIO's (`virPCIDeviceReset`), and of a card with two functions one loses its registers. By `release` it
    /// has done so.
    #[must_use]
    pub fn waits_for_libvirt(&self, uuid: GuestUuid, host: &Host) -> bool {
        let Some(lease) = self.leases.get(&uuid) else { return false };
        let is_the_hosts = |terms: &CardTerms| {
            let entry = self.entry(&terms.drivers());
            entry.is_some_and(|entry| entry.claims.contains_key(&uuid) && entry.baseline.has_host_driver())
        };
        lease.cards.iter().any(is_the_hosts) && host.libvirt_believes_running(uuid, &lease.name)
    }
}

impl Ledger<'_> {
    /// What came of giving a lease back where its card waits for libvirt: nothing is touched yet.
    pub(in crate::ledger) fn wait_for_libvirt(&self, uuid: GuestUuid) -> Option<Outcome> {
        self.record
            .waits_for_libvirt(uuid, &self.host)
            .then(|| Outcome { failures: vec![WAITS_FOR_LIBVIRT.to_owned()], ..Outcome::default() })
    }

    /// Whether a guest has cards that are to be taken back.
    #[must_use]
    pub fn has_cards(&self, uuid: GuestUuid) -> bool {
        self.record.entries_of(uuid).any(|entry| entry.traits().phase == Phase::Cards)
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
        let drivers = terms.drivers();
        if !self.record.entry(&drivers).is_some_and(|entry| entry.claims.contains_key(&uuid)) {
            // The process that put it into quarantine may have been killed before it was aside.
            let quarantine = self.record.quarantine_of(&terms.functions).cloned();
            return quarantine.map_or(Ok(()), |quarantine| self.set_aside(&quarantine.terms, outcome));
        }
        // What hangs in the kernel has the device locked: a read would hang beside it.
        let now = match terms.stuck_operation(&self.host) {
            Some(operation) => {
                return self.quarantine(uuid, terms, Failure::Stuck(operation.clone()), outcome);
            }
            None => drivers.read(&self.host, self.deadline),
        };
        let Some(entry) = self.record.entry_mut(&drivers) else { return Ok(()) };
        match now {
            // It was never taken, another program has brought it home, or a killed process of ours had not looked yet.
            Ok(now) if is_home(entry, &now) => {
                let bound = match self.bind(terms, &now, outcome)? {
                    Err(Failure::ByDriver(lines)) => self.leave_to_guests(terms, lines, outcome)?,
                    bound => bound,
                };
                return match bound {
                    Ok(()) => self.forget_card(uuid, terms, outcome),
                    Err(failure) => self.quarantine(uuid, terms, failure, outcome),
                };
            }
            Ok(now) => {
                if let Some(note) = entry.adopt_external(&now, &CpuSet::new()) {
                    outcome.notes.push(Note::warning(note));
                    return self.forget_card(uuid, terms, outcome);
                }
            }
            // What is gone is looked for like what does not answer.
            Err(_) => {}
        }
        let resets = match terms.usage {
            CardUsage::ByGuest => terms.reset_after.as_slice(),
            CardUsage::NotYet => &[],
        };
        match self.find_way_home(uuid, terms, resets, &terms.recover, outcome)? {
            Ok(()) => self.forget_card(uuid, terms, outcome),
            Err(failure) => self.quarantine(uuid, terms, failure, outcome),
        }
    }

    /// Resets a card as its file wants it after each guest, examines it, brings it where it belongs, and tries the recovery
    /// steps, each once, as long as it does not get there.
    pub(super) fn find_way_home(
        &mut self,
        owner: GuestUuid,
        terms: &CardTerms,
        resets: &[RecoveryStep],
        steps: &[RecoveryStep],
        outcome: &mut Outcome,
    ) -> Result<Result<(), Failure>, LedgerError> {
        let mut evidence = Vec::new();
        let mut since = terms.log_position;
        let mut doubt = None;
        if !resets.is_empty() {
            // Nobody may have it any more, and nothing hang in it.
            doubt = match self.examine(owner, terms, since)? {
                Err(failure) => return Ok(Err(failure)),
                Ok(CardHealth::Stuck(operation)) => return Ok(Err(Failure::Stuck(operation))),
                Ok(CardHealth::Dead(lines) | CardHealth::Doubtful(lines)) => Some(lines.join("; ")),
                Ok(CardHealth::Clean) => None,
            };
            since = self.host.kernel_log_position().unwrap_or(since);
        }
        for step in resets {
            match self.take_recovery_step(owner, terms, *step, outcome)? {
                Ok(()) => outcome.notes.push(Note::info(format!("{}: `{step}` is done", terms.name))),
                Err(Failure::Refused(lines) | Failure::ByDriver(lines)) => {
                    let text = format!("{}: `{step}` cannot be done: {}", terms.name, lines.join("; "));
                    outcome.notes.push(Note::warning(text));
                }
                Err(stuck) => return Ok(Err(stuck)),
            }
        }
        let mut steps = steps.iter();
        loop {
            let failure = match self.examine(owner, terms, since)? {
                Err(failure) => return Ok(Err(failure)),
                Ok(CardHealth::Dead(lines)) => Failure::Refused(lines),
                Ok(CardHealth::Stuck(operation)) => Failure::Stuck(operation),
                Ok(answers) => match self.bring_home(terms, &answers.but(doubt.take()), outcome)? {
                    Ok(()) => return Ok(Ok(())),
                    Err(failure) => failure,
                },
            };
            let answers = matches!(failure, Failure::ByDriver(_));
            match failure {
                Failure::Refused(lines) | Failure::ByDriver(lines) => add_new(lines, &mut evidence),
                stuck @ Failure::Stuck(_) => return Ok(Err(stuck)),
            }
            let Some(step) = steps.next() else {
                return match answers {
                    true => self.leave_to_guests(terms, evidence, outcome),
                    false => Ok(Err(Failure::Refused(evidence))),
                };
            };
            outcome.notes.push(Note::warning(format!("{} does not come back: trying `{step}`", terms.name)));
            // What was said before speaks of the card as it was then.
            since = self.host.kernel_log_position().unwrap_or(since);
            doubt = Some(format!("it came back only after `{step}`"));
            match self.take_recovery_step(owner, terms, *step, outcome)? {
                Ok(()) => {}
                Err(Failure::Refused(lines) | Failure::ByDriver(lines)) => add_new(lines, &mut evidence),
                Err(stuck) => return Ok(Err(stuck)),
            }
        }
    }

    /// A card that answers, and that the host's driver does not take, stays with VFIO: guests can have it still.
    fn leave_to_guests(
        &mut self,
        terms: &CardTerms,
        mut evidence: Vec<String>,
        outcome: &mut Outcome,
    ) -> Result<Result<(), Failure>, LedgerError> {
        let mut then = terms.handed_over.clone();
        if let Ok(Bindings(now)) = terms.drivers().read(&self.host, self.deadline) {
            // The sizes of its BARs are the host's again, as far as that came.
            for (function, binding) in &mut then.0 {
                binding.bar_sizes = now.get(function).map(|now| now.bar_sizes.clone()).unwrap_or_default();
            }
        }
        match self.bind(terms, &then, outcome)? {
            Ok(()) => {}
            Err(Failure::Refused(lines) | Failure::ByDriver(lines)) => {
                add_new(lines, &mut evidence);
                return Ok(Err(Failure::Refused(evidence)));
            }
            Err(stuck) => return Ok(Err(stuck)),
        }
        // The driver may have left it worse than it was.
        match self.unlocked(|host, _| probe(host, terms, &[]))? {
            Ok(CardHealth::Stuck(operation)) => return Ok(Err(Failure::Stuck(operation))),
            Ok(CardHealth::Dead(lines)) => {
                add_new(lines, &mut evidence);
                return Ok(Err(Failure::Refused(evidence)));
            }
            Ok(CardHealth::Clean | CardHealth::Doubtful(_)) | Err(_) => {}
        }
        outcome.notes.push(Note::warning(format!(
            "{}: the host's driver does not take it back: {}; it answers, and stays with VFIO for the next \
             guest",
            terms.name,
            evidence.join("; ")
        )));
        Ok(Ok(()))
    }

    /// Brings a card that answers where it belongs.
    fn bring_home(
        &mut self,
        terms: &CardTerms,
        health: &CardHealth,
        outcome: &mut Outcome,
    ) -> Result<Result<(), Failure>, LedgerError> {
        let Some(baseline) = self.record.entry(&terms.drivers()).map(|entry| &entry.baseline) else {
            return Ok(Ok(()));
        };
        let goes_home = || self.host.system_state(self.deadline) == SystemState::GoesOn;
        let then = match destination(terms.return_to, terms.usage, baseline, health) {
            // A driver that begins while all else ends has nobody to show a picture to, and can hang the shutdown.
            Destination::Baseline if baseline.has_host_driver() && !goes_home() => {
                let name = &terms.name;
                let note = format!("{name}: the host is being shut down; it stays with VFIO");
                outcome.notes.push(Note::info(note));
                terms.handed_over.clone()
            }
            Destination::Baseline => baseline.clone(),
            Destination::Vfio => terms.handed_over.clone(),
        };
        if let CardHealth::Doubtful(evidence) = health {
            let then = if then.has_host_driver() { "" } else { "; it stays with VFIO" };
            outcome.notes.push(Note::warning(format!("{}: {}{then}", terms.name, evidence.join("; "))));
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
        let drivers = terms.drivers();
        let Some(entry) = self.record.entry_mut(&drivers) else { return Ok(Ok(())) };
        let known = entry.written.clone();
        entry.announce(then.clone(), None);
        let mut before = None;
        let done = self.execute_together(std::slice::from_ref(&drivers), |host, _, deadline| {
            // A recovery step, or a driver that failed, may have left it otherwise than it was written.
            before = drivers.read(host, deadline).ok();
            let done = super::examine::bind_and_look(host, terms, then, deadline);
            let kept = drivers.read(host, deadline).map_or(Kept::NotKnown, Kept::Value);
            vec![Ok((kept, done))]
        })?;
        let now = before.unwrap_or(known);
        let odd = match done.into_iter().next() {
            Some(Ok(done)) => done,
            Some(Err(error)) => Err(Failure::of(&error)),
            None => Ok(Vec::new()),
        };
        let odd = match odd {
            Ok(odd) => odd,
            Err(failure) => return Ok(Err(failure)),
        };
        if !odd.is_empty() {
            outcome.notes.push(Note::warning(format!("{}: {}", terms.name, odd.join("; "))));
        }
        // A driver may have refused a function that does not decide.
        let became = self.record.entry(&drivers).map_or_else(|| then.clone(), |entry| entry.written.clone());
        if now != became {
            outcome.changes.push(Change::of(&drivers, &now, &became));
        }
        Ok(Ok(()))
    }

    /// Gives back what else was taken for cards: their power, consoles and framebuffers. Others get at the ledger
    /// meanwhile, and leave alone what still has a claim or belongs to the card that is being cleared.
    pub(super) fn give_back_what_is_left(
        &mut self,
        leaving: &BTreeSet<GuestUuid>,
        cleared: Option<&PciFunctions>,
    ) -> Result<Outcome, LedgerError> {
        self.give_back_released(SETTING, None, |ledger| ledger.plan_rest(leaving, cleared))
    }

    fn plan_rest(
        &self,
        leaving: &BTreeSet<GuestUuid>,
        cleared: Option<&PciFunctions>,
    ) -> Result<Plan, LedgerError> {
        let mut record = self.record.clone();
        record.quarantines.retain(|quarantine| Some(&quarantine.terms.functions) != cleared);
        Plan::give_back(&record, &self.host, self.event_of, leaving, Extent::Cards, self.deadline)
    }

    /// The card is where it belongs, and the guest holds it no more.
    fn forget_card(
        &mut self,
        uuid: GuestUuid,
        terms: &CardTerms,
        outcome: &mut Outcome,
    ) -> Result<(), LedgerError> {
        let guest = self.record.leases.get(&uuid).map(|lease| lease.name.clone()).unwrap_or_default();
        self.settle_wakefulness(&guest, terms, outcome)?;
        let drivers = terms.drivers();
        let is_held = self.record.entry_mut(&drivers).is_some_and(|entry| {
            entry.claims.remove(&uuid);
            !entry.claims.is_empty()
        });
        if !is_held {
            self.record.remove(&drivers.key());
        }
        self.store()
    }
}

/// Whether the host's drivers have it as they had it before. One that was not theirs is looked at all the same: nothing
/// tells by its driver whether a guest has had it.
fn is_home(entry: &Entry<PciBindings>, now: &Bindings) -> bool {
    now.has_host_driver() && entry.baseline == *now
}

/// Each step may find the card as the one before left it: that is said once.
fn add_new(lines: Vec<String>, evidence: &mut Vec<String>) {
    for line in lines {
        if !evidence.contains(&line) {
            evidence.push(line);
        }
    }
}
