//! Interrupts that came while guests held CPUs: they started out with the narrowed default, and when the guests are
//! gone they shall have what they would have had without them.

use std::collections::BTreeSet;

use super::carry_out::Outcome;
use super::error::LedgerError;
use super::knob::Knob;
use super::open::Ledger;
use super::plan::{Extent, Plan};
use super::record::{Entry, Pending};
use super::value::Value;
use crate::cpuset::CpuSet;
use crate::guest::GuestUuid;
use crate::host::Interrupt;

/// The default as guests have narrowed it, and the interrupts that do not come from it.
pub(super) struct NarrowedDefault {
    entry: Entry,
    cpus: CpuSet,
    there_before: BTreeSet<(u32, String)>,
}

impl Ledger<'_> {
    /// None where nobody has narrowed it.
    pub(super) fn narrowed_default(&self) -> Option<NarrowedDefault> {
        let entry = self.record.entry(&Knob::DefaultIrqAffinity).filter(|entry| entry.is_settled())?.clone();
        let Value::Cpus(cpus) = entry.written.clone() else { return None };
        let interrupts = self.record.leases.values().filter_map(|lease| lease.interrupts.as_ref());
        let there_before =
            interrupts.flat_map(|interrupts| interrupts.there_before.iter().cloned()).collect();
        Some(NarrowedDefault { entry, cpus, there_before })
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
            entry.pending = Some(Pending { value: entry.baseline.clone(), beneficiary: None });
        }
        self.enter(new);
        let nobody = BTreeSet::new();
        let plan = Plan::give_back(&self.record, self.host, &nobody, Extent::Whole, self.deadline)?;
        self.carry_out_giving_back(plan)
    }

    /// Where they cannot be read they stay as they are: what else is to be done matters more.
    fn new_interrupts(&self, default: &NarrowedDefault) -> Vec<Entry> {
        let interrupts = self.host.movable_interrupts().unwrap_or_default();
        let entry = |Interrupt { number, actions, affinity }| {
            let is_new = affinity == default.cpus
                && !actions.starts_with("vfio-")
                && !default.there_before.contains(&(number, actions.clone()));
            let knob = Knob::IrqAffinity { number, actions };
            let is_new = is_new && self.record.entry(&knob).is_none();
            is_new.then(|| Entry { knob, ..default.entry.clone() })
        };
        interrupts.into_iter().filter_map(entry).collect()
    }

    fn enter(&mut self, entries: Vec<Entry>) {
        self.record.entries.extend(entries);
        self.record.entries.sort_unstable_by(|left, right| left.knob.cmp(&right.knob));
    }
}
