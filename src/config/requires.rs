//! The section `requires`: what has to be there before the guest starts.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use super::condition::Condition;
use super::item::Item;
use super::key::Key;
use super::section::Section;
use super::services::read_unit;
use super::tree::Node;
use super::value::{Fault, user};
use crate::pci::PciAddress;
use crate::unit_file_name::UnitFileName;
use crate::user_name::UserName;

const EXAMPLE: &str = "{unit: srv-games.mount, message: \"the NAS is off\"}";

/// What has to be there before the guest starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requires {
    /// In the order of the file; never none, and none twice.
    pub things: Vec<Condition<RequiredThing>>,
}

/// One thing that has to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequiredThing {
    /// A unit that has to be active.
    Unit {
        /// The unit.
        unit: UnitFileName,
        /// Whose it is; none for the system's.
        user: Option<UserName>,
    },
    /// A PCI function.
    Pci(PciAddress),
    /// A USB device, by its vendor's number and its own.
    Usb(UsbId),
    /// A file, folder or device node.
    Path(PathBuf),
}

/// What a USB device is known by: `046d:c52b`, as `lsusb` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsbId {
    /// The vendor's number.
    pub vendor: u16,
    /// The product's number.
    pub product: u16,
}

impl fmt::Display for UsbId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.product)
    }
}

impl fmt::Display for RequiredThing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit { unit, user: None } => unit.fmt(f),
            Self::Unit { unit, user: Some(user) } => write!(f, "{unit} of {user}"),
            Self::Pci(address) => write!(f, "PCI device {address}"),
            Self::Usb(id) => write!(f, "USB device {id}"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

impl Requires {
    /// Its keys, for people.
    pub const KEYS: &'static [Key] = &[
        Key::new(
            "unit",
            "a unit such as `srv-games.mount`",
            "one of the three is needed",
            "has to be active",
        ),
        Key::new("user", "a user's name", "the system", "whose unit it is"),
        Key::new(
            "device",
            "a PCI address such as `\"0000:03:00.0\"`, or a USB number such as `\"046d:c52b\"`",
            "one of the three is needed",
            "has to be plugged in",
        ),
        Key::new(
            "path",
            "an absolute path",
            "one of the three is needed",
            "has to be there; links are followed",
        ),
        Key::new("message", "a line of text", "none", "what a refusal says first; the reason follows"),
    ];

    pub(crate) fn read(item: Item<'_>) -> Self {
        Self { things: Condition::read_all(item, "requires nothing", EXAMPLE, thing, keys) }
    }
}

/// A text that says by its form what it is.
fn thing(node: &Node) -> Result<RequiredThing, Fault> {
    let Node::Text(text) = node else {
        let help = format!("name it: `srv-games.mount`, `/dev/kvmfr0`, `\"046d:c52b\"`; or `{EXAMPLE}`");
        return Err(Fault::expected_like("a unit, a device or a path", node, help));
    };
    if text.contains('/') || text.starts_with('~') {
        return path(node).map(RequiredThing::Path);
    }
    if text.contains(':') && !text.contains('@') && !text.ends_with("service") {
        return device(node);
    }
    read_unit(node).map(|unit| RequiredThing::Unit { unit, user: None })
}

fn keys(section: &mut Section<'_>) -> Option<RequiredThing> {
    let there: Vec<&str> = ["unit", "device", "path"].into_iter().filter(|key| section.has(key)).collect();
    let unit = section.value("unit", read_unit);
    let user = section.value("user", user);
    let device = section.value("device", device);
    let path = section.value("path", path);
    match there[..] {
        ["unit"] => {}
        [_] if section.has("user") => {
            section.refuse("user", Fault::new("has no effect without `unit`", "remove it"));
        }
        [_] => {}
        [] => section.refuse_as_empty(Fault::new(
            "requires nothing",
            format!("add `unit`, `device` or `path`: for example `{EXAMPLE}`"),
        )),
        [first, second, ..] => section.refuse_whole(Fault::new(
            format!("`{first}` and `{second}` are two things"),
            "write an element for each",
        )),
    }
    let unit = unit.map(|unit| RequiredThing::Unit { unit, user });
    unit.or(device).or(path.map(RequiredThing::Path))
}

fn device(node: &Node) -> Result<RequiredThing, Fault> {
    const WHAT: &str = "a PCI address or the numbers of a USB device";
    const HELP: &str = "in quotes, for example \"0000:03:00.0\" (`lspci -D`) or \"046d:c52b\" (`lsusb`)";
    let Node::Text(text) = node else { return Err(Fault::expected_like(WHAT, node, HELP)) };
    if let Ok(address) = text.parse() {
        return Ok(RequiredThing::Pci(address));
    }
    usb_id(text).map(RequiredThing::Usb).ok_or_else(|| Fault::expected_like(WHAT, node, HELP))
}

fn usb_id(text: &str) -> Option<UsbId> {
    let number = |digits: &str| {
        let is_four = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_four.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
    };
    let (vendor, product) = text.split_once(':')?;
    Some(UsbId { vendor: number(vendor)?, product: number(product)? })
}

fn path(node: &Node) -> Result<PathBuf, Fault> {
    const WHAT: &str = "an absolute path";
    let expected = || Fault::expected_like(WHAT, node, "for example `/dev/kvmfr0`");
    let Node::Text(text) = node else { return Err(expected()) };
    if text.starts_with('~') || text.contains('$') {
        let help = "write the whole path: no shell fills in a home or a variable";
        return Err(Fault::expected_like(WHAT, node, help));
    }
    let path = Path::new(text);
    let is_plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !is_plain || text.contains(char::is_control) {
        return Err(expected());
    }
    Ok(path.to_owned())
}
