//! The section `gpu`: the graphics card that the guest gets, and how the host gets it back.

mod bars;
mod holders;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::item::Item;
use super::key::Key;
use super::section::Section;
use super::services::StoppedUnit;
use super::suggest::did_you_mean;
use super::timeout::Timeout;
use super::tree::Node;
use super::value::{Fault, choice, meant_address};
use crate::gpu::{GuestReboot, KeepAwake, RecoveryStep, ResetMethod, ReturnTo};
use crate::pci::BarSize;
use crate::pci::PciAddress;

pub use holders::Holders;

/// A driver that takes longer hangs; `prepare` needs the rest of its 60 s for the other actions.
const TIMEOUT: Timeout = Timeout::during_prepare(Duration::from_secs(30)).at_most(Duration::from_secs(45));

/// A graphics card for the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// The card's functions, or how they are found.
    pub devices: DeviceChoice,
    /// Whom it is bound to when the guest is gone.
    pub return_to: ReturnTo,
    /// Whether it stays awake where it stays with VFIO.
    pub keep_awake: KeepAwake,
    /// What happens when the guest reboots itself; none leaves it to the card's family.
    pub guest_reboot: Option<GuestReboot>,
    /// What happens to programs of the host that use the card.
    pub holders: Holders,
    /// What happens to desktops that have the card open beside another one.
    pub compositors: Compositors,
    /// What happens to the display manager of the host.
    pub display_manager: DisplayManager,
    /// What happens to the host's text consoles and the firmware's picture on the card.
    pub consoles: Consoles,
    /// How the card's functions are reset, the first one first; never empty. None leaves it to the kernel.
    pub reset_methods: Option<Vec<ResetMethod>>,
    /// Sizes of resizable BARs of the display function, by the BAR's number, 0 to 5.
    pub bars: BTreeMap<u8, BarSize>,
    /// What is tried when the card does not answer, the first one first; none twice.
    pub recover: Vec<RecoveryStep>,
    /// What is done to the card after each guest, whatever its state; none twice.
    pub reset_after: Vec<RecoveryStep>,
    /// How long a driver may take to let go of the card, or to take it.
    pub timeout: Duration,
    /// What happens to other devices of the host that the guest gets.
    pub other_devices: OtherDevices,
}

impl Gpu {
    /// Its keys, for people.
    pub const KEYS: &'static [Key] = &[
        Key::new(
            "devices",
            "`auto`, or PCI addresses such as `[\"0000:03:00.0\"]`",
            "`auto`",
            "the card; `auto` takes each display controller among the XML's PCI devices. A card is \
                    taken as a whole, its sound and USB with it; of a processor's graphics, what the XML \
                    hands over",
        ),
        Key::new(
            "return_to",
            "`host`, `vfio`, `host-if-clean`",
            "`host`",
            "where it goes after the guest: to the host's drivers, to nobody but the next guest, or \
                    to the host's drivers only if neither the card nor the kernel's log shows an error",
        ),
        Key::new(
            "keep_awake",
            "`auto`, `never`",
            "`auto`",
            "a card that stays with VFIO after its guest stays awake until a driver of the host has it: some do \
                    not wake up from D3cold any more. With `never` its power settings are what they were",
        ),
        Key::new(
            "guest_reboot",
            "`refuse`, `restart`, `allow`",
            "by the card's family",
            "the guest reboots itself: it is shut down (`refuse`), shut down and started again after the \
                    card was reset (`restart`), or reboots normally (`allow`)",
        ),
        Key::new(
            "holders",
            "`refuse`, or `{ wait: 15s, stop: [sunshine.service] }`",
            "`refuse`",
            "programs of the host use the card: the start is refused and says which. `stop` names \
                    units that are stopped first, `wait` (up to `45s`) gives all of them time to let go",
        ),
        Key::new(
            "compositors",
            "`refuse`, `udev-remove`",
            "`refuse`",
            "a desktop that has its picture on another card has this one open: the start is refused; or udev tells it \
                    that the card is removed, and it has 5 s, or `holders.wait` if that is longer, to let go. Not seen on \
                    hardware",
        ),
        Key::new(
            "display_manager",
            "`keep`, `stop`",
            "`keep`",
            "`stop` ends the host's desktop before the guest, also one that was started from a text \
                    console, and brings the login back after it: for a host with this one card",
        ),
        Key::new(
            "consoles",
            "`auto`, `free`, `keep`",
            "`auto`",
            "the host's text consoles and the firmware's picture on the card: taken away while the guest has it \
                    (`free`), a reason to refuse the start (`keep`), or taken away if another graphics card of the host \
                    has a picture or `display_manager: stop` is set (`auto`)",
        ),
        Key::new(
            "reset_method",
            "a list of `device_specific`, `acpi`, `flr`, `af_flr`, `pm`, `bus`, `cxl_bus`",
            "the kernel's choice",
            "how the kernel resets the card's display function, the first one first; the start is \
                    refused if the function does not have it",
        ),
        Key::new(
            "bars",
            "numbers and sizes such as `{ 0: 16 GiB, 2: 256 MiB }`",
            "left alone",
            "sizes of resizable BARs while the guest has the card, and as long as it stays with VFIO after it: powers of \
                    two, `1 MiB` to `512 GiB`, that the card offers",
        ),
        Key::new(
            "recover",
            "a list of `reset`, `bus-reset`, `rescan`, `rescan-card`, `slot-power`, `host-driver`, \
                     `deep-sleep`",
            "nothing",
            "what is tried, in this order, when the card does not answer after the guest, or at \
                    `vfio-hook gpu clear`",
        ),
        Key::new(
            "reset_after",
            "a list of `reset`, `bus-reset`, `rescan`, `rescan-card`, `slot-power`, `deep-sleep`",
            "nothing",
            "what is done, in this order, after each guest, while VFIO still has the card: for a card that answers \
                    and that no later guest can use without",
        ),
        Key::new(
            "timeout",
            "`1s` to `45s`",
            "`30s`",
            "how long a driver may take to let go of the card, or to take it",
        ),
        Key::new(
            "other_devices",
            "`bind`, `libvirt`",
            "`bind`",
            "other PCI devices of the XML, such as USB controllers, are bound with the card; or they \
                    are left to `managed=`",
        ),
    ];
}

