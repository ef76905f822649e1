//! Where a function sits: the ports above it, and who shares its IOMMU group.

use std::path::Component;

use super::folder;
use crate::host::{Host, HostError};
use crate::pci::PciAddress;

/// The ports between a function and the processor, each with the nearest to the function first. A port passes on what
/// is for the functions below it, so that nothing of them is reached where it does not answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortsAbove {
    /// Ports of the card itself: some cards have a switch on them, with one port towards the function and one towards
    /// the mainboard, and nothing else behind it.
    pub card: Vec<PciAddress>,
    /// Ports of the mainboard's switch, which other devices are behind too.
    pub mainboard: Vec<PciAddress>,
    /// The processor's own port; none where the function is a part of the processor or of the chipset.
    pub root: Option<PciAddress>,
}

impl PortsAbove {
    /// All of them, the nearest first.
    pub fn nearest_first(&self) -> impl Iterator<Item = PciAddress> {
        self.card.iter().chain(&self.mainboard).chain(&self.root).copied()
    }

    /// The port that the card is plugged into: the lowest one that is not on the card.
    #[must_use]
    pub fn card_port(&self) -> Option<PciAddress> {
        self.mainboard.first().copied().or(self.root)
    }
}

/// What a bus reset for some functions would reset: the nearest port above them resets all that is behind it. VFIO does
/// that between two guests (`vfio_pci_dev_set_hot_reset` in `drivers/vfio/pci/vfio_pci_core.c`), but only where all of
/// it is the guest's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusReset {
    /// There is no port above them.
    NoPort,
    /// Nothing but them.
    OnlyThem,
    /// These others too.
    Others(Vec<PciAddress>),
}

impl Host {
    /// What the bus reset of functions that go together would reset.
    ///
    /// # Errors
    /// One of them is not there ([`HostError::is_absent`]); the folder of all functions cannot be listed.
    pub fn pci_bus_reset(&self, functions: &[PciAddress]) -> Result<BusReset, HostError> {
        let Some(first) = functions.first() else { return Ok(BusReset::NoPort) };
        let Some(port) = self.pci_ports_above(*first)?.nearest_first().next() else {
            return Ok(BusReset::NoPort);
        };
        let mut others = self.pci_functions_behind(port)?;
        others.retain(|other| !functions.contains(other));
        Ok(if others.is_empty() { BusReset::OnlyThem } else { BusReset::Others(others) })
    }

    /// The ports above a function, from the place of its folder in `/sys/devices`.
    ///
    /// The two ports of a switch count as the card's own where its upper port has no other port below, and that no
    /// other card: a switch of a mainboard has several.
    ///
    /// # Errors
    /// There is no such function ([`HostError::is_absent`]).
    pub fn pci_ports_above(&self, address: PciAddress) -> Result<PortsAbove, HostError> {
        let target = self
            .link_target(&folder(address))?
            .ok_or_else(|| HostError::gone(format!("there is no PCI function {address}")))?;
        let mut path: Vec<PciAddress> = target
            .components()
            .filter_map(|component| match component {
                Component::Normal(name) => name.to_str()?.parse().ok(),
                _ => None,
            })
            .collect();
        path.retain(|port| *port != address);
        let root = if path.is_empty() { None } else { Some(path.remove(0)) };
        let mut card = Vec::new();
        let mut below = address;
        while let [.., upper, lower] = path[..] {
            let is_alone = self.pci_functions_below(upper)? == [lower]
                && self.pci_functions_below(lower)?.iter().all(|other| other.slot() == below.slot());
            if !is_alone {
                break;
            }
            card.extend([lower, upper]);
            below = upper;
            path.truncate(path.len() - 2);
        }
        path.reverse();
        Ok(PortsAbove { card, mainboard: path, root })
    }

    /// The functions right below a port, lowest first; none below what is no port.
    ///
    /// # Errors
    /// There is no such port ([`HostError::is_absent`]).
    pub fn pci_functions_below(&self, port: PciAddress) -> Result<Vec<PciAddress>, HostError> {
        let names = self.names(folder(port))?;
        let mut functions: Vec<PciAddress> =
            names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
        functions.sort_unstable();
        Ok(functions)
    }

    /// The members of an IOMMU group, lowest first: they are given to a guest together or not at all, but for ports.
    ///
    /// # Errors
    /// There is no such group ([`HostError::is_absent`]).
    pub fn iommu_group_members(&self, group: u32) -> Result<Vec<PciAddress>, HostError> {
        let names = self.names(format!("/sys/kernel/iommu_groups/{group}/devices"))?;
        let mut members: Vec<PciAddress> =
            names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
        members.sort_unstable();
        Ok(members)
    }

    /// Every function below a port, also behind further ports, lowest first.
    ///
    /// # Errors
    /// The folder of all functions cannot be listed.
    pub fn pci_functions_behind(&self, port: PciAddress) -> Result<Vec<PciAddress>, HostError> {
        let name = port.to_string();
        let mut functions = Vec::new();
        for function in self.pci_functions()? {
            let target = self.link_target(&folder(function))?.unwrap_or_default();
            if function != port && target.iter().any(|part| part == name.as_str()) {
                functions.push(function);
            }
        }
        Ok(functions)
    }
}
