//! Stopping and starting the system's units.

use std::collections::HashMap;
use std::time::Duration;

use zbus::{Message, OwnedVariant};

use super::bus::{Bus, Object, connect, is_timeout, within, within_patience};
use super::{MANAGER, MANAGER_PATH, SYSTEMD, object_path};
use crate::deadline::Deadline;
use crate::failpoint;
use crate::host::service::{UnitActivity, UnitPresence, UnitRelations, UnitStatus};
use crate::host::{HostError, UnitFileName};

const UNIT: &str = "org.freedesktop.systemd1.Unit";

/// How often a unit that stops or starts is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// How long a unit may take to begin to start: it may have to wait for others.
const BEGIN: Duration = Duration::from_secs(2);

/// How long systemd may take to read all unit files again.
const RELOAD: Duration = Duration::from_secs(20);

/// The properties that are asked for.
pub(super) const PROPERTIES: [&str; 8] = [
    "LoadState",
    "ActiveState",
    "FragmentPath",
    "TriggeredBy",
    STOP_WITH_IT[0],
    STOP_WITH_IT[1],
    STOP_WITH_IT[2],
    STOP_WITH_IT[3],
];

/// The properties that name units which stop with this one. Not every version has all of them.
const STOP_WITH_IT: [&str; 4] = ["RequiredBy", "BoundBy", "ConsistsOf", "PropagatesStopTo"];

pub(super) fn unit_status(
    bus: &Bus,
    unit: &UnitFileName,
    deadline: Deadline,
) -> Result<UnitStatus, HostError> {
    let properties = within(deadline, get_all(bus, unit))
        .map_err(|error| HostError::call("GetAll", unit.as_str(), error))?;
    let text = |name: &str| -> String {
        properties.get(name).and_then(|value| String::try_from(value.clone()).ok()).unwrap_or_default()
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
        activity: UnitActivity::from_active_state(&text("ActiveState")),
        fragment: text("FragmentPath"),
        relations: UnitRelations {
            stop_with_it: STOP_WITH_IT.into_iter().flat_map(&list).collect(),
            triggered_by: list("TriggeredBy"),
        },
    }
}

pub(super) fn stop_unit(bus: &Bus, unit: &UnitFileName, deadline: Deadline) -> Result<(), HostError> {
    failpoint::reached("knob");
    within(deadline, call(bus, "StopUnit", &(unit.as_str(), "replace")))
        .map_err(|error| HostError::call("StopUnit", unit.as_str(), error))?;
    loop {
        let state = active_state(bus, unit, deadline)?;
        if matches!(state.as_str(), "inactive" | "failed") {
            failpoint::reached("knob");
            return Ok(());
        }
        if deadline.has_passed() {
            let reason = format!("it is still {state}; `services.timeout` gives it more time");
            return Err(HostError::call("StopUnit", unit.as_str(), reason));
        }
        deadline.pause(LOOK);
    }
}

pub(super) fn start_unit(bus: &Bus, unit: &UnitFileName, deadline: Deadline) -> Result<(), HostError> {
    failpoint::reached("knob");
    // It was started and stopped by others than us perhaps, and often. Fails where nothing is to be reset.
    let reset = within(deadline, call(bus, "ResetFailedUnit", &unit.as_str()));
    if let Err(error) = reset.as_ref()
        && is_timeout(error)
    {
        return Err(HostError::call("ResetFailedUnit", unit.as_str(), error));
    }
    within(deadline, call(bus, "StartUnit", &(unit.as_str(), "replace")))
        .map_err(|error| HostError::call("StartUnit", unit.as_str(), error))?;
    let begin = Deadline::after(BEGIN).earlier(deadline);
    while active_state(bus, unit, deadline)? == "inactive" && !begin.has_passed() {
        begin.pause(LOOK);
    }
    failpoint::reached("knob");
    Ok(())
}

fn active_state(bus: &Bus, unit: &UnitFileName, deadline: Deadline) -> Result<String, HostError> {
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
