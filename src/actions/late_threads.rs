//! Threads of a guest's QEMU, which come when it starts, and when a vCPU is plugged in.

use std::time::Duration;

use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::{Host, HostError};
use crate::ledger::{Claim, ClaimTerms, LeaseState, ListedClaim, Record, ThreadScheduling};
use crate::scheduling::SchedulingPolicy;

const SCHEDULE: &[&str] = &["schedule"];

/// How long QEMU may be looked for; the ledger is locked meanwhile. Its process is known as a rule.
const FIND_QEMU: Duration = Duration::from_millis(500);

/// What the guest wants of the threads that are there now and that it has no claim on yet. One that has it already is
/// left as it is: QEMU's main thread hands its nice value on to those that it starts.
///
/// # Errors
/// libvirt's file of the guest or `/proc` cannot be read.
pub fn propose_late_threads(
    host: &Host,
    record: &Record,
    uuid: GuestUuid,
    deadline: Deadline,
) -> Result<Vec<ListedClaim>, HostError> {
    let Some(lease) = record.leases.get(&uuid).filter(|lease| lease.phase == LeaseState::Started) else {
        return Ok(Vec::new());
    };
    let Some(schedule) = lease.schedule else { return Ok(Vec::new()) };
    let deadline = Deadline::after(FIND_QEMU).earlier(deadline);
    let threads = host.qemu_threads(lease.qemu_clues(uuid), deadline)?.unwrap_or_default();
    let mut claims = Vec::new();
    for thread in threads {
        let Some(want) = schedule.of(thread.role) else { continue };
        let setting = ThreadScheduling { role: thread.role, thread: thread.id };
        let is_held = record.entry(&setting).is_some_and(|entry| entry.claims.contains_key(&uuid));
        let is_foreign = matches!(thread.scheduling.policy, SchedulingPolicy::Unknown(_));
        if is_held || is_foreign || thread.scheduling.with(want) == thread.scheduling {
            continue;
        }
        let terms = ClaimTerms::from(SCHEDULE);
        claims.push(Claim { setting, want, now: Some(thread.scheduling), terms }.into());
    }
    Ok(claims)
}
