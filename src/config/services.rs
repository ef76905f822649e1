//! The section `services`: units of the host that do not run while the guest does.

use std::collections::BTreeSet;
use std::time::Duration;

use super::item::Item;
use super::section::Section;
use super::suggest::did_you_mean;
use super::timeout::Timeout;
use super::tree::{Node, shortened};
use super::value::{Fault, user};
use crate::host::{UnitFileName, UnitFileNameError, UserName};

const TIMEOUT: Timeout = Timeout::during_prepare(Duration::from_secs(20));

/// Units that are stopped, and started again when the guest is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// The units, in the order of the file; never none, and none twice.
    pub stop: Vec<StoppedUnit>,
    /// How long they may take to stop, all together.
    pub timeout: Duration,
}

/// One unit that is stopped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoppedUnit {
    /// The unit.
    pub unit: UnitFileName,
    /// Whose it is; none for the system's.
    pub user: Option<UserName>,
}

impl Services {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let missing = Fault::new(
            "`services` has no effect: it names nothing to stop",
            "add units, for example `stop: [ollama.service]`, or remove the section",
        );
        let config = Self {
            stop: section.required("stop", missing).map_or_else(Vec::new, read_units),
            timeout: section.value("timeout", |node| TIMEOUT.read(node)).unwrap_or(TIMEOUT.default),
        };
        section.finish();
        config
    }
}

/// Reads the units of a key `stop`: one, or a list; never none, and none twice.
pub(super) fn read_units(item: Item<'_>) -> Vec<StoppedUnit> {
    let mut seen = BTreeSet::new();
    let name = item.name().to_owned();
    item.elements("stops nothing", |element| {
        let mut note_twice = |stopped: &StoppedUnit| {
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
    })
}

fn read_unit(node: &Node) -> Result<UnitFileName, Fault> {
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
    let misspelt = name.rsplit_once('.').and_then(|(stem, kind)| {
        did_you_mean(kind, UnitFileName::TYPES).map(|meant| format!("{stem}.{meant}"))
    });
    let meant = misspelt.unwrap_or_else(|| format!("{}.service", name.trim_end_matches('.')));
    match UnitFileName::new(&meant) {
        Ok(meant) => format!("did you mean `{}`?", shortened(meant.as_str())),
        Err(_) => "for example `ollama.service`".to_owned(),
    }
}
