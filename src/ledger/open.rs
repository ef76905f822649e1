//! The ledger of a host: locked, loaded, and recovered where its last user was killed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::cards::CardUsage;
use super::carry_out::Outcome;
use super::combine::pages_of;
use super::error::LedgerError;
use super::knob::{Knob, OnRefusal};
use super::plan::{Claim, Extent, Note, Plan};
use super::record::{Lease, Phase, Record};
use super::value::{Value, Want};
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::{Host, HostError, LockFile, LockState, ONE_LOOK, STATE_DIR};

/// The file's name in [`STATE_DIR`].
pub const FILE: &str = "ledger.json";

/// Where it is.
pub const LEDGER_PATH: &str = "/run/vfio-hook/ledger.json";

pub(super) const LOCK: &str = "lock";

/// What undoing a `prepare` may take when the event's time is over: less than the reserve that the watchdog leaves.
const UNDO: Duration = Duration::from_secs(5);

/// How long QEMU may be looked for while the ledger is locked and libvirt waits: `started` has 2 s in all.
const FIND_QEMU: Duration = Duration::from_millis(500);

/// How hard to try for what may take time.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How long to gather huge pages.
    pub pages: Duration,
    /// What it means when they cannot be had.
    pub on_shortage: OnRefusal,
    /// How long units may take to stop, all together.
    pub units: Duration,
    /// How long to wait for a card.
    pub cards: CardPatience,
}

/// How long to wait for a card.
#[derive(Clone, Copy, Debug, Default)]
pub struct CardPatience {
    /// For the programs that use it to let go of it.
    pub users: Duration,
    /// For a driver to let go of it, and the next to take it.
    pub drivers: Duration,
}

/// The ledger of a host, locked as long as this lives.
pub struct Ledger<'h> {
    pub(super) host: &'h mut Host,
    pub(super) record: Record,
    pub(super) deadline: Deadline,
    /// How long pages are gathered.
    pub(super) page_effort: Duration,
    /// By when the pages have to be there; earlier than the event's own end.
    pub(super) page_deadline: Deadline,
    /// By when the units have to have stopped.
    pub(super) unit_deadline: Deadline,
    pub(super) card_patience: CardPatience,
    pub(super) locked_since: Instant,
    /// How often others had the lock since this was opened.
    pub(super) turns: u32,
    lock: Option<LockFile>,
    /// What was found and mended, at opening and whenever others had had the lock.
    pub(super) recovered: Outcome,
}

impl<'h> Ledger<'h> {
    /// Locks and loads the ledger, and finishes or undoes what a killed process left half done.
    ///
    /// # Errors
    /// Somebody holds the lock until the deadline; the ledger is damaged or of a newer version.
    pub fn open(host: &'h mut Host, deadline: Deadline) -> Result<Self, LedgerError> {
        let lock = host.lock_state(LOCK, deadline)?;
        let mut notes = Vec::new();
        let record = load_for_this_boot(host, &mut notes)?;
        let mut ledger = Self {
            host,
            record,
            deadline,
            page_effort: Duration::ZERO,
            page_deadline: deadline,
            unit_deadline: deadline,
            card_patience: CardPatience::default(),
            locked_since: Instant::now(),
            turns: 0,
            lock: Some(lock),
            recovered: Outcome { notes, ..Outcome::default() },
        };
        ledger.recover()?;
        Ok(ledger)
    }

    /// Reads the ledger without a lock, for those who only look. None where there is none, or it is of another boot.
    ///
    /// # Errors
    /// It cannot be read, is damaged or of a newer version: then it is not known who holds what.
    pub fn peek(host: &Host) -> Result<Option<Record>, LedgerError> {
        let Some(record) = read(host)? else { return Ok(None) };
        let boot_id = host.boot_id()?;
        Ok((record.boot_id == boot_id).then_some(record))
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
        self.host
    }

    /// What was found and mended at opening.
    #[must_use]
    pub fn recovered(&self) -> &Outcome {
        &self.recovered
    }

