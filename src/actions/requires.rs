//! `requires`: units, devices and paths that have to be there before the guest starts.

use std::time::Duration;

use super::action::Action;
use super::{GuestConfig, Proposal, Situation, Until};
use crate::config::{Condition, Key, RequiredThing, Requires, Section};
use crate::deadline::Deadline;
use crate::host::{HostError, ServiceUnit, UnitActivity, UnitPresence};
use crate::ledger::Peer;

/// How long systemd, or the file system of a path, may take to answer.
const ANSWERS: Duration = Duration::from_secs(5);

/// Why something that is required does not count as there.
struct Missing {
    reason: String,
    help: String,
}

impl Action for Requires {
    const SECTION: &'static str = "requires";
    const KEYS: &'static [Key] = Self::KEYS;

    fn read(file: &mut Section<'_>, _before: &GuestConfig) -> Option<Self> {
        file.item(Self::SECTION).map(Self::read)
    }

    fn peer(&self) -> Peer {
        let may_hang = |thing: &RequiredThing| {
            matches!(thing, RequiredThing::Path(_) | RequiredThing::Unit { user: Some(_), .. })
        };
        match self.things.iter().any(|condition| may_hang(&condition.what)) {
            true => Peer::MayHang,
            false => Peer::Kernel,
        }
    }

    fn propose(&self, situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
        let mut there = Vec::new();
        for condition in &self.things {
            match look_for(&condition.what, situation) {
                Ok(()) => there.push(condition.what.to_string()),
                Err(Missing { reason, help }) => match condition.what {
                    RequiredThing::Pci(address) => proposal.refuse_until(
                        Until::FunctionMade(address),
                        condition.at.clone(),
                        condition.refusal(&reason),
                        help,
                    ),
                    _ => refuse(condition, &reason, help, proposal),
                },
            }
        }
        if !there.is_empty() {
            proposal.inform(format!("required, and there: {}", there.join(", ")));
        }
        Ok(())
    }
}

fn refuse(condition: &Condition<RequiredThing>, reason: &str, help: String, proposal: &mut Proposal) {
    proposal.refuse(condition.at.clone(), condition.refusal(reason), help);
}

fn look_for(thing: &RequiredThing, situation: Situation<'_>) -> Result<(), Missing> {
    let host = situation.host;
    let deadline = Deadline::after(ANSWERS).earlier(situation.deadline);
    let unknown = |error: HostError| Missing {
        reason: format!("it cannot be told whether {thing} is there: {error}"),
        help: "start the guest again when it can, or take this out of `requires`".to_owned(),
    };
    let is_there = match thing {
        RequiredThing::Unit { .. } => return look_for_unit(thing, situation, deadline),
        RequiredThing::Pci(address) => host.is_present(format!("/sys/bus/pci/devices/{address}")),
        RequiredThing::Usb(id) => host.has_usb_device(id.vendor, id.product).map_err(unknown)?,
        RequiredThing::Path(path) => host.is_path_there(path, deadline).map_err(unknown)?,
    };
    let help = match thing {
        RequiredThing::Usb(_) => "plug it in; `lsusb` shows what there is",
        RequiredThing::Pci(_) => "`lspci -D` shows what there is",
        _ => "make it, mount it or load its module, then start the guest again",
    };
    match is_there {
        true => Ok(()),
        false => Err(Missing { reason: format!("{thing} is not there"), help: help.to_owned() }),
    }
}

fn look_for_unit(thing: &RequiredThing, situation: Situation<'_>, deadline: Deadline) -> Result<(), Missing> {
    let RequiredThing::Unit { unit, user } = thing else { return Ok(()) };
    let host = situation.host;
    let missing = |reason: String, help: String| Err(Missing { reason, help });
    if !host.has_systemd() {
        let reason = format!("{thing} cannot be active: the host has no systemd");
        return missing(reason, "take it out of `requires`".to_owned());
    }
    let systemctl = match user {
        None => "systemctl".to_owned(),
        Some(user) => format!("systemctl --user --machine={user}@"),
    };
    match host.unit_status(&ServiceUnit { unit: unit.clone(), user: user.clone() }, deadline) {
        Ok(status) if status.activity() == UnitActivity::Running => Ok(()),
        Ok(status) => match status.presence {
            UnitPresence::Loaded => {
                missing(format!("{thing} is not active"), format!("`{systemctl} start {unit}`"))
            }
            UnitPresence::Masked => {
                missing(format!("{thing} is masked"), format!("`{systemctl} unmask {unit}`"))
            }
            UnitPresence::Absent => missing(
                format!("there is no unit {thing}"),
                format!("`{systemctl} list-unit-files` shows those there are"),
            ),
        },
        Err(error) if error.is_absent() => {
            missing(format!("{thing} is not active: {error}"), "log the user in first".to_owned())
        }
        Err(error) => missing(
            format!("it cannot be told whether {thing} is active: {error}"),
            "start the guest again when it can, or take this out of `requires`".to_owned(),
        ),
    }
}
