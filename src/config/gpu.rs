//! The section `gpu`: the graphics card that the guest gets, and how the host gets it back.

mod bars;
mod holders;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::item::Item;
use super::section::Section;
use super::services::StoppedUnit;
use super::suggest::did_you_mean;
use super::timeout::Timeout;
use super::tree::{Node, shortened};
use super::value::{Fault, choice};
use crate::gpu::{BarSize, GuestReboot, ResetMethod, ReturnTo, Rung};
use crate::pci::{PciAddress, PciSlot};

pub use holders::Holders;

/// A driver that takes longer hangs; `prepare` needs the rest of its 60 s for the other actions.
const TIMEOUT: Timeout = Timeout::during_prepare(Duration::from_secs(30)).at_most(Duration::from_secs(45));

/// A graphics card for the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Which one.
    pub devices: DeviceChoice,
    /// Whom it is bound to when the guest is gone.
    pub return_to: ReturnTo,
    /// What happens when the guest reboots itself; none leaves it to the card's family.
    pub guest_reboot: Option<GuestReboot>,
    /// What happens to programs of the host that use the card.
    pub holders: Holders,
    /// What happens to the display manager of the host.
    pub display_manager: DisplayManager,
    /// How the card's functions are reset, the first one first; never empty. None leaves it to the kernel.
    pub reset_methods: Option<Vec<ResetMethod>>,
    /// Sizes of resizable BARs of the display function, by the BAR's number, 0 to 5.
    pub bars: BTreeMap<u8, BarSize>,
    /// What is tried when the card does not answer, the first one first; none twice.
    pub recover: Vec<Rung>,
    /// How long a driver may take to let go of the card, or to take it.
    pub timeout: Duration,
    /// What happens to other devices of the host that the guest gets.
    pub other_devices: OtherDevices,
}

/// Where the card comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// Every display controller among the PCI devices of the guest's XML, each with all functions of its card.
    Auto,
    /// These, each with all functions of its card; never none, and none twice.
    List(Vec<PciAddress>),
}

/// What happens to the display manager of the host before the card is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DisplayManager {
    /// It runs on: the host has another card for its desktop.
    #[default]
    Keep,
    /// It is stopped, its sessions with it, and started again after the guest.
    Stop,
}

/// Who binds PCI devices of the guest that are no graphics card to VFIO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OtherDevices {
    /// They are bound with the card, and go back with it.
    #[default]
    Bind,
    /// libvirt, by `managed=` of the XML.
    Libvirt,
}

impl Default for Gpu {
    fn default() -> Self {
        Self {
            devices: DeviceChoice::Auto,
            return_to: ReturnTo::default(),
            guest_reboot: None,
            holders: Holders::default(),
            display_manager: DisplayManager::default(),
            reset_methods: None,
            bars: BTreeMap::new(),
            recover: Vec::new(),
            timeout: TIMEOUT.default,
            other_devices: OtherDevices::default(),
        }
    }
}

impl Gpu {
    /// `stopped` are units that the section `services` stops already.
    pub(super) fn read(mut section: Section<'_>, stopped: &[StoppedUnit]) -> Self {
        let display_managers = [("keep", DisplayManager::Keep), ("stop", DisplayManager::Stop)];
        let other_devices = [("bind", OtherDevices::Bind), ("libvirt", OtherDevices::Libvirt)];
        let default = Self::default();
        let config = Self {
            devices: section.item("devices").map_or(default.devices, read_devices),
            return_to: section
                .value("return_to", |node| word(node, ReturnTo::ALL))
                .unwrap_or(default.return_to),
            guest_reboot: section.value("guest_reboot", |node| word(node, GuestReboot::ALL)),
            holders: section.item("holders").map_or(default.holders, |item| holders::read(item, stopped)),
            display_manager: section
                .value("display_manager", |node| choice(node, &display_managers))
                .unwrap_or(default.display_manager),
            reset_methods: section.item("reset_method").map(read_reset_methods),
            bars: section.item("bars").map_or(default.bars, bars::read),
            recover: section
                .item("recover")
                .map_or(default.recover, |item| words(item, "tries nothing", |node| word(node, Rung::ALL))),
            timeout: section.value("timeout", |node| TIMEOUT.read(node)).unwrap_or(default.timeout),
            other_devices: section
                .value("other_devices", |node| choice(node, &other_devices))
                .unwrap_or(default.other_devices),
        };
        section.finish();
        config
    }
}

