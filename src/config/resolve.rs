//! What a guest's file leaves to the host's: names of monitors, of deviations and of inputs.

use std::collections::BTreeSet;

use super::diagnostic::{ConfigErrors, Diagnostic};
use super::host::HostConfig;
use super::monitor::EXAMPLE;
use super::source::ConfigSource;
use super::suggest::did_you_mean;
use super::switch_input::{HostInput, MonitorChoice, MonitorSwitch, SwitchInput};
use super::value::any_of;
use super::vcp::{InputChoice, meant_input};
use crate::key_path::KeyPath;
use crate::monitor::{
    Deviation, DeviationName, InputName, MonitorName, MonitorSelector, NamedDeviation, Reading, VcpValue,
    standard_inputs,
};

/// What is wrong with a value of a guest's file in the light of the host's, or of the monitor itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// Where it stands.
    pub path: KeyPath,
    /// What is wrong.
    pub message: String,
    /// How to fix it.
    pub help: String,
}

/// One element of `switch_input`, its names looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvedSwitch<'a> {
    /// What the guest's file says.
    pub switch: &'a MonitorSwitch,
    /// Its number in the list, from 0.
    pub number: usize,
    /// What the monitor is recognised by.
    pub selector: &'a MonitorSelector,
    /// The deviation that the file names; none leaves it to [`HostConfig::deviation_for`].
    pub deviation: Option<&'a NamedDeviation>,
}

/// The values of a monitor's inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputValues {
    /// For the guest; none if inputs are not switched.
    pub guest: Option<VcpValue>,
    /// After the guest; none for the one that was active before.
    pub host: Option<VcpValue>,
}

impl SwitchInput {
    /// Looks up every name in the host's file.
    ///
    /// # Errors
    /// All names that are unknown; a monitor that is selected twice.
    pub fn resolve<'a>(&'a self, host: &'a HostConfig) -> Result<Vec<ResolvedSwitch<'a>>, Vec<Unresolved>> {
        let mut resolved: Vec<ResolvedSwitch<'a>> = Vec::new();
        let mut unresolved = Vec::new();
        for (number, switch) in self.monitors.iter().enumerate() {
            let at = |key: &'static str| path(number, key);
            let deviation = switch.deviation.as_ref().map(|name| {
                host.deviation_named(name).ok_or_else(|| unknown_deviation(name, host, at("deviation")))
            });
            let deviation = deviation.transpose().map_err(|error| unresolved.push(error)).ok();
            let selector = match &switch.monitor {
                MonitorChoice::Selector(selector) => Some(selector),
                MonitorChoice::Named(name) => {
                    let selector = host.monitors.get(name);
                    if selector.is_none() {
                        unresolved.push(unknown_monitor(name, host, at("monitor")));
                    }
                    selector
                }
            };
            if let Some(deviation) = deviation {
                unresolved.extend(unknown_inputs(switch, number, deviation, host));
            }
            let (Some(selector), Some(deviation)) = (selector, deviation) else { continue };
            if let Some(first) = resolved.iter().find(|other| other.selector.is_same(selector)) {
                unresolved.push(Unresolved {
                    path: at("monitor"),
                    message: format!("this is the monitor of entry {} too: {selector}", first.number + 1),
                    help: "keep one of the two".to_owned(),
                });
            }
            resolved.push(ResolvedSwitch { switch, number, selector, deviation });
        }
        if unresolved.is_empty() { Ok(resolved) } else { Err(unresolved) }
    }
}

impl ResolvedSwitch<'_> {
    /// The way to one of its keys, for what only the monitor can tell.
    #[must_use]
    pub fn path(&self, key: &'static str) -> KeyPath {
        path(self.number, key)
    }

    /// The values of the inputs for a monitor that has this deviation.
    ///
    /// # Errors
    /// It does not have them, or cannot tell which one was active; a feature is set that switches its inputs.
    pub fn input_values(&self, deviation: &Deviation) -> Result<InputValues, Vec<Unresolved>> {
        input_values(self.switch, self.number, deviation)
    }
}

impl ConfigSource {
    /// What is wrong with the monitors of a guest's file in the light of the host's.
    #[must_use]
    pub fn check_against(&self, switches: &SwitchInput, host: &HostConfig) -> Option<ConfigErrors> {
        let unresolved = switches.resolve(host).err()?;
        let diagnose =
            |each: Unresolved| -> Diagnostic { self.diagnose(each.path, each.message, Some(each.help)) };
        let mut diagnostics: Vec<Diagnostic> = unresolved.into_iter().map(diagnose).collect();
        diagnostics.sort_by_key(|diagnostic| diagnostic.place);
        ConfigErrors::new(diagnostics, 0)
    }
}

fn path(number: usize, key: &'static str) -> KeyPath {
    KeyPath::from(&["switch_input"]).element(number).key(key)
}

/// What no monitor can have: with a deviation that is named, that one has to fit; else one of those that there are.
fn unknown_inputs(
    switch: &MonitorSwitch,
    number: usize,
    deviation: Option<&NamedDeviation>,
    host: &HostConfig,
) -> Vec<Unresolved> {
    if let Some(named) = deviation {
        return input_values(switch, number, &named.deviation).err().unwrap_or_default();
    }
    let standard = Deviation::default();
    let applied = host.deviations.iter().filter(|deviation| !deviation.monitors.is_empty());
    let possible: Vec<&Deviation> = applied.map(|each| &each.deviation).chain([&standard]).collect();
    let unknown = |(key, name): (&'static str, &InputName)| {
        let is_known = possible.iter().any(|deviation| deviation.value_of(name).is_some());
        (!is_known).then(|| {
            let unresolved = unknown_input(name, &possible, path(number, key));
            let having = host.deviations.iter().find(|each| each.deviation.inputs.contains_key(name));
            match having.map(|deviation| &deviation.name) {
                Some(other) => {
                    let help = format!("that of `{other}` is: add `deviation: {other}`");
                    Unresolved { help, ..unresolved }
                }
                None => unresolved,
            }
        })
    };
    named_inputs(switch).filter_map(unknown).collect()
}

