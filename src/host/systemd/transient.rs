//! A service that is made at run time and gone with its process: no unit file, no `daemon-reload`.

use std::time::Duration;

use zbus::Variant;

use super::bus::{Bus, Object, within};
use super::{MANAGER, MANAGER_PATH, SYSTEMD, unit_calls};
use crate::deadline::Deadline;
use crate::host::{HostError, IDENTIFIER};
use crate::unit_file_name::UnitFileName;

/// How long systemd waits after its SIGTERM before it kills what is left of the service: a keeper has asked it to end
/// before.
const STOP: Duration = Duration::from_secs(1);

/// The pause before a service that was killed is started again.
const RESTART: Duration = Duration::from_millis(500);

/// The unit that gives back what no running guest holds, and starts keepers that were lost.
const RECOVERY: &str = "vfio-hook-recover.service";

/// A service to be made.
#[derive(Debug)]
pub(in crate::host) struct TransientService<'a> {
    pub(in crate::host) name: &'a str,
    pub(in crate::host) description: &'a str,
    pub(in crate::host) program: &'a str,
    /// Its arguments, its name among them.
    pub(in crate::host) arguments: &'a [&'a str],
    pub(in crate::host) purpose: ServicePurpose,
}

/// What a service is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) enum ServicePurpose {
    /// It looks after a guest: started again if it is killed, and at a shutdown of the host it outlives the daemons
    /// that stop the guests.
    Keep,
    /// It does something once: never started again, and at a shutdown of the host it ends before the daemons do.
    DoOnce,
}

/// Why a service was not made.
#[derive(Debug)]
pub(in crate::host) enum StartFailure {
    /// An earlier one of this name is not quite gone.
    NameTaken,
    /// Any other reason, in words.
    Other(String),
}

impl TransientService<'_> {
    /// `StartTransientUnit`. systemd makes the process some time after this returns.
    pub(in crate::host) fn start(&self, bus: &Bus, deadline: Deadline) -> Result<(), StartFailure> {
        let command = vec![(self.program, self.arguments.to_vec(), false)];
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let daemons = vec!["libvirtd.service", "virtqemud.service", "libvirt-guests.service"];
        // At a shutdown the order is the other way round. systemd takes each death for a failure, also where it starts
        // the service again. A host without the unit for that gets a line in systemd's log, and nothing else.
        let (restart, order, on_failure) = match self.purpose {
            ServicePurpose::Keep => ("on-failure", "Before", vec![RECOVERY]),
            ServicePurpose::DoOnce => ("no", "After", vec![]),
        };
        let properties = [
            ("Description", Variant::from(self.description)),
            ("Type", Variant::from("exec")),
            ("ExecStart", Variant::from(command)),
            ("CollectMode", Variant::from("inactive-or-failed")),
            ("Restart", Variant::from(restart)),
            ("RestartUSec", Variant::from(micros(RESTART))),
            ("TimeoutStopUSec", Variant::from(micros(STOP))),
            ("StandardInput", Variant::from("null")),
            ("StandardOutput", Variant::from("null")),
            ("StandardError", Variant::from("journal")),
            ("SyslogIdentifier", Variant::from(IDENTIFIER)),
            (order, Variant::from(daemons)),
            ("OnFailure", Variant::from(on_failure)),
        ];
        let no_others: [(&str, Vec<(&str, Variant<'_>)>); 0] = [];
        let object = Object { service: SYSTEMD, path: MANAGER_PATH, interface: MANAGER };
        let body = (self.name, "fail", &properties[..], &no_others[..]);
        within(deadline, bus.call(object, "StartTransientUnit", &body)).map(|_| ()).map_err(|error| {
            match &error {
                zbus::Error::MethodError(name, ..)
                    if name.as_str() == "org.freedesktop.systemd1.UnitExists" =>
                {
                    StartFailure::NameTaken
                }
                error => StartFailure::Other(error.to_string()),
            }
        })
    }
}

/// Starts a service again that systemd has given up, as it was made. One that is not in that state stays as it is.
///
/// systemd keeps it for as long as the unit for its failure is at work, and until then takes no new one of the name.
pub(in crate::host) fn restart_given_up(
    bus: &Bus,
    name: &UnitFileName,
    deadline: Deadline,
) -> Result<(), HostError> {
    if unit_calls::active_state(bus, name, deadline)? != "failed" {
        return Ok(());
    }
    // Its starts are counted anew from then on.
    let systemd = Object { service: SYSTEMD, path: MANAGER_PATH, interface: MANAGER };
    within(deadline, bus.call(systemd, "ResetFailedUnit", &name.as_str()))
        .map_err(|error| HostError::call("ResetFailedUnit", name.as_str(), error))?;
    within(deadline, bus.call(systemd, "StartUnit", &(name.as_str(), "replace")))
        .map(drop)
        .map_err(|error| HostError::call("StartUnit", name.as_str(), error))
}

/// `StopUnit` for a service that does not answer; does not wait for its end.
pub(in crate::host) fn stop_service(bus: &Bus, name: &str, deadline: Deadline) -> Result<(), HostError> {
    let systemd = Object { service: SYSTEMD, path: MANAGER_PATH, interface: MANAGER };
    within(deadline, bus.call(systemd, "StopUnit", &(name, "replace")))
        .map(drop)
        .map_err(|error| HostError::call("StopUnit", name, error))
}
