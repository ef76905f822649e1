//! What can be done with an entry whatever its setting is.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;

use super::entry::{Change, Entry, Seen, SeenState};
use super::error::LedgerError;
use super::plan::{Note, On, Plan};
use super::rule::{Basis, Rule};
use super::setting::{Afterwards, Care, Occasion, OnRefusal, ReadBack, Traits};
use super::settings::{Listed, SettingKey};
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::{Host, HostError, ProcessId};

/// An entry whose setting is not known here.
pub trait AnyEntry: Any + fmt::Debug {
    /// The key of its setting.
    fn key(&self) -> SettingKey;
    /// How it is taken, held and given back.
    fn traits(&self) -> Traits;
    /// Whether a guest claims it.
    fn has_claim(&self, uuid: GuestUuid) -> bool;
    /// Whether any guest claims it.
    fn is_claimed(&self) -> bool;
    /// A guest claims it no more; whether it did.
    fn drop_claim(&mut self, uuid: GuestUuid) -> bool;
    /// Whether a write was announced and not confirmed.
    fn is_pending(&self) -> bool;
    /// The guest that the announced write is for.
    fn beneficiary(&self) -> Option<GuestUuid>;
    /// Announces that the baseline is written.
    fn announce_baseline(&mut self);
    /// Notes the guest that it is given back for.
    fn owe(&mut self, guest: Option<GuestUuid>);
    /// Forgets an announced write: nothing of it can have been made, or it does not matter.
    fn withdraw(&mut self);
    /// A process that hangs in the kernel over it.
    fn stuck(&self) -> Option<ProcessId>;
    /// The guest that it is given back for: one of these that claims it, or the one that it was owed by before.
    fn owner_among(&self, leaving: &BTreeSet<GuestUuid>) -> Option<GuestUuid>;
    /// Remembers the process that hangs in the kernel over it.
    fn set_stuck(&mut self, process: Option<ProcessId>);
    /// Whether its values stand for themselves, so that writing one twice is the same as writing it once.
    fn is_absolute(&self) -> bool;
    /// Whether what was last written is the baseline.
    fn is_at_baseline(&self) -> bool;
    /// The baseline in words.
    fn baseline(&self) -> String;
    /// What was last written, in words.
    fn written(&self) -> String;
    /// What a guest wants, in words; empty where it wants nothing.
    fn want(&self, uuid: GuestUuid) -> String;
    /// Looks at the setting, for a person.
    fn look(&self, host: &Host, online: &CpuSet, deadline: Deadline) -> Seen;
    /// Writes what was announced until the deadline, and confirms what the host kept, looked at until the end.
    ///
    /// # Errors
    /// The host refuses; the announcement stays.
    fn write(&mut self, host: &mut Host, deadline: Deadline, end: Deadline) -> Result<(), HostError>;
    /// What it means when the host refuses a write.
    fn on_refusal(&self, error: &HostError) -> OnRefusal;
    /// Takes over what a copy of it confirmed without the lock, if what was announced then still is.
    fn take_over(&mut self, announced: &dyn AnyEntry, copy: &dyn AnyEntry);
    /// Takes over what a plan says of it, all but the claims.
    fn follow(&mut self, planned: &dyn AnyEntry);
    /// Whether it is seen to be back.
    fn is_seen_back(&self, host: &Host, deadline: Deadline) -> bool;
    /// Sets it again for a guest, where it is found changed.
    ///
    /// # Errors
    /// It cannot be read.
    fn reconcile(
        &self,
        uuid: GuestUuid,
        occasion: Occasion,
        plan: &mut Plan,
        on: &On<'_>,
    ) -> Result<(), LedgerError>;
    /// Takes these guests' claims out of it, and settles what a killed process left half done.
    fn release(&self, leaving: &BTreeSet<GuestUuid>, plan: &mut Plan, on: &On<'_>);
    /// Computes and announces it again for a guest, after others had the ledger: the change that is left to make.
    fn recompute(&mut self, uuid: GuestUuid, on: &On<'_>, notes: &mut Vec<Note>) -> Option<Change>;
    /// The entry with its type.
    fn as_any(&self) -> &dyn Any;
}

impl dyn AnyEntry {
    /// Whether a guest claims it and no write is open.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.is_pending() && self.is_claimed()
    }

    /// Whether a guest claims it, or the write that is open is for that guest.
    #[must_use]
    pub fn concerns(&self, uuid: GuestUuid) -> bool {
        self.has_claim(uuid) || self.beneficiary() == Some(uuid)
    }

    /// Whether it was given back, but may still be read as it was before: until it is seen to have come back, nobody
    /// may take for a baseline what is read.
    #[must_use]
    pub fn is_fading(&self) -> bool {
        self.traits().read_back == ReadBack::Later
            && !self.is_claimed()
            && !self.is_pending()
            && self.is_at_baseline()
    }

    /// Whether what it held before comes back.
    #[must_use]
    pub fn is_put_back(&self) -> bool {
        self.traits().afterwards == Afterwards::Baseline
    }

    /// Whether only its guest's keeper, or the process that ends the lease without one, looks after it.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.traits().care == Care::ItsKeeper
    }
}

