//! Gathering huge pages: the kernel reports success for a part, so read back, make room, and try again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::carry_out::Outcome;
use super::combine::pages_of;
use super::error::{LedgerError, Shortage};
use super::foreign::adopt_foreign_pages;
use super::knob::{Knob, OnRefusal};
use super::open::Ledger;
use super::plan::{Change, Note};
use super::promises::{available_pages, page_shortfall};
use super::record::Pending;
use super::value::{NodeBinding, PageShare, Value, Want};
use crate::cpuset::NodeSet;
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::{Host, LOCK_RETRY, PagePool};
use crate::pages::{MemorySize, PageSize};

/// The most memory asked for in one write, so that no write lasts long.
const CHUNK: MemorySize = MemorySize::from_gib(2);

/// How long the ledger is kept locked before others get a turn.
const TURN: Duration = Duration::from_millis(300);

/// How long it is unlocked then: those who wait try every [`LOCK_RETRY`], and may be a moment late.
const OTHERS_TURN: Duration = LOCK_RETRY.saturating_mul(3);

/// Rounds without a single page gained after which it is given up: the first drops caches, the others compact.
const FRUITLESS_ROUNDS: u32 = 4;

/// The longest wait between two rounds.
const LONGEST_BACKOFF: Duration = Duration::from_millis(800);

/// The longest one attempt at making room may take.
const MAKE_ROOM: Duration = Duration::from_secs(5);

