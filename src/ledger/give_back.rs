//! Giving a lease back: what is quick at once, the guest's commands and what stands around them by its keeper.

use std::collections::BTreeSet;
use std::time::Duration;

use super::carry_out::Outcome;
use super::error::LedgerError;
use super::knob::Knob;
use super::monitors::Try;
use super::open::Ledger;
use super::plan::{Extent, Note, Plan};
use super::record::{Lease, Phase};
use crate::command::OnCommandFailure;
use crate::deadline::Deadline;
use crate::event::Operation;
use crate::guest::GuestUuid;
use crate::host::{AnswerAt, Errand, HostError, ProcessId, Request, xml_file};

/// What is left of its time must be at least so much before an event takes cards back itself. A driver that is
/// interrupted while it takes a card counts as stuck and the card as lost, and one for graphics may need several
/// seconds.
const TAKES_CARDS: Duration = Duration::from_secs(12);

/// How long a keeper may take to hear that it has to give back: the ledger is locked meanwhile. One that hears it later
/// does it all the same.
const REMINDER: Duration = Duration::from_secs(1);

/// The events whose commands are run when a lease is given back. Those of `stopped` were run before if libvirt said so.
pub const AT_THE_END: [Operation; 2] = [Operation::Stopped, Operation::Release];

/// The keeper that is to give a lease back.
#[derive(Debug)]
enum KeeperAtHand {
    Answers(ProcessId),
    /// There is one, and it does not say in time how it stands.
    Silent,
    /// There is none, and none can be started.
    Missing(HostError),
}

