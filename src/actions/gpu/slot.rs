//! Whether the functions of a slot are one card, and what stands at an address that a guest's XML has wrong.

use crate::actions::Situation;
use crate::host::{HostError, PciFunction};
use crate::pci::{PciAddress, PciClass, PciId};

/// Whether all functions beside a graphics function are the card's. On a card they are: they are reset together. The
/// graphics of a processor shares its slot with the host's USB controllers and security processor, and what goes with
/// it is told by the IOMMU groups alone.
pub(super) fn is_one_card(
    display: &PciFunction,
    slot: &[PciAddress],
    situation: Situation<'_>,
) -> Result<bool, HostError> {
    if situation.host_config.family_of(display.id).is_of_processor() {
        return Ok(false);
    }
    // Nothing above it: it is on the processor's own bus, as Intel's 00:02.0.
    if situation.host.pci_ports_above(display.address)?.root.is_none() {
        return Ok(false);
    }
    for function in slot {
        let function = situation.host.pci_function(*function)?;
        // AMD's graphics are `1002`, what its processors have beside them `1022`.
        let is_platform = display.id.vendor == PciId::AMD && function.id.vendor == PciId::AMD_PLATFORM;
        if function.class.is_encryption() || is_platform {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A sentence on the graphics function of the host that is meant where an address is wrong: one behind that port, else
/// the one with the nearest number of a bus. `lspci` where the host has none.
pub(super) fn suggestion(wrong: PciAddress, situation: Situation<'_>) -> Result<String, HostError> {
    let host = situation.host;
    let mut displays = Vec::new();
    for function in host.pci_functions()? {
        let is_in_xml = situation.guest.pci_hostdevs.iter().any(|hostdev| hostdev.address == function);
        if !is_in_xml && host.pci_function(function).is_ok_and(|function| function.class.is_display()) {
            displays.push(function);
        }
    }
    let behind = host.pci_functions_behind(wrong)?;
    let distance =
        |function: &PciAddress| (!behind.contains(function), function.bus().abs_diff(wrong.bus()), *function);
    const WHY: &str =
        "addresses change when cards are added or the firmware is set up anew (`lspci -D` shows them)";
    Ok(match displays.into_iter().min_by_key(distance) {
        Some(near) => {
            let id = host.pci_function(near)?.id;
            let model = host.pci_model_name(id).map_or_else(String::new, |name| format!("{name}, "));
            format!("is {near} ({model}{id}) meant? {WHY}; `virsh edit` changes the <hostdev>")
        }
        None => format!("{WHY}; `virsh edit` changes the <hostdev>"),
    })
}

/// `a PCI bridge`, `an Ethernet controller`.
pub(super) fn with_article(class: PciClass) -> String {
    let name = class.to_string();
    let article = if name.starts_with(['A', 'E', 'I', 'O', 'U', 'a', 'e', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {name}")
}
