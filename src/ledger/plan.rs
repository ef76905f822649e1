//! What an event leads to: shown by `vfio-hook test`, carried out by the hook.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::claim::{Claim, ClaimTerms};
use super::commands::Commands;
use super::entry::{Change, Entry};
use super::error::LedgerError;
use super::guest_schedule::GuestSchedule;
use super::monitors::MonitorWish;
use super::record::{Basis, Lease, Purpose, Record};
use super::room_for_memory::PlannedRepair;
use super::rule::{Conflict, Rule};
use super::setting::{Admission, Admitted, Occasion, OnRefusal, Phase, ReadBack};
use super::settings::{Listed, ListedClaim, SettingKey};
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::Host;

/// What a plan is made on.
#[expect(missing_debug_implementations, reason = "the host has none")]
pub struct On<'a> {
    pub(super) host: &'a Host,
    /// The CPUs of the host.
    pub(super) online: &'a CpuSet,
    /// By when each setting has to say what it holds.
    pub(super) deadline: Deadline,
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
    /// A card is given to no guest and no driver of the host until a person has looked at it.
    Quarantine,
}

/// How much of a lease is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What comes back before the guest's commands run; the guest keeps its lease.
    BeforeCommands,
    /// What is left of the cards once their drivers are back; the guest keeps its lease.
    Cards,
    /// What may take its time and any process may look after, of one phase; the guest keeps its lease.
    Slow(Phase),
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
    /// What is done beside them that is no setting, between the cards and the pages.
    pub repairs: Vec<PlannedRepair>,
    /// What a person should know.
    pub notes: Vec<Note>,
    /// Settings that cannot be looked at, so that nothing is planned for them.
    pub failures: Vec<String>,
    /// How many settings are left alone until it is known whether a CPU has just come online.
    pub undecided: usize,
    /// The guests whose claims it takes out.
    pub(super) leaving: BTreeSet<GuestUuid>,
    /// How its claims are taken.
    pub(super) terms: BTreeMap<SettingKey, ClaimTerms>,
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

    /// A card is in quarantine.
    #[must_use]
    pub fn quarantine(text: impl Into<String>) -> Self {
        Self { level: NoteLevel::Quarantine, text: text.into() }
    }
}

impl Extent {
    /// Whether the rest of the lease is given back after it.
    fn is_first_part(self) -> bool {
        matches!(self, Self::BeforeCommands | Self::Cards | Self::Slow(_))
    }

    /// Whether a setting comes back with it.
    fn covers(self, setting: &SettingKey) -> bool {
        match self {
            Self::Whole => true,
            Self::BeforeCommands => {
                setting.traits().phase == Phase::WithinCommands && !setting.traits().is_slow()
            }
            Self::Cards => setting.traits().phase == Phase::Cards,
            Self::Slow(phase) => setting.traits().phase == phase && setting.traits().is_slow(),
            Self::ButMonitors => !matches!(setting, SettingKey::MonitorFeature(_)),
        }
    }
}

impl Plan {
    pub(super) fn without_changes(record: &Record) -> Self {
        Self {
            record: record.clone(),
            changes: Vec::new(),
            repairs: Vec::new(),
            notes: Vec::new(),
            failures: Vec::new(),
            undecided: 0,
            leaving: BTreeSet::new(),
            terms: BTreeMap::new(),
        }
    }

    /// Adds a guest's claims to the ledger.
    ///
    /// # Errors
    /// A setting cannot be read; another guest wants something else of it.
    pub fn take(
        record: &Record,
        host: &Host,
        uuid: GuestUuid,
        mut lease: Lease,
        claims: &[ListedClaim],
        deadline: Deadline,
    ) -> Result<Self, LedgerError> {
        let mut plan = Self::without_changes(record);
        if let Some(earlier) = record.leases.get(&uuid) {
            lease.commands.inherit_undos(&earlier.commands);
        }
        plan.record.leases.insert(uuid, lease);
        plan.add_claims(host, uuid, claims, deadline)?;
        Ok(plan)
    }

