//! Connectors and i2c adapters as sysfs shows them. Nothing is said on any bus here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::left_alone::is_left_alone;
use crate::host::i2c::{BusOfCard, I2cBus};
use crate::host::sysfs::pci_ancestor;
use crate::host::{Host, HostError};
use crate::monitor::{ConnectorName, EdidError, EdidIdentity, MonitorPlace, parse_edid};
use crate::pci::PciAddress;

const CONNECTORS: &str = "/sys/class/drm";
const ADAPTERS: &str = "/sys/bus/i2c/devices";

/// Panels in the lid: they have one input, and answer nothing.
const BUILT_IN_PANELS: [&str; 3] = ["eDP-", "LVDS-", "DSI-"];

/// Whether a connector's driver sees a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plug {
    Connected,
    Disconnected,
}

/// An i2c adapter that may lead to a monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Adapter {
    pub(super) at: BusOfCard,
    pub(super) place: MonitorPlace,
}

/// A connector of a graphics card.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) name: ConnectorName,
    pub(super) card: Option<PciAddress>,
    pub(super) plug: Plug,
    /// What the kernel knows of the monitor.
    pub(super) edid: Result<EdidIdentity, EdidError>,
    /// The buses that the driver gives it; the likeliest first.
    pub(super) adapters: Vec<Adapter>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey {
    pub(super) connectors: Vec<Connector>,
    /// Adapters of graphics cards that belong to no connector.
    pub(super) loose: Vec<Adapter>,
}

impl Adapter {
    pub(super) fn bus(&self) -> I2cBus {
        self.at.bus
    }
}

impl Survey {
    pub(super) fn of(host: &Host) -> Result<Self, HostError> {
        let adapters = Adapters::of(host)?;
        let connectors: Vec<Connector> = host
            .names_if_present(CONNECTORS)?
            .iter()
            .filter_map(|name| connector(host, &adapters, name))
            .collect();
        let taken: BTreeSet<I2cBus> = connectors
            .iter()
            .flat_map(|connector| &connector.adapters)
            .map(|adapter| adapter.at.bus)
            .collect();
        let loose = adapters.buses().filter(|bus| !taken.contains(bus)).filter_map(|bus| {
            let adapter = adapters.adapter(bus, None)?;
            // Only a graphics card is known to lead to nothing but monitors.
            adapter.place.card.is_some().then_some(adapter)
        });
        Ok(Self { loose: loose.collect(), connectors })
    }

    /// Every adapter that may lead to a monitor; those of connectors first.
    pub(super) fn adapters(&self) -> impl Iterator<Item = &Adapter> {
        self.connectors.iter().flat_map(|connector| &connector.adapters).chain(&self.loose)
    }
}

/// All i2c adapters, and the graphics cards that have some.
struct Adapters {
    by_bus: BTreeMap<I2cBus, Seen>,
    of_cards: BTreeMap<PciAddress, OfCard>,
}

struct Seen {
    name: String,
    card: Option<PciAddress>,
    /// It is the mainboard's.
    is_smbus: bool,
}

#[derive(Default)]
struct OfCard {
    buses: Vec<I2cBus>,
    driver: Option<String>,
}

impl Adapters {
    fn of(host: &Host) -> Result<Self, HostError> {
        let names = host.names_if_present(ADAPTERS)?;
        let by_bus: BTreeMap<I2cBus, Seen> = names
            .iter()
            .filter_map(|name| I2cBus::from_name(name))
            .filter_map(|bus| Some((bus, Seen::at(host, bus)?)))
            .collect();
        let mut of_cards: BTreeMap<PciAddress, OfCard> = BTreeMap::new();
        for (bus, seen) in &by_bus {
            let Some(card) = seen.card else { continue };
            let of_card = of_cards
                .entry(card)
                .or_insert_with(|| OfCard { buses: Vec::new(), driver: driver(host, card) });
            of_card.buses.push(*bus);
        }
        Ok(Self { by_bus, of_cards })
    }

    fn buses(&self) -> impl Iterator<Item = I2cBus> {
        self.by_bus.keys().copied()
    }

