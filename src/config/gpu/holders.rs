//! The key `holders`: programs of the host that use the card when the guest is to have it.

use std::time::Duration;

use crate::config::item::Item;
use crate::config::section::Section;
use crate::config::services::{self, StoppedUnit};
use crate::config::tree::Node;
use crate::config::value::{Fault, duration};

/// Holders on one line.
const EXAMPLE: &str = "{wait: 15s, stop: [sunshine.service]}";

/// `prepare` has 60 s in all, and the drivers need some of them.
const LONGEST_WAIT: Duration = Duration::from_secs(45);

/// What happens to programs of the host that use the card: nothing is taken from under them, so a start is refused
/// while one is left. The default refuses at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    /// How long they may take to let go of it; zero waits for nobody.
    pub wait: Duration,
    /// Units that are stopped first, in the order of the file, and started again after the guest; none twice.
    pub stop: Vec<StoppedUnit>,
}

/// `stopped` are units that the section `services` stops already.
pub(super) fn read(item: Item<'_>, stopped: &[StoppedUnit]) -> Holders {
    match item.node() {
        Node::Map(_) => match item.section(EXAMPLE) {
            Some(section) => read_keys(section, stopped),
            None => Holders::default(),
        },
        Node::Text(text) if text == "refuse" => Holders::default(),
        node => {
            let fault = Fault::expected_like("`refuse` or keys and values", node, help_for(node));
            item.refuse(fault);
            Holders::default()
        }
    }
}

fn help_for(node: &Node) -> String {
    match node {
        Node::Text(text) if crate::config::did_you_mean(text, &["refuse"]).is_some() => {
            "did you mean `refuse`?".to_owned()
        }
        Node::List(_) => format!("units to stop are named like this: `{EXAMPLE}`"),
        _ => format!("for example `{EXAMPLE}`"),
    }
}

fn read_keys(mut section: Section<'_>, stopped: &[StoppedUnit]) -> Holders {
    if section.has_only(&[]) {
        let help = format!("add `wait` or `stop`: for example `{EXAMPLE}`; or write `holders: refuse`");
        section.refuse_as_empty(Fault::new("has no effect: nothing is waited for or stopped", help));
    }
    let wait = section.value("wait", read_wait).unwrap_or_default();
    let stop = section.item("stop").map_or_else(Vec::new, services::read_units);
    if let Some(twice) = stop.iter().find(|unit| stopped.contains(unit)) {
        let message = format!("`{}` has no effect here: `services.stop` names it too", twice.unit);
        section.refuse("stop", Fault::new(message, "keep one of the two"));
    }
    if let Some(manager) = stop.iter().find(|unit| unit.is_display_manager()) {
        let message = format!("`{}` has a key of its own", manager.unit);
        section.refuse("stop", Fault::new(message, "write `display_manager: stop`, and remove it here"));
    }
    section.finish();
    Holders { wait, stop }
}

fn read_wait(node: &Node) -> Result<Duration, Fault> {
    let wait = duration(node, "15s")?;
    if wait.is_zero() {
        return Err(Fault::new("a wait of zero has no effect", "remove it: without it nobody is waited for"));
    }
    if wait > LONGEST_WAIT {
        let help = "libvirt waits meanwhile, and `prepare` has 60 s in all";
        return Err(Fault::new("longer than 45s", help));
    }
    Ok(wait)
}
