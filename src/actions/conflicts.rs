//! `conflicts`: guests beside which this one does not start.
//!
//! A guest counts while it holds a lease, or while it runs. libvirt is not asked: a hook must not. Whether a guest runs
//! that has no file of its own here, libvirt's status files say.

use super::action::Action;
use super::{GuestConfig, Proposal, Situation};
use crate::config::{Conflicts, Key, Section};
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::{HostError, ONE_LOOK, QemuClues, QemuSearch};
use crate::ledger::{Lease, LeaseState};

/// How another guest stands in the way.
struct Obstacle {
    reason: String,
    help: String,
}

impl Action for Conflicts {
    const SECTION: &'static str = "conflicts";
    const KEYS: &'static [Key] = Self::KEYS;

    fn read(file: &mut Section<'_>, _before: &GuestConfig) -> Option<Self> {
        file.item(Self::SECTION).map(Self::read)
    }

    fn propose(&self, situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
        let mut off = Vec::new();
        // A list that several guests share may name each of them.
        for condition in self.guests.iter().filter(|condition| condition.what != situation.guest.name) {
            match look_at(&condition.what, situation) {
                None => off.push(condition.what.as_str()),
                Some(Obstacle { reason, help }) => {
                    proposal.refuse(condition.at.clone(), condition.refusal(&reason), help);
                }
            }
        }
        match self.guests.iter().all(|condition| condition.what == situation.guest.name) {
            true => proposal.warn("`conflicts` has no effect: it names this guest alone"),
            false if !off.is_empty() => {
                proposal.inform(format!("in conflict with this guest, and off: {}", off.join(", ")));
            }
            false => {}
        }
        Ok(())
    }
}

fn look_at(name: &str, situation: Situation<'_>) -> Option<Obstacle> {
    let (record, this) = (situation.record, situation.guest.uuid);
    let lease = record.leases.iter().find(|(uuid, lease)| **uuid != this && lease.name == name);
    if let Some((uuid, lease)) = lease {
        return Some(of_lease(name, *uuid, lease, situation));
    }
    match situation.host.libvirt_guest(name) {
        Ok(None) => None,
        // Renamed, or the same one.
        Ok(Some(uuid)) if uuid == this => None,
        Ok(Some(guest)) => match look_for_qemu(QemuClues { guest, name, known: None }, situation) {
            QemuSearch::Runs(process) => Some(runs(name, process.pid)),
            QemuSearch::Gone => None,
            QemuSearch::Unknown => Some(unknown(name, "not all processes could be looked at")),
        },
        Err(error) => Some(unknown(name, &error.to_string())),
    }
}

fn look_for_qemu(clues: QemuClues<'_>, situation: Situation<'_>) -> QemuSearch {
    situation.host.qemu_of(clues, Deadline::after(ONE_LOOK).earlier(situation.deadline))
}

fn runs(name: &str, pid: i32) -> Obstacle {
    Obstacle {
        reason: format!("guest {name} runs (process {pid})"),
        help: format!("shut {name} down first (`virsh shutdown`)"),
    }
}

fn unknown(name: &str, why: &str) -> Obstacle {
    Obstacle {
        reason: format!("it cannot be told whether guest {name} runs: {why}"),
        help: "start this guest again when it can".to_owned(),
    }
}

fn of_lease(name: &str, uuid: GuestUuid, lease: &Lease, situation: Situation<'_>) -> Obstacle {
    let holds =
        |help: String| Obstacle { reason: format!("guest {name} holds what it needs of the host"), help };
    match lease.phase {
        LeaseState::Preparing(by) if situation.host.is_alive(by) => Obstacle {
            reason: format!("guest {name} is being started"),
            help: format!("shut {name} down first (`virsh shutdown`)"),
        },
        LeaseState::GivingBack(_) | LeaseState::Unfinished => Obstacle {
            reason: format!("what guest {name} held is still being given back"),
            help: "start this guest again in a while; `vfio-hook status` shows what is left".to_owned(),
        },
        LeaseState::Preparing(_) | LeaseState::Prepared | LeaseState::Started => {
            match look_for_qemu(lease.qemu_clues(uuid), situation) {
                QemuSearch::Runs(process) => runs(name, process.pid),
                _ => {
                    holds(format!("shut {name} down; if it is off, `vfio-hook undo {name}` gives that back"))
                }
            }
        }
    }
}