    /// The same, with these repairs.
    #[must_use]
    pub fn with_repairs(self, repairs: Vec<PlannedRepair>) -> Self {
        Self { repairs, ..self }
    }

    /// Adds claims to a lease that a guest has.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(super) fn add(
        record: &Record,
        host: &Host,
        uuid: GuestUuid,
        claims: &[ListedClaim],
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
        claims: &[ListedClaim],
        deadline: Deadline,
    ) -> Result<(), LedgerError> {
        let online = host.online_cpus()?;
        let on = On { host, online: &online, deadline };
        for claim in claims {
            claim.add_to(self, uuid, &on).map_err(|error| error.asked_by(claim.terms()))?;
            self.terms.insert(claim.key(), claim.terms().clone());
        }
        self.changes.sort_by(|left, right| left.setting.cmp(&right.setting));
        Ok(())
    }

    /// Adds claims to a lease that a guest has, and sets again what was found changed. A setting that is
    /// gone is passed over; an interrupt that is gone is forgotten.
    ///
    /// # Errors
    /// A setting cannot be read.
    pub fn reconcile(
        record: &Record,
        host: &Host,
        uuid: GuestUuid,
        claims: &[ListedClaim],
        occasion: Occasion,
        deadline: Deadline,
    ) -> Result<Self, LedgerError> {
        let mut plan = Self::without_changes(record);
        let online = host.online_cpus()?;
        let on = On { host, online: &online, deadline };
        let reconciled = record
            .entries_of(uuid)
            .filter(|entry| entry.traits().reconciling.applies_on(occasion) && entry.is_settled());
        for entry in reconciled {
            entry.reconcile(uuid, occasion, &mut plan, &on)?;
        }
        plan.add_claims(host, uuid, claims, deadline)?;
        Ok(plan)
    }

    /// Adds one claim.
    pub(super) fn claim<S: Listed>(
        &mut self,
        uuid: GuestUuid,
        claim: &Claim<S>,
        on: &On<'_>,
    ) -> Result<(), LedgerError> {
        let setting = &claim.setting;
        let now = match claim.now.clone().map_or_else(|| setting.read(on.host, on.deadline), Ok) {
            Ok(now) => now,
            Err(error)
                if error.is_absent()
                    || claim.terms.on_refusal == OnRefusal::Skip
                    || setting.on_refusal(&error) == OnRefusal::Skip =>
            {
                self.notes.push(Note::warning(format!("{setting} left alone: {error}")));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let new = || Entry::new(setting.clone(), now.clone());
        let mut entry = self.record.entry(setting).cloned().unwrap_or_else(new);
        let settles_later = setting.traits().read_back == ReadBack::Later;
        let now = if settles_later { entry.written.clone() } else { now };
        self.notes.extend(S::Rule::adopt(&mut entry, &now, on.online).map(Note::warning));
        // Whether what was announced before was written, `now` tells, or else it is written again.
        let was_announced = entry.withdraw().is_some();
        if was_announced {
            entry.found(now.clone());
        }
        let admission = Admission { uuid, now: &now, record: &self.record, host: on.host };
        let Admitted { want, then } = S::admit(&entry, &claim.want, &admission)?;
        entry.claims.insert(uuid, want);
        let then = match then {
            Some(then) => then,
            None => S::Rule::combine(&entry.combining(&now, on.online))
                .map_err(|conflict| self.conflict(setting, conflict))?,
        };
        let in_doubt = was_announced && settles_later;
        if in_doubt || !S::is_same(&then, &now) {
            self.changes.push(Change::of(setting, &now, &then));
            entry.announce(then, Some(uuid));
        }
        self.record.put(entry);
        Ok(())
    }

    /// Writes what a setting held for a guest once more.
    pub(super) fn set_again<S: Listed>(&mut self, uuid: GuestUuid, entry: &Entry<S>, now: &S::Value) {
        let mut entry = entry.clone();
        self.changes.push(Change::of(&entry.setting, now, &entry.written));
        entry.announce(entry.written.clone(), Some(uuid));
        self.record.put(entry);
    }

    fn conflict(&self, setting: &impl fmt::Display, conflict: Conflict) -> LedgerError {
        let Conflict { holder, held, wanted } = conflict;
        let name = self.record.leases.get(&holder).map(|lease| lease.name.clone());
        let holder = name.unwrap_or_else(|| holder.to_string());
        LedgerError::Conflict { setting: setting.to_string(), holder, held, wanted, key: None }
    }

    /// Takes these guests' claims out of the ledger, and settles whatever a killed process left half done: in an event
    /// of a guest only what is that guest's or cannot hang.
    ///
    /// # Errors
    /// The CPUs that are online cannot be read. A setting that cannot be read stays in the ledger, as a failure.
    pub fn give_back(
        record: &Record,
        host: &Host,
        event_of: Option<GuestUuid>,
        leaving: &BTreeSet<GuestUuid>,
        extent: Extent,
        deadline: Deadline,
    ) -> Result<Self, LedgerError> {
        let mut plan = Self::without_changes(record);
        let online = host.online_cpus()?;
        let on = On { host, online: &online, deadline };
        plan.leaving.clone_from(leaving);
        if extent == Extent::Whole {
            plan.record.leases.retain(|uuid, _| !leaving.contains(uuid));
        }
        // A card in quarantine stays as it is, however the process that was at work on it came to its end.
        for entry in record.entries().rev().filter(|entry| !record.is_quarantined(&entry.key())) {
            let is_leaving = extent.covers(&entry.key()) && leaving.iter().any(|uuid| entry.has_claim(*uuid));
            let is_owed = extent.covers(&entry.key())
                && entry.beneficiary().is_some_and(|uuid| leaving.contains(&uuid));
            // Computed again with its claim, it would be taken once more just before it is given back.
            let comes_later = extent.is_first_part()
                && !extent.covers(&entry.key())
                && leaving.iter().any(|uuid| entry.concerns(*uuid));
            let is_left_half_done = !comes_later
                && !record.is_at_rest(entry, host)
                && !event_of.is_some_and(|uuid| record.is_left_to_others(entry, uuid));
            if is_leaving || is_owed || is_left_half_done {
                let leaving = if extent.covers(&entry.key()) { leaving } else { &BTreeSet::new() };
                entry.release(leaving, &mut plan, &on);
            }
        }
        Ok(plan)
    }

    /// Leaves settings as they are, to be given back for a guest later.
    pub(super) fn leave_owed(&mut self, settings: &BTreeSet<SettingKey>, uuid: GuestUuid) {
        self.changes.retain(|change| !settings.contains(&change.setting));
        for setting in settings {
            if let Some(entry) = self.record.any_mut(setting) {
                entry.owe(Some(uuid));
            }
        }
    }

    /// What is to be run for a guest, now and later.
    #[must_use]
    pub fn commands(&self, uuid: GuestUuid) -> Option<&Commands> {
        self.record.leases.get(&uuid).map(|lease| &lease.commands)
    }

    /// Says what a guest's lease is taken for, and by what.
    pub fn set_purpose(&mut self, uuid: GuestUuid, purpose: Purpose, basis: Basis) {
        if let Some(lease) = self.record.leases.get_mut(&uuid) {
            lease.purpose = purpose;
            lease.basis = Some(basis);
        }
    }

    /// The monitors that are to be switched once a guest is up.
    #[must_use]
    pub fn monitors(&self, uuid: GuestUuid) -> &[MonitorWish] {
        self.record.leases.get(&uuid).map_or(&[], |lease| &lease.monitors)
    }

    /// How a guest's threads are to be scheduled once QEMU runs.
    #[must_use]
    pub fn schedule(&self, uuid: GuestUuid) -> Option<&GuestSchedule> {
        self.record.leases.get(&uuid)?.schedule.as_ref()
    }

    /// Whether nothing has to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}
