//! Stopping and starting the system's units.

use std::collections::HashMap;
use std::time::Duration;

use zbus::{Message, OwnedObjectPath, OwnedVariant};

use super::bus::{Bus, Object, connect, is_timeout, within, within_patience};
use super::{MANAGER, MANAGER_PATH, SYSTEMD, object_path};
use crate::deadline::Deadline;
use crate::failpoint;
use crate::host::HostError;
use crate::host::service::{UnitPresence, UnitRelations, UnitState, UnitStatus};
use crate::unit_file_name::UnitFileName;

const UNIT: &str = "org.freedesktop.systemd1.Unit";

/// `BUS_ERROR_NO_SUCH_UNIT` of systemd.
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// How often a unit that stops or starts is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// How long a unit may take to begin to start: it may have to wait for others.
const BEGIN: Duration = Duration::from_secs(2);

/// How long systemd may take to read all unit files again.
const RELOAD: Duration = Duration::from_secs(20);

/// The properties that are asked for.
pub(super) const PROPERTIES: [&str; 13] = [
    "LoadState",
    "ActiveState",
    JOB,
    "FragmentPath",
    "TriggeredBy",
    STOP_WITH_IT[0],
    STOP_WITH_IT[1],
    STOP_WITH_IT[2],
    STOP_WITH_IT[3],
    STARTS[0],
    STARTS[1],
    STARTS[2],
    STARTS[3],
];

/// The property that numbers the job that waits or runs for a unit; 0 is none.
const JOB: &str = "Job";

/// The properties that name units which stop with this one. Not every version has all of them.
const STOP_WITH_IT: [&str; 4] = ["RequiredBy", "BoundBy", "ConsistsOf", "PropagatesStopTo"];

/// The properties that name units which start with this one.
const STARTS: [&str; 4] = ["Requires", "Wants", "BindsTo", "Upholds"];

pub(super) fn unit_status(
    bus: &Bus,
    unit: &UnitFileName,
    deadline: Deadline,
) -> Result<UnitStatus, HostError> {
    let properties = within(deadline, get_all(bus, unit))
        .map_err(|error| HostError::call("GetAll", unit.as_str(), error))?;
    let text = |name: &str| -> String {
        let value = properties.get(name).cloned();
        let text = value.and_then(|value| match name {
            JOB => <(u32, OwnedObjectPath)>::try_from(value).ok().map(|(number, _)| number.to_string()),
            _ => String::try_from(value).ok(),
        });
        text.unwrap_or_default()
    };
    let list = |name: &str| -> Vec<String> {
        properties.get(name).and_then(|value| Vec::try_from(value.clone()).ok()).unwrap_or_default()
    };
    Ok(status_of(text, list))
}

/// What the properties say; [`PROPERTIES`] names them.
pub(super) fn status_of(text: impl Fn(&str) -> String, list: impl Fn(&str) -> Vec<String>) -> UnitStatus {
    UnitStatus {
        presence: match text("LoadState").as_str() {
            "loaded" => UnitPresence::Loaded,
            "masked" => UnitPresence::Masked,
            _ => UnitPresence::Absent,
        },
        state: match (UnitState::from_active_state(&text("ActiveState")), text(JOB).as_str()) {
            (state, "" | "0") => state,
            // At boot a unit waits for others: what is down and has a job is about to start.
            (UnitState::Down | UnitState::Failed, _) => UnitState::Starting,
            (state, _) => state,
        },
        fragment: text("FragmentPath"),
        relations: UnitRelations {
            stop_with_it: STOP_WITH_IT.into_iter().flat_map(&list).collect(),
            triggered_by: list("TriggeredBy"),
            starts: STARTS.into_iter().flat_map(&list).collect(),
        },
    }
}

pub(super) fn stop_unit(bus: &Bus, unit: &UnitFileName, deadline: Deadline) -> Result<(), HostError> {
    failpoint::reached("setting");
    within(deadline, call(bus, "StopUnit", &(unit.as_str(), "replace")))
        .map_err(|error| HostError::call("StopUnit", unit.as_str(), error))?;
    loop {
        let state = active_state(bus, unit, deadline)?;
        if matches!(state.as_str(), "inactive" | "failed") {
            failpoint::reached("setting");
            return Ok(());
        }
        if deadline.has_passed() {
            return Err(HostError::late_call("StopUnit", unit.as_str(), format!("it is still {state}")));
        }
        deadline.pause(LOOK);
    }
}

