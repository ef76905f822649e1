//! Whom the guest's life depends on: first the hook, then libvirt's daemon, then QEMU.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::{Host, ProcessId, QemuClues, QemuSearch};
use crate::ledger::{Lease, LeaseState};

/// How long QEMU may be looked for while a hook waits for this keeper, which is 500 ms.
pub(super) const WHILE_ASKED: Duration = Duration::from_millis(300);

/// How long, before the keeper gives back without a word of libvirt's: a busy machine takes that long, and a hook that
/// asks meanwhile takes the keeper for one that hangs.
pub(super) const BEFORE_GIVING_BACK: Duration = Duration::from_secs(5);

/// The process that is watched.
#[derive(Default)]
pub(super) struct Subject {
    watched: Option<Watched>,
    /// The daemon that called the hook; known while that one runs.
    daemon: Option<ProcessId>,
    /// What was found last.
    found: Option<Subsistence>,
    /// Whether it was said that a process cannot be watched.
    is_unwatched_said: bool,
}

struct Watched {
    process: ProcessId,
    role: Role,
    /// None where the kernel has none to give.
    descriptor: Option<OwnedFd>,
}

/// How the one stands whom the guest's life depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subsistence {
    /// It lives, and is watched.
    Lives,
    /// It lives, or so it seems, but cannot be watched: to be looked at again.
    Unwatched,
    /// It is dead.
    Ended,
    /// It cannot be told: to be looked at again.
    Unknown,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A hook, or another process that is at work on the lease.
    Worker,
    /// libvirt's daemon, which is about to start QEMU.
    Daemon,
    Qemu,
}

impl Subject {
    /// Readable when the process has ended.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.watched.as_ref()?.descriptor.as_ref().map(AsFd::as_fd)
    }

    /// QEMU's number, while it runs.
    pub(super) fn qemu(&self) -> Option<i32> {
        self.watched_as(Role::Qemu)
    }

    /// The daemon's number, while it is about to start QEMU.
    pub(super) fn daemon(&self) -> Option<i32> {
        self.watched_as(Role::Daemon)
    }

    fn watched_as(&self, role: Role) -> Option<i32> {
        let watched = self.watched.as_ref().filter(|watched| watched.role == role)?;
        Some(watched.process.pid)
    }

    /// Whether the watched process is known to be dead.
    pub(super) fn has_ended(&self) -> bool {
        self.found == Some(Subsistence::Ended)
    }

    /// The process that is watched has ended: nobody is watched any more.
    pub(super) fn has_gone(&mut self) {
        self.watched = None;
    }

    /// Watches the process that matters in this phase of the guest's life.
    pub(super) fn follow(
        &mut self,
        host: &Host,
        guest: GuestUuid,
        lease: &Lease,
        patience: Duration,
    ) -> Subsistence {
        self.watched = None;
        let found = self.find(host, guest, lease, Deadline::after(patience));
        self.found = Some(found);
        found
    }

    fn find(&mut self, host: &Host, guest: GuestUuid, lease: &Lease, deadline: Deadline) -> Subsistence {
        match lease.phase {
            LeaseState::Preparing(hook) => {
                self.daemon = self.daemon.or_else(|| host.libvirt_daemon_above(hook));
                self.watch(host, hook, Role::Worker)
            }
            // Nothing else does it: the process that was to ask for it may have been killed first.
            LeaseState::GivingBack(by) if by.is_this_process() => Subsistence::Ended,
            LeaseState::Unfinished => Subsistence::Ended,
            LeaseState::GivingBack(by) => self.watch(host, by, Role::Worker),
            LeaseState::Started => self.watch_qemu(host, lease.qemu_clues(guest), deadline),
            // A person ends it, or the guest's start.
            LeaseState::Prepared if lease.is_held_by_hand() => Subsistence::Lives,
            LeaseState::Prepared => match self.daemon {
                Some(daemon) => match self.watch(host, daemon, Role::Daemon) {
                    // A daemon that died may have started QEMU just before.
                    Subsistence::Ended => self.watch_qemu(host, lease.qemu_clues(guest), deadline),
                    lives => lives,
                },
                // Called by hand: nobody knows whether a guest is to come.
                None => Subsistence::Lives,
            },
        }
    }

    fn watch_qemu(&mut self, host: &Host, clues: QemuClues<'_>, deadline: Deadline) -> Subsistence {
        match host.qemu_of(clues, deadline) {
            QemuSearch::Runs(qemu) => self.watch(host, qemu, Role::Qemu),
            QemuSearch::Gone => Subsistence::Ended,
            QemuSearch::Unknown => Subsistence::Unknown,
        }
    }

    fn watch(&mut self, host: &Host, process: ProcessId, role: Role) -> Subsistence {
        let (descriptor, subsistence) = match host.process_descriptor(process) {
            Ok(Some(descriptor)) => (Some(descriptor), Subsistence::Lives),
            Ok(None) => return Subsistence::Ended,
            Err(_) if !host.is_alive(process) => return Subsistence::Ended,
            Err(error) => {
                if !std::mem::replace(&mut self.is_unwatched_said, true) {
                    crate::log::log_warning!("{error}; it is looked at from time to time instead");
                }
                (None, Subsistence::Unwatched)
            }
        };
        self.watched = Some(Watched { process, role, descriptor });
        subsistence
    }
}