    /// One that may lead to a monitor.
    fn adapter(&self, bus: I2cBus, connector: Option<&ConnectorName>) -> Option<Adapter> {
        let Seen { name, card, is_smbus, .. } = self.by_bus.get(&bus)?;
        let of_card = card.and_then(|card| self.of_cards.get(&card));
        let driver = of_card.and_then(|of_card| of_card.driver.as_deref());
        if *is_smbus || is_left_alone(name, driver) {
            return None;
        }
        let place = MonitorPlace { card: *card, connector: connector.cloned(), adapter: name.clone() };
        let buses = of_card.map_or_else(Vec::new, |of_card| of_card.buses.clone());
        Some(Adapter { at: BusOfCard::new(bus, buses), place })
    }
}

impl Seen {
    fn at(host: &Host, bus: I2cBus) -> Option<Self> {
        let folder = Path::new(ADAPTERS).join(bus.to_string());
        let name = host.text(folder.join("name")).ok()?;
        let path = host.real_path(&folder).ok().flatten()?;
        let is_smbus = pci_ancestor(&path).is_some_and(|address| pci_class(host, address) == Some(0x0c05));
        Some(Self { name, card: graphics_card(host, &path), is_smbus })
    }
}

/// The driver of a card.
fn driver(host: &Host, card: PciAddress) -> Option<String> {
    let link = PathBuf::from(format!("/sys/bus/pci/devices/{card}/driver"));
    let target = host.link_target(&link).ok().flatten()?;
    Some(target.file_name()?.to_str()?.to_owned())
}

fn connector(host: &Host, adapters: &Adapters, sysfs_name: &str) -> Option<Connector> {
    let (card, name) = sysfs_name.split_once('-')?;
    card.strip_prefix("card")?.parse::<u32>().ok()?;
    if BUILT_IN_PANELS.iter().any(|panel| name.starts_with(panel)) {
        return None;
    }
    let name: ConnectorName = name.parse().ok()?;
    let folder = Path::new(CONNECTORS).join(sysfs_name);
    let status = host.text(folder.join("status")).unwrap_or_default();
    let edid = host.files.read(&folder.join("edid")).unwrap_or_default();
    let buses = buses_of(host, &folder);
    Some(Connector {
        card: host.real_path(&folder).ok().flatten().and_then(|path| graphics_card(host, &path)),
        plug: if status == "disconnected" { Plug::Disconnected } else { Plug::Connected },
        edid: parse_edid(&edid),
        adapters: buses.into_iter().filter_map(|bus| adapters.adapter(bus, Some(&name))).collect(),
        name,
    })
}

/// A DisplayPort's own bus lies below the connector; `ddc` leads to the bus of the pins, which a DisplayPort uses only
/// for adapters to HDMI or DVI.
fn buses_of(host: &Host, connector: &Path) -> Vec<I2cBus> {
    let mut buses = Vec::new();
    let mut add = |bus: Option<I2cBus>| {
        if let Some(bus) = bus.filter(|bus| !buses.contains(bus)) {
            buses.push(bus);
        }
    };
    let children = host.names_if_present(connector).unwrap_or_default();
    children.iter().for_each(|child| add(I2cBus::from_name(child)));
    for aux in children.iter().filter(|child| child.starts_with("drm_dp_aux")) {
        host.names_if_present(connector.join(aux))
            .unwrap_or_default()
            .iter()
            .for_each(|child| add(I2cBus::from_name(child)));
    }
    let ddc = host.link_target(&connector.join("ddc")).ok().flatten();
    add(ddc.and_then(|target| I2cBus::from_name(target.file_name()?.to_str()?)));
    buses
}

/// The card a device is on: its nearest PCI function, if that is of the class "display".
fn graphics_card(host: &Host, device: &Path) -> Option<PciAddress> {
    pci_ancestor(device).filter(|address| pci_class(host, *address).is_some_and(|class| class >> 8 == 0x03))
}

/// Class and subclass.
fn pci_class(host: &Host, address: PciAddress) -> Option<u16> {
    let text = host.text(format!("/sys/bus/pci/devices/{address}/class")).ok()?;
    let class = u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()?;
    u16::try_from(class >> 8).ok()
}
