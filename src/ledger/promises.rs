//! Pages promised to guests: whose they are, and what is left for the next one.

use super::combine::pages_of;
use super::error::LedgerError;
use super::knob::Knob;
use super::record::{Entry, Record};
use super::value::PageShare;
use crate::guest::GuestUuid;
use crate::host::{Host, HostError, PagePool};

/// Pages that an earlier guest added and that could not be taken away after it: whoever uses them now owns them, or
/// they would go with the next guest that leaves.
pub(super) fn ownerless_pages(entry: &Entry, uuid: GuestUuid, now: u64) -> u64 {
    let others = entry.claims.iter().filter(|(other, _)| **other != uuid);
    let added: u64 = others.filter_map(|(_, want)| want.pages()).map(|share| share.added).sum();
    now.saturating_sub(pages_of(&entry.baseline).saturating_add(added))
}

/// How many pages a pool lacks for this guest: what it was promised, less what it could use.
pub(super) fn page_shortfall(
    record: &Record,
    host: &Host,
    knob: &Knob,
    share: PageShare,
    uuid: GuestUuid,
) -> Result<u64, LedgerError> {
    let Knob::PagePool(pool) = knob else { return Ok(0) };
    Ok(share.promised.saturating_sub(available_pages(record, host, *pool, uuid)?))
}

/// The pages of a pool that a guest could use: free, not reserved, and promised to nobody else who has not taken his
/// yet. Reservations are counted by the kernel over all nodes only.
///
/// # Errors
/// The pool does not exist.
pub fn available_pages(
    record: &Record,
    host: &Host,
    pool: PagePool,
    uuid: GuestUuid,
) -> Result<u64, HostError> {
    let here = host.page_pool(pool)?.free;
    let mut everywhere = 0;
    for node in host.memory_nodes()?.iter() {
        everywhere += host.page_pool(PagePool { node, ..pool }).map_or(0, |count| count.free);
    }
    let unreserved = here.min(everywhere.saturating_sub(host.resv_hugepages(pool.size)?));
    Ok(unreserved.saturating_sub(record.promised_pages(&Knob::PagePool(pool), uuid)))
}
