//! The ledger of a host: locked, loaded, and recovered where its last user was killed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::any_entry::AnyEntry;
use super::carry_out::Outcome;
use super::commands::Progress;
use super::entry::Entry;
use super::error::LedgerError;
use super::executor::{HostAccess, Repair, load_for_this_boot};
use super::lease_state::LeaseState;
use super::plan::{Extent, Note, Plan};
use super::record::{Lease, Record};
use super::setting::{Peer, Setting};
use super::settings::{KeeperProcess, ListedClaim, PagePoolSize, SettingKey};
use super::store::{self, Slots};
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::{Host, HostError, LockFile, LockState, ONE_LOOK};

pub(super) const LOCK: &str = "lock";

/// What undoing a `prepare` may take when the event's time is over: less than the reserve that the watchdog leaves.
const UNDO: Duration = Duration::from_secs(5);

/// How long QEMU may be looked for while the ledger is locked and libvirt waits: `started` has 2 s in all.
const FIND_QEMU: Duration = Duration::from_millis(500);

/// The ledger of a host, locked as long as this lives.
pub struct Ledger<'h> {
    pub(super) host: HostAccess<'h>,
    pub(super) record: Record,
    pub(super) slots: Slots,
    pub(super) deadline: Deadline,
    /// The guest whose event this is; none for a person, or a keeper that ends.
    pub(super) event_of: Option<GuestUuid>,
    pub(super) locked_since: Instant,
    /// How often others had the lock since this was opened.
    pub(super) turns: u32,
    pub(super) lock: Option<LockFile>,
    /// What was found and fixed, at opening and whenever others had had the lock.
    pub(super) recovered: Outcome,
}

impl<'h> Ledger<'h> {
    /// Locks and loads the ledger, and finishes or undoes what a killed process left half done.
    ///
    /// # Errors
    /// Another process holds the lock until the deadline; the ledger is damaged or of a newer version.
    pub fn open(host: &'h mut Host, deadline: Deadline) -> Result<Self, LedgerError> {
        Self::open_and_recover(host, None, deadline)
    }

