//! Reads which monitor is meant.

use super::item::Item;
use super::tree::{Node, shortened};
use super::value::{Fault, given_name};
use super::word_list::WordList;
use crate::monitor::{ConnectorName, DeviationName, ManufacturerId, MonitorName, MonitorSelector};

/// How a monitor is selected, on one line.
pub(super) const EXAMPLE: &str = "{model: \"LG ULTRAGEAR\"}";

/// More than any monitor says of itself.
const MAX_LETTERS: usize = 60;

/// The kernel's names of connectors without their number (`drm_connector_enum_list`).
const CONNECTORS: WordList = WordList(
    "Unknown VGA DVI-I DVI-D DVI-A Composite SVIDEO LVDS Component DIN DP HDMI-A HDMI-B TV \
    eDP Virtual DSI DPI Writeback USB",
);

/// Reads what is known of a monitor; whatever is given has to fit. None if there is nothing, which is noted.
pub(super) fn selector(item: Item<'_>) -> Option<MonitorSelector> {
    let mut section = item.section(EXAMPLE)?;
    if section.has_only(&[]) {
        let help = format!("give `manufacturer`, `model`, `serial` or `connector`: for example `{EXAMPLE}`");
        section.refuse_as_empty(Fault::new("nothing is said of the monitor", help));
    }
    let selector = MonitorSelector {
        manufacturer: section.value("manufacturer", manufacturer),
        model: section.value("model", |node| printed(node, "a model's name")),
        serial: section.value("serial", |node| printed(node, "a serial number")),
        connector: section.value("connector", connector),
    };
    section.finish();
    (selector != MonitorSelector::default()).then_some(selector)
}

/// Reads the name of a monitor.
pub(super) fn monitor_name(node: &Node) -> Result<MonitorName, Fault> {
    given_name(node, "a monitor's name")
}

/// Reads the name of a deviation.
pub(super) fn deviation_name(node: &Node) -> Result<DeviationName, Fault> {
    given_name(node, "a deviation's name")
}

/// Text that a monitor says of itself. YAML takes some of it for a number: one with zeros in front stays a text, one in
/// hexadecimal becomes decimal, as the number in an EDID is compared; what is no whole number needs quotes.
fn printed(node: &Node, what: &str) -> Result<String, Fault> {
    let text = match node {
        Node::Text(text) | Node::Integer(text) => text.trim(),
        other => return Err(Fault::expected_like(what, other, "put quotes around it")),
    };
    if text.is_empty() {
        return Err(Fault::expected_like(what, node, "`vfio-hook monitors` shows it"));
    }
    if text.chars().count() > MAX_LETTERS || text.contains(char::is_control) {
        let help = "`vfio-hook monitors` shows what the monitor says of itself, which is often shorter than what is \
                    printed on it";
        return Err(Fault::expected_like(what, node, help));
    }
    Ok(text.to_owned())
}

fn manufacturer(node: &Node) -> Result<ManufacturerId, Fault> {
    const WHAT: &str = "a manufacturer's three letters";
    const HELP: &str = "`vfio-hook monitors` shows them: for example `GSM` for LG";
    let Node::Text(text) = node else { return Err(Fault::expected_like(WHAT, node, HELP)) };
    text.parse().map_err(|_| match text.to_uppercase().parse::<ManufacturerId>() {
        Ok(meant) => Fault::expected_like(WHAT, node, format!("did you mean `{meant}`?")),
        Err(_) => Fault::expected_like(WHAT, node, HELP),
    })
}

fn connector(node: &Node) -> Result<ConnectorName, Fault> {
    const WHAT: &str = "a connector's name";
    const HELP: &str = "`ls /sys/class/drm` shows them behind the name of the card: for example `DP-1`";
    let Node::Text(text) = node else { return Err(Fault::expected_like(WHAT, node, HELP)) };
    if let Some(meant) = meant_connector(text) {
        return Err(Fault::expected_like(WHAT, node, format!("did you mean `{}`?", shortened(&meant))));
    }
    text.parse().map_err(|_| Fault::expected_like(WHAT, node, HELP))
}

/// The kernel's name for a connector that a file names in another way: with the card, as X does, in other case.
fn meant_connector(text: &str) -> Option<String> {
    let (_, name) = text
        .strip_prefix("card")
        .and_then(|rest| rest.split_once('-'))
        .filter(|(card, _)| card.bytes().all(|byte| byte.is_ascii_digit()))
        .unwrap_or(("", text));
    let (kind, number) = name.rsplit_once('-')?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let kind = match kind.to_ascii_lowercase().as_str() {
        "hdmi" => "HDMI-A",
        "displayport" => "DP",
        other => CONNECTORS.iter().find(|known| known.eq_ignore_ascii_case(other)).unwrap_or(kind),
    };
    let meant = format!("{kind}-{number}");
    (meant != text).then_some(meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_how_others_call_connectors() {
        for (text, meant) in [
            ("DP-1", None),
            ("HDMI-A-1", None),
            ("eDP-1", None),
            ("New-1", None),
            ("card0-DP-1", Some("DP-1")),
            ("card1-HDMI-A-2", Some("HDMI-A-2")),
            ("HDMI-1", Some("HDMI-A-1")),
            ("hdmi-a-1", Some("HDMI-A-1")),
            ("dp-3", Some("DP-3")),
            ("DisplayPort-0", Some("DP-0")),
            ("DP", None),
            ("", None),
        ] {
            assert_eq!(meant_connector(text).as_deref(), meant, "{text:?}");
        }
    }
}
