//! What an event leads to: shown by `vfio-hook test`, carried out by the hook.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::combine::{combine, pages_of};
use super::commands::Commands;
use super::error::LedgerError;
use super::foreign::adopt_foreign_change;
use super::knob::{CombineRule, Knob, NONE, OnRefusal, Settles, Turn};
use super::monitors::MonitorWish;
use super::promises::{ownerless_pages, page_shortfall};
use super::record::{Entry, Lease, Pending, Record};
use super::value::{Value, Want};
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::Host;

/// What one guest wants of one knob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The knob.
    pub knob: Knob,
    /// What is wanted of it.
    pub want: Want,
    /// What it holds, where that was looked at already.
    pub now: Option<Value>,
}

/// One knob's way from what it holds to what it will hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The knob.
    pub knob: Knob,
    /// What it holds.
    pub now: Value,
    /// What it will hold.
    pub then: Value,
}

/// Something a person should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// How much it matters.
    pub level: NoteLevel,
    /// The words.
    pub text: String,
}

/// How much a note matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoteLevel {
    /// Good to know.
    Info,
    /// Not what was asked for, or not what is best.
    Warning,
}

/// How much of a lease is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What comes back before the guest's commands run; the guest keeps its lease.
    BeforeCommands,
    /// What is left of the cards once their drivers are back; the guest keeps its lease.
    Cards,
    /// All but the monitors, which the guest's next life goes on using; the guest keeps its lease.
    ButMonitors,
    /// Everything.
    Whole,
}

/// The changes an event leads to, in their order, and the ledger as it will be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The ledger while the changes are made.
    pub(super) record: Record,
    /// The changes.
    pub changes: Vec<Change>,
    /// What a person should know.
    pub notes: Vec<Note>,
    /// Knobs that cannot be looked at, so that nothing is planned for them.
    pub failures: Vec<String>,
}

impl Note {
    /// Good to know.
    #[must_use]
    pub fn info(text: impl Into<String>) -> Self {
        Self { level: NoteLevel::Info, text: text.into() }
    }

    /// Not what was asked for, or not what is best.
    #[must_use]
    pub fn warning(text: impl Into<String>) -> Self {
        Self { level: NoteLevel::Warning, text: text.into() }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.knob, self.now.beside(&self.then), self.then.beside(&self.now))
    }
}

impl Plan {
    pub(super) fn without_changes(record: &Record) -> Self {
        Self { record: record.clone(), changes: Vec::new(), notes: Vec::new(), failures: Vec::new() }
    }

    /// Adds a guest's claims to the ledger.
    ///
    /// # Errors
    /// A knob cannot be read; another guest wants something else of it.
    pub fn take(
        record: &Record,
        host: &Host,
        uuid: GuestUuid,
        lease: Lease,
        claims: &[Claim],
        deadline: Deadline,
    ) -> Result<Self, LedgerError> {
        let mut plan = Self::without_changes(record);
        plan.record.leases.insert(uuid, lease);
        plan.add_claims(host, uuid, claims, deadline)?;
        Ok(plan)
    }

