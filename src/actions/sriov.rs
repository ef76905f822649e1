//! `sriov`: virtual functions that are made before the guest starts, and go when no guest needs them any more.

use super::action::Action;
use super::{GuestConfig, Proposal, Situation, Until};
use crate::config::{Key, PhysicalFunction, Section, Sriov, SriovDevice};
use crate::deadline::Deadline;
use crate::host::{HostError, SriovCapability, VirtualFunctions};
use crate::key_path::KeyPath;
use crate::ledger::{PciBindings, Peer, VirtualFunctionsOf};
use crate::pci::PciAddress;

/// How long a look at the functions that are there may take.
const LOOK: std::time::Duration = std::time::Duration::from_secs(2);

impl Action for Sriov {
    const SECTION: &'static str = "sriov";
    const KEYS: &'static [Key] = Self::KEYS;

    fn read(file: &mut Section<'_>, _before: &GuestConfig) -> Option<Self> {
        file.item(Self::SECTION).map(Self::read)
    }

    /// A driver that is making or taking functions keeps the kernel from telling their number.
    fn peer(&self) -> Peer {
        Peer::MayHang
    }

    fn propose(&self, situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
        let mut seen = Vec::new();
        for device in &self.devices {
            let at = device.at.key("device");
            let Some(address) = address(device, situation, proposal)? else { continue };
            if seen.contains(&address) {
                proposal.refuse(at, format!("{address} stands here twice"), "keep one of the two");
                continue;
            }
            seen.push(address);
            if is_free(address, &at, situation, proposal)?
                && let Some(capability) = capability(address, &at, situation, proposal)?
                && let Some(count) = count(device, address, capability, situation, proposal)
            {
                propose_functions(device, (address, capability, count), situation, proposal)?;
            }
        }
        Ok(())
    }
}

