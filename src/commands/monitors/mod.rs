//! `vfio-hook monitors`: those that are there, and their inputs.

mod choose;
mod learn;
mod list;
mod set;
#[cfg(test)]
mod tests;

use std::time::Duration;

use nix::unistd::Uid;
use serde::Serialize;

use super::output::{self, Format};
use crate::cli::MonitorsCommand;
use crate::commands::user_error::UserResult;
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::host::{Host, HostError, I2cDev, MonitorFound};
use crate::lifecycle;
use crate::monitor::{Deviation, MonitorFeature, VcpValue};

/// A monitor that does not answer takes half a second, one that answers badly two; all are asked at once.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(command: Option<MonitorsCommand>, format: Format) -> UserResult<Exit> {
    let mut host = Host::real();
    load_i2c_dev(&mut host);
    match command {
        None => list::run(&host, format),
        Some(MonitorsCommand::Get { monitor }) => get(&host, monitor.as_deref(), format),
        Some(MonitorsCommand::Set { monitor, input }) => set::run(&mut host, &monitor, &input, format),
        Some(MonitorsCommand::Learn { monitor }) => learn::run(&host, monitor.as_deref(), format),
    }
}

/// Root may load it, and wants to see monitors.
fn load_i2c_dev(host: &mut Host) {
    if !Uid::effective().is_root() || host.i2c_dev() != I2cDev::Absent {
        return;
    }
    match host.load_i2c_dev(Deadline::after(PATIENCE)) {
        Ok(()) => output::aside("note: loaded the kernel module i2c-dev"),
        Err(error) => output::aside(format_args!("warning: {error}")),
    }
}

/// A monitor's input, as JSON.
#[derive(Debug, Serialize)]
struct InputView {
    monitor: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<String>,
    value: VcpValue,
}

fn get(host: &Host, monitor: Option<&str>, format: Format) -> UserResult<Exit> {
    let deadline = Deadline::after(PATIENCE);
    let found = host.monitors(deadline)?;
    let monitor = choose::one(host, &found, monitor)?;
    let deviation = deviation_of(host, monitor)?;
    let value = input(host, monitor, &deviation, deadline)?;
    match format {
        Format::Json => output::json(&InputView {
            monitor: monitor.key.to_string(),
            input: deviation.name_of(value),
            value,
        }),
        Format::Text => output::line(named(&deviation, value)),
    }
    Ok(Exit::Done)
}

/// How a monitor differs from the standard, as far as the host's file or the built-in table tell.
fn deviation_of(host: &Host, monitor: &MonitorFound) -> UserResult<Deviation> {
    let config = lifecycle::load_host_config(host)?;
    let known = config.deviation_for(&monitor.key.identity, &monitor.key.place);
    Ok(known.map(|known| known.deviation.clone()).unwrap_or_default())
}

/// Which input a monitor shows.
fn input(
    host: &Host,
    monitor: &MonitorFound,
    deviation: &Deviation,
    deadline: Deadline,
) -> Result<VcpValue, HostError> {
    host.vcp_features(&[switch(monitor, deviation)], deadline).remove(0)
}

/// The feature that switches a monitor's inputs.
fn switch(monitor: &MonitorFound, deviation: &Deviation) -> MonitorFeature {
    MonitorFeature { monitor: monitor.key.clone(), control: deviation.control }
}

/// `dp-1 (0x0f)`, or only the value.
fn named(deviation: &Deviation, value: VcpValue) -> String {
    match deviation.name_of(value) {
        Some(name) => format!("{name} ({value})"),
        None => value.to_string(),
    }
}
