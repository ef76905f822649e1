//! No other guest that runs has the same drive, or a part of it.

use super::DISKS;
use super::handed_over::{self, HandedOver};
use crate::actions::{Proposal, Situation};
use crate::deadline::Deadline;
use crate::guest::DriveSharing;
use crate::host::{BlockDevice, HostError, ONE_LOOK, QemuClues, QemuSearch};

pub(super) fn check(
    drives: &[HandedOver],
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    if drives.is_empty() {
        return Ok(());
    }
    let host = situation.host;
    let others = match host.libvirt_guests() {
        Ok(others) => others,
        Err(error) => {
            proposal.warn(format!("it cannot be told which drives other guests have: {error}"));
            return Ok(());
        }
    };
    for other in others.iter().filter(|other| other.uuid != situation.guest.uuid) {
        let theirs = handed_over::devices(other, host)?;
        for drive in drives {
            let has_it = |theirs: &(BlockDevice, DriveSharing, String)| -> Result<bool, HostError> {
                let (device, sharing, _) = theirs;
                let may_both = *sharing == drive.sharing && *sharing != DriveSharing::None;
                Ok(!may_both && overlap(&drive.device, device, situation)?)
            };
            let mut shared = None;
            for theirs in &theirs {
                if has_it(theirs)? {
                    shared = Some(&theirs.0);
                    break;
                }
            }
            let Some(shared) = shared else { continue };
            let clues = QemuClues { guest: other.uuid, name: &other.name, known: None };
            let name = &other.name;
            if host.qemu_of(clues, Deadline::after(ONE_LOOK).earlier(situation.deadline)) == QemuSearch::Gone
            {
                continue;
            }
            proposal.refuse(
                DISKS,
                format!("{drive} belongs to guest {name}, which runs and has {shared}"),
                format!("shut {name} down first (`virsh shutdown`)"),
            );
        }
    }
    Ok(())
}

/// Whether two devices are one, or one is a part of the other or built upon it.
fn overlap(one: &BlockDevice, other: &BlockDevice, situation: Situation<'_>) -> Result<bool, HostError> {
    let host = situation.host;
    Ok(host.devices_upon(one)?.contains(other) || host.devices_upon(other)?.contains(one))
}
