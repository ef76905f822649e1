//! One setting that a guest claims, or that is on its way back.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::rule::Rule;
use super::setting::{Combining, ReadBack, Setting, Writes};
use super::settings::{Listed, SettingKey};
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::{Host, HostError, ProcessId, UnitActivity};

/// One setting that a guest claims, or that is on its way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<S: Setting> {
    /// The setting.
    pub setting: S,
    /// Its value before any guest claimed it.
    pub baseline: S::Value,
    /// Its value when it was last looked at after a write of this program's.
    pub written: S::Value,
    /// What is being written; stays when the writer is killed. Private: it is assigned in this file alone.
    pending: Option<Pending<S::Value>>,
    /// A process that hangs in the kernel over it: the next one that touches it would hang too.
    pub stuck: Option<ProcessId>,
    /// What each guest wants of it. No guest: it is on its way back to the baseline.
    pub claims: BTreeMap<GuestUuid, S::Want>,
    /// What a newer program wrote, kept as it is.
    pub(super) unknown: Map<String, Json>,
}

/// A write that was announced and not yet confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending<V> {
    /// The value.
    pub value: V,
    /// The guest whose event takes it; none where it is given back.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub beneficiary: Option<GuestUuid>,
}

/// One setting's way from what it holds to what it will hold, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The setting.
    pub setting: SettingKey,
    /// What it holds.
    pub now: String,
    /// What it will hold.
    pub then: String,
}

impl Change {
    /// From one value to another.
    #[must_use]
    pub fn of<S: Listed>(setting: &S, now: &S::Value, then: &S::Value) -> Self {
        Self { setting: setting.clone().key(), now: S::beside(now, then), then: S::beside(then, now) }
    }
}

impl Change {
    /// Whether a unit that runs is stopped.
    #[must_use]
    pub fn stops_unit(&self) -> bool {
        matches!(self.setting, SettingKey::Unit(_)) && self.then == UnitActivity::Stopped.to_string()
    }

    /// Whether a unit is started for a guest.
    #[must_use]
    pub fn starts_unit(&self) -> bool {
        matches!(self.setting, SettingKey::Unit(_)) && self.then == UnitActivity::Started.to_string()
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.setting, self.now, self.then)
    }
}

/// What a person sees of a setting that a guest holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it holds; none where that cannot be read.
    pub now: Option<String>,
    /// Whether that is what it should hold.
    pub state: SeenState,
}

/// Whether a setting holds what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeenState {
    /// It does, or is on the way there.
    AsWritten,
    /// It does not.
    Differs,
    /// It does not say.
    Silent,
    /// What it says is worth nothing.
    NotVerifiable,
}

impl<S: Setting> Entry<S> {
    /// An entry for a setting that no guest claimed so far.
    #[must_use]
    pub fn new(setting: S, now: S::Value) -> Self {
        Self {
            setting,
            baseline: S::first_baseline(&now),
            written: now,
            pending: None,
            stuck: None,
            claims: BTreeMap::new(),
            unknown: Map::new(),
        }
    }