    /// Adds claims to a lease that a guest has.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(super) fn add(
        record: &Record,
        host: &Host,
        uuid: GuestUuid,
        claims: &[Claim],
        deadline: Deadline,
    ) -> Result<Self, LedgerError> {
        let mut plan = Self::without_changes(record);
        plan.add_claims(host, uuid, claims, deadline)?;
        Ok(plan)
    }

    fn add_claims(
        &mut self,
        host: &Host,
        uuid: GuestUuid,
        claims: &[Claim],
        deadline: Deadline,
    ) -> Result<(), LedgerError> {
        let online = host.online_cpus()?;
        for claim in claims {
            let now = match claim.now.clone().map_or_else(|| claim.knob.read(host, deadline), Ok) {
                Ok(now) => now,
                Err(error) if error.is_absent() || claim.knob.on_refusal(&error) == OnRefusal::Skip => {
                    self.notes.push(Note::warning(format!("{} left alone: {error}", claim.knob)));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            self.claim(host, uuid, claim, now, &online)?;
        }
        self.record.entries.sort_unstable_by(|left, right| left.knob.cmp(&right.knob));
        self.changes.sort_unstable_by(|left, right| left.knob.cmp(&right.knob));
        Ok(())
    }

    /// Adds claims to a lease that a guest has, and sets again what is upheld and was found changed. A knob that is
    /// gone is passed over; an interrupt that is gone is forgotten.
    ///
    /// # Errors
    /// A knob cannot be read.
    pub fn uphold(
        record: &Record,
        host: &Host,
        uuid: GuestUuid,
        claims: &[Claim],
        deadline: Deadline,
    ) -> Result<Self, LedgerError> {
        let mut plan = Self::without_changes(record);
        let again = record.entries_of(uuid).filter(|entry| entry.knob.is_upheld() && entry.is_settled());
        let mut wanted: Vec<Claim> = claims.to_vec();
        for entry in again {
            let Some(want) = entry.claims.get(&uuid) else { continue };
            match entry.knob.read(host, deadline) {
                Ok(now) if now.means_the_same(&entry.written) => {}
                // A reload brings an old value back; one that nobody knows was chosen by somebody.
                Ok(now) if matches!(entry.knob, Knob::AllowedCpus(_)) && !entry.is_ours(&now) => {
                    let entry = plan.record.entries.iter_mut().find(|other| other.knob == entry.knob);
                    plan.notes.extend(entry.and_then(|entry| adopt_foreign_change(entry, &now)));
                }
                Ok(now) => {
                    wanted.push(Claim { knob: entry.knob.clone(), want: want.clone(), now: Some(now) });
                }
                Err(error) if error.is_absent() => {
                    // Should a device make it anew, it is another interrupt, and taken in as such.
                    if matches!(entry.knob, Knob::IrqAffinity { .. } | Knob::VfioIrqAffinity { .. }) {
                        plan.record.entries.retain(|other| other.knob != entry.knob);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        plan.add_claims(host, uuid, &wanted, deadline)?;
        Ok(plan)
    }

    fn claim(
        &mut self,
        host: &Host,
        uuid: GuestUuid,
        claim: &Claim,
        now: Value,
        online: &CpuSet,
    ) -> Result<(), LedgerError> {
        let mut entry = match (self.record.entry(&claim.knob), claim.knob.rule()) {
            (Some(entry), _) => entry.clone(),
            // Nothing is put back.
            (None, CombineRule::Emptied) => Entry::new(claim.knob.clone(), Value::word(NONE)),
            (None, _) => Entry::new(claim.knob.clone(), now.clone()),
        };
        let now = if entry.knob.settles() == Settles::Later { entry.written.clone() } else { now };
        if entry.knob.rule() != CombineRule::Emptied
            && let Some(note) = adopt_foreign_change(&mut entry, &now)
        {
            self.notes.push(note);
        }
        // Whether what was announced before was written, `now` tells, or else it is written again.
        let was_announced = entry.pending.take().is_some();
        if was_announced {
            entry.written = now.clone();
        }
        let in_doubt = was_announced && entry.knob.settles() == Settles::Later;
        let mut want = claim.want.clone();
        if let Want::Pages(share) = &mut want {
            share.added = ownerless_pages(&entry, uuid, pages_of(&now)).min(share.promised);
            share.missing = page_shortfall(&self.record, host, &claim.knob, *share, uuid)?;
        }
        entry.claims.insert(uuid, want.clone());
        let then = match want {
            Want::Pages(share) => Value::Pages(pages_of(&now) + share.missing),
            _ => combine(&entry, &now, online).map_err(|conflict| LedgerError::Conflict {
                knob: claim.knob.to_string(),
                holder: self
                    .record
                    .leases
                    .get(&conflict.holder)
                    .map_or_else(|| conflict.holder.to_string(), |lease| lease.name.clone()),
                held: conflict.held,
                wanted: conflict.wanted,
            })?,
        };
        let knob = &claim.knob;
        self.record.entries.retain(|other| other.knob != *knob);
        self.record.entries.push(entry);
        if in_doubt || !then.means_the_same(&now) {
            self.changes.push(Change { knob: knob.clone(), now, then });
        }
        Ok(())
    }

    /// Takes these guests' claims out of the ledger, and settles whatever a killed process left half done.
    ///
    /// # Errors
    /// The CPUs that are online cannot be read. A knob that cannot be read stays in the ledger, as a failure.
    pub fn give_back(
        record: &Record,
        host: &Host,
        leaving: &BTreeSet<GuestUuid>,
        extent: Extent,
        deadline: Deadline,
    ) -> Result<Self, LedgerError> {
        let mut plan = Self::without_changes(record);
        let online = host.online_cpus()?;
        if extent == Extent::Whole {
            plan.record.leases.retain(|uuid, _| !leaving.contains(uuid));
        }
        let mut entries = std::mem::take(&mut plan.record.entries);
        entries.sort_unstable_by(|left, right| right.knob.cmp(&left.knob));
        for mut entry in entries {
            let was_at_rest = record.is_at_rest(&entry, host);
            let before = entry.claims.len();
            let is_leaving = match extent {
                Extent::Whole => true,
                Extent::BeforeCommands => entry.knob.turn() == Turn::WithinCommands,
                Extent::Cards => entry.knob.turn() == Turn::Cards,
                Extent::ButMonitors => !matches!(entry.knob, Knob::MonitorFeature(_)),
            };
            if is_leaving {
                entry.claims.retain(|uuid, _| !leaving.contains(uuid));
            }
            if was_at_rest && entry.claims.len() == before {
                plan.record.entries.push(entry);
                continue;
            }
            plan.release(host, entry, &online, deadline);
        }
        plan.record.entries.sort_unstable_by(|left, right| left.knob.cmp(&right.knob));
        Ok(plan)
    }

    fn release(&mut self, host: &Host, mut entry: Entry, online: &CpuSet, deadline: Deadline) {
        if entry.knob.rule() == CombineRule::Emptied {
            if !entry.claims.is_empty() {
                self.record.entries.push(entry);
            }
            return;
        }
        let now = match entry.knob.read(host, deadline) {
            Ok(now) => now,
            // These go with QEMU.
            Err(error) if error.is_absent() && matches!(entry.knob, Knob::VfioIrqAffinity { .. }) => return,
            Err(error) if error.is_absent() => {
                self.notes.push(Note::info(format!("{} is gone, nothing to give back: {error}", entry.knob)));
                return;
            }
            Err(error) => {
                self.failures.push(format!("{} not given back: {error}", entry.knob));
                entry.stuck = error.stuck_process();
                // An open write keeps the entry, and has it computed again by the next event.
                let value = combine(&entry, &entry.written, online).unwrap_or_else(|_| entry.written.clone());
                entry.pending = Some(Pending { value, beneficiary: None });
                self.record.entries.push(entry);
                return;
            }
        };
        let settles = entry.knob.settles();
        if entry.is_fading() {
            if now != entry.baseline {
                self.changes.push(Change { knob: entry.knob.clone(), now, then: entry.baseline.clone() });
                self.record.entries.push(entry);
            }
            return;
        }
        let now = if settles == Settles::Later { entry.written.clone() } else { now };
        if let Some(note) = adopt_foreign_change(&mut entry, &now) {
            self.notes.push(note);
        }
        // The announced write may have been made before its writer was killed.
        let announced = entry.pending.take();
        let in_doubt = announced.is_some() && settles == Settles::Later;
        let was_made = announced.is_some_and(|pending| pending.value.means_the_same(&now));
        if was_made || entry.knob.rule() == CombineRule::Shares {
            entry.written = now.clone();
        }
        // Words cannot conflict when a claim goes away.
        let then = combine(&entry, &now, online).unwrap_or_else(|_| now.clone());
        let stale = settles == Settles::OutOfSight && !entry.written.means_the_same(&then);
        let changed = stale || in_doubt || then != now;
        if changed {
            self.changes.push(Change { knob: entry.knob.clone(), now, then });
        }
        if changed || !entry.claims.is_empty() {
            self.record.entries.push(entry);
        }
    }

    /// What is to be run for a guest, now and later.
    #[must_use]
    pub fn commands(&self, uuid: GuestUuid) -> Option<&Commands> {
        self.record.leases.get(&uuid).map(|lease| &lease.commands)
    }

    /// The monitors that are to be switched once a guest is up.
    #[must_use]
    pub fn monitors(&self, uuid: GuestUuid) -> &[MonitorWish] {
        self.record.leases.get(&uuid).map_or(&[], |lease| &lease.monitors)
    }

    /// Whether nothing has to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}
