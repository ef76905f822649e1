//! Devices that libvirt chooses for a guest after `prepare`: virtual functions of a network that hands them over.

use super::error::LedgerError;
use super::open::Ledger;
use super::record::{NetworkDevices, Record};
use crate::guest::GuestUuid;
use crate::pci::PciAddress;

/// Those of a guest's devices that its lease awaits and does not have yet.
#[must_use]
pub fn awaited_devices(record: &Record, uuid: GuestUuid, devices: &[PciAddress]) -> Vec<PciAddress> {
    let lease = record.leases.get(&uuid).filter(|lease| lease.network_devices == NetworkDevices::Awaited);
    let Some(interrupts) = lease.and_then(|lease| lease.interrupts.as_ref()) else { return Vec::new() };
    devices.iter().copied().filter(|device| !interrupts.devices.contains(device)).collect()
}

impl Ledger<'_> {
    /// Adds devices to those whose interrupts are served by the guest's CPUs.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn add_network_devices(
        &mut self,
        uuid: GuestUuid,
        devices: &[PciAddress],
    ) -> Result<(), LedgerError> {
        let new = awaited_devices(&self.record, uuid, devices);
        let lease = self.record.leases.get_mut(&uuid);
        match lease.and_then(|lease| lease.interrupts.as_mut()) {
            Some(interrupts) if !new.is_empty() => interrupts.devices.extend(new),
            _ => return Ok(()),
        }
        self.store()
    }
}
