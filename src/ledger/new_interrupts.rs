//! Interrupts that came while guests held CPUs: they started out with the narrowed default, and when the guests are
//! gone they shall have what they would have had without them.

use std::collections::BTreeSet;

use super::any_entry::AnyEntry;
use super::carry_out::Outcome;
use super::entry::Entry;
use super::error::LedgerError;
use super::open::Ledger;
use super::plan::Extent;
use super::settings::{DefaultIrqAffinity, IrqAffinity};
use crate::guest::GuestUuid;
use crate::host::Interrupt;

/// The default as guests have narrowed it, and the interrupts that do not come from it.
pub(super) struct NarrowedDefault {
    entry: Entry<DefaultIrqAffinity>,
    there_before: BTreeSet<(u32, String)>,
}

impl Ledger<'_> {
    /// None where nobody has narrowed it.
    pub(super) fn narrowed_default(&self) -> Option<NarrowedDefault> {
        let is_settled = |entry: &&Entry<DefaultIrqAffinity>| (*entry as &dyn AnyEntry).is_settled();
        let entry = self.record.entry(&DefaultIrqAffinity).filter(is_settled)?.clone();
        let interrupts = self.record.leases.values().filter_map(|lease| lease.interrupts.as_ref());
        let there_before =
            interrupts.flat_map(|interrupts| interrupts.there_before.iter().cloned()).collect();
        Some(NarrowedDefault { entry, there_before })
    }

    /// Enters new interrupts that were given the narrowed default: the guests that narrowed it claim them too. Nothing
    /// is written to the host.
    pub fn adopt_new_interrupts(&mut self) {
        if let Some(default) = self.narrowed_default() {
            let new = self.new_interrupts(&default);
            self.enter(new);
        }
    }

    /// Gives those their usual CPUs that came between the last look and the moment when the default was given back: a
    /// device that libvirt has just returned gets its interrupts about then.
    pub(super) fn settle_latecomers(
        &mut self,
        default: &NarrowedDefault,
        leaving: GuestUuid,
    ) -> Result<Outcome, LedgerError> {
        let mut new = self.new_interrupts(default);
        if new.is_empty() {
            return Ok(Outcome::default());
        }
        for entry in &mut new {
            entry.claims.remove(&leaving);
            // An open write has it computed and written like everything that was left half done.
            entry.announce(entry.baseline.clone(), None);
        }
        self.enter(new);
        let nobody = BTreeSet::new();
        let plan = self.plan_to_give_back(&nobody, Extent::Whole)?;
        self.carry_out_giving_back(plan)
    }

    /// Where they cannot be read they stay as they are: what else is to be done matters more.
    fn new_interrupts(&self, default: &NarrowedDefault) -> Vec<Entry<IrqAffinity>> {
        let interrupts = self.host.movable_interrupts().unwrap_or_default();
        let entry = |Interrupt { number, actions, affinity }| {
            let is_new = affinity == default.entry.written
                && !actions.starts_with("vfio-")
                && !default.there_before.contains(&(number, actions.clone()));
            let setting = IrqAffinity { number, actions };
            let is_new = is_new && self.record.entry(&setting).is_none();
            is_new.then(|| {
                let mut entry = Entry::new(setting, default.entry.written.clone());
                entry.baseline = default.entry.baseline.clone();
                entry.claims = default.entry.claims.clone();
                entry
            })
        };
        interrupts.into_iter().filter_map(entry).collect()
    }

    fn enter(&mut self, entries: Vec<Entry<IrqAffinity>>) {
        for entry in entries {
            self.record.put(entry);
        }
    }
}
