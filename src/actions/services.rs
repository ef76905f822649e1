//! `services`: what steps aside for the guest, and comes back after it.

use std::collections::BTreeSet;

use super::{Proposal, Situation};
use crate::config::{Services, StoppedUnit};
use crate::host::{HostError, ServiceUnit, UnitActivity, UnitFileName, UnitPresence, UnitStatus};
use crate::ledger::{Knob, Want};

/// Without these nothing starts a guest, ends it or looks after it: what cannot be stopped for one, by the beginning of
/// the name.
const NEVER: [(&str, &str); 9] = [
    ("libvirt", "libvirt itself needs it"),
    ("virtqemud", "libvirt itself needs it"),
    ("virtlogd", "libvirt itself needs it"),
    ("virtlockd", "libvirt itself needs it"),
    ("dbus", "nothing could start it again without the bus"),
    ("systemd-", "the host itself needs it"),
    ("user@", "it would end the user's session"),
    ("session-", "it would end the user's session"),
    ("vfio-hook-", "it looks after a guest"),
];

/// A unit to stop, and for people the chain of units that leads to it.
struct Stopped {
    unit: ServiceUnit,
    because: String,
}

pub(super) fn propose(
    config: &Services,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    claim_stopped(&config.stop, &["services", "stop"], situation, proposal)
}

/// Claims that units do not run, nor what runs only with them or would start them; `list` is where they stand in the
/// file.
pub(super) fn claim_stopped(
    units: &[StoppedUnit],
    list: &[&str],
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    if units.is_empty() {
        return Ok(());
    }
    if !situation.host.has_systemd() {
        proposal.warn("the host has no systemd: no service is stopped");
        return Ok(());
    }
    let mut known = BTreeSet::new();
    for (number, stopped) in units.iter().enumerate() {
        let unit = ServiceUnit { unit: stopped.unit.clone(), user: stopped.user.clone() };
        let number = number.to_string();
        let place: Vec<String> = list.iter().copied().chain([number.as_str()]).map(str::to_owned).collect();
        let mut waiting = vec![Stopped { unit, because: String::new() }];
        while let Some(Stopped { unit, because }) = waiting.pop() {
            if !known.insert(unit.clone()) {
                continue;
            }
            if let Some((_, reason)) = NEVER.iter().find(|(start, _)| unit.unit.as_str().starts_with(start)) {
                proposal.refuse_at(
                    &place,
                    format!("{unit} cannot be stopped{because}: {reason}"),
                    "take it out of the list",
                );
                break;
            }
            let Some(status) = status(situation, &unit, &because, &place, proposal)? else { continue };
            waiting.extend(companions(&unit, &status, situation)?);
            proposal.claim(knob(unit), Want::Text(UnitActivity::Stopped.to_string()));
        }
    }
    Ok(())
}

/// What systemd says about a unit; nothing where it is not there, which the proposal then says.
fn status(
    situation: Situation<'_>,
    unit: &ServiceUnit,
    because: &str,
    place: &[String],
    proposal: &mut Proposal,
) -> Result<Option<UnitStatus>, HostError> {
    let status = match situation.host.unit_status(unit, situation.deadline) {
        Ok(status) => status,
        Err(error) if error.is_absent() => {
            proposal.inform(format!("{unit} is not stopped: {error}"));
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if status.presence == UnitPresence::Absent && because.is_empty() {
        let list = match &unit.user {
            None => "systemctl list-units --all".to_owned(),
            Some(user) => format!("systemctl --user -M {user}@ list-units --all"),
        };
        proposal.refuse_at(
            place,
            format!("this host has no unit {unit}"),
            format!("`{list}` shows those there are"),
        );
        return Ok(None);
    }
    Ok((status.presence != UnitPresence::Absent).then_some(status))
}

/// What runs and stops together with a unit, and what would start it again: all of it is written down, or it would not
/// come back.
fn companions(
    unit: &ServiceUnit,
    status: &UnitStatus,
    situation: Situation<'_>,
) -> Result<Vec<Stopped>, HostError> {
    let ending = status.relations.stop_with_it.iter().map(|name| (name, "stops with"));
    let starting = status.relations.triggered_by.iter().map(|name| (name, "would start"));
    let mut companions = Vec::new();
    for (name, relation) in ending.chain(starting) {
        // Slices and scopes among them are not started by name, nor are devices.
        let Ok(name) = UnitFileName::new(name) else { continue };
        let companion = ServiceUnit { unit: name, user: unit.user.clone() };
        let is_held = situation.record.entry(&knob(companion.clone())).is_some();
        let runs = situation.host.unit_activity(&companion, situation.deadline)? == UnitActivity::Running;
        if is_held || runs {
            companions.push(Stopped { unit: companion, because: format!(", it {relation} {unit}") });
        }
    }
    Ok(companions)
}

/// Sockets, timers and paths are stopped last and started first: a socket does not start while its service runs.
fn knob(unit: ServiceUnit) -> Knob {
    match unit.unit.as_str().rsplit_once('.') {
        Some((_, "socket" | "timer" | "path" | "automount")) => Knob::Trigger(unit),
        _ => Knob::Service(unit),
    }
}
