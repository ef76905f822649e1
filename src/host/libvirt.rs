//! libvirt, as those ask it that are no hook.

use super::qemu_events::{self, EndSink, GuestEnd, GuestEndWatch};
use super::virsh::Virsh;
use super::{Host, HostError};
use crate::guest::GuestUuid;

/// What a keeper needs of libvirt. Never for a hook, for which libvirt waits.
pub trait Libvirt: Send + Sync {
    /// Follows the guest's QEMU.
    ///
    /// # Errors
    /// There is no `virsh`.
    fn watch_end(&self, guest: GuestUuid, on_end: EndSink) -> Result<GuestEndWatch, HostError>;

    /// Whether libvirt can be asked at all; it may not answer.
    ///
    /// # Errors
    /// There is no `virsh`.
    fn can_be_asked(&self) -> Result<(), HostError>;
}

/// libvirt on this machine.
#[derive(Debug)]
pub(super) struct MachineLibvirt;

impl Libvirt for MachineLibvirt {
    fn watch_end(&self, guest: GuestUuid, on_end: EndSink) -> Result<GuestEndWatch, HostError> {
        qemu_events::follow(guest, on_end)
    }

    fn can_be_asked(&self) -> Result<(), HostError> {
        Virsh::find().map(drop)
    }
}

impl Host {
    /// Tells how the guest's QEMU comes to its end, for as long as what this gives is kept. For the keeper alone, never
    /// for a hook: libvirt waits for its hooks.
    ///
    /// `on_end` is called from another thread, each time that QEMU says it is to end, with what is to be made of all
    /// that it said; the last call counts. It may be called although the guest goes on: `virsh reboot` has it power off
    /// and start anew. What happens while libvirt is away is not told: a guest that ended without a word ended as
    /// [`GuestEnd::Unknown`].
    ///
    /// # Errors
    /// There is no `virsh`.
    pub fn watch_guest_end(
        &self,
        guest: GuestUuid,
        mut on_end: impl FnMut(GuestEnd) + Send + 'static,
    ) -> Result<GuestEndWatch, HostError> {
        let mut end = GuestEnd::Unknown;
        let settle = move |said: GuestEnd| {
            end = end.then(said);
            on_end(end);
        };
        self.libvirt.watch_end(guest, Box::new(settle))
    }

    /// Whether libvirt can be asked at all: there is a `virsh`. Never for a hook.
    ///
    /// # Errors
    /// There is none.
    pub fn can_ask_libvirt(&self) -> Result<(), HostError> {
        self.libvirt.can_be_asked()
    }
}
