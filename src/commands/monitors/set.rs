//! Switching a monitor by hand.

use serde::Serialize;

use super::{PATIENCE, choose, deviation_of, input, named, switch};
use crate::commands::output::{self, Format};
use crate::commands::user_error::{UserError, UserResult};
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::host::Host;
use crate::ledger::{Ledger, Note};
use crate::monitor::{
    Deviation, InputName, ParseVcpError, VcpFeature, VcpValue, hexadecimal_input, standard_inputs,
};
use crate::printable::printable;

/// What was done.
#[derive(Debug, Serialize)]
pub(super) struct Switched {
    monitor: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<VcpValue>,
    value: VcpValue,
    /// What guests have to do with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<Note>,
    #[serde(skip)]
    deviation: Deviation,
}

pub(super) fn run(host: &mut Host, monitor: &str, input: &str, format: Format) -> UserResult<Exit> {
    let switched = carry_out(host, monitor, input, Deadline::after(PATIENCE))?;
    match format {
        Format::Json => output::json(&switched),
        Format::Text => {
            output::line(line(&switched));
            output::notes(&switched.notes);
        }
    }
    Ok(Exit::Done)
}

pub(super) fn line(switched: &Switched) -> String {
    let Switched { monitor, before, value, deviation, .. } = switched;
    let before = before.map_or("?".to_owned(), |before| named(deviation, before));
    format!("{monitor}: {before} -> {}", named(deviation, *value))
}

pub(super) fn carry_out(
    host: &mut Host,
    monitor: &str,
    wanted: &str,
    deadline: Deadline,
) -> UserResult<Switched> {
    // Before anything is said to a monitor.
    if let Some(input) = hexadecimal_input(wanted) {
        return Err(UserError::new(input.problem(wanted)).with_help(input.help()));
    }
    let found = host.monitors(deadline)?;
    let monitor = choose::one(host, &found, Some(monitor))?;
    let deviation = deviation_of(host, monitor)?;
    let value = value(&deviation, wanted)?;
    let before = input(host, monitor, &deviation, deadline);
    // What it does not tell may still be set.
    let before = before.ok();
    let feature = switch(monitor, &deviation);
    let notes = Ledger::set_monitor_by_hand(host, &feature, value, deadline)?;
    Ok(Switched { monitor: monitor.key.to_string(), before, value, notes, deviation })
}

fn value(deviation: &Deviation, wanted: &str) -> UserResult<VcpValue> {
    if wanted.starts_with(|first: char| first.is_ascii_digit()) {
        return wanted.parse().map_err(|error: ParseVcpError| UserError::new(error.to_string()));
    }
    let named = wanted.to_lowercase().parse::<InputName>().ok().and_then(|name| deviation.value_of(&name));
    named.ok_or_else(|| {
        let (wanted, names) = (printable(wanted), names(deviation).join(", "));
        UserError::new(format!("no input is called `{wanted}`"))
            .with_help(format!("one of {names}, or a number such as 0x11"))
    })
}

fn names(deviation: &Deviation) -> Vec<String> {
    let is_standard = deviation.control.feature == VcpFeature::INPUT_SOURCE;
    let own: Vec<String> = deviation.inputs.keys().map(ToString::to_string).collect();
    let standard = standard_inputs().filter(|_| is_standard).map(|(name, _)| name.to_owned());
    let is_known = |name: &String| !deviation.not_known.iter().any(|other| other.as_str() == name);
    let others: Vec<String> = standard.filter(is_known).filter(|name| !own.contains(name)).collect();
    [own, others].concat()
}