pub(super) fn start_unit(bus: &Bus, unit: &UnitFileName, deadline: Deadline) -> Result<(), HostError> {
    failpoint::reached("setting");
    // It was started and stopped by others than us perhaps, and often. Fails where nothing is to be reset.
    let reset = within(deadline, call(bus, "ResetFailedUnit", &unit.as_str()));
    if let Err(error) = reset.as_ref()
        && is_timeout(error)
    {
        return Err(HostError::call("ResetFailedUnit", unit.as_str(), error));
    }
    within(deadline, call(bus, "StartUnit", &(unit.as_str(), "replace"))).map_err(|error| {
        match is_no_such_unit(&error) {
            true => HostError::gone(format!("the host has no unit {unit} any more")),
            false => HostError::call("StartUnit", unit.as_str(), error),
        }
    })?;
    let begin = Deadline::after(BEGIN).earlier(deadline);
    while active_state(bus, unit, deadline)? == "inactive" && !begin.has_passed() {
        begin.pause(LOOK);
    }
    failpoint::reached("setting");
    Ok(())
}

/// A transient unit is gone once it has stopped, and any other with its package.
fn is_no_such_unit(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(name, ..) if name.as_str() == NO_SUCH_UNIT)
}

/// Its `StateChangeTimestamp`, which systemd has in microseconds.
pub(super) fn state_changed_at(
    bus: &Bus,
    unit: &UnitFileName,
    deadline: Deadline,
) -> Result<Option<i64>, HostError> {
    let get = async {
        let reply = call_unit(bus, unit, "Get", &(UNIT, "StateChangeTimestamp")).await?;
        let value: OwnedVariant = reply.body().deserialize()?;
        u64::try_from(value)
    };
    let micros = within(deadline, get)
        .map_err(|error| HostError::call("Get StateChangeTimestamp", unit.as_str(), error))?;
    Ok(i64::try_from(micros / 1_000_000).ok().filter(|seconds| *seconds > 0))
}

/// Its `ActiveState`: `active`, `activating`, `failed` …
pub(super) fn active_state(bus: &Bus, unit: &UnitFileName, deadline: Deadline) -> Result<String, HostError> {
    // The last look may come when the time is just over.
    let deadline = deadline.later(Deadline::after(Duration::from_millis(200)));
    let get = async {
        let reply = call_unit(bus, unit, "Get", &(UNIT, "ActiveState")).await?;
        let value: OwnedVariant = reply.body().deserialize()?;
        String::try_from(value)
    };
    within(deadline, get).map_err(|error| HostError::call("Get ActiveState", unit.as_str(), error))
}

/// On a connection of its own, since systemd answers only when all generators have run and all files are read: on a
/// large or busy host that takes seconds.
pub(super) fn reload(deadline: Deadline) -> Result<(), HostError> {
    let reload = async {
        connect().await?.call_method(Some(SYSTEMD), MANAGER_PATH, Some(MANAGER), "Reload", &()).await
    };
    within_patience(RELOAD, deadline, reload)
        .map(drop)
        .map_err(|error| HostError::call("Reload", "the unit files", error))
}

async fn get_all(bus: &Bus, unit: &UnitFileName) -> zbus::Result<HashMap<String, OwnedVariant>> {
    call_unit(bus, unit, "GetAll", &UNIT).await?.body().deserialize()
}

async fn call_unit(
    bus: &Bus,
    unit: &UnitFileName,
    method: &str,
    body: &(impl serde::Serialize + zbus::DynamicType),
) -> zbus::Result<Message> {
    let path = object_path(unit.as_str());
    let properties = Object { service: SYSTEMD, path: &path, interface: "org.freedesktop.DBus.Properties" };
    bus.call(properties, method, body).await
}

async fn call(
    bus: &Bus,
    method: &str,
    body: &(impl serde::Serialize + zbus::DynamicType),
) -> zbus::Result<Message> {
    let systemd = Object { service: SYSTEMD, path: MANAGER_PATH, interface: MANAGER };
    bus.call(systemd, method, body).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_its_turn_is_on_its_way_up() {
        let state = |active: &str, job: &str| {
            let text = |name: &str| if name == JOB { job.to_owned() } else { active.to_owned() };
            status_of(text, |_| Vec::new()).state
        };
        for (active, job, expected) in [
            ("inactive", "", UnitState::Down),
            ("inactive", "0", UnitState::Down),
            ("inactive", "71", UnitState::Starting),
            ("failed", "71", UnitState::Starting),
            ("activating", "71", UnitState::Starting),
            ("active", "71", UnitState::Up),
        ] {
            assert_eq!(state(active, job), expected, "{active}, {job}");
        }
    }
}
