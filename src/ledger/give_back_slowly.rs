//! Giving back what may take seconds or minutes, while others get at the ledger.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::carry_out::{Outcome, batch};
use super::error::LedgerError;
use super::open::Ledger;
use super::plan::{Extent, Plan};
use super::record::Record;
use super::setting::Phase;
use super::settings::{SettingKey, StorageLayer, UnitRuns, VirtualFunctionsOf};
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::UnitActivity;

/// How long one unit may take to stop: systemd itself gives it 90 s and then kills it (`DefaultTimeoutStopSec` in
/// `systemd-system.conf(5)`).
const STOPS: Duration = Duration::from_secs(100);

impl Record {
    /// Whether units run for a guest, or could not be stopped after it.
    #[must_use]
    pub fn has_units_to_stop(&self, uuid: GuestUuid) -> bool {
        let mut claims = self.claims_of::<UnitRuns>(uuid);
        claims.any(|(_, want)| *want == UnitActivity::Started)
            || self.owed_by(uuid).any(|entry| matches!(entry.key(), SettingKey::Unit(_)))
    }

    /// Whether layers of storage were taken down for a guest, or could not be brought back after it.
    #[must_use]
    pub fn has_storage_to_bring_back(&self, uuid: GuestUuid) -> bool {
        self.claims_of::<StorageLayer>(uuid).next().is_some()
            || self.owed_by(uuid).any(|entry| matches!(entry.key(), SettingKey::Storage(_)))
    }

    /// Whether devices were made that go when this guest does: the kernel takes a second for it at least.
    #[must_use]
    pub fn has_devices_to_remove(&self, uuid: GuestUuid) -> bool {
        let mut functions = self.claims_of::<VirtualFunctionsOf>(uuid).map(|(entry, _)| entry);
        functions.any(|entry| entry.claims.len() == 1 && entry.written != entry.baseline)
            || self.owed_by(uuid).any(|entry| matches!(entry.key(), SettingKey::VirtualFunctions(_)))
    }

    /// Whether a guest holds something that may take its time to be given back.
    pub(super) fn has_slow(&self, uuid: GuestUuid) -> bool {
        self.entries().any(|entry| entry.traits().is_slow() && entry.concerns(uuid))
    }
}

impl Ledger<'_> {
    /// Gives back what may take its time, of one phase. Units that run for the guest are stopped before those are started
    /// that stepped aside. What could not be given back stays owed to the guest: these settings.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub(super) fn return_slow(
        &mut self,
        phase: Phase,
        uuid: GuestUuid,
        outcome: &mut Outcome,
    ) -> Result<BTreeSet<SettingKey>, LedgerError> {
        if !self.record.has_slow(uuid) {
            return Ok(BTreeSet::new());
        }
        let leaving = [uuid].into();
        let returned = self.give_back_released(STOPS, Some(uuid), |ledger| {
            let mut plan = ledger.plan_to_give_back(&leaving, Extent::Slow(phase))?;
            plan.changes.sort_by_key(|change| !change.stops_unit());
            Ok(plan)
        })?;
        outcome.absorb(returned);
        let owed = self.record.owed_by(uuid).map(|entry| entry.key());
        Ok(owed.filter(|setting| setting.traits().phase == phase && setting.traits().is_slow()).collect())
    }

    /// Carries out what a plan gives back, each setting in so much time. The plan is made again at the end: others may
    /// have changed something meanwhile. What is refused is owed to this guest.
    pub(super) fn give_back_released(
        &mut self,
        time: Duration,
        owner: Option<GuestUuid>,
        plan: impl Fn(&Self) -> Result<Plan, LedgerError>,
    ) -> Result<Outcome, LedgerError> {
        let mut outcome = Outcome::default();
        let mut refused = Vec::new();
        let Plan { changes, record: planned, notes, .. } = self.plan_on_early_answers(&plan)?;
        let mut left = VecDeque::from(changes);
        while !left.is_empty() {
            let batch = batch(&left);
            // Their claims stay until all is back, so that no other event touches it.
            for setting in &batch {
                if let (Some(entry), Some(planned)) = (self.record.any_mut(setting), planned.any(setting)) {
                    entry.follow(planned);
                }
            }
            let written = self.execute_released(&batch, || Deadline::after(time))?;
            for (change, written) in left.drain(..written.len()).zip(written) {
                match written {
                    Ok(()) => outcome.changes.push(change),
                    Err(error) if error.is_absent() => {
                        outcome.notes.push(self.forget_absent(&change.setting, &error));
                    }
                    Err(error) => {
                        let error = LedgerError::from(error);
                        self.remember_stuck(&change.setting, &error);
                        outcome.failures.push(format!("{} not given back: {error}", change.setting));
                        refused.push(change.setting);
                    }
                }
            }
        }
        // By now there is nothing to write, or another program changed it meanwhile.
        let mut plan = self.plan_on_early_answers(&plan)?;
        plan.changes.retain(|change| !refused.contains(&change.setting));
        // What was written is no change from outside any more, and what was not is told once.
        plan.notes.retain(|note| !notes.contains(note));
        outcome.notes.extend(notes);
        for setting in &refused {
            if let Some(entry) = plan.record.any_mut(setting) {
                entry.owe(owner);
            }
        }
        outcome.absorb(self.carry_out_giving_back(plan)?);
        Ok(outcome)
    }
}