    pub(super) fn combining<'a>(&'a self, now: &'a S::Value, online: &'a CpuSet) -> Combining<'a, S> {
        Combining { setting: &self.setting, baseline: &self.baseline, claims: &self.claims, now, online }
    }

    /// Whether a value is one that this program wrote or was about to write, or one that the baseline and some of the
    /// claims lead to.
    #[must_use]
    pub fn is_ours(&self, now: &S::Value, online: &CpuSet) -> bool {
        let pending = self.pending.as_ref().map(|pending| &pending.value);
        let known = [Some(&self.written), Some(&self.baseline), pending];
        known.into_iter().flatten().any(|known| S::is_same(known, now))
            || S::Rule::explains(&self.combining(now, online), now)
    }

    /// Whether no CPU of what was written is online, so that the kernel has moved it to others (`irq_needs_fixup` and
    /// `migrate_one_irq` in `kernel/irq/cpuhotplug.c`).
    fn is_away(&self, now: &S::Value, online: &CpuSet) -> bool {
        let cpus = S::needs_one_of(&self.written).zip(S::needs_one_of(now));
        cpus.is_some_and(|(needed, now)| !needed.intersects(online) && !needed.intersects(now))
    }

    /// Takes a value that is not this program's for a change from outside: it is the baseline from now on.
    pub(super) fn adopt_external(&mut self, now: &S::Value, online: &CpuSet) -> Option<String> {
        let was_interrupted = self.pending.is_some() && self.setting.traits().writes == Writes::Several;
        if was_interrupted || self.is_ours(now, online) || self.is_away(now, online) {
            return None;
        }
        Some(self.take_as_chosen(now))
    }

    /// Another value is there: it is the baseline from now on, and this is the note to tell.
    pub(super) fn take_as_chosen(&mut self, now: &S::Value) -> String {
        let note = format!(
            "{} was changed from outside, from {} to {}: left alone",
            self.setting,
            S::beside(&self.written, now),
            S::beside(now, &self.written)
        );
        self.baseline = now.clone();
        self.found(now.clone());
        note
    }

    /// Compares what the setting holds with what it should hold, for a person.
    #[must_use]
    pub fn compare(&self, now: &S::Value, online: &CpuSet) -> Seen {
        // What was announced may be written, or not yet.
        let is_in_between = self.setting.traits().read_back == ReadBack::Later || self.pending.is_some();
        let is_right = S::is_same(&self.written, now) || (is_in_between && self.is_ours(now, online));
        let state = if is_right { SeenState::AsWritten } else { SeenState::Differs };
        Seen { now: Some(S::show(now)), state }
    }

    /// The entry with the open write that stands in the ledger's file.
    pub(super) fn with_pending(self, pending: Option<Pending<S::Value>>) -> Self {
        Self { pending, ..self }
    }

    /// The write that was announced and not yet confirmed.
    #[must_use]
    pub fn pending(&self) -> Option<&Pending<S::Value>> {
        self.pending.as_ref()
    }

    /// This is what the setting holds, and none of it is a change from outside.
    pub(super) fn found(&mut self, now: S::Value) {
        self.written = now;
    }

    /// Announces a write.
    pub(super) fn announce(&mut self, value: S::Value, beneficiary: Option<GuestUuid>) {
        self.pending = Some(Pending { value, beneficiary });
    }

    /// The announced write is over: this is what the setting kept of it.
    pub(super) fn confirm(&mut self, kept: S::Value) {
        self.written = kept;
        self.pending = None;
    }

    /// Forgets the announced write: nothing of it can have been made, or it does not matter.
    pub(super) fn withdraw(&mut self) -> Option<Pending<S::Value>> {
        self.pending.take()
    }

    /// Notes the guest that the announced write is given back for.
    pub(super) fn owe_to(&mut self, guest: Option<GuestUuid>) {
        if let Some(pending) = &mut self.pending {
            pending.beneficiary = guest;
        }
    }

    /// Takes over what a plan says of it, all but the claims.
    pub(super) fn follow_plan(&mut self, planned: &Self) {
        self.baseline = planned.baseline.clone();
        self.written = planned.written.clone();
        self.pending = planned.pending.clone();
    }

    /// Writes the announced value, and confirms what the host kept: it may be less than it was given (pages in use, CPUs
    /// that went offline), and is what later is compared with.
    pub(super) fn write_pending(
        &mut self,
        host: &mut Host,
        deadline: Deadline,
        end: Deadline,
    ) -> Result<(), HostError> {
        let Some(Pending { value, .. }) = &self.pending else { return Ok(()) };
        match self.claims.is_empty() {
            true => self.setting.give_back(host, &self.written, value, deadline)?,
            false => self.setting.write(host, value, deadline)?,
        }
        let kept = match self.setting.traits().read_back {
            ReadBack::AtOnce => self.setting.read_back(host, end)?,
            ReadBack::Untrusted | ReadBack::Later => value.clone(),
        };
        self.confirm(kept);
        Ok(())
    }
}
