//! The section `services`: units of the host that do not run while the guest does, and those that only then do.

use std::collections::BTreeSet;
use std::time::Duration;

use super::item::Item;
use super::key::Key;
use super::section::Section;
use super::spared_units::{is_display_manager, why_never_started, why_spared};
use super::suggest::did_you_mean;
use super::timeout::Timeout;
use super::tree::{Node, shortened};
use super::value::{Fault, user};
use crate::unit_file_name::{UnitFileName, UnitFileNameError};
use crate::user_name::UserName;

const TIMEOUT: Timeout = Timeout::during_prepare(Duration::from_secs(20));

/// Units that are stopped, and started again when the guest is gone; and units for which it is the other way round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// The units that are stopped, in the order of the file; none twice.
    pub stop: Vec<StoppedUnit>,
    /// The units that are started, in the order of the file; none twice, and none of the others. Never none of both.
    pub start: Vec<StartedUnit>,
    /// How long they may take to stop and to start, all together.
    pub timeout: Duration,
}

impl Services {
    /// Its keys, for people.
    pub const KEYS: &'static [Key] = &[
        Key::new(
            "stop",
            "a unit such as `ollama.service`, or a list of units",
            "nothing",
            "stopped before the guest starts, and started again when it is gone",
        ),
        Key::new(
            "start",
            "a unit such as `evsieve@win11.service`, or a list of units",
            "nothing",
            "started before the guest starts, and stopped when the last guest that wants it is gone; one that \
                    ran before stays",
        ),
        Key::new(
            "timeout",
            "`1s` to `50s`",
            "`20s`",
            "how long all of them together may take to stop and to start",
        ),
    ];
}

/// One unit that is stopped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoppedUnit {
    /// The unit.
    pub unit: UnitFileName,
    /// Whose it is; none for the system's.
    pub user: Option<UserName>,
}

/// One unit that is started.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StartedUnit {
    /// The unit.
    pub unit: UnitFileName,
    /// Whose it is; none for the system's.
    pub user: Option<UserName>,
}

impl From<StoppedUnit> for StartedUnit {
    fn from(StoppedUnit { unit, user }: StoppedUnit) -> Self {
        Self { unit, user }
    }
}

impl StoppedUnit {
    /// Whether it is a display manager of the host's.
    pub(super) fn is_display_manager(&self) -> bool {
        self.user.is_none() && is_display_manager(self.unit.as_str())
    }
}

impl Services {
    pub(crate) fn read(mut section: Section<'_>) -> Self {
        if !section.has("stop") && !section.has("start") {
            section.refuse_as_empty(Fault::new(
                "has no effect: it names nothing to stop or to start",
                "add units, for example `stop: [ollama.service]`, or remove the section",
            ));
        }
        let stop = section.item("stop").map_or_else(Vec::new, read_units);
        let start: Vec<StartedUnit> = section
            .item("start")
            .map_or_else(Vec::new, |item| read_named(item, "starts nothing", &stop, read_started_unit));
        let timeout = section.value("timeout", |node| TIMEOUT.read(node)).unwrap_or(TIMEOUT.default);
        section.finish();
        Self { stop, start, timeout }
    }
}

/// Reads the units of a key `stop`: one, or a list; never none, and none twice.
pub(super) fn read_units(item: Item<'_>) -> Vec<StoppedUnit> {
    read_named(item, "stops nothing", &[], read_stopped_unit)
}

