//! Units that are known to open a card now and then: stopped for it where the file has units stopped for it at all.

use std::collections::BTreeSet;

use super::{Card, units_patience};
use crate::actions::{Proposal, Situation, services};
use crate::config::{Gpu, StoppedUnit};
use crate::gpu::{services_of_desktops, services_of_driver};
use crate::host::{HostError, ServiceUnit, UnitActivity};
use crate::key_path::KeyPath;
use crate::ledger::{Listed, UnitRuns};
use crate::unit_file_name::UnitFileName;
use crate::user_name::UserName;

const STOP: &[&str] = &["gpu", "holders", "stop"];

/// Claims that those of them do not run that run now.
pub(super) fn propose(
    config: &Gpu,
    cards: &[Card],
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let drivers = cards.iter().flat_map(|card| &card.members).filter_map(|member| member.driver.as_ref());
    let drivers: BTreeSet<&str> =
        drivers.filter(|driver| !driver.is_vfio()).map(|driver| driver.as_str()).collect();
    if config.holders.stop.is_empty() || drivers.is_empty() || !situation.host.has_systemd() {
        return Ok(());
    }
    let mut known: BTreeSet<StoppedUnit> = BTreeSet::new();
    for unit in drivers.iter().flat_map(|driver| services_of_driver(driver)) {
        known.extend(UnitFileName::new(unit).ok().map(|unit| StoppedUnit { unit, user: None }));
    }
    // Without logind nobody has a desktop that could be told.
    for session in situation.host.graphical_sessions(situation.deadline).unwrap_or_default() {
        let Ok(user) = UserName::new(&session.user) else { continue };
        for unit in services_of_desktops() {
            let user = Some(user.clone());
            known.extend(UnitFileName::new(unit).ok().map(|unit| StoppedUnit { unit, user }));
        }
    }
    // What cannot be looked at is not named in the file: it stops nothing.
    let runs = |StoppedUnit { unit, user }: &StoppedUnit| {
        let unit = ServiceUnit { unit: unit.clone(), user: user.clone() };
        let status = situation.host.unit_status(&unit, situation.deadline);
        status.is_ok_and(|status| status.activity() == UnitActivity::Running)
    };
    // By this section or by `services`.
    let is_claimed = |StoppedUnit { unit, user }: &StoppedUnit| {
        let setting = UnitRuns(ServiceUnit { unit: unit.clone(), user: user.clone() }).key();
        proposal.claims.iter().any(|claim| claim.key() == setting)
    };
    let running: Vec<StoppedUnit> =
        known.into_iter().filter(|unit| !is_claimed(unit) && runs(unit)).collect();
    services::claim_stopped_for(&running, &KeyPath::from(STOP), &units_patience(config), situation, proposal)
}
