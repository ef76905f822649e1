//! What other threads tell the one that waits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::monitors::MonitorStep;
use crate::host::{BusSignal, GuestEnd, watch_bus_signals};
use crate::ledger::Occasion;

/// The stack of a thread: none here recurses.
pub(super) const STACK: usize = 256 * 1024;

/// Something that happened elsewhere.
#[derive(Debug)]
pub(super) enum Notice {
    /// systemd has read its unit files again, and may have forgotten what was set at run time.
    SystemdReloaded,
    /// logind came back from a restart.
    LogindIsBack,
    /// The host has slept.
    HostWokeUp,
    /// What the guest holds was set again where it was taken away.
    Reconciled {
        /// What may have changed settings.
        occasion: Occasion,
        /// So many settings.
        changes: usize,
        /// So many were not, and are tried again.
        failures: usize,
        /// So many are left alone until it is known whether a CPU has just come online.
        undecided: usize,
    },
    /// The commands of an event are run.
    CommandsDone,
    /// A command in the background has ended.
    BackgroundEnded,
    /// The lease was given back, or not: the ledger says.
    GaveBack,
    /// QEMU says how it ends.
    GuestEnds(GuestEnd),
    /// A step with the guest's monitors is over.
    MonitorsDone {
        /// The step that is due.
        step: MonitorStep,
        /// How many are not yet as they are to be.
        unfinished: usize,
    },
}

/// The receiving end; readable when there is something.
pub(super) struct Notices {
    arrived: Arc<EventFd>,
    receiver: Receiver<Notice>,
    sender: Sender<Notice>,
}

/// The sending end.
#[derive(Clone)]
pub(super) struct NoticeSender {
    arrived: Arc<EventFd>,
    sender: Sender<Notice>,
}

impl Notices {
    pub(super) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let arrived = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let (sender, receiver) = mpsc::channel();
        Ok(Self { arrived, receiver, sender })
    }

    pub(super) fn sender(&self) -> NoticeSender {
        NoticeSender { arrived: Arc::clone(&self.arrived), sender: self.sender.clone() }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.arrived.as_fd()
    }

    /// All that has arrived. That nothing has is the most common case, and no error.
    pub(super) fn take(&self) -> Vec<Notice> {
        let _ = self.arrived.read();
        self.receiver.try_iter().collect()
    }
}

impl NoticeSender {
    pub(super) fn send(&self, notice: Notice) {
        // The receiver lives as long as the process.
        let _ = self.sender.send(notice);
        while self.arrived.write(1) == Err(Errno::EINTR) {}
    }
}

/// Has a thread listen to systemd and logind for as long as the process lives. Nothing wakes it meanwhile.
pub(super) fn watch_buses(notices: NoticeSender) {
    let listen = move || {
        watch_bus_signals(|signal| {
            notices.send(match signal {
                BusSignal::Reloaded => Notice::SystemdReloaded,
                BusSignal::LogindIsBack => Notice::LogindIsBack,
                BusSignal::HostWokeUp => Notice::HostWokeUp,
            });
        });
    };
    if let Err(error) = thread::Builder::new().name("bus".to_owned()).stack_size(STACK).spawn(listen) {
        crate::log::log_warning!("a daemon-reload will not be noticed: {error}");
    }
}
