//! The executor: the one place where the machine is changed. What is written was announced in the ledger's file before,
//! and is confirmed in it afterwards; what is no setting is a [`Repair`], and is recorded too.
//!
//! Three things are not announced. What a person sets by hand (`by_hand`) belongs to no guest and is not given back.
//! Starting and asking a keeper (`keepers`) changes no setting, and running a guest's commands is recorded by the keeper.
//! And `execute_again` writes a value that the ledger has already.

mod by_hand;
mod early_plan;
mod keepers;
mod repair;
mod state;

use std::ops::Deref;
use std::time::Instant;

use super::any_entry::AnyEntry;
use super::entry::Entry;
use super::error::LedgerError;
use super::open::Ledger;
use super::record::Record;
use super::settings::{Listed, ListedEntry, SettingKey};
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::{Host, HostError};

pub(super) use keepers::BatchEnd;
pub use repair::{Repair, RepairKind};
pub(super) use state::load_for_this_boot;

/// The host, as the ledger has it: every part looks at it, and the executor alone has it changed. That its content is
/// private here makes it so.
pub(super) struct HostAccess<'h>(&'h mut Host);

impl<'h> HostAccess<'h> {
    pub(super) fn new(host: &'h mut Host) -> Self {
        Self(host)
    }
}

impl Deref for HostAccess<'_> {
    type Target = Host;

    fn deref(&self) -> &Host {
        self.0
    }
}

/// What came of writes that were made without the lock: one for each setting, up to the first that failed.
pub(super) type Written = Vec<Result<(), HostError>>;

/// What a setting holds after a write that was made in a way of its own.
pub(super) enum Kept<V> {
    /// A value that was read back.
    Value(V),
    /// What was announced.
    AsAnnounced,
    /// It cannot be told: the write stays announced.
    NotKnown,
}

/// Writes what was announced, and says so to those who want the details.
fn write(
    entry: &mut dyn AnyEntry,
    host: &mut Host,
    deadline: Deadline,
    end: Deadline,
) -> Result<(), HostError> {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return entry.write(host, deadline, end);
    }
    let (began, before) = (Instant::now(), entry.written());
    let done = entry.write(host, deadline, end);
    let (setting, took) = (entry.key(), began.elapsed().as_millis());
    match &done {
        Ok(()) => {
            let after = entry.written();
            tracing::debug!(
                vfio_hook_setting = %setting,
                vfio_hook_before = before,
                vfio_hook_after = after,
                "{setting}: {before} -> {after} in {took} ms"
            );
        }
        Err(error) => tracing::debug!(vfio_hook_setting = %setting, "{setting}: {error} after {took} ms"),
    }
    done
}

