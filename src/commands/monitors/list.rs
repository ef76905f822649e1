//! All monitors, one a line.

use serde::Serialize;

use super::{PATIENCE, choose, deviation_of, named, switch};
use crate::commands::output::{self, Format};
use crate::commands::user_error::UserResult;
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::host::Host;
use crate::monitor::{ManufacturerId, VcpValue};
use crate::printable::printable;

const HEAD: [&str; 6] = ["CONNECTOR", "BUS", "MAKER", "MODEL", "SERIAL", "INPUT"];

#[derive(Debug, Serialize)]
pub(super) struct View {
    monitors: Vec<MonitorView>,
    problems: Vec<ProblemView>,
}

#[derive(Debug, Serialize)]
struct MonitorView {
    /// The adapter's name where the driver tells no connector.
    connector: String,
    bus: String,
    manufacturer: ManufacturerId,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<VcpValue>,
    /// The cell of the table.
    #[serde(skip)]
    shown_input: String,
}

#[derive(Debug, Serialize)]
struct ProblemView {
    problem: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'static str>,
}

pub(super) fn run(host: &Host, format: Format) -> UserResult<Exit> {
    let view = view(host, Deadline::after(PATIENCE))?;
    match format {
        Format::Json => output::json(&view),
        Format::Text => lines(&view).iter().for_each(output::line),
    }
    Ok(Exit::Done)
}

pub(super) fn view(host: &Host, deadline: Deadline) -> UserResult<View> {
    let found = host.monitors(deadline)?;
    let mut problems: Vec<ProblemView> = found
        .problems
        .iter()
        .map(|problem| ProblemView { problem: problem.to_string(), help: problem.help() })
        .collect();
    let deviations: Vec<_> =
        found.monitors.iter().map(|monitor| deviation_of(host, monitor)).collect::<Result<_, _>>()?;
    let features: Vec<_> = found
        .monitors
        .iter()
        .zip(&deviations)
        .map(|(monitor, deviation)| switch(monitor, deviation))
        .collect();
    let values = host.vcp_features(&features, deadline);
    let mut monitors = Vec::new();
    for ((monitor, deviation), value) in found.monitors.iter().zip(&deviations).zip(values) {
        let (identity, place) = (&monitor.key.identity, &monitor.key.place);
        let value = value.map_err(|error| {
            // What concerns all of them is said once.
            if found.problems.iter().all(|problem| problem.help() != error.help()) {
                problems.push(ProblemView { problem: error.to_string(), help: error.help() });
            }
        });
        monitors.push(MonitorView {
            connector: place.to_string(),
            bus: monitor.bus.to_string(),
            manufacturer: identity.manufacturer,
            model: identity.model.as_deref().map(|model| printable(model).into_owned()),
            serial: choose::serial(monitor),
            input: value.ok().and_then(|value| deviation.name_of(value)),
            value: value.ok(),
            shown_input: value.map_or("?".to_owned(), |value| named(deviation, value)),
        });
    }
    Ok(View { monitors, problems })
}

pub(super) fn lines(view: &View) -> Vec<String> {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let rows = view.monitors.iter().map(|monitor| {
        [
            monitor.connector.clone(),
            monitor.bus.clone(),
            monitor.manufacturer.to_string(),
            or_none(&monitor.model),
            or_none(&monitor.serial),
            monitor.shown_input.clone(),
        ]
    });
    let rows: Vec<[String; 6]> = std::iter::once(HEAD.map(str::to_owned)).chain(rows).collect();
    let mut lines =
        if view.monitors.is_empty() { vec!["no monitor was found".to_owned()] } else { table(&rows) };
    for ProblemView { problem, help } in &view.problems {
        lines.push(format!("warning: {problem}"));
        lines.extend(help.map(|help| format!("help: {help}")));
    }
    lines
}

fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let line = |row: &[String; COLUMNS]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}
