//! PCI devices that the guest's XML hands over, or that have to be there.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use super::pattern::{INTELS, Kind, Pattern};
use super::virtual_functions::{self, SriovCard};
use super::{Added, of_card};
use crate::actions::GuestConfig;
use crate::config::{DeviceChoice, Gpu, RequiredThing};
use crate::guest::{Guest, HostdevPlace};
use crate::pci::{PciAddress, PciSlot, listed};

/// The first IOMMU group that the manifest has not.
const FIRST_GROUP: u32 = 60;

/// Numbers of slots of the first bus that ports may have, those first at which no processor has a device.
const PORTS: [u8; 16] =
    [0x1c, 0x1d, 0x1e, 0x1f, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b];

const DISPLAY_CLASS: &str = "0x03";
const BRIDGE_CLASS: &str = "0x06";

/// The functions of one slot.
struct Device {
    functions: Vec<PciAddress>,
    kind: Kind,
}

/// Without a section `gpu` nothing looks at what the XML hands over, but for drives.
pub(super) fn of(host: &str, guest: &Guest, config: &GuestConfig, root: &Path) -> io::Result<Added> {
    let mut added = Added::default();
    let cards = virtual_functions::cards(guest, config);
    let devices = named(guest, config, &cards, root);
    let all: BTreeSet<PciAddress> = devices.iter().flat_map(|device| device.functions.clone()).collect();
    let mut ports = PORTS
        .into_iter()
        .flat_map(|slot| (0..8).filter_map(move |function| PciAddress::new(0, 0, slot, function)))
        .filter(|port| !all.contains(port));
    let mut group = FIRST_GROUP;
    let mut drivers = BTreeSet::new();
    for Device { functions, kind } in devices {
        let first = functions.first().map(ToString::to_string).unwrap_or_default();
        if is_there(&functions, kind, root) {
            if let (Kind::Graphics, Some(gpu)) = (kind, &config.gpu) {
                of_card(gpu, &first, &mut added);
            }
            continue;
        }
        if let Some(function) = functions.first() {
            for there in function.slot().functions() {
                remove(there, root)?;
            }
        }
        // More devices than a guest has; the rest is not there.
        let Some(port) = ports.next() else { break };
        for (index, function) in functions.iter().enumerate() {
            let pattern = kind.pattern(index, *function);
            if drivers.insert(pattern.driver) {
                added.line(pattern.driver_lines());
            }
            make(host, pattern, *function, (&port.to_string(), index == 0), group, &mut added);
            group += 1;
        }
        match (kind, &config.gpu) {
            (Kind::Graphics, Some(gpu)) => {
                added.line(format!("/sys/bus/pci/devices/{first}/reset ="));
                added.line(format!("/sys/bus/pci/devices/{first}/reset_method = flr bus"));
                added.line(format!("/simulated/pci/{first}/reset_methods = flr bus"));
                let maker = if first == INTELS { "Intel's" } else { "NVIDIA's" };
                added.words.push(format!("graphics card {}, as one of {maker}", listed(&functions)));
                of_card(gpu, &first, &mut added);
            }
            _ if cards.iter().any(|card| functions.contains(&card.address)) => {}
            _ => added.words.push(format!("device {}, as {}", listed(&functions), kind.words())),
        }
    }
    for card in &cards {
        virtual_functions::of_card(card, &mut added);
    }
    Ok(added)
}

/// The devices that the files name, by their slots.
fn named(guest: &Guest, config: &GuestConfig, cards: &[SriovCard], root: &Path) -> Vec<Device> {
    let hostdevs: Vec<(PciAddress, HostdevPlace)> = match (&config.gpu, &config.disks) {
        (None, None) => Vec::new(),
        _ => guest.pci_hostdevs.iter().map(|hostdev| (hostdev.address, hostdev.place)).collect(),
    };
    let things = config.requires.iter().flat_map(|requires| &requires.things);
    let required = things.filter_map(|condition| match condition.what {
        RequiredThing::Pci(address) => Some(address),
        _ => None,
    });
    let mut all: BTreeSet<PciAddress> = hostdevs.iter().map(|(address, _)| *address).collect();
    let handed_over: BTreeSet<PciSlot> = all.iter().map(|address| address.slot()).collect();
    all.extend(required);
    all.retain(|address| !cards.iter().any(|card| card.functions.contains(address)));
    all.extend(cards.iter().map(|card| card.address));
    let graphics = config.gpu.as_ref().map(|gpu| graphics(gpu, &hostdevs, root)).unwrap_or_default();
    let slots: BTreeSet<PciSlot> = all.iter().map(|address| address.slot()).collect();
    let device = |slot: PciSlot| {
        let functions: Vec<PciAddress> =
            all.iter().copied().filter(|address| address.slot() == slot).collect();
        let place = hostdevs.iter().find(|(address, _)| address.slot() == slot).map(|(_, place)| *place);
        let kind = match place {
            _ if graphics.contains(&slot) => Kind::Graphics,
            None if cards.iter().any(|card| card.address.slot() == slot) => Kind::Network,
            _ if !handed_over.contains(&slot) => Kind::Required,
            Some(HostdevPlace::NvmeDisk) => Kind::Drive,
            Some(HostdevPlace::Interface) => Kind::Network,
            _ => Kind::Usb,
        };
        Device { functions, kind }
    };
    slots.into_iter().map(device).collect()
}