impl Ledger<'_> {
    /// Announces what a plan leads to: after this the file holds all baselines, claims and values to come.
    pub(super) fn announce(&mut self, record: &Record) -> Result<(), LedgerError> {
        self.record = record.clone();
        self.store()
    }

    /// Makes one announced write, with the ledger locked. It is confirmed in the file by the next store.
    pub(super) fn execute(&mut self, setting: &SettingKey) -> Result<(), LedgerError> {
        if let Some(entry) = self.record.any_mut(setting) {
            write(entry, self.host.0, self.deadline, self.deadline)?;
        }
        Ok(())
    }

    /// Writes once more what the ledger says that a setting holds, where what held it is replaced: no value changes, so
    /// that nothing is announced. Of a setting that is not in the ledger nothing is written.
    pub(super) fn execute_again<S: Listed>(
        &mut self,
        setting: &S,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        match self.record.entry(setting) {
            Some(entry) => entry.setting.write(self.host.0, &entry.written, deadline),
            None => Ok(()),
        }
    }

    /// Announces one write beside those of a plan, and from what it starts.
    pub(super) fn announce_from<S: Listed>(
        &mut self,
        setting: &S,
        now: S::Value,
        then: S::Value,
        beneficiary: Option<GuestUuid>,
    ) -> Result<(), LedgerError> {
        let Some(entry) = self.record.entry_mut(setting) else { return Ok(()) };
        entry.found(now);
        entry.announce(then, beneficiary);
        self.store()
    }

    /// Makes a part of an announced write: one whose value lies between what was and what was announced.
    pub(super) fn execute_part<S: Listed>(&mut self, setting: &S, part: S::Value) -> Result<(), LedgerError> {
        if let Some(entry) = self.record.entry_mut(setting) {
            let beneficiary = entry.pending().and_then(|pending| pending.beneficiary);
            entry.announce(part, beneficiary);
            entry.write_pending(self.host.0, self.deadline, self.deadline)?;
        }
        Ok(())
    }

    /// Makes announced writes that may take long, one after the other up to the first that fails, each until a deadline
    /// of its own; others get at the ledger meanwhile. A wait for something to end may leave no time for the last look at
    /// it: that has until the event's end. Of a setting that is no more in the ledger nothing is written.
    pub(super) fn execute_released(
        &mut self,
        settings: &[SettingKey],
        deadline: impl Fn() -> Deadline,
    ) -> Result<Written, LedgerError> {
        let announced: Vec<Option<ListedEntry>> =
            settings.iter().map(|setting| self.record.listed(setting).cloned()).collect();
        let mut copies = announced.clone();
        let written = self.released(|host, end| {
            let mut written = Written::new();
            for copy in &mut copies {
                let done = match copy {
                    Some(copy) => write(copy.any_mut(), host, deadline().earlier(end), end),
                    None => Ok(()),
                };
                written.push(done);
                if written.last().is_some_and(Result::is_err) {
                    break;
                }
            }
            written
        })?;
        for (announced, copy) in announced.iter().flatten().zip(copies.iter().flatten()) {
            if let Some(entry) = self.record.any_mut(&copy.any().key()) {
                entry.take_over(announced.any(), copy.any());
            }
        }
        Ok(written)
    }

    /// Makes announced writes of one kind together, in a way of its own, while others get at the ledger. Each write that
    /// succeeds says what the setting kept.
    pub(super) fn execute_together<S: Listed, T>(
        &mut self,
        settings: &[S],
        write: impl FnOnce(&mut Host, &[(S, S::Value)], Deadline) -> Vec<Result<(Kept<S::Value>, T), HostError>>,
    ) -> Result<Vec<Result<T, HostError>>, LedgerError> {
        let announced = |setting: &S| -> Option<(S, S::Value)> {
            let entry: &Entry<S> = self.record.entry(setting)?;
            Some((setting.clone(), entry.pending()?.value.clone()))
        };
        let orders: Vec<(S, S::Value)> = settings.iter().filter_map(announced).collect();
        let written = self.released(|host, deadline| write(host, &orders, deadline))?;
        let mut results = Vec::with_capacity(written.len());
        for ((setting, value), written) in orders.into_iter().zip(written) {
            results.push(written.map(|(kept, result)| {
                let entry = self.record.entry_mut(&setting);
                // Others may have announced something else meanwhile.
                let is_announced =
                    |entry: &&mut Entry<S>| entry.pending().is_some_and(|pending| pending.value == value);
                if let Some(entry) = entry.filter(is_announced) {
                    match kept {
                        Kept::Value(kept) => entry.confirm(kept),
                        Kept::AsAnnounced => entry.confirm(value),
                        Kept::NotKnown => {}
                    }
                }
                result
            }));
        }
        self.store()?;
        Ok(results)
    }

    /// Lets others at the ledger while the host is looked at, which may take long.
    pub(super) fn unlocked<T>(&mut self, look: impl FnOnce(&Host, Deadline) -> T) -> Result<T, LedgerError> {
        self.released(|host, deadline| look(host, deadline))
    }

    /// Lets others at the ledger while something slow is done, then locks and loads it again.
    fn released<T>(&mut self, slow: impl FnOnce(&mut Host, Deadline) -> T) -> Result<T, LedgerError> {
        self.store()?;
        self.unlock();
        let result = slow(self.host.0, self.deadline);
        self.relock()?;
        Ok(result)
    }

    /// The next one leaves alone what the kernel hangs in, and does not keep the others from the ledger with it.
    pub(super) fn remember_stuck(&mut self, setting: &SettingKey, error: &LedgerError) {
        if let (LedgerError::Host(error), Some(entry)) = (error, self.record.any_mut(setting)) {
            entry.set_stuck(error.stuck_process());
        }
    }
}
