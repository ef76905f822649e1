//! A service that is made at run time and gone with its process: no unit file, no `daemon-reload`.

use std::time::Duration;

use zbus::Variant;

use super::bus::{Bus, Object, within};
use super::{MANAGER, MANAGER_PATH, SYSTEMD};
use crate::deadline::Deadline;
use crate::host::HostError;

/// How long systemd waits after its SIGTERM before it kills what is left of the service: a keeper has asked it to end
/// before.
const STOP: Duration = Duration::from_secs(1);

/// The pause before a service that was killed is started again.
const RESTART: Duration = Duration::from_millis(500);

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
        // At a shutdown the order is the other way round.
        let (restart, order) = match self.purpose {
            ServicePurpose::Keep => ("on-failure", "Before"),
            ServicePurpose::DoOnce => ("no", "After"),
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
            ("SyslogIdentifier", Variant::from(crate::log::IDENTIFIER)),
            (order, Variant::from(daemons)),
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

/// `StopUnit` for a service that does not answer; does not wait for its end.
pub(in crate::host) fn stop_service(bus: &Bus, name: &str, deadline: Deadline) -> Result<(), HostError> {
    let systemd = Object { service: SYSTEMD, path: MANAGER_PATH, interface: MANAGER };
    within(deadline, bus.call(systemd, "StopUnit", &(name, "replace")))
        .map(drop)
        .map_err(|error| HostError::call("StopUnit", name, error))
}
