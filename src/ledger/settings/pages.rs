//! Pools of huge pages.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::host::{Host, HostError, PagePool};
use crate::ledger::entry::Entry;
use crate::ledger::error::LedgerError;
use crate::ledger::page_reservations::{ownerless_pages, page_shortfall};
use crate::ledger::rule::{Basis, Conflict, Rule};
use crate::ledger::setting::{Admission, Admitted, Combining, Phase, Place, Setting, Traits};

/// A node's pool of pages of one size: how many persistent pages it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PagePoolSize(pub PagePool);

impl fmt::Display for PagePoolSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A guest's part of a page pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageShare {
    /// How many pages it will use, whether they were free before or not.
    #[serde(rename = "promised")]
    pub reserved: u64,
    /// How many of these are not there (yet): while they are gathered, or for good if the shortage was let pass.
    pub missing: u64,
    /// How many were added to the pool for it; as many go when it goes.
    pub added: u64,
    /// Whether the pages may come from another node.
    pub binding: NodeBinding,
}

/// Whether pages may come from another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeBinding {
    /// The XML binds the guest's memory to this node.
    Bound,
    /// Any node the guest has a share on will do.
    Movable,
}

impl PageShare {
    /// A share of which nothing was added yet.
    #[must_use]
    pub fn new(reserved: u64, binding: NodeBinding) -> Self {
        Self { reserved, missing: 0, added: 0, binding }
    }

    /// The pool has grown by so many pages for it. From now on they are set aside: no other guest may count on them.
    pub(in crate::ledger) fn gain(&mut self, pages: u64) {
        self.added += pages;
        self.missing = self.missing.saturating_sub(pages);
    }

    /// The pages that have to be there for the guest.
    #[must_use]
    pub fn set_aside(self) -> u64 {
        self.reserved.saturating_sub(self.missing)
    }
}

impl fmt::Display for PageShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pages, {} of them added", self.reserved, self.added)
    }
}

impl Setting for PagePoolSize {
    type Value = u64;
    type Want = PageShare;
    type Rule = Additive;

    fn place(&self) -> Place {
        Place::Pages
    }

    fn traits(&self) -> Traits {
        Traits::of(Phase::WithinCommands)
    }

    fn read(&self, host: &Host, _deadline: Deadline) -> Result<u64, HostError> {
        Ok(host.page_pool(self.0)?.persistent)
    }

    fn write(&self, host: &mut Host, pages: &u64, _deadline: Deadline) -> Result<(), HostError> {
        host.set_nr_hugepages(self.0, *pages)
    }

    /// A pool grows by what the guest lacks.
    fn admit(
        entry: &Entry<Self>,
        want: &PageShare,
        at: &Admission<'_, Self>,
    ) -> Result<Admitted<Self>, LedgerError> {
        let added = ownerless_pages(entry, at.uuid, *at.now).min(want.reserved);
        let share = PageShare { added, ..*want };
        let missing = page_shortfall(at.record, at.host, entry.setting, share, at.uuid)?;
        Ok(Admitted { want: PageShare { missing, ..share }, then: Some(*at.now + missing) })
    }
}

/// What is there plus each guest's own share.
#[derive(Debug)]
pub enum Additive {}

impl Rule<PagePoolSize> for Additive {
    const BASIS: Basis = Basis::Now;

    /// Giving back never grows a pool: the baseline and the shares that stay, but no more than there is. What an
    /// administrator added meanwhile was moved into the baseline before; what was taken away stays away.
    fn combine(of: &Combining<'_, PagePoolSize>) -> Result<u64, Conflict> {
        let added: u64 = of.claims.values().map(|share| share.added).sum();
        Ok((*of.now).min(of.baseline.saturating_add(added)))
    }

    fn explains(of: &Combining<'_, PagePoolSize>, value: &u64) -> bool {
        Self::combine(of).is_ok_and(|pages| pages == *value)
    }

    fn adopt(entry: &mut Entry<PagePoolSize>, now: &u64, _online: &CpuSet) -> Option<String> {
        adopt_external_pages(entry, *now)
    }
}

/// Pages that were added from outside belong to the baseline; pages that were taken away are gone for all guests.
pub(in crate::ledger) fn adopt_external_pages(entry: &mut Entry<PagePoolSize>, now: u64) -> Option<String> {
    let expected = entry.written;
    // An announced write may have been made, in part, and pages may be stranded.
    let announced = entry.pending().map_or(expected, |pending| pending.value);
    let (least, most) = (expected.min(announced), expected.max(announced));
    if (least..=most).contains(&now) {
        return None;
    }
    let known = if now > expected { most } else { least };
    let note = format!("{} were changed from outside, from {expected} to {now}", entry.setting);
    entry.baseline = if now > known { entry.baseline + (now - known) } else { entry.baseline.min(now) };
    entry.found(now);
    Some(note)
}