/// Where the card comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// Every display controller among the PCI devices of the guest's XML, each with all functions of its card.
    Auto,
    /// These, each with all functions of its card; never none, and none twice.
    List(Vec<PciAddress>),
}

/// What happens to desktops that have the card open, and their picture on another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compositors {
    /// The start is refused.
    #[default]
    Refuse,
    /// They are told that the card is removed, by an event of udev's, so that they let go of it.
    UdevRemove,
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

/// What happens to text consoles and the firmware's picture on the card before it is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consoles {
    /// They are taken away where the host has another picture, or gives up its desktop anyway.
    #[default]
    Auto,
    /// They are taken away.
    Free,
    /// The start is refused.
    Keep,
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
            keep_awake: KeepAwake::default(),
            guest_reboot: None,
            holders: Holders::default(),
            compositors: Compositors::default(),
            display_manager: DisplayManager::default(),
            consoles: Consoles::default(),
            reset_methods: None,
            bars: BTreeMap::new(),
            recover: Vec::new(),
            reset_after: Vec::new(),
            timeout: TIMEOUT.default,
            other_devices: OtherDevices::default(),
        }
    }
}

impl Gpu {
    /// `stopped` are units that the section `services` stops already.
    pub(crate) fn read(mut section: Section<'_>, stopped: &[StoppedUnit]) -> Self {
        let compositors = [("refuse", Compositors::Refuse), ("udev-remove", Compositors::UdevRemove)];
        let display_managers = [("keep", DisplayManager::Keep), ("stop", DisplayManager::Stop)];
        let consoles = [("auto", Consoles::Auto), ("free", Consoles::Free), ("keep", Consoles::Keep)];
        let other_devices = [("bind", OtherDevices::Bind), ("libvirt", OtherDevices::Libvirt)];
        let default = Self::default();
        let config = Self {
            devices: section.item("devices").map_or(default.devices, read_devices),
            return_to: section
                .value("return_to", |node| word(node, ReturnTo::ALL))
                .unwrap_or(default.return_to),
            keep_awake: section
                .value("keep_awake", |node| word(node, KeepAwake::ALL))
                .unwrap_or(default.keep_awake),
            guest_reboot: section.value("guest_reboot", |node| word(node, GuestReboot::ALL)),
            holders: section.item("holders").map_or(default.holders, |item| holders::read(item, stopped)),
            compositors: section
                .value("compositors", |node| choice(node, &compositors))
                .unwrap_or(default.compositors),
            display_manager: section
                .value("display_manager", |node| choice(node, &display_managers))
                .unwrap_or(default.display_manager),
            consoles: section.value("consoles", |node| choice(node, &consoles)).unwrap_or(default.consoles),
            reset_methods: section.item("reset_method").map(read_reset_methods),
            bars: section.item("bars").map_or(default.bars, bars::read),
            recover: section.item("recover").map_or(default.recover, |item| {
                words(item, "tries nothing", |node| word(node, RecoveryStep::ALL))
            }),
            reset_after: section.item("reset_after").map_or(default.reset_after, |item| {
                words(item, "resets nothing", |node| word(node, RecoveryStep::WITHOUT_DRIVER))
            }),
            timeout: section.value("timeout", |node| TIMEOUT.read(node)).unwrap_or(default.timeout),
            other_devices: section
                .value("other_devices", |node| choice(node, &other_devices))
                .unwrap_or(default.other_devices),
        };
        if let Some(manager) = stopped.iter().find(|unit| unit.is_display_manager()) {
            let message = format!(
                "the display manager `{}` has a key here, and `services.stop` names it",
                manager.unit
            );
            let help = "write `display_manager: stop` here, and remove it there: the consoles let go of the card too, and \
                        the login comes back once the card is back";
            section.refuse_whole(Fault::new(message, help));
        }
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
    meant_address(text).map(|address| address.to_string())
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