    /// What giving a guest's lease back would lead to.
    ///
    /// # Errors
    /// The host cannot be read.
    pub fn plan_give_back(&self, uuid: GuestUuid) -> Result<Plan, LedgerError> {
        Plan::give_back(&self.record, self.host, &BTreeSet::from([uuid]), Extent::Whole, self.deadline)
    }

    /// Takes a lease: all of the plan, or nothing.
    ///
    /// # Errors
    /// The host refused a change; everything taken was given back before this returns.
    pub fn take(&mut self, uuid: GuestUuid, plan: Plan, effort: Effort) -> Result<Outcome, LedgerError> {
        self.unit_deadline = Deadline::after(effort.units).earlier(self.deadline);
        self.page_effort = effort.pages;
        self.card_patience = effort.cards;
        match self.carry_out_taking(uuid, plan, effort.on_shortage) {
            Ok(outcome) => Ok(outcome),
            Err(error) => Err(match self.undo_taking(uuid) {
                Ok(undone) if undone.failures.is_empty() => error,
                Ok(undone) => error.but_not_undone(undone.failures.join("; ")),
                Err(reason) => error.but_not_undone(reason.to_string()),
            }),
        }
    }

    /// Takes what the checks for the rest of a lease need, and leaves the lease in this process's hands.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn take_early(
        &mut self,
        uuid: GuestUuid,
        lease: Lease,
        claims: &[Claim],
    ) -> Result<Outcome, LedgerError> {
        let phase = lease.phase;
        let plan = Plan::take(&self.record, self.host, uuid, lease, claims, self.deadline)?;
        let effort = Effort {
            pages: Duration::ZERO,
            on_shortage: OnRefusal::Refuse,
            units: Duration::ZERO,
            cards: CardPatience::default(),
        };
        let outcome = self.take(uuid, plan, effort)?;
        if let Some(lease) = self.record.leases.get_mut(&uuid) {
            lease.phase = phase;
            self.store()?;
        }
        Ok(outcome)
    }

    /// Gives back what was taken so far. Whatever cannot be given back, or cannot even be looked at because somebody
    /// else got the lock, is found by the next event.
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
        if lease.phase == Phase::Prepared {
            lease.phase = Phase::Started;
            for card in &mut lease.cards {
                card.usage = CardUsage::ByGuest;
            }
        }
        if lease.phase == Phase::Started {
            let found = self.host.qemu_of(lease.qemu_clues(uuid), Deadline::after(FIND_QEMU));
            lease.qemu = found.found().or(lease.qemu);
        }
        if *lease == before { Ok(()) } else { self.store() }
    }

    /// Writes the ledger, or removes its file where nobody holds anything.
    pub(super) fn store(&mut self) -> Result<(), LedgerError> {
        if self.record.is_empty() {
            self.host.remove_state(FILE)?;
        } else {
            let bytes = self.record.to_bytes();
            self.host.replace_state(FILE, &bytes)?;
        }
        Ok(())
    }

    /// Lets others at the ledger while something slow is done, then locks and loads it again.
    pub(super) fn unlocked<T>(
        &mut self,
        slow: impl FnOnce(&mut Host, Deadline) -> T,
    ) -> Result<T, LedgerError> {
        self.store()?;
        self.lock = None;
        let result = slow(self.host, self.deadline);
        self.relock()?;
        Ok(result)
    }

    /// Takes the lock again where it was given up, with what the others made of the ledger.
    pub(super) fn relock(&mut self) -> Result<(), LedgerError> {
        if self.lock.is_none() {
            self.lock = Some(self.host.lock_state(LOCK, self.deadline)?);
            self.record = load_for_this_boot(self.host, &mut self.recovered.notes)?;
            self.locked_since = Instant::now();
            self.turns += 1;
        }
        Ok(())
    }

    /// Finishes or undoes what a killed process left half done: guests whose `prepare` died hold nothing any more, and
    /// entries with an open write or without a claim are computed and written again. A process that lives and only gave
    /// up the lock for a while finishes its work itself.
    fn recover(&mut self) -> Result<(), LedgerError> {
        let failed: BTreeSet<GuestUuid> = self
            .record
            .leases
            .iter()
            .filter(|(uuid, lease)| lease.is_abandoned(self.host) || self.is_forgotten(**uuid, lease))
            .map(|(uuid, _)| *uuid)
            .collect();
        // Those that take time are given back one by one.
        let (slow, failed): (BTreeSet<_>, BTreeSet<_>) =
            failed.into_iter().partition(|uuid| self.takes_time_to_give_back(*uuid, None));
        for uuid in &slow {
            let outcome = self.give_back(*uuid, "failed", None)?;
            self.recovered.absorb(outcome);
        }
        let is_at_rest = |entry| self.record.is_at_rest(entry, self.host);
        if failed.is_empty() && self.record.entries.iter().all(is_at_rest) {
            return Ok(());
        }
        let only_fading = failed.is_empty()
            && self.record.entries.iter().all(|entry| is_at_rest(entry) || entry.is_fading());
        self.credit_interrupted_growth();
        let plan = Plan::give_back(&self.record, self.host, &failed, Extent::Whole, self.deadline)?;
        let mut outcome = self.carry_out_giving_back(plan)?;
        if !only_fading {
            let note = "an earlier run was killed or failed half way; its changes were settled";
            outcome.notes.insert(0, Note::info(note));
        }
        self.recovered.absorb(outcome);
        Ok(())
    }

    /// Whether a guest ended, and the keeper that should have noticed has ended too.
    fn is_forgotten(&self, uuid: GuestUuid, lease: &Lease) -> bool {
        lease.phase == Phase::Started
            && self.record.entry(&Knob::Keeper(uuid)).is_some()
            && matches!(self.host.keeper(uuid, self.deadline), Ok(None))
            && !self.host.qemu_of(lease.qemu_clues(uuid), Deadline::after(ONE_LOOK)).may_run()
    }

    /// A pool that was growing when its writer was killed: what it gained since is the guest's share.
    fn credit_interrupted_growth(&mut self) {
        let at_rest: Vec<bool> =
            self.record.entries.iter().map(|entry| self.record.is_at_rest(entry, self.host)).collect();
        for (entry, at_rest) in self.record.entries.iter_mut().zip(at_rest) {
            let Some(pending) = entry.pending.clone().filter(|_| !at_rest) else { continue };
            let Value::Pages(target) = pending.value else { continue };
            let Ok(now) = entry.knob.read(self.host, self.deadline) else { continue };
            let (before, now) = (pages_of(&entry.written), pages_of(&now));
            let gained = now.min(target.max(before)).saturating_sub(before);
            let claim = pending.beneficiary.and_then(|uuid| entry.claims.get_mut(&uuid));
            if let Some(Want::Pages(share)) = claim {
                share.added += gained;
                entry.written = Value::Pages(before + gained);
            }
            // Still without a beneficiary only when the pool was shrinking, which computing again finishes.
            entry.pending = (gained == 0).then_some(pending);
        }
    }
}

