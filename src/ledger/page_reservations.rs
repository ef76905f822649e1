//! Pages reserved for guests: whose they are, and what is left for the next one.

use super::entry::Entry;
use super::error::LedgerError;
use super::record::Record;
use super::settings::{PagePoolSize, PageShare};
use crate::guest::GuestUuid;
use crate::host::{Host, HostError, PagePool};

/// Pages that an earlier guest added and that could not be taken away after it: their user owns them now, or
/// they would go with the next guest that leaves.
pub(super) fn ownerless_pages(entry: &Entry<PagePoolSize>, uuid: GuestUuid, now: u64) -> u64 {
    let others = entry.claims.iter().filter(|(other, _)| **other != uuid);
    let added: u64 = others.map(|(_, share)| share.added).sum();
    now.saturating_sub(entry.baseline.saturating_add(added))
}

/// How many pages a pool lacks for this guest: what is reserved for it, less what it could use.
pub(super) fn page_shortfall(
    record: &Record,
    host: &Host,
    pool: PagePoolSize,
    share: PageShare,
    uuid: GuestUuid,
) -> Result<u64, LedgerError> {
    Ok(share.reserved.saturating_sub(available_pages(record, host, pool.0, uuid)?))
}

/// The pages of a pool that a guest could use: free, not reserved by the kernel for a mapping, and reserved here for no
/// other guest that has not taken them yet. The kernel counts its reservations over all nodes only.
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
    Ok(unreserved.saturating_sub(record.reserved_pages(PagePoolSize(pool), uuid)))
}