    /// The same for an event of a guest, which pays only for itself: what was left half done for other guests and may
    /// hang is left to them, their keepers or a person.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_for(host: &'h mut Host, uuid: GuestUuid, deadline: Deadline) -> Result<Self, LedgerError> {
        Self::open_and_recover(host, Some(uuid), deadline)
    }

    fn open_and_recover(
        host: &'h mut Host,
        event_of: Option<GuestUuid>,
        deadline: Deadline,
    ) -> Result<Self, LedgerError> {
        let lock = host.lock_state(LOCK, deadline)?;
        let mut notes = Vec::new();
        let (record, slots) = load_for_this_boot(host, &mut notes)?;
        let mut ledger = Self {
            host: HostAccess::new(host),
            record,
            slots,
            deadline,
            event_of,
            locked_since: Instant::now(),
            turns: 0,
            lock: Some(lock),
            recovered: Outcome { notes, ..Outcome::default() },
        };
        ledger.replace_earlier_keepers()?;
        ledger.recover()?;
        ledger.let_cards_of_the_host_sleep()?;
        Ok(ledger)
    }

    /// Reads the ledger without a lock, for those who only look. None where there is none, or it is of another boot.
    ///
    /// # Errors
    /// It cannot be read, is damaged or of a newer version: then it is not known who holds what.
    pub fn peek(host: &Host) -> Result<Option<Record>, LedgerError> {
        let Some(record) = store::load(host)?.record else { return Ok(None) };
        let boot_id = host.boot_id()?;
        Ok((record.boot_id == boot_id).then_some(record))
    }

    /// Whether a process was killed while it removed a ledger that says that nothing is held. [`Self::open`] removes it.
    ///
    /// # Errors
    /// As of [`Self::peek`].
    pub fn is_half_removed(host: &Host) -> Result<bool, LedgerError> {
        store::is_half_removed(host)
    }

    /// Whether a process is at work on the ledger now, and which.
    ///
    /// # Errors
    /// The lock's file cannot be opened.
    pub fn locked_by(host: &Host) -> Result<LockState, HostError> {
        host.lock_holder(LOCK)
    }

    /// The ledger's content.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The host it describes, to look at.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// What was found and fixed at opening.
    #[must_use]
    pub fn recovered(&self) -> &Outcome {
        &self.recovered
    }

    /// What giving a guest's lease back would lead to.
    ///
    /// # Errors
    /// The host cannot be read.
    pub fn plan_give_back(&self, uuid: GuestUuid) -> Result<Plan, LedgerError> {
        self.plan_to_give_back(&BTreeSet::from([uuid]), Extent::Whole)
    }

    /// What giving these leases back would lead to, beside what else is to be settled.
    pub(super) fn plan_to_give_back(
        &self,
        leaving: &BTreeSet<GuestUuid>,
        extent: Extent,
    ) -> Result<Plan, LedgerError> {
        Plan::give_back(&self.record, &self.host, self.event_of, leaving, extent, self.deadline)
    }

    /// Takes a lease: all of the plan, or nothing.
    ///
    /// # Errors
    /// The host refused a change; everything taken was given back before this returns.
    pub fn take(&mut self, uuid: GuestUuid, plan: Plan) -> Result<Outcome, LedgerError> {
        match self.carry_out_taking(uuid, plan) {
            Ok(outcome) => Ok(outcome),
            Err(error) => Err(match self.undo_taking(uuid) {
                Ok(undone) if undone.failures.is_empty() => error,
                Ok(undone) => error.but_not_undone(undone.failures.join("; ")),
                Err(reason) => error.but_not_undone(reason.to_string()),
            }),
        }
    }

    /// Takes what all checks of a lease need, before any of its commands, and leaves the lease in this process's hands.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn take_before_commands(
        &mut self,
        uuid: GuestUuid,
        lease: Lease,
        claims: &[ListedClaim],
    ) -> Result<Outcome, LedgerError> {
        self.take_part(uuid, lease, claims, Progress::NotBegun)
    }

    /// Takes what the rest of the checks of a lease need, its commands of `prepare` included, and leaves the lease in this
    /// process's hands.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn take_with_commands(
        &mut self,
        uuid: GuestUuid,
        lease: Lease,
        claims: &[ListedClaim],
    ) -> Result<Outcome, LedgerError> {
        self.take_part(uuid, lease, claims, Progress::Begun)
    }

    fn take_part(
        &mut self,
        uuid: GuestUuid,
        lease: Lease,
        claims: &[ListedClaim],
        commands: Progress,
    ) -> Result<Outcome, LedgerError> {
        let plan = Plan::take(&self.record, &self.host, uuid, lease, claims, self.deadline)?;
        let outcome = self.take(uuid, plan)?;
        if let Some(lease) = self.record.leases.get_mut(&uuid) {
            lease.begin_taking(self.host.this_process());
            lease.commands.progress = commands;
            self.store()?;
        }
        Ok(outcome)
    }

    /// Gives back what was taken so far. Whatever cannot be given back, or cannot even be looked at because another
    /// process got the lock, is found by the next event.
    fn undo_taking(&mut self, uuid: GuestUuid) -> Result<Outcome, LedgerError> {
        // It may be the end of the time that brought it here.
        self.deadline = self.deadline.later(Deadline::after(UNDO));
        self.relock()?;
        self.give_back(uuid, "failed", None)
    }

    /// Notes that the guest's QEMU runs and has its memory, and which process it is.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn mark_started(&mut self, uuid: GuestUuid) -> Result<(), LedgerError> {
        let Some(lease) = self.record.leases.get_mut(&uuid) else { return Ok(()) };
        let before = lease.clone();
        lease.note_start();
        if lease.phase == LeaseState::Started {
            let found = self.host.qemu_of(lease.qemu_clues(uuid), Deadline::after(FIND_QEMU));
            lease.qemu = found.found().or(lease.qemu);
        }
        if *lease == before { Ok(()) } else { self.store() }
    }

    /// A guest that starts takes over what is held for it by hand: until that is done, it ends with this process.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn begin_adoption(&mut self, uuid: GuestUuid) -> Result<(), LedgerError> {
        let by = self.host.this_process();
        if let Some(lease) = self.record.leases.get_mut(&uuid) {
            lease.begin_adoption(by);
        }
        self.store()
    }

    /// It is taken over.
    ///
    /// # Errors
    /// The ledger cannot be written; it was given back meanwhile.
    pub fn end_adoption(&mut self, uuid: GuestUuid) -> Result<(), LedgerError> {
        self.record.leases.get_mut(&uuid).ok_or(LedgerError::GivenBack)?.end_taking();
        self.store()
    }

    /// Whether an earlier version of this program wrote the ledger as it is found.
    pub(super) fn is_of_older_format(&self) -> bool {
        self.slots.is_of_older_format()
    }

    /// Finishes or undoes what a killed process left half done: guests whose `prepare` died hold nothing any more, and
    /// entries with an open write or without a claim are computed and written again. A process that lives and only gave
    /// up the lock for a while finishes its work itself.
    fn recover(&mut self) -> Result<(), LedgerError> {
        let abandoned: BTreeSet<GuestUuid> = self
            .record
            .leases
            .iter()
            .filter(|(uuid, lease)| {
                lease.is_abandoned(&self.host)
                    || self.is_forgotten(**uuid, lease)
                    || self.lacks_only_its_keeper(**uuid, lease)
            })
            .map(|(uuid, _)| *uuid)
            .collect();
        self.tell_of_killed_repairs();
        let (failed, others): (BTreeSet<_>, BTreeSet<_>) = abandoned.into_iter().partition(|uuid| {
            self.event_of.is_none_or(|event_of| event_of == *uuid || !self.may_hang(*uuid))
        });
        self.leave_to_their_keepers(&others)?;
        // Those that take time are given back one by one.
        let (slow, failed): (BTreeSet<_>, BTreeSet<_>) =
            failed.into_iter().partition(|uuid| self.takes_time_to_give_back(*uuid, None));
        for uuid in &slow {
            let outcome = self.give_back(*uuid, "failed", None)?;
            self.recovered.absorb(outcome);
        }
        let is_at_rest = |entry: &dyn AnyEntry| {
            self.record.is_at_rest(entry, &self.host)
                || self.event_of.is_some_and(|uuid| self.record.is_left_to_others(entry, uuid))
        };
        if failed.is_empty() && self.record.entries().all(is_at_rest) {
            return Ok(());
        }
        let only_fading =
            failed.is_empty() && self.record.entries().all(|entry| is_at_rest(entry) || entry.is_fading());
        self.credit_interrupted_growth();
        let plan = self.plan_to_give_back(&failed, Extent::Whole)?;
        let mut outcome = self.carry_out_giving_back(plan)?;
        if !only_fading {
            let note = "an earlier run was killed or failed half way; its changes were settled";
            outcome.notes.insert(0, Note::info(note));
        }
        self.recovered.absorb(outcome);
        Ok(())
    }

    /// What a killed process was doing to the machine that is no setting has no value to be given back, and is told.
    fn tell_of_killed_repairs(&mut self) {
        let event_of = self.event_of;
        let leases = self.record.leases.iter_mut();
        for (_, lease) in leases.filter(|(uuid, _)| event_of.is_none_or(|event_of| event_of == **uuid)) {
            let is_dead = |repair: &mut Repair| !self.host.is_alive(repair.by);
            if let Some(Repair { kind, by, .. }) = lease.repair.take_if(is_dead) {
                let (name, pid) = (&lease.name, by.pid);
                let note = format!("process {pid} was killed in {kind}, for guest {name}");
                self.recovered.notes.push(Note::warning(note));
            }
        }
    }

    /// Whether a guest ended, and the keeper that should have noticed has ended too.
    fn is_forgotten(&self, uuid: GuestUuid, lease: &Lease) -> bool {
        lease.phase == LeaseState::Started
            && self.record.entry(&KeeperProcess(uuid)).is_some()
            && !self.host.has_keeper(uuid)
            && !self.host.qemu_of(lease.qemu_clues(uuid), Deadline::after(ONE_LOOK)).may_run()
    }

    /// Whether all was given back but the keeper, which was too slow to end, and has ended since.
    fn lacks_only_its_keeper(&self, uuid: GuestUuid, lease: &Lease) -> bool {
        let keeper = SettingKey::Keeper(KeeperProcess(uuid));
        lease.phase == LeaseState::Unfinished
            && self.record.owed_by(uuid).all(|entry| entry.key() == keeper)
            && !self.host.has_keeper(uuid)
    }

    /// Whether a program or a device has to answer before a lease is given back.
    fn may_hang(&self, uuid: GuestUuid) -> bool {
        self.takes_time_to_give_back(uuid, None)
            || self.record.entries().any(|entry| entry.concerns(uuid) && entry.traits().peer == Peer::MayHang)
    }

    /// A pool that was growing when its writer was killed: what it gained since is the guest's share.
    fn credit_interrupted_growth(&mut self) {
        let is_open = |entry: &&Entry<PagePoolSize>| !self.record.is_at_rest(*entry, &self.host);
        let open: Vec<PagePoolSize> =
            self.record.each::<PagePoolSize>().filter(is_open).map(|entry| entry.setting).collect();
        for pool in open {
            let Ok(now) = pool.read(&self.host, self.deadline) else { continue };
            let Some(entry) = self.record.entry_mut(&pool) else { continue };
            let Some(pending) = entry.pending().cloned() else { continue };
            let before = entry.written;
            let gained = now.min(pending.value.max(before)).saturating_sub(before);
            let claim = pending.beneficiary.and_then(|uuid| entry.claims.get_mut(&uuid));
            if let Some(share) = claim {
                share.gain(gained);
                entry.found(before + gained);
            }
            // Still without a beneficiary only when the pool was shrinking, which computing again finishes.
            if gained > 0 {
                entry.withdraw();
            }
        }
    }
}

/// A keeper lives for days, and needs a worker no longer than it has the ledger.
impl Drop for Ledger<'_> {
    fn drop(&mut self) {
        self.host.dismiss_worker();
    }
}