impl<S: Listed> AnyEntry for Entry<S> {
    fn key(&self) -> SettingKey {
        self.setting.clone().key()
    }

    fn traits(&self) -> Traits {
        self.setting.traits()
    }

    fn has_claim(&self, uuid: GuestUuid) -> bool {
        self.claims.contains_key(&uuid)
    }

    fn is_claimed(&self) -> bool {
        !self.claims.is_empty()
    }

    fn drop_claim(&mut self, uuid: GuestUuid) -> bool {
        self.claims.remove(&uuid).is_some()
    }

    fn is_pending(&self) -> bool {
        self.pending().is_some()
    }

    fn beneficiary(&self) -> Option<GuestUuid> {
        self.pending().and_then(|pending| pending.beneficiary)
    }

    fn owe(&mut self, guest: Option<GuestUuid>) {
        self.owe_to(guest);
    }

    fn withdraw(&mut self) {
        Self::withdraw(self);
    }

    fn stuck(&self) -> Option<ProcessId> {
        self.stuck
    }

    fn owner_among(&self, leaving: &BTreeSet<GuestUuid>) -> Option<GuestUuid> {
        let claimant = self.claims.keys().find(|uuid| leaving.contains(uuid)).copied();
        claimant.or_else(|| self.beneficiary())
    }

    fn set_stuck(&mut self, process: Option<ProcessId>) {
        self.stuck = process;
    }

    fn is_absolute(&self) -> bool {
        <S::Rule as Rule<S>>::BASIS == Basis::LastWritten
    }

    fn is_at_baseline(&self) -> bool {
        S::is_same(&self.written, &self.baseline)
    }

    fn baseline(&self) -> String {
        S::show(&self.baseline)
    }

    fn written(&self) -> String {
        S::show(&self.written)
    }

    fn want(&self, uuid: GuestUuid) -> String {
        self.claims.get(&uuid).map(S::describe).unwrap_or_default()
    }

    fn look(&self, host: &Host, online: &CpuSet, deadline: Deadline) -> Seen {
        let now = match self.setting.read(host, deadline) {
            Ok(now) => now,
            Err(error) if error.is_absent() => return Seen { now: None, state: SeenState::Differs },
            // It may hold what was written.
            Err(_) => return Seen { now: None, state: SeenState::Silent },
        };
        self.compare(&now, online)
    }

    fn announce_baseline(&mut self) {
        self.announce(self.baseline.clone(), None);
    }

    fn write(&mut self, host: &mut Host, deadline: Deadline, end: Deadline) -> Result<(), HostError> {
        self.write_pending(host, deadline, end)
    }

    fn on_refusal(&self, error: &HostError) -> OnRefusal {
        self.setting.on_refusal(error)
    }

    fn take_over(&mut self, announced: &dyn AnyEntry, copy: &dyn AnyEntry) {
        let typed = |entry: &dyn AnyEntry| entry.as_any().downcast_ref::<Self>().cloned();
        let (Some(announced), Some(copy)) = (typed(announced), typed(copy)) else { return };
        if copy.pending().is_none() && self.pending() == announced.pending() {
            self.confirm(copy.written);
        }
    }

    fn follow(&mut self, planned: &dyn AnyEntry) {
        if let Some(planned) = planned.as_any().downcast_ref::<Self>() {
            self.follow_plan(planned);
        }
    }

    fn is_seen_back(&self, host: &Host, deadline: Deadline) -> bool {
        match self.setting.read(host, deadline) {
            Ok(now) => now == self.baseline,
            // One that does not say what it holds may still hold what was given back.
            Err(error) => error.is_absent(),
        }
    }

    fn reconcile(
        &self,
        uuid: GuestUuid,
        occasion: Occasion,
        plan: &mut Plan,
        on: &On<'_>,
    ) -> Result<(), LedgerError> {
        self.plan_reconciling(uuid, occasion, plan, on)
    }

    fn release(&self, leaving: &BTreeSet<GuestUuid>, plan: &mut Plan, on: &On<'_>) {
        self.plan_release(leaving, plan, on);
    }

    fn recompute(&mut self, uuid: GuestUuid, on: &On<'_>, notes: &mut Vec<Note>) -> Option<Change> {
        self.announce_anew(uuid, on, notes)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
