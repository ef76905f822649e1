//! Switching a monitor by hand.

use serde::Serialize;

use super::{PATIENCE, choose, deviation_of, input, named, switch};
use crate::commands::output::{self, Format};
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::host::Host;
use crate::monitor::{Deviation, InputName, VcpFeature, VcpValue, standard_inputs};
use crate::printable::printable;

/// What was done.
#[derive(Debug, Serialize)]
pub(super) struct Switched {
    monitor: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<VcpValue>,
    value: VcpValue,
    #[serde(skip)]
    deviation: Deviation,
}

pub(super) fn run(host: &mut Host, monitor: &str, input: &str, format: Format) -> anyhow::Result<Exit> {
    let switched = carry_out(host, monitor, input, Deadline::after(PATIENCE))?;
    match format {
        Format::Json => output::json(&switched),
        Format::Text => output::line(line(&switched)),
    }
    Ok(Exit::Done)
}

pub(super) fn line(switched: &Switched) -> String {
    let Switched { monitor, before, value, deviation } = switched;
    let before = before.map_or("?".to_owned(), |before| named(deviation, before));
    format!("{monitor}: {before} -> {}", named(deviation, *value))
}

pub(super) fn carry_out(
    host: &mut Host,
    monitor: &str,
    wanted: &str,
    deadline: Deadline,
) -> anyhow::Result<Switched> {
    let found = host.monitors(deadline)?;
    let monitor = choose::one(host, &found, Some(monitor))?;
    let deviation = deviation_of(host, monitor)?;
    let before = input(host, monitor, &deviation, deadline);
    let value = value(&deviation, wanted)?;
    // What it does not tell may still be set.
    let before = before.ok();
    host.set_vcp_features(&[(switch(monitor, &deviation), value)], deadline).remove(0)?;
    Ok(Switched { monitor: monitor.key.to_string(), before, value, deviation })
}

fn value(deviation: &Deviation, wanted: &str) -> anyhow::Result<VcpValue> {
    if wanted.starts_with(|first: char| first.is_ascii_digit()) {
        return Ok(wanted.parse()?);
    }
    let named = wanted.to_lowercase().parse::<InputName>().ok().and_then(|name| deviation.value_of(&name));
    named.ok_or_else(|| {
        let (wanted, names) = (printable(wanted), names(deviation).join(", "));
        anyhow::anyhow!("no input is called `{wanted}`\nhelp: one of {names}, or a number such as 0x11")
    })
}

fn names(deviation: &Deviation) -> Vec<String> {
    let is_standard = deviation.control.feature == VcpFeature::INPUT_SOURCE;
    let own: Vec<String> = deviation.inputs.keys().map(ToString::to_string).collect();
    let standard = standard_inputs().filter(|_| is_standard).map(|(name, _)| name.to_owned());
    let others: Vec<String> = standard.filter(|name| !own.contains(name)).collect();
    [own, others].concat()
}
