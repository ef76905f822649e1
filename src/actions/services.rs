//! `services`: what steps aside for the guest, and comes back after it; what runs for it is in `started_units`.

use std::collections::BTreeSet;

use super::action::Action;
use super::started_units::claim_started;
use super::{GuestConfig, Proposal, Situation};
use crate::config::{Key, Section, Services, StoppedUnit, did_you_mean, why_spared};
use crate::host::{HostError, ServiceUnit, UnitActivity, UnitPresence, UnitStatus, UnitsOf};
use crate::key_path::KeyPath;
use crate::ledger::{ClaimTerms, Patience, Peer, UnitRuns};
use crate::unit_file_name::UnitFileName;

/// A unit to stop, and for people the chain of units that leads to it.
struct Stopped {
    unit: ServiceUnit,
    because: String,
}

impl Action for Services {
    const SECTION: &'static str = "services";
    const KEYS: &'static [Key] = Self::KEYS;

    fn read(file: &mut Section<'_>, _before: &GuestConfig) -> Option<Self> {
        file.section(Self::SECTION, "services: {stop: [ollama.service]}").map(Self::read)
    }

    fn peer(&self) -> Peer {
        let mut users =
            self.stop.iter().map(|unit| &unit.user).chain(self.start.iter().map(|unit| &unit.user));
        match users.any(Option::is_some) {
            true => Peer::MayHang,
            false => Peer::Kernel,
        }
    }

    fn propose(&self, situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
        let patience = Patience::for_all_together(self.timeout, &["services", "timeout"]);
        claim_stopped(&self.stop, &KeyPath::from(&["services", "stop"]), &patience, situation, proposal)?;
        claim_started(&self.start, &patience, situation, proposal)
    }
}

/// Claims that units do not run, nor what runs only with them or would start them; `list` is where they stand in the
/// file, and the patience how long they may take to stop.
pub(super) fn claim_stopped(
    units: &[StoppedUnit],
    list: &KeyPath,
    patience: &Patience,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    claim_each_stopped(units, |number| list.element(number), patience, situation, proposal)
}

/// The same for units that stand in no list: this key asks for them.
pub(super) fn claim_stopped_for(
    units: &[StoppedUnit],
    key: &KeyPath,
    patience: &Patience,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    claim_each_stopped(units, |_| key.clone(), patience, situation, proposal)
}

fn claim_each_stopped(
    units: &[StoppedUnit],
    place_of: impl Fn(usize) -> KeyPath,
    patience: &Patience,
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
        let place = place_of(number);
        let mut waiting = vec![Stopped { unit, because: String::new() }];
        while let Some(Stopped { unit, because }) = waiting.pop() {
            if !known.insert(unit.clone()) {
                continue;
            }
            if let Some(reason) = why_spared(unit.unit.as_str()) {
                proposal.refuse(
                    place,
                    format!("{unit} cannot be stopped{because}: {reason}"),
                    "take it out of the list",
                );
                break;
            }
            let Some(status) = status(situation, &unit, &because, proposal)? else { continue };
            waiting.extend(companions(&unit, &status, situation)?);
            let terms = ClaimTerms::from(place.clone()).within(patience.clone());
            proposal.claim(UnitRuns(unit), UnitActivity::Stopped, terms);
        }
    }
    Ok(())
}

/// What systemd says about a unit; nothing where it is not there, which the proposal then says.
fn status(
    situation: Situation<'_>,
    unit: &ServiceUnit,
    because: &str,
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
        say_absent(unit, situation, proposal);
    }
    Ok((status.presence != UnitPresence::Absent).then_some(status))
}

/// A unit that is not there does not run: a mount that is not in fstab, a service of a package that is not installed. One
/// with a similar name may have been meant.
fn say_absent(unit: &ServiceUnit, situation: Situation<'_>, proposal: &mut Proposal) {
    let name = unit.unit.as_str();
    let kind = name.rsplit_once('.').map_or("", |(_, kind)| kind);
    let whose = if unit.user.is_some() { UnitsOf::EveryUser } else { UnitsOf::System };
    let names = situation.host.unit_file_names(whose);
    let alike: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|other| other.rsplit_once('.').is_some_and(|(_, end)| end == kind))
        .collect();
    match did_you_mean(name, &alike) {
        Some(meant) => proposal.warn(format!(
            "this host has no unit {unit}, so it is not stopped; did you mean {meant}, which is there?"
        )),
        None => proposal.inform(format!("this host has no unit {unit}: there is nothing to stop")),
    }
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
        let is_held = situation.record.entry(&UnitRuns(companion.clone())).is_some();
        let runs = situation.host.unit_activity(&companion, situation.deadline)? == UnitActivity::Running;
        if is_held || runs {
            companions.push(Stopped { unit: companion, because: format!(", it {relation} {unit}") });
        }
    }
    Ok(companions)
}
