//! Which monitor a person means.

use crate::commands::user_error::{UserError, UserResult};
use crate::host::{Host, MonitorFound, MonitorsFound};
use crate::lifecycle;
use crate::printable::printable;

/// The only monitor that fits, or the only one there is.
///
/// # Errors
/// None fits, or several do; what is there is said.
pub(super) fn one<'a>(
    host: &Host,
    found: &'a MonitorsFound,
    wanted: Option<&str>,
) -> UserResult<&'a MonitorFound> {
    let monitors = &found.monitors;
    let config = lifecycle::load_host_config(host)?;
    let named = wanted.and_then(|name| config.monitors.get(&name.parse().ok()?));
    let fitting: Vec<&MonitorFound> = match (wanted, named) {
        (None, _) => monitors.iter().collect(),
        (_, Some(selector)) => monitors
            .iter()
            .filter(|monitor| selector.fits(&monitor.key.identity, &monitor.key.place))
            .collect(),
        (Some(wanted), None) => {
            let exact: Vec<_> = monitors.iter().filter(|monitor| fits(monitor, wanted, str::eq)).collect();
            let begins = |name: &str, wanted: &str| name.starts_with(wanted);
            if exact.is_empty() {
                monitors.iter().filter(|monitor| fits(monitor, wanted, begins)).collect()
            } else {
                exact
            }
        }
    };
    let problem = match (&fitting[..], wanted) {
        ([monitor], _) => return Ok(monitor),
        ([], Some(wanted)) if !monitors.is_empty() => format!("no monitor fits `{}`", printable(wanted)),
        ([], _) => return Err(UserError::new(format!("no monitor was found{}", why(found)))),
        (several, Some(wanted)) => format!("{} monitors fit `{}`", several.len(), printable(wanted)),
        (several, None) => format!("there are {} monitors: say which", several.len()),
    };
    let shown = if fitting.is_empty() { monitors.iter().collect() } else { fitting };
    let shown: Vec<String> = shown.into_iter().map(description).collect();
    Err(UserError::new(problem).with_help(format!("there is {}", shown.join(", "))))
}

fn fits(monitor: &MonitorFound, wanted: &str, is_meant: fn(&str, &str) -> bool) -> bool {
    let wanted = wanted.trim().to_lowercase();
    names(monitor).iter().any(|name| is_meant(&name.to_lowercase(), &wanted))
}

/// All that a monitor can be called by.
fn names(monitor: &MonitorFound) -> Vec<String> {
    let (identity, place) = (&monitor.key.identity, &monitor.key.place);
    let number = (identity.serial_number != 0).then(|| identity.serial_number.to_string());
    let connector = place.connector.as_ref().map(ToString::to_string);
    [connector, identity.serial.clone(), number, identity.model.clone()].into_iter().flatten().collect()
}

fn description(monitor: &MonitorFound) -> String {
    match serial(monitor) {
        Some(serial) => format!("{} (serial {serial})", monitor.key),
        None => monitor.key.to_string(),
    }
}

/// The serial number as printed, else the other one.
pub(super) fn serial(monitor: &MonitorFound) -> Option<String> {
    let identity = &monitor.key.identity;
    let number = || (identity.serial_number != 0).then(|| identity.serial_number.to_string());
    identity.serial.as_deref().map(|serial| printable(serial).into_owned()).or_else(number)
}

/// The first thing that may hide monitors.
fn why(found: &MonitorsFound) -> String {
    let Some(problem) = found.problems.first() else { return String::new() };
    let help = problem.help().map(|help| format!("\nhelp: {help}")).unwrap_or_default();
    format!(": {problem}{help}")
}
