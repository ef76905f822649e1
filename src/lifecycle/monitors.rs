//! What a guest's keeper does with monitors, step by step.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{LifecycleError, LoadedConfig, is_over};
use crate::actions;
use crate::deadline::Deadline;
use crate::guest::{Guest, GuestUuid};
use crate::host::{Host, I2cDev};
use crate::ledger::{Lease, Ledger, Outcome, Tried, Try};

/// Where the guest wants monitors and their buses have no device nodes, these are made first: without them most
/// monitors cannot even be found.
pub(super) fn make_reachable(
    ledger: &mut Ledger<'_>,
    loaded: &LoadedConfig,
    guest: &Guest,
) -> Result<Outcome, LifecycleError> {
    if loaded.config.switch_input.is_none() || ledger.host().i2c_dev() != I2cDev::Absent {
        return Ok(Outcome::default());
    }
    let lease = Lease::preparing(&guest.name, ledger.host().this_process());
    Ok(ledger.take_before_commands(guest.uuid, lease, &[actions::i2c_dev()])?)
}

/// Before QEMU runs: what do the monitors show that the guest is going to have?
///
/// # Errors
/// The ledger cannot be used.
pub fn note_monitors(host: &mut Host, uuid: GuestUuid, deadline: Deadline) -> Result<Tried, LifecycleError> {
    in_ledger(host, uuid, deadline, |ledger| {
        ledger.note_monitors(uuid)?;
        Ok(Tried::default())
    })
}

/// The guest has been up for so long: the monitors whose delay is over are switched, and those that were switched
/// before are held there.
///
/// # Errors
/// The ledger cannot be used.
pub fn follow_monitors(
    host: &mut Host,
    uuid: GuestUuid,
    up_for: Duration,
    attempt: Try,
    deadline: Deadline,
) -> Result<Tried, LifecycleError> {
    in_ledger(host, uuid, deadline, |ledger| {
        // A guest that runs may have been told to give everything back.
        if is_over(ledger.host(), ledger.record(), uuid) {
            return Ok(Tried::default());
        }
        let Tried { mut outcome, unfinished } = ledger.hold_monitors(uuid, attempt)?;
        let switched = ledger.switch_monitors(uuid, up_for, attempt)?;
        outcome.absorb(switched.outcome);
        Ok(Tried { outcome, unfinished: unfinished + switched.unfinished })
    })
}

/// The guest is gone: its monitors are switched back, and nothing is switched to it any more.
///
/// # Errors
/// The ledger cannot be used.
pub fn return_monitors(
    host: &mut Host,
    uuid: GuestUuid,
    attempt: Try,
    deadline: Deadline,
) -> Result<Tried, LifecycleError> {
    in_ledger(host, uuid, deadline, |ledger| {
        if !is_over(ledger.host(), ledger.record(), uuid) {
            return Ok(Tried::default());
        }
        Ok(ledger.return_monitors(uuid, &BTreeSet::new(), attempt)?)
    })
}

fn in_ledger(
    host: &mut Host,
    uuid: GuestUuid,
    deadline: Deadline,
    step: impl FnOnce(&mut Ledger<'_>) -> Result<Tried, LifecycleError>,
) -> Result<Tried, LifecycleError> {
    let mut ledger = Ledger::open_for(host, uuid, deadline)?;
    let mut recovered = ledger.recovered().clone();
    let Tried { outcome, unfinished } = step(&mut ledger)?;
    recovered.absorb(outcome);
    Ok(Tried { outcome: recovered, unfinished })
}
