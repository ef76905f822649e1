//! Threads of the kernel's that start while the guest runs: a disk that is mounted, a module that is loaded.

use crate::guest::GuestUuid;
use crate::host::{Host, HostError, KernelThread};
use crate::ledger::{Claim, KernelThreadCpus, ListedClaim, Record};

const KERNEL_THREADS: &[&str] = &["isolate_cpus", "kernel_threads"];

/// What the guest wants of the threads that are there now: a guest that has moved some wants the same of all.
///
/// # Errors
/// `/proc` cannot be read.
pub fn propose_late_kernel_threads(
    host: &Host,
    record: &Record,
    uuid: GuestUuid,
) -> Result<Vec<ListedClaim>, HostError> {
    let Some((_, cpus)) = record.claims_of::<KernelThreadCpus>(uuid).next() else { return Ok(Vec::new()) };
    let late = |thread: KernelThread| -> Option<ListedClaim> {
        let KernelThread { id, name, allowed } = thread;
        let setting = KernelThreadCpus { pid: id.pid, start_time: id.start_time, name };
        let entry = record.entry(&setting);
        let is_held = entry.is_some_and(|entry| entry.claims.contains_key(&uuid));
        let is_movable = allowed.len() > 1 || entry.is_some();
        (is_movable && !is_held && allowed.intersects(cpus)).then(|| {
            let want = cpus.clone();
            Claim { setting, want, now: Some(allowed), terms: KERNEL_THREADS.into() }.into()
        })
    };
    Ok(host.movable_kernel_threads()?.into_iter().filter_map(late).collect())
}
