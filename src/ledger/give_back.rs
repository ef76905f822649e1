//! Giving a lease back: what is quick at once, the guest's commands and what stands around them by its keeper.

use std::collections::BTreeSet;
use std::time::Duration;

use super::carry_out::Outcome;
use super::error::LedgerError;
use super::lease_state::LeaseState;
use super::monitors::Try;
use super::open::Ledger;
use super::plan::{Extent, Note, Plan};
use super::record::Lease;
use super::setting::{Occasion, Phase as SettingPhase};
use super::settings::{KeeperProcess, ListedClaim, SettingKey};
use crate::deadline::Deadline;
use crate::event::Operation;
use crate::guest::GuestUuid;
use crate::host::{HostError, ProcessId};
use crate::keeper_protocol::Request;

/// What is left of its time must be at least so much before an event takes cards back itself. A driver that is
/// interrupted while it takes a card counts as stuck and the card as lost, and one for graphics may need several
/// seconds.
const TAKES_CARDS: Duration = Duration::from_secs(12);

/// How long a keeper may take to hear that it has to give back: the ledger is locked meanwhile. One that hears it later
/// does it all the same.
const REMINDER: Duration = Duration::from_secs(1);

/// How long an event may wait for the keepers of other guests, all together, to hear that they have to give back.
const KEEPERS_OF_OTHERS: Duration = Duration::from_secs(1);

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
    /// little time to do it here: the next event finds them. The process that starts the guest again gets the
    /// monitors as they are. Nothing is given back yet where a card has to wait for libvirt
    /// ([`crate::ledger::Record::waits_for_libvirt`]).
    ///
    /// # Errors
    /// The ledger cannot be written. A setting that cannot be written is in the outcome, and stays in the ledger.
    pub fn give_back(
        &mut self,
        uuid: GuestUuid,
        reason: &str,
        restarted_by: Option<ProcessId>,
    ) -> Result<Outcome, LedgerError> {
        if let Some(mut outcome) = self.wait_for_libvirt(uuid) {
            self.leave_rest_to_keeper(uuid, reason, &mut outcome);
            return Ok(outcome);
        }
        if !self.takes_time_to_give_back(uuid, restarted_by) && !self.has_busy_keeper(uuid) {
            let mut outcome = self.give_back_here(uuid, reason, restarted_by)?;
            if self.is_unfinished(uuid) {
                self.leave_rest_to_keeper(uuid, reason, &mut outcome);
            }
            return Ok(outcome);
        }
        let keeper = self.keeper_to_give_back(uuid);
        let by = match &keeper {
            // It may be this process, which then has found what its predecessor left half done.
            KeeperAtHand::Answers(process) => *process,
            missing if self.may_give_back_here(uuid, missing) => {
                return self.give_back_here(uuid, reason, restarted_by);
            }
            // A process that finds this one dead goes on.
            KeeperAtHand::Silent | KeeperAtHand::Missing(_) => self.host.this_process(),
        };
        let mut outcome = self.give_back_before_commands(uuid, by)?;
        let request = Request::GiveBack { reason: reason.to_owned(), restarted_by };
        let told = match &keeper {
            KeeperAtHand::Answers(_) | KeeperAtHand::Silent => {
                self.tell_keeper(uuid, &request, Deadline::after(REMINDER).earlier(self.half_of_the_time()))
            }
            KeeperAtHand::Missing(error) => Err(error.to_string()),
        };
        match told {
            Ok(()) => outcome.notes.push(Note::info("its keeper gives the rest back")),
            Err(_) if self.may_give_back_here(uuid, &keeper) => {
                outcome.absorb(self.give_back_here(uuid, reason, restarted_by)?);
            }
            Err(error) => outcome.failures.push(format!("the cards are not given back yet: {error}")),
        }
        Ok(outcome)
    }

    /// Gives a lease back, commands and all, before it returns. The process that starts the guest again gets what is left of it: the monitors.
    ///
    /// # Errors
    /// As [`Self::give_back`].
    pub fn give_back_here(
        &mut self,
        uuid: GuestUuid,
        reason: &str,
        restarted_by: Option<ProcessId>,
    ) -> Result<Outcome, LedgerError> {
        if let Some(outcome) = self.wait_for_libvirt(uuid) {
            return Ok(outcome);
        }
        let mut outcome = Outcome::default();
        let restarted_by = restarted_by.filter(|_| self.has_monitors(uuid));
        if restarted_by.is_none() {
            match self.return_monitors(uuid, &BTreeSet::new(), Try::Last) {
                Ok(returned) => outcome.absorb(returned.outcome),
                // Where the ledger cannot be written, more than the monitors is to be given back.
                Err(error) if self.is_locked() => outcome.failures.push(format!("the monitors: {error}")),
                Err(error) => return Err(error),
            }
        }
        let mut owed = BTreeSet::new();
        if self.has_commands_to_give_back(uuid)
            || self.has_cards(uuid)
            || self.record.has_units_to_stop(uuid)
            || self.record.has_storage_to_bring_back(uuid)
        {
            owed = self.give_back_in_parts(uuid, reason, &mut outcome)?;
        } else if self.record.has_slow(uuid) {
            match self.give_back_in_parts(uuid, reason, &mut outcome) {
                Ok(settings) => owed = settings,
                // All of it is given back below, as far as that can be done unrecorded.
                Err(_) if self.is_locked() => {}
                Err(error) => return Err(error),
            }
        }
        self.adopt_new_interrupts();
        let default = self.narrowed_default();
        let mut plan = match restarted_by.filter(|_| !self.record.has_due_undos(uuid)) {
            Some(restarted_by) => self.plan_inheritance(uuid, restarted_by)?,
            None => self.plan_give_back(uuid)?,
        };
        // They had their time, and would take more with the ledger locked.
        plan.leave_owed(&owed, uuid);
        outcome.absorb(self.carry_out_giving_back(plan)?);
        if let Some(default) = default {
            outcome.absorb(self.settle_latecomers(&default, uuid)?);
        }
        self.forget_xml(uuid)?;
        // What was refused in a part was tried once more at the end.
        let mut told = BTreeSet::new();
        outcome.failures.retain(|failure| told.insert(failure.clone()));
        Ok(outcome)
    }

    /// Gives back what comes before the guest's commands, its cards, and what may take its time; runs its commands. What
    /// is left is quick. Returns what could not be given back in its time.
    fn give_back_in_parts(
        &mut self,
        uuid: GuestUuid,
        reason: &str,
        outcome: &mut Outcome,
    ) -> Result<BTreeSet<SettingKey>, LedgerError> {
        let this_process = self.host.this_process();
        outcome.absorb(self.give_back_before_commands(uuid, this_process)?);
        let mut owed = self.return_slow(SettingPhase::WithinCommands, uuid, outcome)?;
        outcome.absorb(self.return_cards(uuid)?);
        for event in AT_THE_END {
            self.run_commands(uuid, event, reason, outcome)?;
        }
        self.run_undos(uuid, reason, outcome)?;
        owed.extend(self.return_slow(SettingPhase::AroundCommands, uuid, outcome)?);
        Ok(owed)
    }

    /// Whether a guest's lease was given back, all but what the host refused.
    #[must_use]
    pub fn is_unfinished(&self, uuid: GuestUuid) -> bool {
        self.record.leases.get(&uuid).is_some_and(|lease| lease.phase == LeaseState::Unfinished)
    }

    /// What could not be given back is tried again by the guest's keeper, where there is one.
    fn leave_rest_to_keeper(&mut self, uuid: GuestUuid, reason: &str, outcome: &mut Outcome) {
        let KeeperAtHand::Answers(keeper) = self.keeper_to_give_back(uuid) else { return };
        if keeper.is_this_process() {
            return;
        }
        let deadline = Deadline::after(REMINDER).earlier(self.half_of_the_time());
        let request = Request::GiveBack { reason: reason.to_owned(), restarted_by: None };
        if self.tell_keeper(uuid, &request, deadline).is_ok() {
            outcome.notes.push(Note::info("its keeper tries again what could not be given back"));
        }
    }

    /// Has the keepers of other guests give back what a killed process left of their leases. The event pays no more for
    /// them than the start of processes; those that cannot be had in that time are tried again by the next event.
    pub(super) fn leave_to_their_keepers(
        &mut self,
        abandoned: &BTreeSet<GuestUuid>,
    ) -> Result<(), LedgerError> {
        let whole = self.deadline;
        self.deadline = Deadline::after(KEEPERS_OF_OTHERS).earlier(self.half_of_the_time());
        for uuid in abandoned {
            let Some(lease) = self.record.leases.get(uuid) else { continue };
            let name = lease.name.clone();
            let note = match self.keeper_to_give_back(*uuid) {
                KeeperAtHand::Answers(keeper) => {
                    if let Some(lease) = self.record.leases.get_mut(uuid) {
                        lease.begin_giving_back(keeper);
                    }
                    self.store()?;
                    let request = Request::GiveBack { reason: "failed".to_owned(), restarted_by: None };
                    // The keeper reads the ledger, too.
                    let _ = self.tell_keeper(*uuid, &request, self.deadline);
                    Note::info(format!(
                        "the keeper of guest {name} gives back what a killed call left of its lease"
                    ))
                }
                KeeperAtHand::Silent | KeeperAtHand::Missing(_) => Note::warning(format!(
                    "the lease of guest {name} is not given back yet: its keeper does not answer; `vfio-hook undo --stale` tries again"
                )),
            };
            self.recovered.notes.push(note);
        }
        self.deadline = whole;
        Ok(())
    }

    fn plan_inheritance(&self, uuid: GuestUuid, restarted_by: ProcessId) -> Result<Plan, LedgerError> {
        let leaving = [uuid].into();
        let mut plan = self.plan_to_give_back(&leaving, Extent::ButMonitors)?;
        if let Some(lease) = plan.record.leases.get_mut(&uuid) {
            *lease = Lease::preparing(&lease.name, restarted_by);
        }
        Ok(plan)
    }

    /// Whether giving a lease back may take longer than a few writes.
    #[must_use]
    pub(super) fn takes_time_to_give_back(&self, uuid: GuestUuid, restarted_by: Option<ProcessId>) -> bool {
        self.has_commands_to_give_back(uuid)
            || self.has_cards(uuid)
            || self.record.has_units_to_stop(uuid)
            || self.record.has_storage_to_bring_back(uuid)
            || self.record.has_devices_to_remove(uuid)
            || (restarted_by.is_none() && self.has_monitors(uuid))
    }

    /// Whether commands are to be run before a lease is gone.
    #[must_use]
    fn has_commands_to_give_back(&self, uuid: GuestUuid) -> bool {
        let lease = self.record.leases.get(&uuid);
        lease.is_some_and(|lease| AT_THE_END.iter().any(|event| lease.commands.has(*event)))
            || self.record.has_due_undos(uuid)
    }

    fn has_busy_keeper(&self, uuid: GuestUuid) -> bool {
        self.record.entry(&KeeperProcess(uuid)).is_some()
            && matches!(self.host.keeper(uuid, self.deadline), Ok(Some(keeper)) if keeper.unfinished > 0)
    }

    fn keeper_to_give_back(&mut self, uuid: GuestUuid) -> KeeperAtHand {
        match self.host.keeper(uuid, self.deadline) {
            Ok(Some(keeper)) => return KeeperAtHand::Answers(keeper.process),
            Err(_) => return KeeperAtHand::Silent,
            Ok(None) => {}
        }
        let started = self.start_keeper(uuid, self.half_of_the_time());
        match started.and_then(|()| self.ask_keeper(uuid, &Request::State, self.deadline)) {
            Ok(keeper) => KeeperAtHand::Answers(keeper.process),
            Err(error) => KeeperAtHand::Missing(error),
        }
    }

    /// What a keeper that does not come or does not answer may cost: the event may be another guest's, and has its own
    /// work to do.
    pub(super) fn half_of_the_time(&self) -> Deadline {
        Deadline::after(self.deadline.remaining() / 2)
    }

    fn tell_keeper(&mut self, uuid: GuestUuid, request: &Request, deadline: Deadline) -> Result<(), String> {
        self.ask_keeper(uuid, request, deadline).map(drop).map_err(|error| error.to_string())
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
        let mut plan = self.plan_to_give_back(&leaving, Extent::BeforeCommands)?;
        if let Some(lease) = plan.record.leases.get_mut(&uuid) {
            lease.begin_giving_back(by);
        }
        let default = self.narrowed_default();
        let mut outcome = self.carry_out_giving_back(plan)?;
        if let Some(default) = default {
            outcome.absorb(self.settle_latecomers(&default, uuid)?);
        }
        Ok(outcome)
    }

    /// Adds claims to a lease, and sets again what was taken away from it.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn reconcile(
        &mut self,
        uuid: GuestUuid,
        claims: &[ListedClaim],
        occasion: Occasion,
    ) -> Result<Outcome, LedgerError> {
        if !self.record.leases.contains_key(&uuid) {
            return Ok(Outcome::default());
        }
        self.adopt_new_interrupts();
        let plan = Plan::reconcile(&self.record, &self.host, uuid, claims, occasion, self.deadline)?;
        self.carry_out_reconciling(uuid, plan)
    }
}
