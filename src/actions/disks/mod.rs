//! `disks`: the drives of the host that the guest's XML hands over. The host does not use them, they are the ones that
//! are meant, and no other guest has them.

mod expected;
mod handed_over;
mod other_guests;
mod unmount;

use std::time::Duration;

use super::action::Action;
use super::{GuestConfig, Proposal, Situation, Until};
use crate::config::{Disks, InUse, Key, Section};
use crate::deadline::Deadline;
use crate::guest::DriveSharing;
use crate::host::{BlockDevice, DiskUse, DiskUseKind, HostError};
use crate::ledger::Peer;
use handed_over::HandedOver;
use unmount::Unmounting;

const DISKS: &[&str] = &["disks"];

/// How long the driver of a drive may take to say whether it is in use.
const ANSWERS: Duration = Duration::from_secs(5);

/// The most uses of one drive that a message names.
const MOST_NAMED: usize = 6;

impl Action for Disks {
    const SECTION: &'static str = "disks";
    const KEYS: &'static [Key] = Self::KEYS;

    fn read(file: &mut Section<'_>, _before: &GuestConfig) -> Option<Self> {
        file.section(Self::SECTION, "disks: {}").map(Self::read)
    }

    fn peer(&self) -> Peer {
        Peer::MayHang
    }

    fn propose(&self, situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
        let drives = handed_over::drives(situation)?;
        if drives.is_empty() {
            proposal.inform("the guest's XML hands no drive of the host over that a driver of the host has");
        }
        let unmounting = unmount::propose(self, situation, proposal)?;
        expected::check(&self.expect, &drives, situation, proposal)?;
        other_guests::check(&drives, situation, proposal)?;
        // Where that is refused, the drive is in use for the same reason.
        let Unmounting::Frees(freed) = unmounting else { return Ok(()) };
        let mut free = Vec::new();
        for drive in &drives {
            match uses(drive, situation) {
                Ok(uses) if uses.is_empty() => free.push(drive.to_string()),
                Ok(uses) => tell_uses(self.in_use, drive, &uses, &freed, proposal),
                Err(error) => {
                    let message = format!("it cannot be told whether the host uses {drive}: {error}");
                    match self.in_use {
                        InUse::Refuse => proposal.refuse(
                            DISKS,
                            message,
                            "start the guest again when it can, or write `disks: {in_use: warn}`",
                        ),
                        InUse::Warn => proposal.warn(message),
                    }
                }
            }
        }
        if !free.is_empty() {
            proposal.inform(format!("drives that the host does not use: {}", free.join("; ")));
        }
        Ok(())
    }
}

/// Warns of drives in use where no section says what is to become of them, as far as that can be seen without asking a
/// driver. The guest starts, as it did before.
pub(super) fn warn(situation: Situation<'_>, proposal: &mut Proposal) {
    // Whatever cannot be read is the section's to tell.
    for drive in handed_over::drives(situation).unwrap_or_default() {
        let uses = situation.host.disk_uses_to_be_seen(&drive.device).unwrap_or_default();
        if !uses.is_empty() {
            let uses = in_words(&uses);
            proposal.warn(format!(
                "{drive} is handed over, and the host uses it: {uses} (`disks: {{}}` refuses that)"
            ));
        }
    }
}

fn uses(drive: &HandedOver, situation: Situation<'_>) -> Result<Vec<DiskUse>, HostError> {
    situation.host.disk_uses(&drive.device, Deadline::after(ANSWERS).earlier(situation.deadline))
}

fn tell_uses(
    in_use: InUse,
    drive: &HandedOver,
    uses: &[DiskUse],
    freed: &[BlockDevice],
    proposal: &mut Proposal,
) {
    let until = match uses.iter().all(|of| freed.contains(&of.device)) {
        true => Until::Unmounted,
        false => Until::UnitsStopped,
    };
    // What is taken down is none of the reasons, where there are others.
    let others: Vec<DiskUse> = match until {
        Until::Unmounted => uses.to_vec(),
        _ => uses.iter().filter(|of| !freed.contains(&of.device)).cloned().collect(),
    };
    let uses = &others[..];
    let words = in_words(uses);
    if uses.iter().any(DiskUse::is_of_system) && drive.sharing != DriveSharing::Readers {
        proposal.refuse(
            DISKS,
            format!("{drive} holds the host's own system: {words}"),
            "take it out of the guest's XML: without it the host cannot run",
        );
        return;
    }
    let message = format!("{drive} is in use on the host: {words}");
    if in_use == InUse::Warn || drive.sharing == DriveSharing::Readers {
        proposal.warn(message);
        return;
    }
    // Mounts are above all else, and the inner ones above the outer.
    let depth = |of: &&DiskUse| match &of.kind {
        DiskUseKind::Mounted(path) => path.components().count(),
        _ => 0,
    };
    let mut in_order: Vec<&DiskUse> = uses.iter().collect();
    in_order.sort_by_key(|of| std::cmp::Reverse(depth(of)));
    let mut commands: Vec<String> = Vec::new();
    for remedy in in_order.into_iter().filter_map(DiskUse::remedy) {
        let command = format!("`{remedy}`");
        if !commands.contains(&command) {
            commands.push(command);
        }
    }
    let help = match commands.is_empty() {
        true => format!("`lsblk {0}` and `lsof {0}` show more", drive.device),
        false => {
            let more = if commands.len() > MOST_NAMED { ", …" } else { "" };
            commands.truncate(MOST_NAMED);
            format!("first {}{more}; or take the drive out of the guest's XML", commands.join(", "))
        }
    };
    proposal.refuse_until(until, DISKS, message, help);
}

fn in_words(uses: &[DiskUse]) -> String {
    let mut words: Vec<String> = uses.iter().take(MOST_NAMED).map(ToString::to_string).collect();
    if uses.len() > MOST_NAMED {
        words.push(format!("and {} more", uses.len() - MOST_NAMED));
    }
    words.join("; ")
}
