//! The section `sriov`: virtual functions that are made before the guest starts.

use std::fmt;

use super::item::Item;
use super::key::Key;
use super::tree::Node;
use super::value::{Fault, meant_address};
use crate::key_path::KeyPath;
use crate::pci::PciAddress;

const EXAMPLE: &str = "{device: \"0000:05:00.0\", count: 4}";

/// The longest name of a network interface (`IFNAMSIZ` in `include/uapi/linux/if.h`, without the zero at its end).
const LONGEST_INTERFACE: usize = 15;

/// Virtual functions that are made before the guest starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sriov {
    /// In the order of the file; never none, and none twice.
    pub devices: Vec<SriovDevice>,
}

/// A device that is to have virtual functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SriovDevice {
    /// Where in the YAML file.
    pub at: KeyPath,
    /// Which device.
    pub device: PhysicalFunction,
    /// How many it has to have at least, never 0; none for as many as the guest's XML needs.
    pub count: Option<u16>,
}

/// How a person names the device that virtual functions are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PhysicalFunction {
    /// By its address.
    Pci(PciAddress),
    /// By its network interface.
    Interface(InterfaceName),
}

/// The name of a network interface of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// Some text, if it can be one (`dev_valid_name` in `net/core/dev.c`).
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let is_name = (1..=LONGEST_INTERFACE).contains(&text.len())
            && text != "."
            && text != ".."
            && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
        is_name.then(|| Self(text.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PhysicalFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(address) => address.fmt(f),
            Self::Interface(name) => f.write_str(name.as_str()),
        }
    }
}

impl Sriov {
    /// Its keys, for people.
    pub const KEYS: &'static [Key] = &[
        Key::new(
            "device",
            "a PCI address such as `\"0000:05:00.0\"`, or a network interface such as `enp5s0f0`",
            "needed",
            "the device itself (its physical function)",
        ),
        Key::new(
            "count",
            "`auto`, or a number from 1 on",
            "`auto`",
            "how many virtual functions it has at least; `auto` makes as many as the XML hands over",
        ),
    ];

    pub(crate) fn read(item: Item<'_>) -> Self {
        let section = KeyPath::from(&["sriov"]);
        let is_list = matches!(item.node(), Node::List(_));
        let (mut number, mut seen) = (0, Vec::new());
        let devices = item.elements("makes no virtual function", |element| {
            let at = if is_list { section.element(number) } else { section.clone() };
            number += 1;
            let mut keys = element.section(EXAMPLE)?;
            let missing = Fault::new("`sriov.device` is missing", format!("name it: `{EXAMPLE}`"));
            let device = keys.required("device", missing).and_then(|item| item.value(read_device));
            if device.as_ref().is_some_and(|device| seen.contains(device)) {
                keys.refuse("device", Fault::new("stands here for the second time", "keep one of the two"));
            }
            seen.extend(device.clone());
            let count = keys.value("count", read_count).flatten();
            keys.finish();
            Some(SriovDevice { at, device: device?, count })
        });
        Self { devices }
    }
}

fn read_device(node: &Node) -> Result<PhysicalFunction, Fault> {
    const WHAT: &str = "a PCI address or a network interface";
    const HELP: &str = "in quotes, for example \"0000:05:00.0\" (`lspci -D`), or `enp5s0f0` (`ip link`)";
    let Node::Text(text) = node else { return Err(Fault::expected_like(WHAT, node, HELP)) };
    if let Ok(address) = text.parse() {
        return Ok(PhysicalFunction::Pci(address));
    }
    if let Some(meant) = meant_address(text) {
        return Err(Fault::expected_like(WHAT, node, format!("did you mean `{meant}`?")));
    }
    InterfaceName::new(text)
        .map(PhysicalFunction::Interface)
        .ok_or_else(|| Fault::expected_like(WHAT, node, HELP))
}

fn read_count(node: &Node) -> Result<Option<u16>, Fault> {
    const WHAT: &str = "`auto` or a number of virtual functions";
    match node {
        Node::Text(text) if text == "auto" => Ok(None),
        Node::Integer(digits) => match digits.parse::<u16>() {
            Ok(0) => Err(Fault::new(
                "makes no virtual function",
                "write a number from 1 on, or remove the device; what was made for the guest goes with it anyway",
            )),
            Ok(count) => Ok(Some(count)),
            Err(_) => Err(Fault::expected_like(WHAT, node, "a device has 65535 at most, and most far fewer")),
        },
        Node::Text(text) if text.parse::<u16>().is_ok() => Err(Fault::quoted(WHAT, node)),
        _ => Err(Fault::expected_like(WHAT, node, "for example `4`")),
    }
}