impl Ledger<'_> {
    /// Grows the pools of a plan until the guest has its pages.
    pub(super) fn gather_pages(
        &mut self,
        uuid: GuestUuid,
        changes: &[Change],
        on_shortage: OnRefusal,
        outcome: &mut Outcome,
    ) -> Result<(), LedgerError> {
        self.page_deadline = Deadline::after(self.page_effort).earlier(self.deadline);
        let before: BTreeMap<PagePool, Value> = changes
            .iter()
            .filter_map(|change| match change.knob {
                Knob::PagePool(pool) => Some((pool, change.now.clone())),
                _ => None,
            })
            .collect();
        let sizes: std::collections::BTreeSet<PageSize> = before.keys().map(|pool| pool.size).collect();
        for size in sizes {
            match self.gather_pages_of_size(uuid, size, outcome) {
                Err(LedgerError::Shortage(shortage)) if on_shortage == OnRefusal::Skip => {
                    outcome.notes.push(Note::warning(shortage.to_string()));
                }
                gathered => gathered?,
            }
        }
        for (knob, share) in self.shares_of(uuid, None) {
            let Knob::PagePool(pool) = knob else { continue };
            if share.added == 0 {
                continue;
            }
            let then = knob.read(self.host, self.deadline)?;
            let now = before
                .get(&pool)
                .cloned()
                .unwrap_or_else(|| Value::Pages(pages_of(&then).saturating_sub(share.added)));
            outcome.changes.push(Change { knob, now, then });
        }
        Ok(())
    }

    fn gather_pages_of_size(
        &mut self,
        uuid: GuestUuid,
        size: PageSize,
        outcome: &mut Outcome,
    ) -> Result<(), LedgerError> {
        let deadline = self.page_deadline;
        let started = std::time::Instant::now();
        let mut fruitless = 0;
        for round in 0_u32.. {
            let gained = self.grow_pools(uuid, size)?;
            let missing = self.missing(uuid, size)?;
            if missing.is_empty() {
                if round > 0 {
                    outcome.notes.push(Note::info(format!(
                        "gathering huge pages of {size} took {} rounds and {:.1} s: memory is fragmented",
                        round + 1,
                        started.elapsed().as_secs_f64()
                    )));
                }
                return Ok(());
            }
            fruitless = if gained > 0 { 0 } else { fruitless + 1 };
            if deadline.has_passed() || fruitless >= FRUITLESS_ROUNDS {
                return Err(self.shortage(uuid, size)?.into());
            }
            self.unlocked(|host, overall| make_room(host, round, &missing, deadline.earlier(overall)))?;
            if !self.record.leases.contains_key(&uuid) {
                return Err(LedgerError::GivenBack);
            }
        }
        Ok(())
    }

    /// One attempt at every pool; what a pool cannot give goes to the next one that may take its place. Returns the
    /// pages gained.
    fn grow_pools(&mut self, uuid: GuestUuid, size: PageSize) -> Result<u64, LedgerError> {
        let mut gained = 0;
        let mut homeless = 0;
        let pools = self.shares_of(uuid, Some(size));
        for (knob, share) in &pools {
            gained += self.grow_pool(uuid, knob)?;
            let short = self.shortfall(uuid, knob)?;
            if share.binding == NodeBinding::Movable && pools.len() > 1 {
                self.promise_less(uuid, knob, short);
                homeless += short;
            }
        }
        for (knob, share) in &pools {
            if homeless == 0 || share.binding == NodeBinding::Bound {
                continue;
            }
            self.promise_more(uuid, knob, homeless);
            gained += self.grow_pool(uuid, knob)?;
            let short = self.shortfall(uuid, knob)?.min(homeless);
            self.promise_less(uuid, knob, short);
            homeless = short;
        }
        // Nobody has them yet: the first pool stays in their debt for the next round.
        if let Some((knob, _)) = pools.iter().find(|(_, share)| share.binding == NodeBinding::Movable) {
            self.promise_more(uuid, knob, homeless);
        }
        Ok(gained)
    }

    /// Grows one pool in chunks until the guest's promise is kept or the kernel finds no more.
    fn grow_pool(&mut self, uuid: GuestUuid, knob: &Knob) -> Result<u64, LedgerError> {
        let Knob::PagePool(pool) = knob else { return Ok(0) };
        let chunk = (CHUNK.bytes() / pool.size.bytes()).max(1);
        let mut gained = 0;
        loop {
            let short = self.shortfall(uuid, knob)?;
            if short == 0 || self.page_deadline.has_passed() {
                break;
            }
            let before = pages_of(&knob.read(self.host, self.deadline)?);
            self.announce_growth(uuid, knob, before, before + short)?;
            self.write_pool(knob, before + short.min(chunk))?;
            let got =
                self.record.entry(knob).map_or(0, |entry| pages_of(&entry.written)).saturating_sub(before);
            self.credit(uuid, knob, got);
            gained += got;
            if got < short.min(chunk) {
                break;
            }
            if self.locked_since.elapsed() > TURN && got < short {
                self.unlocked(|_, deadline| deadline.pause(OTHERS_TURN))?;
            }
        }
        Ok(gained)
    }

    /// The file must hold a growth before it is made; the plan's own announcement usually does already.
    fn announce_growth(
        &mut self,
        uuid: GuestUuid,
        knob: &Knob,
        before: u64,
        target: u64,
    ) -> Result<(), LedgerError> {
        let Some(entry) = self.record.entry_mut(knob) else { return Err(LedgerError::GivenBack) };
        // While others had the lock an administrator may have changed the pool.
        self.recovered.notes.extend(adopt_foreign_pages(entry, before));
        let announced = entry.pending.as_ref().is_some_and(|pending| pages_of(&pending.value) >= target);
        if announced && pages_of(&entry.written) == before {
            return Ok(());
        }
        entry.written = Value::Pages(before);
        entry.pending = Some(Pending { value: Value::Pages(target), beneficiary: Some(uuid) });
        self.store()
    }

    fn credit(&mut self, uuid: GuestUuid, knob: &Knob, pages: u64) {
        if let Some(share) = self.share_mut(uuid, knob) {
            share.added += pages;
        }
    }

    /// Pages that are not there yet are to come from this pool.
    fn promise_more(&mut self, uuid: GuestUuid, knob: &Knob, pages: u64) {
        if let Some(share) = self.share_mut(uuid, knob) {
            share.promised += pages;
            share.missing += pages;
        }
    }

    /// Pages that are not there will not come from this pool.
    fn promise_less(&mut self, uuid: GuestUuid, knob: &Knob, pages: u64) {
        if let Some(share) = self.share_mut(uuid, knob) {
            share.promised = share.promised.saturating_sub(pages);
            share.missing = share.missing.saturating_sub(pages);
        }
    }

    fn share_mut(&mut self, uuid: GuestUuid, knob: &Knob) -> Option<&mut PageShare> {
        match self.record.entry_mut(knob)?.claims.get_mut(&uuid)? {
            Want::Pages(share) => Some(share),
            _ => None,
        }
    }

    fn shares_of(&self, uuid: GuestUuid, size: Option<PageSize>) -> Vec<(Knob, PageShare)> {
        let shares = self.record.entries_of(uuid).filter_map(|entry| {
            let Knob::PagePool(pool) = entry.knob else { return None };
            let share = entry.claims.get(&uuid)?.pages()?;
            size.is_none_or(|size| size == pool.size).then(|| (entry.knob.clone(), share))
        });
        shares.collect()
    }

    fn shortfall(&self, uuid: GuestUuid, knob: &Knob) -> Result<u64, LedgerError> {
        let share = self.record.entry(knob).and_then(|entry| entry.claims.get(&uuid)).and_then(Want::pages);
        match share {
            Some(share) => page_shortfall(&self.record, self.host, knob, share, uuid),
            None => Err(LedgerError::GivenBack),
        }
    }

    /// Notes what each pool still lacks; the nodes where room has to be made. Pages that may come from anywhere are one
    /// pool's debt, but any node may pay it.
    fn missing(&mut self, uuid: GuestUuid, size: PageSize) -> Result<NodeSet, LedgerError> {
        let mut lacking = Vec::new();
        for (knob, _) in self.shares_of(uuid, Some(size)) {
            let short = self.shortfall(uuid, &knob)?;
            if let Some(share) = self.share_mut(uuid, &knob) {
                share.missing = short;
                lacking.push((knob, *share));
            }
        }
        let is_movable = |share: &PageShare| share.binding == NodeBinding::Movable;
        let any_node = lacking.iter().any(|(_, share)| is_movable(share) && share.missing > 0);
        let nodes = lacking.iter().filter_map(|(knob, share)| match knob {
            Knob::PagePool(pool) if share.missing > 0 || (any_node && is_movable(share)) => Some(pool.node),
            _ => None,
        });
        Ok(nodes.collect())
    }

    fn shortage(&self, uuid: GuestUuid, size: PageSize) -> Result<Shortage, LedgerError> {
        let mut shortage =
            Shortage { size, wanted: 0, got: 0, nodes: NodeSet::default(), per_node: Vec::new() };
        for (knob, share) in self.shares_of(uuid, Some(size)) {
            let Knob::PagePool(pool) = knob else { continue };
            let short = self.shortfall(uuid, &knob)?;
            shortage.wanted += share.promised;
            shortage.got += share.promised - short;
            shortage.nodes.insert(pool.node);
            shortage.per_node.push(format!(
                "node {} has {} free pages and {} of memory to make more of",
                pool.node,
                available_pages(&self.record, self.host, pool, uuid)?,
                self.host.node_mem_available(pool.node)?
            ));
        }
        Ok(shortage)
    }
}

/// What helps a pool to grow: first the page cache goes, then the nodes that lack pages are compacted.
fn make_room(host: &mut Host, round: u32, nodes: &NodeSet, deadline: Deadline) {
    let deadline = deadline.earlier(Deadline::after(MAKE_ROOM));
    if round == 0 {
        let path = host.drop_caches_path();
        let _ = host.write_bounded(&path, "1", deadline);
    }
    for node in nodes.iter() {
        let path = host.compact_path(node);
        let _ = host.write_bounded(&path, "1", deadline);
    }
    if round > 0 {
        let backoff = Duration::from_millis(50 << round.min(4));
        deadline.pause(backoff.min(LONGEST_BACKOFF));
    }
}
