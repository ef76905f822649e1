//! How the card is reset between two guests: what was chosen, and what the kernel can do.

use super::{Card, of_driver};
use crate::actions::{Proposal, Situation, Until};
use crate::config::Gpu;
use crate::gpu::{ResetMethod, VENDOR_RESET, VendorReset};
use crate::host::{BusReset, HostError, PciAttribute, PciFunction};
use crate::key_path::KeyPath;
use crate::ledger::{Attribute, AttributeValue};
use crate::pci::{PciAddress, PciId, listed};

const RESET_METHOD: &[&str] = &["gpu", "reset_method"];

/// The resets of a function that are tried first, as `reset_method` will have them.
struct Chosen {
    function: PciAddress,
    methods: Vec<String>,
}

/// Claims the resets that are to be tried first, and says how the card will be reset. Returns the function that the
/// module vendor-reset is to reset.
pub(super) fn propose(
    config: &Gpu,
    card: &Card,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<Option<PciAddress>, HostError> {
    let display = card.members.iter().find(|member| member.class.is_display());
    let chosen = match display {
        Some(display) => choose(config, display, situation, proposal)?,
        None => None,
    };
    if let Some(Chosen { function, methods }) = &chosen
        && situation.host.pci_reset_methods(*function)? != *methods
    {
        proposal.claim(
            setting(*function),
            AttributeValue::new(methods.join(" ")),
            of_driver(config, RESET_METHOD),
        );
    }
    tell(card, chosen.as_ref(), situation, proposal)?;
    Ok(chosen.filter(|chosen| is_by_vendor_reset(chosen, display, situation)).map(|chosen| chosen.function))
}

/// The kernel has no reset of its own for any of AMD's graphics (`pci_dev_reset_methods` in `drivers/pci/quirks.c`), so
/// that `device_specific` is the module's.
fn is_by_vendor_reset(chosen: &Chosen, display: Option<&PciFunction>, situation: Situation<'_>) -> bool {
    let is_first = chosen.methods.first().is_some_and(|first| first == ResetMethod::DeviceSpecific.as_str());
    let is_amds = display.is_some_and(|display| display.id.vendor == PciId::AMD);
    is_first && is_amds && situation.host.has_module(VENDOR_RESET)
}

fn setting(function: PciAddress) -> Attribute {
    Attribute::of_function(function, PciAttribute::ResetMethod)
}

/// Those of the file, or that of vendor-reset where it knows the card.
fn choose(
    config: &Gpu,
    display: &PciFunction,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<Option<Chosen>, HostError> {
    let known = known_methods(display.address, situation)?;
    let methods = match &config.reset_methods {
        Some(methods) => {
            check(methods, known.as_deref(), display, situation, proposal)?;
            methods.as_slice()
        }
        None if known.is_some() && is_of_vendor_reset(display, situation) => &[ResetMethod::DeviceSpecific],
        None => return Ok(None),
    };
    let methods = methods.iter().map(ResetMethod::to_string).collect();
    Ok(Some(Chosen { function: display.address, methods }))
}

fn is_of_vendor_reset(display: &PciFunction, situation: Situation<'_>) -> bool {
    let family = situation.host_config.family_of(display.id);
    family.vendor_reset == VendorReset::Supported && situation.host.has_module(VENDOR_RESET)
}

/// The names in the function's `reset_method`, those included that it had before a guest chose among them. None where
/// there is no such file: before Linux 5.15, and where the kernel found no way to reset the function
/// (`pci_dev_reset_method_attr_is_visible` in `drivers/pci/pci.c`).
fn known_methods(function: PciAddress, situation: Situation<'_>) -> Result<Option<Vec<String>>, HostError> {
    let now = match situation.host.pci_attribute(function, PciAttribute::ResetMethod) {
        Err(error) if error.is_absent() => return Ok(None),
        now => now?,
    };
    let entry = situation.record.entry(&setting(function));
    let before = entry.map_or("", |entry| entry.baseline.as_str());
    let mut names: Vec<String> = Vec::new();
    for name in now.split_whitespace().chain(before.split_whitespace()) {
        if names.iter().all(|known| known != name) {
            names.push(name.to_owned());
        }
    }
    Ok(Some(names))
}

/// Refuses methods that the kernel would not take. It tries each when it is written (`reset_method_store`), which is
/// after services and desktops have gone.
fn check(
    methods: &[ResetMethod],
    known: Option<&[String]>,
    display: &PciFunction,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let function = display.address;
    let path = PciAttribute::ResetMethod.path(function);
    let Some(known) = known else {
        proposal.refuse(
            RESET_METHOD,
            format!("how {function} is reset cannot be chosen: the kernel has no {}", path.display()),
            "remove the key: kernels before 5.15 have no such file, later ones none for what cannot be reset by itself",
        );
        return Ok(());
    };
    let neighbours = neighbours(function, situation)?;
    for (number, method) in methods.iter().enumerate() {
        let place = KeyPath::from(RESET_METHOD).element(number);
        let is_known = known.iter().any(|name| name == method.as_str());
        match method {
            // vendor-reset's is listed only once it was chosen.
            ResetMethod::DeviceSpecific if is_known || situation.host.has_module(VENDOR_RESET) => {}
            ResetMethod::DeviceSpecific => proposal.refuse_until(
                Until::CommandsRan,
                place,
                format!("{function} has no reset `{method}`, and the module vendor-reset is not loaded"),
                "load it (`modprobe vendor-reset`) if it knows the card, or leave the method out",
            ),
            // The kernel lists it for a card's first function, found before the others, and does not take it any more.
            ResetMethod::Bus | ResetMethod::CxlBus if is_known && !neighbours.is_empty() => proposal.refuse(
                place,
                format!(
                    "{function} has no reset `{method}` of its own: {} would be reset too",
                    listed(&neighbours)
                ),
                "leave it out: VFIO resets the whole bus by itself where all of it is the guest's",
            ),
            _ if is_known => {}
            _ => {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                proposal.refuse(
                    place,
                    format!("{function} has no reset `{method}`: its `reset_method` lists {known}"),
                    format!(
                        "take one of those; `echo default > {}` has all listed that it has",
                        path.display()
                    ),
                );
            }
        }
    }
    Ok(())
}

/// The other functions on the function's bus: with one of them the kernel resets none of them by the bus
/// (`pci_parent_bus_reset` in `drivers/pci/pci.c`).
fn neighbours(function: PciAddress, situation: Situation<'_>) -> Result<Vec<PciAddress>, HostError> {
    let Some(port) = situation.host.pci_ports_above(function)?.nearest_first().next() else {
        return Ok(Vec::new());
    };
    let mut below = situation.host.pci_functions_below(port)?;
    below.retain(|other| *other != function);
    Ok(below)
}

/// Says how the card will be reset between two guests, as far as the kernel can.
fn tell(
    card: &Card,
    chosen: Option<&Chosen>,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let mut own = Vec::new();
    for function in card.functions.as_slice() {
        let methods = match chosen {
            Some(chosen) if chosen.function == *function => chosen.methods.clone(),
            _ => situation.host.pci_reset_methods(*function)?,
        };
        if !methods.is_empty() {
            own.push(format!("{function} by {}", methods.join(", ")));
        }
    }
    // vfio's hot reset: everything on the bus has to be the guest's.
    let is_whole_bus = situation.host.pci_bus_reset(card.functions.as_slice())? == BusReset::OnlyThem;
    match (own.is_empty(), is_whole_bus) {
        (false, true) => proposal.inform(format!("reset: {}, or the whole bus", own.join("; "))),
        (false, false) => proposal.inform(format!("reset: {}", own.join("; "))),
        (true, true) => proposal.inform(format!("reset: {} by its whole bus", card.functions)),
        (true, false) => proposal.warn(format!(
            "nothing can reset {}: after the first guest it may not work until the host is switched off",
            card.functions
        )),
    }
    Ok(())
}
