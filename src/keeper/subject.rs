//! Whom the guest's life depends on: first the hook, then libvirt's daemon, then QEMU.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::guest::GuestUuid;
use crate::host::{Host, ProcessId};
use crate::ledger::Phase;

/// The process that is watched.
#[derive(Default)]
pub(super) struct Subject {
    watched: Option<Watched>,
    /// The daemon that called the hook; known while that one runs.
    daemon: Option<ProcessId>,
}

struct Watched {
    process: ProcessId,
    role: Role,
    descriptor: OwnedFd,
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
        self.watched.as_ref().map(|watched| watched.descriptor.as_fd())
    }

    /// QEMU's number, while it is watched.
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

    /// Watches whoever counts in this phase of the guest's life. False: that one is dead.
    pub(super) fn follow(&mut self, host: &Host, guest: GuestUuid, phase: Phase) -> bool {
        self.watched = None;
        match phase {
            Phase::Preparing(hook) => {
                self.daemon = self.daemon.or_else(|| host.libvirt_daemon_above(hook));
                self.watch(host, hook, Role::Worker)
            }
            // Nobody else does it: whoever was to ask for it may have been killed first.
            Phase::GivingBack(by) if by.is_this_process() => false,
            Phase::GivingBack(by) => self.watch(host, by, Role::Worker),
            Phase::Started => self.watch_qemu(host, guest),
            // A daemon that died may have started QEMU just before.
            Phase::Prepared => match self.daemon {
                Some(daemon) => self.watch(host, daemon, Role::Daemon) || self.watch_qemu(host, guest),
                // Called by hand: nobody knows whether a guest is to come.
                None => true,
            },
        }
    }

    fn watch_qemu(&mut self, host: &Host, guest: GuestUuid) -> bool {
        let qemu = host.qemu_of(&guest.to_string()).and_then(ProcessId::of);
        qemu.is_some_and(|qemu| self.watch(host, qemu, Role::Qemu))
    }

    fn watch(&mut self, host: &Host, process: ProcessId, role: Role) -> bool {
        match host.process_descriptor(process) {
            Ok(Some(descriptor)) => {
                self.watched = Some(Watched { process, role, descriptor });
                true
            }
            Ok(None) => false,
            Err(error) => {
                tracing::warn!("{error}");
                true
            }
        }
    }
}