fn read(host: &Host) -> Result<Option<Record>, LedgerError> {
    let Some(bytes) = host.read_state(FILE)? else { return Ok(None) };
    let record = Record::parse(&bytes)
        .map_err(|reason| LedgerError::Record { path: LEDGER_PATH.to_owned(), reason })?;
    Ok(Some(record))
}

/// A ledger of another boot describes values that are gone: it is kept aside and never acted on.
fn load_for_this_boot(host: &mut Host, notes: &mut Vec<Note>) -> Result<Record, LedgerError> {
    let boot_id = host.boot_id()?;
    match read(host)? {
        Some(record) if record.boot_id == boot_id => Ok(record),
        Some(record) => {
            let archived = format!("{FILE}.{}", printable_boot_id(&record.boot_id));
            host.archive_state(FILE, &archived)?;
            notes.push(Note::warning(format!(
                "the ledger was of another boot; kept as {STATE_DIR}/{archived}"
            )));
            Ok(Record::empty(boot_id))
        }
        None => Ok(Record::empty(boot_id)),
    }
}

/// A boot id read from a file becomes part of a file name.
fn printable_boot_id(boot_id: &str) -> String {
    boot_id.chars().filter(|c| c.is_ascii_hexdigit() || *c == '-').take(36).collect()
}
