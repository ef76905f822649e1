//! Whether the guest rebooted itself: libvirt says `shutdown` for that too, so that QEMU is listened to.

use super::notices::{Notice, NoticeSender};
use crate::gpu::GuestReboot;
use crate::guest::GuestUuid;
use crate::host::{GuestEnd, GuestEndWatch, Host};
use crate::ledger::Lease;
use crate::pci::PciFunctions;

/// The guest's end, as far as it is known.
pub(super) struct RebootWatch {
    guest: GuestUuid,
    notices: NoticeSender,
    watch: Option<GuestEndWatch>,
    end: GuestEnd,
    cards: Vec<PciFunctions>,
}

impl RebootWatch {
    pub(super) fn new(guest: GuestUuid, notices: NoticeSender) -> Self {
        Self { guest, notices, watch: None, end: GuestEnd::Unknown, cards: Vec::new() }
    }

    /// QEMU runs: from now on it is listened to, if a reboot means a new start.
    pub(super) fn guest_is_up(&mut self, host: &Host, lease: &Lease) {
        if self.watch.is_some() || lease.guest_reboot != Some(GuestReboot::Restart) {
            return;
        }
        self.cards = lease.cards.iter().map(|card| card.functions.clone()).collect();
        let notices = self.notices.clone();
        match host.watch_guest_end(self.guest, move |end| notices.send(Notice::GuestEnds(end))) {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => crate::log::log_warning!("a reboot of the guest will not be noticed: {error}"),
        }
    }

    /// QEMU says how it ends.
    pub(super) fn ends(&mut self, end: GuestEnd) {
        self.end = end;
    }

    /// How the guest ended, and the cards it had, if a reboot means a new start. Nothing more is listened to.
    pub(super) fn finish(&mut self) -> Option<(GuestEnd, Vec<PciFunctions>)> {
        self.watch.take()?;
        Some((self.end, std::mem::take(&mut self.cards)))
    }
}
