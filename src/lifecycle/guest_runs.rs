//! Whether a guest runs or is about to: while it does, what it holds is not given back.

use super::KEEPER_ANSWERS;
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::{Host, ONE_LOOK};
use crate::ledger::{Lease, LeaseState, Record};

/// Whether a lease is held by a guest that runs, for all that is known.
#[must_use]
pub fn guest_runs(host: &Host, record: &Record, uuid: GuestUuid) -> bool {
    let Some(lease) = record.leases.get(&uuid) else { return false };
    match lease.phase {
        LeaseState::Preparing(by) if host.is_alive(by) => true,
        _ => host.qemu_of(lease.qemu_clues(uuid), Deadline::after(ONE_LOOK)).may_run(),
    }
}

/// Whether a lease is to be given back: a person decided so (even of a running guest, with `undo --force`), or its
/// guest is gone.
pub(super) fn is_over(host: &Host, record: &Record, uuid: GuestUuid) -> bool {
    match record.leases.get(&uuid).map(|lease| lease.phase) {
        Some(LeaseState::GivingBack(_) | LeaseState::Unfinished) => true,
        Some(_) => !guest_runs(host, record, uuid),
        None => false,
    }
}

/// Whether a process is taking what a guest needs, or libvirt is about to start it: between `prepare` and QEMU nothing
/// but its keeper knows.
#[must_use]
pub fn guest_starts(host: &Host, record: &Record, uuid: GuestUuid) -> bool {
    let deadline = Deadline::after(KEEPER_ANSWERS);
    if record.leases.get(&uuid).is_some_and(Lease::is_held_by_hand) {
        return false;
    }
    match record.leases.get(&uuid).map(|lease| lease.phase) {
        Some(LeaseState::Preparing(by)) => host.is_alive(by),
        Some(LeaseState::Prepared) => match host.keeper(uuid, deadline) {
            Ok(keeper) => keeper.is_some_and(|keeper| keeper.daemon.is_some()),
            // It may be about to see the guest start.
            Err(_) => true,
        },
        _ => false,
    }
}

/// Whether libvirt may be about to start a guest, when its keeper cannot say: one that took over for another does not
/// know who was to start QEMU.
#[must_use]
pub fn guest_may_start(host: &Host, record: &Record, uuid: GuestUuid) -> bool {
    record.leases.get(&uuid).is_some_and(|lease| lease.phase == LeaseState::Prepared)
        && host.libvirt_may_run()
}
