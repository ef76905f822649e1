//! libvirt, as those ask it that are no hook.

use std::sync::Arc;

use super::qemu_events::{self, EndSink, GuestEnd, GuestEndWatch};
use super::systemd::Bus;
use super::{Host, HostError, start_again};
use crate::deadline::Deadline;
use crate::guest::{GuestName, GuestUuid};

/// What a keeper needs of libvirt. Never for a hook, for which libvirt waits.
pub trait Libvirt: Send + Sync {
    /// Follows the guest's QEMU.
    ///
    /// # Errors
    /// There is no `virsh`.
    fn watch_end(&self, guest: GuestUuid, on_end: EndSink) -> Result<GuestEndWatch, HostError>;

    /// Has the guest started as soon as it is off.
    ///
    /// # Errors
    /// Nobody can be found who does it.
    fn start_again(&self, guest: GuestUuid, name: &GuestName, deadline: Deadline) -> Result<(), HostError>;
}

/// libvirt on this machine.
#[derive(Debug)]
pub(super) struct MachineLibvirt(Arc<Bus>);

impl MachineLibvirt {
    pub(super) fn new(bus: Arc<Bus>) -> Self {
        Self(bus)
    }
}

impl Libvirt for MachineLibvirt {
    fn watch_end(&self, guest: GuestUuid, on_end: EndSink) -> Result<GuestEndWatch, HostError> {
        qemu_events::follow(guest, on_end)
    }

    fn start_again(&self, guest: GuestUuid, name: &GuestName, deadline: Deadline) -> Result<(), HostError> {
        start_again::hand_over(&self.0, guest, name, deadline)
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

    /// Has a guest that rebooted itself started again as soon as libvirt says that it is off, by a process that
    /// outlives the keeper. Does not wait for it: what comes of it is in the journal.
    ///
    /// # Errors
    /// That process cannot be started.
    pub fn start_again(
        &mut self,
        guest: GuestUuid,
        name: &GuestName,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        self.libvirt.start_again(guest, name, deadline)
    }
}
