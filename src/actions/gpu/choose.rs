//! Which of the PCI devices in the guest's XML go together.

use std::collections::BTreeSet;

use super::{Card, DEVICES, GPU, Role, safety};
use crate::actions::{Proposal, Situation};
use crate::config::{DeviceChoice, Gpu};
use crate::host::{HostError, PciFunction};
use crate::pci::{PciAddress, PciFunctions, PciSlot};

/// The graphics cards that the guest gets, each with all its functions.
pub(super) fn graphics_cards(
    config: &Gpu,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<Vec<Card>, HostError> {
    let handed_over = present_hostdevs(situation, proposal)?;
    match situation.guest.mediated_devices {
        0 => {}
        1 => proposal.inform("the guest's mediated device is left to libvirt"),
        several => proposal.inform(format!("the guest's {several} mediated devices are left to libvirt")),
    }
    let chosen: Vec<PciAddress> = match &config.devices {
        DeviceChoice::Auto => {
            let displays = handed_over.iter().filter(|function| function.class.is_display());
            displays.map(|function| function.address).collect()
        }
        DeviceChoice::List(list) => {
            let mut chosen = Vec::new();
            for (number, address) in list.iter().enumerate() {
                if is_to_be_had(number, *address, situation, proposal)? {
                    chosen.push(*address);
                }
            }
            chosen
        }
    };
    let is_wrong = !proposal.problems.is_empty();
    if chosen.is_empty() && !is_wrong && handed_over.iter().all(|function| !function.class.is_display()) {
        proposal.refuse(
            GPU,
            "has no effect: the guest's XML hands over no graphics card",
            "add <hostdev> elements for the card (`virsh edit`), or remove the section",
        );
    }
    let slots: BTreeSet<PciSlot> = chosen.into_iter().map(PciAddress::slot).collect();
    let mut cards = Vec::new();
    for slot in slots {
        let all = situation.host.pci_functions_of(slot);
        let left_out: Vec<PciAddress> =
            all.iter().copied().filter(|address| !is_in_xml(situation, *address)).collect();
        if !left_out.is_empty() {
            refuse_parts(&left_out, slot, situation, proposal);
            continue;
        }
        cards.extend(card(&all, Role::Graphics, situation)?);
    }
    Ok(cards)
}

/// The other PCI devices that the guest gets, one by one.
pub(super) fn companions(
    cards: &[Card],
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<Vec<Card>, HostError> {
    let is_of_card = |address: PciAddress| cards.iter().any(|card| card.functions.slot() == address.slot());
    let mut companions = Vec::new();
    for hostdev in &situation.guest.pci_hostdevs {
        let address = hostdev.address;
        if is_of_card(address) || !situation.host.is_pci_function(address) {
            continue;
        }
        if situation.host.is_virtual_function(address)? {
            proposal.inform(format!("{address} is a virtual function: it is left to libvirt"));
        } else if !situation.host.pci_function(address)?.class.is_display() {
            companions.extend(card(&[address], Role::Companion, situation)?);
        }
    }
    Ok(companions)
}

/// What of the XML's PCI devices is there, virtual functions apart; what is not is a reason to refuse.
fn present_hostdevs(
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<Vec<PciFunction>, HostError> {
    let mut present = Vec::new();
    for hostdev in &situation.guest.pci_hostdevs {
        let address = hostdev.address;
        match situation.host.pci_function(address) {
            Ok(function) if function.class.is_display() && situation.host.is_virtual_function(address)? => {
                proposal.inform(format!("{address} is a virtual function of a card: it is left to libvirt"));
            }
            Ok(function) => present.push(function),
            Err(error) if error.is_absent() => refuse_absent(address, situation, proposal),
            Err(error) => return Err(error),
        }
    }
    Ok(present)
}

/// One that fell off the bus and did not come back is in quarantine.
fn refuse_absent(address: PciAddress, situation: Situation<'_>, proposal: &mut Proposal) {
    let quarantines = &situation.record.quarantines;
    match quarantines.iter().find(|quarantine| quarantine.terms.functions.contains(address)) {
        Some(quarantine) => safety::refuse_quarantined(quarantine, situation, proposal),
        None => proposal.refuse(
            DEVICES,
            format!("the guest's XML hands over {address}, but this host has no such device"),
            "`lspci -D` shows the addresses; they change when cards are added or the firmware is set up anew",
        ),
    }
}

/// Whether an element of the list can be taken; what cannot is a reason to refuse.
fn is_to_be_had(
    number: usize,
    address: PciAddress,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<bool, HostError> {
    let place = ["gpu".to_owned(), "devices".to_owned(), number.to_string()];
    if !is_in_xml(situation, address) {
        proposal.refuse_at(
            &place,
            format!("the guest's XML does not hand over {address}"),
            "add a <hostdev> for it (`virsh edit`), or take it out of this list",
        );
        return Ok(false);
    }
    if situation.host.is_virtual_function(address)? {
        proposal.refuse_at(
            &place,
            format!("{address} is a virtual function, which is no card of its own"),
            "take it out of this list: libvirt hands it over, as `managed=` of the XML says",
        );
        return Ok(false);
    }
    Ok(true)
}

fn is_in_xml(situation: Situation<'_>, address: PciAddress) -> bool {
    situation.guest.pci_hostdevs.iter().any(|hostdev| hostdev.address == address)
}

fn refuse_parts(left_out: &[PciAddress], slot: PciSlot, situation: Situation<'_>, proposal: &mut Proposal) {
    let words: Vec<String> = left_out
        .iter()
        .map(|address| {
            let driver = situation.host.pci_driver(*address).ok().flatten();
            driver.map_or_else(|| address.to_string(), |driver| format!("{address} ({driver})"))
        })
        .collect();
    proposal.refuse(
        DEVICES,
        format!("the guest's XML leaves out {} of the card {slot}", words.join(", ")),
        "a card can only be reset as a whole: add a <hostdev> for each of its functions (`virsh edit`)",
    );
}

fn card(addresses: &[PciAddress], role: Role, situation: Situation<'_>) -> Result<Option<Card>, HostError> {
    let members: Vec<PciFunction> =
        addresses.iter().map(|address| situation.host.pci_function(*address)).collect::<Result<_, _>>()?;
    let functions = PciFunctions::new(addresses.iter().copied());
    Ok(functions.map(|functions| Card { functions, members, role }))
}