/// The slots of graphics cards: those that the file names; else those of the built-in cards, and each with a first and a
/// second function, as a card and its sound have; else the first device that can be one.
fn graphics(gpu: &Gpu, hostdevs: &[(PciAddress, HostdevPlace)], root: &Path) -> BTreeSet<PciSlot> {
    if let DeviceChoice::List(list) = &gpu.devices {
        return list.iter().map(|address| address.slot()).collect();
    }
    let can_be = |place: HostdevPlace| matches!(place, HostdevPlace::Hostdev | HostdevPlace::QemuArgument);
    let addresses: Vec<PciAddress> =
        hostdevs.iter().filter(|(_, place)| can_be(*place)).map(|(address, _)| *address).collect();
    let has = |slot: PciSlot, number: u8| {
        addresses.iter().any(|address| address.slot() == slot && address.function() == number)
    };
    let is_card = |address: &&PciAddress| {
        class(**address, root).is_some_and(|class| class.starts_with(DISPLAY_CLASS))
            || (has(address.slot(), 0) && has(address.slot(), 1))
    };
    let cards: BTreeSet<PciSlot> = addresses.iter().filter(is_card).map(|address| address.slot()).collect();
    match cards.is_empty() {
        true => addresses.first().map(|address| address.slot()).into_iter().collect(),
        false => cards,
    }
}

/// Whether the host has them already. A card of its own it has as a whole, but the processor's, of which a guest may get a
/// part.
fn is_there(functions: &[PciAddress], kind: Kind, root: &Path) -> bool {
    let Some(first) = functions.first() else { return true };
    let there: Vec<PciAddress> =
        first.slot().functions().filter(|function| class(*function, root).is_some()).collect();
    let is_part = functions.iter().all(|function| there.contains(function));
    let is_of = |start: &str| class(*first, root).is_some_and(|class| class.starts_with(start));
    match kind {
        Kind::Graphics => is_part && is_of(DISPLAY_CLASS) && (functions == there || there.len() < 3),
        Kind::Required => is_part,
        Kind::Drive | Kind::Network | Kind::Usb => is_part && !is_of(BRIDGE_CLASS),
    }
}

/// The class of a function that is there.
fn class(function: PciAddress, root: &Path) -> Option<String> {
    let file = root.join("sys/bus/pci/devices").join(function.to_string()).join("class");
    fs::read_to_string(file).ok()
}

/// The lines of a function made after another one; for the first of a slot those of its port, too.
fn make(
    host: &str,
    pattern: &Pattern,
    function: PciAddress,
    (port, is_first): (&str, bool),
    group: u32,
    added: &mut Added,
) {
    let group = format!("iommu_groups/{group}");
    for line in host.lines() {
        let is_of_port = line.contains(pattern.port) && !line.contains(&format!("{}/0000:", pattern.port));
        let is_wanted = line.contains(pattern.function) || (is_first && is_of_port);
        if !is_wanted {
            continue;
        }
        let mut line = line.replace(pattern.function, &function.to_string()).replace(pattern.port, port);
        if is_of_port {
            // Ports share one group of the host's.
            let bus =
                |address: &str| format!("pci_bus/{}/", address.rsplit_once(':').map_or("", |(bus, _)| bus));
            line = line.replace(&bus(pattern.function), &bus(&function.to_string()));
        } else {
            line = line.replace(pattern.group, &group);
        }
        for (number, other) in pattern.numbers.iter().filter(|_| !is_of_port) {
            line = line.replace(number, other);
        }
        added.line(line);
    }
}

/// Takes a function off the simulated host; with a port goes everything behind it.
fn remove(function: PciAddress, root: &Path) -> io::Result<()> {
    let link = root.join("sys/bus/pci/devices").join(function.to_string());
    if !link.exists() {
        return Ok(());
    }
    fs::remove_dir_all(fs::canonicalize(link)?)?;
    for folder in ["sys/bus/pci/devices", "sys/bus/pci/drivers", "sys/kernel/iommu_groups"] {
        remove_dangling(&root.join(folder))?;
    }
    Ok(())
}

/// Removes every link below a folder that leads to nothing.
fn remove_dangling(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_symlink() {
            true if !path.exists() => fs::remove_file(path)?,
            false if path.is_dir() => remove_dangling(&path)?,
            _ => {}
        }
    }
    Ok(())
}