/// Reads units, none of which is among those of `services.stop`.
fn read_named<T: From<StoppedUnit>>(
    item: Item<'_>,
    without: &str,
    elsewhere: &[StoppedUnit],
    read_unit: fn(&Node) -> Result<UnitFileName, Fault>,
) -> Vec<T> {
    let mut seen = BTreeSet::new();
    let name = item.name().to_owned();
    let units = item.elements(without, |element| {
        let mut note_twice = |stopped: &StoppedUnit| {
            if elsewhere.contains(stopped) {
                let message = format!("`{}` stands in `services.stop` too", stopped.unit);
                return Err(Fault::new(message, "keep one of the two"));
            }
            if seen.insert(stopped.clone()) {
                return Ok(());
            }
            let message = format!("`{}` stands here for the second time", stopped.unit);
            Err(Fault::new(message, "keep one of the two"))
        };
        if !matches!(element.node(), Node::Map(_)) {
            return element.value(|node| {
                let stopped = StoppedUnit { unit: read_unit(node)?, user: None };
                note_twice(&stopped).map(|()| stopped)
            });
        }
        let mut section = element.section("{unit: pipewire.service, user: anna}")?;
        let missing =
            Fault::new(format!("`{name}.unit` is missing"), "name the unit: `unit: pipewire.service`");
        let unit = section.required("unit", missing).and_then(|item| item.value(read_unit));
        let user = section.value("user", user);
        let stopped = unit.map(|unit| StoppedUnit { unit, user });
        if let Some(Err(fault)) = stopped.as_ref().map(note_twice) {
            section.refuse("unit", fault);
        }
        section.finish();
        stopped
    });
    units.into_iter().map(T::from).collect()
}

/// Reads the name of a unit that is stopped: none that the host itself needs.
fn read_stopped_unit(node: &Node) -> Result<UnitFileName, Fault> {
    if let Node::Text(name) = node
        && let Some(reason) = why_spared(name)
    {
        let message = format!("`{}` cannot be stopped: {reason}", shortened(name));
        return Err(Fault::new(message, "take it out of the list"));
    }
    read_unit(node)
}

/// Reads the name of a unit that is started: none that ends the host.
fn read_started_unit(node: &Node) -> Result<UnitFileName, Fault> {
    let unit = read_unit(node)?;
    match why_never_started(unit.as_str()) {
        Some(reason) => {
            Err(Fault::new(format!("`{unit}` is not started: {reason}"), "take it out of the list"))
        }
        None => Ok(unit),
    }
}

/// Reads a unit's name.
pub(super) fn read_unit(node: &Node) -> Result<UnitFileName, Fault> {
    let Node::Text(name) = node else {
        return Err(Fault::expected_like("a unit's name", node, "for example `ollama.service`"));
    };
    UnitFileName::new(name).map_err(|error| {
        let help = match &error {
            UnitFileNameError::NoType(_) => with_type(name),
            UnitFileNameError::Character('*' | '?' | '[') => {
                "name each unit: patterns are not read".to_owned()
            }
            UnitFileNameError::Character(_) if name.contains('/') => {
                "name the unit, not its file: for example `ollama.service`".to_owned()
            }
            UnitFileNameError::UnsuitableType(_) => {
                format!("name units of the types {}", UnitFileName::TYPES.join(", "))
            }
            UnitFileNameError::Template(_) => "name an instance: for example `getty@tty1.service`".to_owned(),
            _ => "`systemctl list-units` shows the names: for example `ollama.service`".to_owned(),
        };
        Fault::new(error.to_string(), help)
    })
}

/// The name with the type that was probably meant.
fn with_type(name: &str) -> String {
    if let Some((stem, kind)) = name.rsplit_once('.')
        && let Some(meant) = UnitFileName::TYPES.iter().find(|known| known.eq_ignore_ascii_case(kind))
    {
        let lower = stem.to_lowercase();
        let or = if lower == stem { String::new() } else { format!(", or `{lower}.{meant}`") };
        return format!("a type has small letters: `{}.{meant}`{or}", shortened(stem));
    }
    let misspelt = name.rsplit_once('.').and_then(|(stem, kind)| {
        did_you_mean(kind, UnitFileName::TYPES).map(|meant| format!("{stem}.{meant}"))
    });
    let meant = misspelt.unwrap_or_else(|| format!("{}.service", name.trim_end_matches('.')));
    match UnitFileName::new(&meant) {
        Ok(meant) => format!("did you mean `{}`?", shortened(meant.as_str())),
        Err(_) => "for example `ollama.service`".to_owned(),
    }
}
