//! Gathering huge pages: the kernel reports success for a part, so read back, make room, and try again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::carry_out::Outcome;
use super::claim::{ClaimTerms, TakingTerms};
use super::entry::Change;
use super::error::{GivenUp, LedgerError, Shortage};
use super::executor::RepairKind;
use super::open::Ledger;
use super::page_reservations::{available_pages, page_shortfall};
use super::plan::Note;
use super::setting::{OnRefusal, Setting};
use super::settings::{Listed, NodeBinding, PagePoolSize, PageShare, SettingKey, adopt_external_pages};
use crate::cpuset::NodeSet;
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::{Host, LOCK_RETRY};
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
        terms: &mut TakingTerms,
        outcome: &mut Outcome,
    ) -> Result<(), LedgerError> {
        let pools = changes.iter().filter_map(|change| PagePoolSize::of_key(&change.setting));
        let before: BTreeMap<PagePoolSize, u64> =
            pools.filter_map(|pool| Some((*pool, self.record.entry(pool)?.written))).collect();
        // A size's pools are claimed on the same terms.
        let sizes: BTreeMap<PageSize, SettingKey> =
            before.keys().map(|pool| (pool.0.size, pool.key())).collect();
        for (size, pool) in sizes {
            let deadline = terms.time_limit(&pool, self.deadline).deadline();
            let of_size = terms.of(&pool);
            match self.gather_pages_of_size(uuid, size, deadline, outcome) {
                Err(LedgerError::Shortage(shortage)) if of_size.on_refusal == OnRefusal::Skip => {
                    outcome.notes.push(Note::warning(shortage.to_string()));
                }
                gathered => gathered.map_err(|error| error.asked_by(&of_size))?,
            }
        }
        for (pool, share) in self.shares_of(uuid, None) {
            if share.added == 0 {
                continue;
            }
            let then = pool.read(&self.host, self.deadline)?;
            let now = before.get(&pool).copied().unwrap_or_else(|| then.saturating_sub(share.added));
            outcome.changes.push(Change::of(&pool, &now, &then));
        }
        Ok(())
    }

    fn gather_pages_of_size(
        &mut self,
        uuid: GuestUuid,
        size: PageSize,
        deadline: Deadline,
        outcome: &mut Outcome,
    ) -> Result<(), LedgerError> {
        let started = std::time::Instant::now();
        let mut fruitless = 0;
        for round in 0_u32.. {
            let gained = self.grow_pools(uuid, size, deadline)?;
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
                let reason = if deadline.has_passed() { GivenUp::OutOfTime } else { GivenUp::NoneToBeHad };
                return Err(Box::new(self.shortage(uuid, size, reason)?).into());
            }
            self.repair(uuid, RepairKind::MakeRoom(size), |host, overall| {
                make_room(host, round, &missing, deadline.earlier(overall));
            })?;
            if !self.record.leases.contains_key(&uuid) {
                return Err(LedgerError::GivenBack);
            }
        }
        Ok(())
    }

    /// One attempt at every pool; what a pool cannot give goes to the next one that may take its place. Returns the
    /// pages gained.
    fn grow_pools(
        &mut self,
        uuid: GuestUuid,
        size: PageSize,
        deadline: Deadline,
    ) -> Result<u64, LedgerError> {
        let mut gained = 0;
        let mut left_over = 0;
        let pools = self.shares_of(uuid, Some(size));
        for (pool, share) in pools.iter().copied() {
            gained += self.grow_pool(uuid, pool, deadline)?;
            let short = self.shortfall(uuid, pool)?;
            if share.binding == NodeBinding::Movable && pools.len() > 1 {
                self.reserve_less(uuid, pool, short);
                left_over += short;
            }
        }
        for (pool, share) in pools.iter().copied() {
            if left_over == 0 || share.binding == NodeBinding::Bound {
                continue;
            }
            self.reserve_more(uuid, pool, left_over);
            gained += self.grow_pool(uuid, pool, deadline)?;
            let short = self.shortfall(uuid, pool)?.min(left_over);
            self.reserve_less(uuid, pool, short);
            left_over = short;
        }
        // No pool has room for them now. They are reserved in the first one, so that the next round asks for them again.
        if let Some((pool, _)) = pools.iter().find(|(_, share)| share.binding == NodeBinding::Movable) {
            let pool = *pool;
            self.reserve_more(uuid, pool, left_over);
        }
        Ok(gained)
    }

    /// Grows one pool in chunks until it has all that is reserved for the guest or the kernel finds no more.
    fn grow_pool(
        &mut self,
        uuid: GuestUuid,
        pool: PagePoolSize,
        deadline: Deadline,
    ) -> Result<u64, LedgerError> {
        let chunk = (CHUNK.bytes() / pool.0.size.bytes()).max(1);
        let mut gained = 0;
        loop {
            let short = self.shortfall(uuid, pool)?;
            if short == 0 || deadline.has_passed() {
                break;
            }
            let before = pool.read(&self.host, self.deadline)?;
            self.announce_growth(uuid, pool, before, before + short)?;
            // Less than was announced: a killed writer leaves a growth that the announcement explains.
            self.execute_part(&pool, before + short.min(chunk))?;
            let got = self.record.entry(&pool).map_or(0, |entry| entry.written).saturating_sub(before);
            self.credit(uuid, pool, got);
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
        pool: PagePoolSize,
        before: u64,
        target: u64,
    ) -> Result<(), LedgerError> {
        let Some(entry) = self.record.entry_mut(&pool) else { return Err(LedgerError::GivenBack) };
        // While others had the lock an administrator may have changed the pool.
        self.recovered.notes.extend(adopt_external_pages(entry, before).map(Note::warning));
        let announced = entry.pending().is_some_and(|pending| pending.value >= target);
        if announced && entry.written == before {
            return Ok(());
        }
        self.announce_from(&pool, before, target, Some(uuid))
    }

    fn credit(&mut self, uuid: GuestUuid, pool: PagePoolSize, pages: u64) {
        if let Some(share) = self.share_mut(uuid, pool) {
            share.gain(pages);
        }
    }

    /// Pages that are not there yet are to come from this pool.
    fn reserve_more(&mut self, uuid: GuestUuid, pool: PagePoolSize, pages: u64) {
        if let Some(share) = self.share_mut(uuid, pool) {
            share.reserved += pages;
            share.missing += pages;
        }
    }

    /// Pages that are not there will not come from this pool.
    fn reserve_less(&mut self, uuid: GuestUuid, pool: PagePoolSize, pages: u64) {
        if let Some(share) = self.share_mut(uuid, pool) {
            share.reserved = share.reserved.saturating_sub(pages);
            share.missing = share.missing.saturating_sub(pages);
        }
    }

    fn share_mut(&mut self, uuid: GuestUuid, pool: PagePoolSize) -> Option<&mut PageShare> {
        self.record.entry_mut(&pool)?.claims.get_mut(&uuid)
    }

    fn shares_of(&self, uuid: GuestUuid, size: Option<PageSize>) -> Vec<(PagePoolSize, PageShare)> {
        let shares = self.record.claims_of::<PagePoolSize>(uuid);
        let shares = shares.map(|(entry, share)| (entry.setting, *share));
        shares.filter(|(pool, _)| size.is_none_or(|size| size == pool.0.size)).collect()
    }

    fn shortfall(&self, uuid: GuestUuid, pool: PagePoolSize) -> Result<u64, LedgerError> {
        match self.record.entry(&pool).and_then(|entry| entry.claims.get(&uuid)) {
            Some(share) => page_shortfall(&self.record, &self.host, pool, *share, uuid),
            None => Err(LedgerError::GivenBack),
        }
    }

    /// Notes what each pool still lacks; the nodes where room has to be made. Pages that may come from anywhere are counted
    /// as lacking in one pool, but any node that the guest has a share on may give them.
    fn missing(&mut self, uuid: GuestUuid, size: PageSize) -> Result<NodeSet, LedgerError> {
        let mut lacking = Vec::new();
        for (pool, _) in self.shares_of(uuid, Some(size)) {
            let short = self.shortfall(uuid, pool)?;
            if let Some(share) = self.share_mut(uuid, pool) {
                share.missing = short;
                lacking.push((pool, *share));
            }
        }
        let is_movable = |share: &PageShare| share.binding == NodeBinding::Movable;
        let any_node = lacking.iter().any(|(_, share)| is_movable(share) && share.missing > 0);
        let lacks = |share: &PageShare| share.missing > 0 || (any_node && is_movable(share));
        Ok(lacking.iter().filter(|(_, share)| lacks(share)).map(|(pool, _)| pool.0.node).collect())
    }

    fn shortage(&self, uuid: GuestUuid, size: PageSize, reason: GivenUp) -> Result<Shortage, LedgerError> {
        let mut shortage = Shortage {
            size,
            wanted: 0,
            got: 0,
            nodes: NodeSet::default(),
            per_node: Vec::new(),
            reason,
            terms: ClaimTerms::default(),
        };
        for (pool, share) in self.shares_of(uuid, Some(size)) {
            let short = self.shortfall(uuid, pool)?;
            shortage.wanted += share.reserved;
            shortage.got += share.reserved - short;
            shortage.nodes.insert(pool.0.node);
            shortage.per_node.push(format!(
                "node {} has {} free pages and {} of memory to make more of",
                pool.0.node,
                available_pages(&self.record, &self.host, pool.0, uuid)?,
                self.host.node_mem_available(pool.0.node)?
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
