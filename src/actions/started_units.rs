//! `services.start`: units that run while the guest does.

use super::{Proposal, Situation};
use crate::config::StartedUnit;
use crate::host::{HostError, ServiceUnit, UnitActivity, UnitPresence};
use crate::key_path::KeyPath;
use crate::ledger::{ClaimTerms, Patience, UnitRuns};
use crate::unit_file_name::UnitFileName;

/// Claims that units run.
pub(super) fn claim_started(
    units: &[StartedUnit],
    patience: &Patience,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    for (number, started) in units.iter().enumerate() {
        let unit = ServiceUnit { unit: started.unit.clone(), user: started.user.clone() };
        let place = KeyPath::from(&["services", "start"]).element(number);
        if !situation.host.has_systemd() {
            let help = "take it out of the list; `run` with `background: true` starts a program";
            proposal.refuse(place, format!("the host has no systemd that could start {unit}"), help);
            continue;
        }
        let status = match situation.host.unit_status(&unit, situation.deadline) {
            Ok(status) => status,
            Err(error) if error.is_absent() => {
                let help = match &unit.user {
                    Some(user) => format!(
                        "log in as {user}, or have the units run without: `loginctl enable-linger {user}`"
                    ),
                    None => "take it out of the list".to_owned(),
                };
                proposal.refuse(place, format!("{unit} cannot be started: {error}"), help);
                continue;
            }
            Err(error) => return Err(error),
        };
        let command = unit
            .user
            .as_ref()
            .map_or_else(|| "systemctl".to_owned(), |user| format!("systemctl --user -M {user}@"));
        match status.presence {
            UnitPresence::Loaded => {}
            UnitPresence::Masked => {
                let help = format!("`{command} unmask {}` lets it be started", unit.unit);
                proposal.refuse(place, format!("{unit} is masked, and cannot be started"), help);
                continue;
            }
            UnitPresence::Absent => {
                let help = format!("`{command} list-unit-files` shows those there are");
                proposal.refuse(place, format!("this host has no unit {unit}"), help);
                continue;
            }
        }
        if status.activity() == UnitActivity::Stopped {
            warn_of_others(units, &unit, &status.relations.starts, situation, proposal)?;
        }
        let terms = ClaimTerms::from(place).within(patience.clone());
        proposal.claim(UnitRuns(unit), UnitActivity::Started, terms);
    }
    Ok(())
}

/// What else starts with a unit stays when that is stopped: nobody claims it.
fn warn_of_others(
    units: &[StartedUnit],
    unit: &ServiceUnit,
    starts: &[String],
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let mut others = Vec::new();
    for name in starts {
        // Slices, scopes and devices come and go by themselves.
        let Ok(name) = UnitFileName::new(name) else { continue };
        let is_named = units.iter().any(|other| other.unit == name && other.user == unit.user);
        let other = ServiceUnit { unit: name, user: unit.user.clone() };
        if is_named || others.contains(&other) {
            continue;
        }
        let status = situation.host.unit_status(&other, situation.deadline)?;
        if status.presence == UnitPresence::Loaded && status.activity() == UnitActivity::Stopped {
            others.push(other);
        }
    }
    for other in others {
        proposal.warn(format!(
            "{unit} starts {other} too, which is not stopped with it: name it in `services.start` as well"
        ));
    }
    Ok(())
}