/// The inputs that a file gives by their names, with their keys.
fn named_inputs(switch: &MonitorSwitch) -> impl Iterator<Item = (&'static str, &InputName)> {
    let guest = match &switch.guest {
        Some(InputChoice::Named(name)) => Some(("guest", name)),
        _ => None,
    };
    let host = match &switch.host {
        HostInput::Input(InputChoice::Named(name)) => Some(("host", name)),
        _ => None,
    };
    guest.into_iter().chain(host)
}

fn input_values(
    switch: &MonitorSwitch,
    number: usize,
    deviation: &Deviation,
) -> Result<InputValues, Vec<Unresolved>> {
    let mut unresolved = Vec::new();
    let mut value = |input: &InputChoice, key: &'static str| match input {
        InputChoice::Raw(value) => Some(*value),
        InputChoice::Named(name) => {
            let value = deviation.value_of(name);
            if value.is_none() {
                unresolved.push(unknown_input(name, &[deviation], path(number, key)));
            }
            value
        }
    };
    let guest = switch.guest.as_ref().and_then(|input| value(input, "guest"));
    let host = match &switch.host {
        HostInput::Previous => None,
        HostInput::Input(input) => value(input, "host"),
    };
    let control = &deviation.control;
    if guest.is_some() && host == guest {
        unresolved.push(Unresolved {
            path: path(number, "host"),
            message: "this is the guest's input".to_owned(),
            help: "name the host's, or `previous`".to_owned(),
        });
    }
    if guest.is_some() && switch.host == HostInput::Previous && control.reading == Reading::WriteOnly {
        unresolved.push(Unresolved {
            path: path(number, "host"),
            message: "this monitor does not tell which input was active".to_owned(),
            help: "name the host's input, for example `host: dp-1`".to_owned(),
        });
    }
    if guest.is_some() && switch.set.iter().any(|(feature, _)| *feature == control.feature) {
        unresolved.push(Unresolved {
            path: path(number, "set"),
            message: format!("{} is the input of this monitor", control.feature),
            help: "name it with `guest` and `host`".to_owned(),
        });
    }
    if unresolved.is_empty() { Ok(InputValues { guest, host }) } else { Err(unresolved) }
}

fn unknown_monitor(name: &MonitorName, host: &HostConfig, path: KeyPath) -> Unresolved {
    let names: Vec<&str> = host.monitors.keys().map(MonitorName::as_str).collect();
    let selected = format!("select it here: `monitor: {EXAMPLE}`");
    let help = match did_you_mean(name.as_str(), &names) {
        Some(meant) => format!("did you mean `{meant}`? named there: {}", any_of(&names)),
        None if is_connector(name) => format!("did you mean `monitor: {{connector: {name}}}`?"),
        None if names.is_empty() => format!("name it there, or {selected}"),
        None => format!("named there: {}; or {selected}", any_of(&names)),
    };
    Unresolved { path, message: format!("host.yaml names no monitor `{name}`"), help }
}

/// Whether a name looks like that of a connector: `DP-1`.
fn is_connector(name: &MonitorName) -> bool {
    let number = name.as_str().rsplit_once('-').map(|(_, number)| number);
    let is_number = |number: &str| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    number.is_some_and(is_number) && name.as_str().contains(|c: char| c.is_ascii_uppercase())
}

fn unknown_deviation(name: &DeviationName, host: &HostConfig, path: KeyPath) -> Unresolved {
    let names: Vec<&str> = host.deviations.iter().map(|deviation| deviation.name.as_str()).collect();
    let help = match did_you_mean(name.as_str(), &names) {
        Some(meant) => format!("did you mean `{meant}`? known: {}", any_of(&names)),
        None if names.is_empty() => "describe it in host.yaml, or remove the key".to_owned(),
        None => format!("known: {}; others are described in host.yaml", any_of(&names)),
    };
    Unresolved { path, message: format!("no deviation is called `{name}`"), help }
}

fn unknown_input(name: &InputName, deviations: &[&Deviation], path: KeyPath) -> Unresolved {
    if let [deviation] = deviations
        && deviation.not_known.contains(name)
    {
        return Unresolved {
            path,
            message: format!(
                "the value of `{name}` differs among these monitors, and is not known of this one"
            ),
            help: "write the monitor's own value: `vfio-hook monitors learn` shows it while you switch with \
                   its buttons"
                .to_owned(),
        };
    }
    let own = deviations.iter().flat_map(|deviation| deviation.inputs.keys());
    let standard = standard_inputs().map(|(name, _)| name);
    let has_standard =
        deviations.iter().any(|deviation| deviation.control.feature == Deviation::default().control.feature);
    let is_known = |name: &&str| {
        !deviations.iter().any(|deviation| deviation.not_known.iter().any(|other| other.as_str() == *name))
    };
    let standard = standard.filter(|_| has_standard).filter(is_known);
    let names: BTreeSet<&str> = own.map(InputName::as_str).chain(standard).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let help = match meant_input(name.as_str(), &names) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if names.is_empty() => "give the input's value, for example `0x90`".to_owned(),
        None => format!("known: {}; or the input's value, for example `0x11`", any_of(&names)),
    };
    Unresolved { path, message: format!("no input is called `{name}`"), help }
}
