//! `disks.expect`: the drives that are handed over are the ones that are meant.

use super::handed_over::{self, HandedOver};
use crate::actions::{Proposal, Situation};
use crate::config::ExpectedDrive;
use crate::host::HostError;
use crate::key_path::KeyPath;

pub(super) fn check(
    expected: &[ExpectedDrive],
    drives: &[HandedOver],
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    if expected.is_empty() {
        return Ok(());
    }
    let others: Vec<String> = drives
        .iter()
        .filter(|drive| expected.iter().all(|expected| !drive.identity.is(&expected.name)))
        .map(ToString::to_string)
        .collect();
    let mut has_missing = false;
    for drive in expected {
        if drives.iter().any(|handed_over| handed_over.identity.is(&drive.name)) {
            continue;
        }
        has_missing = true;
        tell_missing(drive, &others, situation, proposal)?;
    }
    // Where one is missing, it says which came in its place.
    if !has_missing && !others.is_empty() {
        proposal.refuse(
            KeyPath::from(&["disks", "expect"]),
            format!("the guest's XML hands over {}, which `expect` does not name", others.join(" and ")),
            "take it out of the XML, or name it here, too",
        );
    }
    Ok(())
}

fn tell_missing(
    drive: &ExpectedDrive,
    others: &[String],
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let host = situation.host;
    let name = &drive.name;
    let instead = match others {
        [] => String::new(),
        others => format!(", but {}", others.join(" and ")),
    };
    let message = format!("the guest's XML does not hand over the drive {name}{instead}");
    if let Some(there) = host.drive_known_as(name)? {
        let identity = host.drive_identity(&there)?;
        let on = match host.function_of_drive(&there)? {
            Some(address) => format!(" on PCI device {address}"),
            None => String::new(),
        };
        let help = format!(
            "{name} is {there}{on} now ({identity}): `virsh edit {}` and name it there",
            situation.guest.name
        );
        proposal.refuse(drive.at.clone(), message, help);
        return Ok(());
    }
    let mut unknown = Vec::new();
    for address in handed_over::controllers(situation.guest, host)? {
        let function = host.pci_function(address)?;
        if function.driver.is_some_and(|driver| driver.is_vfio()) {
            unknown.push(address.to_string());
        }
    }
    match unknown.is_empty() {
        true => proposal.refuse(
            drive.at.clone(),
            message,
            "this host does not have it now: is it plugged in? `lsblk -o NAME,MODEL,SERIAL,WWN` shows what there is",
        ),
        false => proposal.refuse(
            drive.at.clone(),
            format!("it cannot be told whether the guest gets the drive {name}: VFIO has {}", unknown.join(", ")),
            "give the controller back to its driver (`virsh nodedev-reattach`), or remove `expect`: VFIO does not say \
             which drives are behind it",
        ),
    }
    Ok(())
}
