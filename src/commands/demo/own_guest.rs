//! The demo's own guest, for a person's file without an XML: with what the file needs of it.

use std::collections::BTreeSet;

use crate::actions::GuestConfig;
use crate::commands::user_error::UserResult;
use crate::config::DeviceChoice;
use crate::guest::{Guest, HostdevPlace, Managed, PciHostdev};
use crate::ledger::Note;
use crate::pci::{PciAddress, PciSlot, listed};

const GUEST: &str = include_str!("win11.xml");

pub(super) fn read() -> UserResult<Guest> {
    Ok(Guest::parse(GUEST.as_bytes())?)
}

/// Changes it where the file would have no effect, or would ask for a device that it does not have. What was changed.
pub(super) fn fit(guest: &mut Guest, config: &GuestConfig) -> Vec<Note> {
    let mut notes = Vec::new();
    if config.free_memory.is_some() && config.hugepages.is_none() {
        guest.hugepages = None;
        notes.push(Note::info("the demo's own guest has no huge pages with this file"));
    }
    let Some(DeviceChoice::List(list)) = config.gpu.as_ref().map(|gpu| &gpu.devices) else { return notes };
    let there: BTreeSet<PciSlot> = guest.pci_hostdevs.iter().map(|hostdev| hostdev.address.slot()).collect();
    let slots: BTreeSet<PciSlot> = list.iter().map(|address| address.slot()).collect();
    if !slots.is_subset(&there) {
        let of_card = |slot: PciSlot| slot.functions().filter(|address| address.function() < 2);
        let functions: BTreeSet<PciAddress> =
            slots.into_iter().flat_map(of_card).chain(list.iter().copied()).collect();
        let functions: Vec<PciAddress> = functions.into_iter().collect();
        let hostdev = |address: &PciAddress| PciHostdev {
            address: *address,
            managed: Managed::Yes,
            place: HostdevPlace::Hostdev,
        };
        guest.pci_hostdevs = functions.iter().map(hostdev).collect();
        notes.push(Note::info(format!("the demo's own guest has {} with this file", listed(&functions))));
    }
    notes
}