impl Ledger<'_> {
    /// Gives a lease back. If that takes time (the guest has commands for it, a card, or monitors that are not back
    /// yet), or its keeper is still at those of `stopped`, the keeper gives the rest back, and this does not wait for
    /// it: the lease stays until then. Cards stay with the lease where there is no keeper to take them back, and too
    /// little time to do it here: the next event finds them. An heir, the process that starts the guest again, gets the
    /// monitors as they are.
    ///
    /// # Errors
    /// The ledger cannot be written. A knob that cannot be written is in the outcome, and stays in the ledger.
    pub fn give_back(
        &mut self,
        uuid: GuestUuid,
        reason: &str,
        heir: Option<ProcessId>,
    ) -> Result<Outcome, LedgerError> {
        if !self.takes_time_to_give_back(uuid, heir) && !self.has_busy_keeper(uuid) {
            return self.give_back_here(uuid, reason, heir);
        }
        let keeper = self.keeper_to_give_back(uuid);
        let by = match &keeper {
            // It may be this process, which then has found what its predecessor left half done.
            KeeperAtHand::Answers(process) => *process,
            missing if self.may_give_back_here(uuid, missing) => {
                return self.give_back_here(uuid, reason, heir);
            }
            // Whoever finds this process dead goes on.
            KeeperAtHand::Silent | KeeperAtHand::Missing(_) => self.host.this_process(),
        };
        let mut outcome = self.give_back_before_commands(uuid, by)?;
        let request = Request::GiveBack { reason: reason.to_owned(), heir };
        let told = match &keeper {
            KeeperAtHand::Answers(_) | KeeperAtHand::Silent => {
                self.tell_keeper(uuid, &request, Deadline::after(REMINDER).earlier(self.half_of_the_time()))
            }
            KeeperAtHand::Missing(error) => Err(error.to_string()),
        };
        match told {
            Ok(()) => outcome.notes.push(Note::info("its keeper gives the rest back")),
            Err(_) if self.may_give_back_here(uuid, &keeper) => {
                outcome.absorb(self.give_back_here(uuid, reason, heir)?);
            }
            Err(error) => outcome.failures.push(format!("the cards are not given back yet: {error}")),
        }
        Ok(outcome)
    }

    /// Gives a lease back, commands and all, before it returns. An heir gets what is left of it: the monitors.
    ///
    /// # Errors
    /// As [`Self::give_back`].
    pub fn give_back_here(
        &mut self,
        uuid: GuestUuid,
        reason: &str,
        heir: Option<ProcessId>,
    ) -> Result<Outcome, LedgerError> {
        let mut outcome = Outcome::default();
        let heir = heir.filter(|_| self.has_monitors(uuid));
        if heir.is_none() {
            outcome.absorb(self.return_monitors(uuid, &BTreeSet::new(), Try::Last)?.outcome);
        }
        if self.has_commands_to_give_back(uuid) || self.has_cards(uuid) {
            let this_process = self.host.this_process();
            outcome.absorb(self.give_back_before_commands(uuid, this_process)?);
            outcome.absorb(self.return_cards(uuid)?);
            for event in AT_THE_END {
                self.run_commands(uuid, event, reason, &mut outcome)?;
            }
        }
        self.adopt_new_interrupts();
        let default = self.narrowed_default();
        let plan = match heir {
            Some(heir) => self.plan_inheritance(uuid, heir)?,
            None => self.plan_give_back(uuid)?,
        };
        outcome.absorb(self.carry_out_giving_back(plan)?);
        if let Some(default) = default {
            outcome.absorb(self.settle_latecomers(&default, uuid)?);
        }
        self.host.remove_state_file(&xml_file(uuid))?;
        Ok(outcome)
    }

    fn plan_inheritance(&self, uuid: GuestUuid, heir: ProcessId) -> Result<Plan, LedgerError> {
        let leaving = [uuid].into();
        let mut plan =
            Plan::give_back(&self.record, self.host, &leaving, Extent::ButMonitors, self.deadline)?;
        if let Some(lease) = plan.record.leases.get_mut(&uuid) {
            *lease = Lease::preparing(&lease.name, heir);
        }
        Ok(plan)
    }

    /// Whether giving a lease back may take longer than a few writes.
    #[must_use]
    pub(super) fn takes_time_to_give_back(&self, uuid: GuestUuid, heir: Option<ProcessId>) -> bool {
        self.has_commands_to_give_back(uuid)
            || self.has_cards(uuid)
            || (heir.is_none() && self.has_monitors(uuid))
    }

    /// Whether commands are to be run before a lease is gone.
    #[must_use]
    fn has_commands_to_give_back(&self, uuid: GuestUuid) -> bool {
        let lease = self.record.leases.get(&uuid);
        lease.is_some_and(|lease| AT_THE_END.iter().any(|event| lease.commands.has(*event)))
    }

    fn has_busy_keeper(&self, uuid: GuestUuid) -> bool {
        self.record.entry(&Knob::Keeper(uuid)).is_some()
            && matches!(self.host.keeper(uuid, self.deadline), Ok(Some(keeper)) if keeper.errands > 0)
    }

    fn keeper_to_give_back(&mut self, uuid: GuestUuid) -> KeeperAtHand {
        match self.host.keeper(uuid, self.deadline) {
            Ok(Some(keeper)) => return KeeperAtHand::Answers(keeper.process),
            Err(_) => return KeeperAtHand::Silent,
            Ok(None) => {}
        }
        let started = self.host.start_keeper(uuid, self.half_of_the_time());
        match started.and_then(|()| self.host.ask_keeper(uuid, &Request::State, self.deadline)) {
            Ok(keeper) => KeeperAtHand::Answers(keeper.process),
            Err(error) => KeeperAtHand::Missing(error),
        }
    }

    /// What a keeper that does not come or does not answer may cost: the event may be another guest's, and has its own
    /// work to do.
    fn half_of_the_time(&self) -> Deadline {
        Deadline::after(self.deadline.remaining() / 2)
    }

    fn tell_keeper(&mut self, uuid: GuestUuid, request: &Request, deadline: Deadline) -> Result<(), String> {
        self.host.ask_keeper(uuid, request, deadline).map(drop).map_err(|error| error.to_string())
    }

    /// Whether this process may give back what a keeper should. Not cards where it would have to end in the middle, or
    /// where the keeper may be at them.
    fn may_give_back_here(&self, uuid: GuestUuid, keeper: &KeeperAtHand) -> bool {
        let has_time = !matches!(keeper, KeeperAtHand::Silent) && self.deadline.remaining() >= TAKES_CARDS;
        has_time || !self.has_cards(uuid)
    }

    fn give_back_before_commands(&mut self, uuid: GuestUuid, by: ProcessId) -> Result<Outcome, LedgerError> {
        self.adopt_new_interrupts();
        let leaving = [uuid].into();
        let mut plan =
            Plan::give_back(&self.record, self.host, &leaving, Extent::BeforeCommands, self.deadline)?;
        if let Some(lease) = plan.record.leases.get_mut(&uuid) {
            lease.phase = Phase::GivingBack(by);
        }
        let default = self.narrowed_default();
        let mut outcome = self.carry_out_giving_back(plan)?;
        if let Some(default) = default {
            outcome.absorb(self.settle_latecomers(&default, uuid)?);
        }
        Ok(outcome)
    }

    /// Has the guest's keeper run what belongs to an event, and waits for it.
    pub(super) fn run_commands(
        &mut self,
        uuid: GuestUuid,
        event: Operation,
        reason: &str,
        outcome: &mut Outcome,
    ) -> Result<(), LedgerError> {
        let Some(errand) = self.errand(uuid, event, reason, AnswerAt::End) else { return Ok(()) };
        let ran = self.unlocked(|host, deadline| host.run_commands(uuid, errand, deadline))?;
        let failures = match ran {
            Ok(failures) => failures,
            Err(error) if event == Operation::Prepare => return Err(error.into()),
            Err(error) => {
                outcome.notes.push(Note::warning(format!("commands of {}: {error}", event.as_str())));
                return Ok(());
            }
        };
        for failure in failures {
            match failure.meaning {
                OnCommandFailure::Refuse => return Err(LedgerError::Command(failure.words)),
                OnCommandFailure::Warn => outcome.notes.push(Note::warning(failure.words)),
            }
        }
        Ok(())
    }

    /// Has the guest's keeper run what belongs to an event, and waits for it.
    ///
    /// # Errors
    /// The ledger cannot be written; a command failed that must not.
    pub fn run_commands_now(&mut self, uuid: GuestUuid, event: Operation) -> Result<Outcome, LedgerError> {
        let mut outcome = Outcome::default();
        self.run_commands(uuid, event, "", &mut outcome)?;
        Ok(outcome)
    }

    /// Has the guest's keeper run what belongs to an event, and does not wait for it.
    ///
    /// # Errors
    /// The ledger cannot be written, there is no keeper.
    pub fn run_commands_later(
        &mut self,
        uuid: GuestUuid,
        event: Operation,
        reason: &str,
    ) -> Result<(), LedgerError> {
        let Some(errand) = self.errand(uuid, event, reason, AnswerAt::Once) else { return Ok(()) };
        self.store()?;
        self.host.run_commands(uuid, errand, self.deadline)?;
        Ok(())
    }

    fn errand(
        &mut self,
        uuid: GuestUuid,
        event: Operation,
        reason: &str,
        answer: AnswerAt,
    ) -> Option<Errand> {
        let commands = self.record.leases.get_mut(&uuid)?.commands.take(event);
        (!commands.is_empty()).then(|| Errand { commands, event, reason: reason.to_owned(), answer })
    }

    /// Keeps the guest's XML until its lease is gone.
    ///
    /// # Errors
    /// `/run` cannot be written.
    pub fn keep_xml(&mut self, uuid: GuestUuid, xml: &[u8]) -> Result<(), LedgerError> {
        Ok(self.host.replace_state(&xml_file(uuid), xml)?)
    }

    /// Adds claims to a lease, and sets again what somebody or something took away from it.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn uphold(&mut self, uuid: GuestUuid, claims: &[super::Claim]) -> Result<Outcome, LedgerError> {
        if !self.record.leases.contains_key(&uuid) {
            return Ok(Outcome::default());
        }
        self.adopt_new_interrupts();
        let plan = Plan::uphold(&self.record, self.host, uuid, claims, self.deadline)?;
        self.carry_out_upholding(uuid, plan)
    }
}