/// The device that is meant; none where it is not there, which the proposal then says.
fn address(
    device: &SriovDevice,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<Option<PciAddress>, HostError> {
    let host = situation.host;
    let (message, help) = match &device.device {
        PhysicalFunction::Pci(address) if host.is_pci_function(*address) => return Ok(Some(*address)),
        PhysicalFunction::Pci(address) => {
            (format!("this host has no device {address}"), "`lspci -D` shows what there is")
        }
        PhysicalFunction::Interface(name) => match host.device_of_interface(name.as_str())? {
            Some(address) if host.is_pci_function(address) => return Ok(Some(address)),
            _ => (
                format!("this host has no network interface {name} of a PCI device", name = name.as_str()),
                "`ip link` shows what there is; a PCI address in quotes never changes its name",
            ),
        },
    };
    proposal.refuse_until(Until::CommandsRan, device.at.key("device"), message, help);
    Ok(None)
}

/// Whether virtual functions can be made of it at all: it is none itself, and the host has it.
fn is_free(
    address: PciAddress,
    at: &KeyPath,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<bool, HostError> {
    if let Some(physical) = situation.host.physical_function(address)? {
        proposal.refuse(
            at.clone(),
            format!("{address} is itself a virtual function, of {physical}"),
            format!("name the device: `device: \"{physical}\"`"),
        );
        return Ok(false);
    }
    if situation.guest.pci_hostdevs.iter().any(|hostdev| hostdev.address == address) {
        proposal.refuse(
            at.clone(),
            format!(
                "the guest's XML hands over {address} itself, and only the host's driver makes its functions"
            ),
            "hand over its virtual functions instead of it (`virsh edit`), or remove it here",
        );
        return Ok(false);
    }
    let others = situation.record.leases.iter().filter(|(uuid, _)| **uuid != situation.guest.uuid);
    for (uuid, lease) in others {
        let mut claims = situation.record.claims_of::<PciBindings>(*uuid);
        if claims.any(|(entry, _)| entry.setting.0.contains(address)) {
            proposal.refuse(
                at.clone(),
                format!("{address} belongs to guest {}", lease.name),
                format!("shut {} down first", lease.name),
            );
            return Ok(false);
        }
    }
    Ok(true)
}

/// What it says of its functions; none where it can have none, which the proposal then says.
fn capability(
    address: PciAddress,
    at: &KeyPath,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<Option<SriovCapability>, HostError> {
    let (message, help) = match situation.host.sriov_capability(address)? {
        Some(capability) if capability.most > 0 => return Ok(Some(capability)),
        Some(_) => (
            format!("{address} is set up for no virtual function (its sriov_totalvfs is 0)"),
            "the firmware of the host, or the tool of the device's maker, says how many it may have",
        ),
        None => (
            format!("{address} cannot have virtual functions: it has no SR-IOV"),
            "`lspci -vs` shows `Single Root I/O Virtualization` where a device has it; the host's firmware may have it \
             switched off",
        ),
    };
    proposal.refuse(at.clone(), message, help);
    Ok(None)
}

/// How many it has to have; none where that makes no sense, which the proposal then says.
fn count(
    device: &SriovDevice,
    address: PciAddress,
    capability: SriovCapability,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Option<u16> {
    let hostdevs = situation.guest.pci_hostdevs.iter();
    let numbered = hostdevs
        .filter_map(|hostdev| Some((capability.number_of(address, hostdev.address)?, hostdev.address)));
    let last = numbered.max();
    let at = device.at.key("count");
    match (device.count, last) {
        (Some(count), _) if count > capability.most => {
            proposal.refuse(
                at,
                format!("{address} can have {} virtual functions, not {count}", capability.most),
                format!("write `count: {}` or less", capability.most),
            );
            None
        }
        (Some(count), Some((number, function))) if number >= count => {
            let needed = number + 1;
            proposal.refuse(
                at,
                format!(
                    "the guest's XML hands over {function}, which is number {needed} of the virtual functions of \
                     {address}, and there would be {count}"
                ),
                format!("write `count: {needed}`, or leave it out"),
            );
            None
        }
        (None, None) => {
            let help = match capability.address_of(address, 0) {
                Some(first) => format!(
                    "add a <hostdev> or an <interface type='hostdev'> for one (`virsh edit`; the first is {first}), or \
                     write a `count`"
                ),
                None => "write a `count`".to_owned(),
            };
            proposal.refuse(
                device.at.key("device"),
                format!("the guest's XML hands over no virtual function of {address}"),
                help,
            );
            None
        }
        (Some(count), _) => Some(count),
        (None, Some((number, _))) => Some(number + 1),
    }
}

/// Claims them. Where there are enough already, no more than that they stay.
fn propose_functions(
    device: &SriovDevice,
    (address, capability, count): (PciAddress, SriovCapability, u16),
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let deadline = Deadline::after(LOOK).earlier(situation.deadline);
    let setting = VirtualFunctionsOf(address);
    let now = situation.host.virtual_functions(address, deadline)?;
    if now.count >= count {
        let entry = situation.record.entry(&setting);
        if entry.is_none_or(|entry| !entry.claims.contains_key(&situation.guest.uuid)) {
            proposal.inform(format!("{address} has {} virtual functions: no more are made", now.count));
        }
    } else {
        if !can_be_made(device, (address, now, count), situation, proposal)? {
            return Ok(());
        }
        proposal.makes.extend((0..count).filter_map(|number| capability.address_of(address, number)));
    }
    proposal.claim(setting, count, device.at.clone());
    Ok(())
}

/// Whether more can be made: the kernel does it only once all that there are were taken away.
fn can_be_made(
    device: &SriovDevice,
    (address, now, count): (PciAddress, VirtualFunctions, u16),
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<bool, HostError> {
    let at = device.at.clone();
    let host = situation.host;
    match host.pci_driver(address)? {
        Some(driver) if !driver.is_vfio() => {}
        Some(driver) => {
            proposal.refuse_until(
                Until::CommandsRan,
                at.key("device"),
                format!("{address} is with {driver}, and only the host's own driver makes virtual functions"),
                "give it back to its driver first; `lspci -k` shows the one that knows it",
            );
            return Ok(false);
        }
        None => {
            proposal.refuse_until(
                Until::CommandsRan,
                at.key("device"),
                format!("{address} has no driver, and only that makes virtual functions"),
                "load its driver; `lspci -k` shows the one that knows it",
            );
            return Ok(false);
        }
    }
    if now.count == 0 {
        return Ok(true);
    }
    let there = now.count;
    let entry = situation.record.entry(&VirtualFunctionsOf(address));
    let claims = entry.iter().flat_map(|entry| &entry.claims);
    if let Some((uuid, _)) = claims.into_iter().find(|(uuid, _)| **uuid != situation.guest.uuid) {
        let lease = situation.record.leases.get(uuid);
        let name = lease.map_or_else(|| uuid.to_string(), |lease| lease.name.clone());
        proposal.refuse(
            at.clone(),
            format!(
                "{address} has {there} virtual functions and {count} are needed, which the kernel makes only once those \
                 are gone: guest {name} holds them"
            ),
            format!("shut {name} down first; with `count: {count}` in its file too both can run"),
        );
        return Ok(false);
    }
    let deadline = Deadline::after(LOOK).earlier(situation.deadline);
    let users = match host.users_of_virtual_functions(address, deadline) {
        Ok(users) => users,
        Err(error) => vec![format!("it cannot be told whether they are in use: {error}")],
    };
    if users.is_empty() {
        proposal.warn(format!(
            "the {there} virtual functions of {address} are taken away, and {count} are made: the kernel has no other way"
        ));
        return Ok(true);
    }
    proposal.refuse_until(
        Until::CommandsRan,
        at,
        format!(
            "{address} has {there} virtual functions and {count} are needed, which the kernel makes only once those are \
             gone: {}",
            users.join("; ")
        ),
        "end what uses them, or have as many made when the host starts",
    );
    Ok(true)
}
