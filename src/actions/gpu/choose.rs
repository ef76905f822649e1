//! Which of the PCI devices in the guest's XML go together.

use std::collections::BTreeSet;

use super::slot::{is_one_card, suggestion, with_article};
use super::{Card, DEVICES, GPU, Role, safety};
use crate::actions::{Proposal, Situation, Until};
use crate::config::{DeviceChoice, Gpu};
use crate::guest::PciHostdev;
use crate::host::{HostError, PciFunction};
use crate::key_path::KeyPath;
use crate::pci::{PciAddress, PciClass, PciFunctions, PciSlot, listed};

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
    let is_wrong = proposal.has_problems();
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
        let mut taken = all.clone();
        if !left_out.is_empty() {
            let mut is_card = true;
            let displays = handed_over.iter().filter(|function| function.address.slot() == slot);
            for display in displays.filter(|function| function.class.is_display()) {
                is_card &= is_one_card(display, &all, situation)?;
            }
            if is_card {
                refuse_parts(&left_out, slot, situation, proposal);
                continue;
            }
            taken.retain(|address| !left_out.contains(address));
            proposal.inform(format!(
                "{} in the slot of {} stays with the host: it is a part of the processor, not of a card",
                listed(&left_out),
                listed(&taken)
            ));
        }
        cards.extend(card(&taken, Role::Graphics, situation)?);
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
        } else if is_companion(situation.host.pci_function(address)?.class) {
            companions.extend(card(&[address], Role::Companion, situation)?);
        }
    }
    Ok(companions)
}

/// No graphics, and nothing that a guest cannot have at all: an address that is wrong is said elsewhere.
fn is_companion(class: PciClass) -> bool {
    !class.is_display() && !class.is_bridge_of_any_kind()
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
            Ok(function) if function.class.is_bridge_of_any_kind() => proposal.refuse(
                DEVICES,
                format!(
                    "the guest's XML hands over {hostdev}, which is {} of the host: the address is wrong",
                    with_article(function.class)
                ),
                suggestion(address, situation)?,
            ),
            Ok(function) => present.push(function),
            Err(error) if error.is_absent() => refuse_absent(hostdev, situation, proposal)?,
            Err(error) => return Err(error),
        }
    }
    Ok(present)
}

/// One that fell off the bus and did not come back is in quarantine.
fn refuse_absent(
    hostdev: &PciHostdev,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let address = hostdev.address;
    let quarantines = &situation.record.quarantines;
    match quarantines.iter().find(|quarantine| quarantine.terms.functions.contains(address)) {
        Some(quarantine) => safety::refuse_quarantined(quarantine, situation, proposal),
        None => proposal.refuse_until(
            Until::FunctionThere(address),
            DEVICES,
            format!("the guest's XML hands over {hostdev}, but this host has no such device"),
            suggestion(address, situation)?,
        ),
    }
    Ok(())
}

/// Whether an element of the list can be taken; what cannot is a reason to refuse.
fn is_to_be_had(
    number: usize,
    address: PciAddress,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<bool, HostError> {
    let place = KeyPath::from(DEVICES).element(number);
    if !is_in_xml(situation, address) {
        proposal.refuse(
            place,
            format!("the guest's XML does not hand over {address}"),
            "add a <hostdev> for it (`virsh edit`), or take it out of this list",
        );
        return Ok(false);
    }
    // That it is wrong is said of the XML.
    if situation.host.pci_function(address).is_ok_and(|function| function.class.is_bridge_of_any_kind()) {
        return Ok(false);
    }
    if situation.host.is_virtual_function(address)? {
        proposal.refuse(
            place,
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
