//! What `sriov` names: network cards, and where their virtual functions will be.

use super::Added;
use crate::actions::GuestConfig;
use crate::config::{PhysicalFunction, SriovDevice};
use crate::guest::Guest;
use crate::pci::PciAddress;

/// Where a card stands that the file names by its interface, if the XML does not say.
const BUS: u8 = 0x21;

/// How many virtual functions Intel's 82576 has at most, how far the first is from the card, and how far each is from the next.
const MOST: u16 = 7;
const OFFSET: u32 = 128;
const STRIDE: u32 = 2;

/// A card that is to have virtual functions.
pub(super) struct SriovCard {
    pub(super) address: PciAddress,
    /// Those of the XML's devices that are its virtual functions.
    pub(super) functions: Vec<PciAddress>,
    interface: Option<String>,
    most: u16,
    offset: u32,
    stride: u32,
}

/// The cards that a file names.
pub(super) fn cards(guest: &Guest, config: &GuestConfig) -> Vec<SriovCard> {
    let hostdevs: Vec<PciAddress> = guest.pci_hostdevs.iter().map(|hostdev| hostdev.address).collect();
    let devices = config.sriov.iter().flat_map(|sriov| &sriov.devices);
    (0..).zip(devices).filter_map(|(number, device)| card(device, number, &hostdevs)).collect()
}

fn card(device: &SriovDevice, number: u8, hostdevs: &[PciAddress]) -> Option<SriovCard> {
    let (address, interface) = match &device.device {
        PhysicalFunction::Pci(address) => (*address, None),
        PhysicalFunction::Interface(name) => {
            let is_function =
                |address: &&PciAddress| distance(first_of_bus(address.bus()), **address) >= OFFSET;
            let bus = hostdevs.iter().find(is_function).map_or(BUS.wrapping_add(number), |found| found.bus());
            (first_of_bus(bus), Some(name.as_str().to_owned()))
        }
    };
    let functions: Vec<PciAddress> = hostdevs
        .iter()
        .copied()
        .filter(|function| function.bus() == address.bus() && *function > address)
        .collect();
    let distances = functions.iter().map(|function| distance(address, *function));
    // Others have theirs right after the card, one after the other.
    let (offset, stride) = match distances.clone().min() {
        Some(nearest)
            if nearest < OFFSET || !distances.clone().all(|far| (far - OFFSET).is_multiple_of(STRIDE)) =>
        {
            (nearest, 1)
        }
        _ => (OFFSET, STRIDE),
    };
    let needed = distances.max().map_or(0, |last| (last - offset) / stride + 1);
    let needed = u16::try_from(needed).unwrap_or(MOST).max(device.count.unwrap_or(0).min(64));
    Some(SriovCard { address, functions, interface, most: MOST.max(needed), offset, stride })
}

fn first_of_bus(bus: u8) -> PciAddress {
    // Never none: slot and function are 0.
    PciAddress::new(0, bus, 0, 0).unwrap_or_else(|| unreachable!("bus {bus} has a first function"))
}

/// How much higher the routing number of a function of the same bus is.
fn distance(from: PciAddress, to: PciAddress) -> u32 {
    (0..u32::from(u8::MAX) + 1).find(|distance| from.at_distance(*distance) == Some(to)).unwrap_or(0)
}

/// What is added to a card that is there.
pub(super) fn of_card(card: &SriovCard, added: &mut Added) {
    let SriovCard { address, most, offset, stride, interface, .. } = card;
    for (name, value) in [
        ("sriov_totalvfs", u32::from(*most)),
        ("sriov_numvfs", 0),
        ("sriov_offset", *offset),
        ("sriov_stride", *stride),
        ("sriov_drivers_autoprobe", 1),
    ] {
        added.line(format!("/sys/bus/pci/devices/{address}/{name} = {value}"));
    }
    added.line(format!("/sys/bus/pci/devices/{address}/sriov_vf_device = 10ca"));
    let mut words = format!("{address}, a network card with {most} virtual functions");
    if let Some(interface) = interface {
        added.line(format!("/sys/bus/pci/devices/{address}/net/{interface}/flags = 0x1003"));
        added.line(format!("/sys/class/net/{interface}/device -> ../../../bus/pci/devices/{address}"));
        words.push_str(&format!(" ({interface})"));
    }
    added.words.push(words);
}