/// Reads one of the words that a type has for its values.
fn word<T: Copy + fmt::Display>(node: &Node, all: &[T]) -> Result<T, Fault> {
    let words: Vec<String> = all.iter().map(T::to_string).collect();
    let choices: Vec<(&str, T)> = words.iter().map(String::as_str).zip(all.iter().copied()).collect();
    choice(node, &choices)
}

/// Reads a list whose order counts; none stands in it twice.
fn words<T: Copy + fmt::Display + Ord>(
    item: Item<'_>,
    without: &str,
    read: impl Fn(&Node) -> Result<T, Fault>,
) -> Vec<T> {
    let mut seen = BTreeSet::new();
    item.elements(without, |element| {
        element.value(|node| {
            let value = read(node)?;
            if seen.insert(value) {
                return Ok(value);
            }
            Err(Fault::new(format!("`{value}` stands here for the second time"), "keep one of the two"))
        })
    })
}

fn read_reset_methods(item: Item<'_>) -> Vec<ResetMethod> {
    words(item, "names no method", |node| {
        if matches!(node, Node::Text(text) if text == "default") {
            let help = "remove the key: without it the kernel's own choice stays";
            return Err(Fault::new("`default` has no effect", help));
        }
        word(node, ResetMethod::ALL)
    })
}

fn read_devices(item: Item<'_>) -> DeviceChoice {
    if matches!(item.node(), Node::Text(text) if text == "auto") {
        return DeviceChoice::Auto;
    }
    DeviceChoice::List(words(item, "takes no card", read_device))
}

fn read_device(node: &Node) -> Result<PciAddress, Fault> {
    const WHAT: &str = "`auto` or a PCI address";
    const HELP: &str = "`auto` takes the graphics cards of the guest's XML; an address looks like \"0000:03:00.0\", and \
                        `lspci -D` shows those there are";
    let Node::Text(text) = node else { return Err(Fault::expected_like(WHAT, node, HELP)) };
    text.parse().map_err(|_| match meant_device(text) {
        Some(meant) => Fault::expected_like(WHAT, node, format!("did you mean `{meant}`?")),
        None => Fault::expected_like(WHAT, node, HELP),
    })
}

/// What was probably meant: `auto`, an address as `lspci` shows it or as libvirt names its devices, a card.
fn meant_device(text: &str) -> Option<String> {
    if let Some(auto) = did_you_mean(text, &["auto"]) {
        return Some(auto.to_owned());
    }
    let text = shortened(text.trim());
    let text = match text.strip_prefix("pci_") {
        // pci_0000_03_00_0
        Some(parts) => match parts.split('_').collect::<Vec<_>>()[..] {
            [domain, bus, slot, function] => format!("{domain}:{bus}:{slot}.{function}"),
            _ => return None,
        },
        None => text,
    };
    let spellings = [text.clone(), format!("0000:{text}")];
    let address = spellings.iter().find_map(|text| PciAddress::from_str(text).ok());
    let card = || spellings.iter().find_map(|text| text.parse::<PciSlot>().ok()?.functions().next());
    address.or_else(card).map(|address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_how_others_write_addresses() {
        for (text, meant) in [
            ("03:00.0", Some("0000:03:00.0")),
            ("03:00", Some("0000:03:00.0")),
            ("0000:03:00", Some("0000:03:00.0")),
            ("pci_0000_0b_00_1", Some("0000:0b:00.1")),
            (" 0000:03:00.0", Some("0000:03:00.0")),
            ("Auto", Some("auto")),
            ("all", None),
            ("card0", None),
            ("1002:73bf", None),
            ("", None),
        ] {
            assert_eq!(meant_device(text).as_deref(), meant, "{text:?}");
        }
    }
}
