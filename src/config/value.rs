//! Reads single values of the tree; what is wrong with one is a [`Fault`], and reading goes on.

use std::str::FromStr;
use std::time::Duration;

use super::duration::{ParseDurationError, parse_duration};
use super::suggest::did_you_mean;
use super::tree::{Node, is_quoted, shortened};
use crate::pages::{MemorySize, ParseSizeError};
use crate::pci::{PciAddress, PciSlot};
use crate::user_name::UserName;

/// Whether something is done: `true` or `false` in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Toggle {
    /// It is done.
    On,
    /// It is left alone.
    Off,
}

impl Toggle {
    /// Whether it is done.
    #[must_use]
    pub fn is_on(self) -> bool {
        self == Self::On
    }
}

/// What is wrong with a value, and how to fix it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: Some(help.into()) }
    }

    /// The value is of another kind than the one expected.
    pub(crate) fn expected(what: &str, found: &Node) -> Self {
        Self { message: format!("expected {what}, found {}", found.describe()), help: None }
    }

    /// The value is right but for the quotes around it.
    pub(crate) fn quoted(what: &str, found: &Node) -> Self {
        let help = match found {
            Node::Text(text) => format!("write it without quotes: `{}`", text.to_lowercase()),
            _ => "write it without quotes".to_owned(),
        };
        let found = match found {
            Node::Text(text) => format!("`\"{}\"`, a text", shortened(text)),
            other => other.describe(),
        };
        Self::new(format!("expected {what}, found {found}"), help)
    }

    /// The value is of another kind, and this is how it should look.
    pub(crate) fn expected_like(what: &str, found: &Node, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..Self::expected(what, found) }
    }
}

/// Reads `true` or `false`.
pub(super) fn toggle(node: &Node) -> Result<Toggle, Fault> {
    const WHAT: &str = "`true` or `false`";
    match node {
        Node::Bool(true) => Ok(Toggle::On),
        Node::Bool(false) => Ok(Toggle::Off),
        Node::Text(text) => Err(match text.to_lowercase().as_str() {
            "yes" | "on" | "y" => Fault::expected_like(WHAT, node, "write `true`"),
            "no" | "off" | "n" => Fault::expected_like(WHAT, node, "write `false`"),
            "true" | "false" if is_quoted(text) => Fault::quoted(WHAT, node),
            "1" => Fault::expected_like(WHAT, node, "write `true`"),
            "0" => Fault::expected_like(WHAT, node, "write `false`"),
            word => match did_you_mean(word, &["true", "false"]) {
                Some(meant) => Fault::expected_like(WHAT, node, format!("did you mean `{meant}`?")),
                None => Fault::expected(WHAT, node),
            },
        }),
        Node::Integer(digits) if digits == "1" => Err(Fault::expected_like(WHAT, node, "write `true`")),
        Node::Integer(digits) if digits == "0" => Err(Fault::expected_like(WHAT, node, "write `false`")),
        other => Err(Fault::expected(WHAT, other)),
    }
}

/// Reads one of several words.
pub(super) fn choice<T: Copy>(node: &Node, choices: &[(&str, T)]) -> Result<T, Fault> {
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let expected = any_of(&names);
    let Node::Text(text) = node else { return Err(Fault::expected(&expected, node)) };
    if let Some((_, value)) = choices.iter().find(|(name, _)| name == text) {
        return Ok(*value);
    }
    Err(match did_you_mean(text, &names) {
        Some(meant) => Fault::expected_like(&expected, node, format!("did you mean `{meant}`?")),
        None => Fault::expected(&expected, node),
    })
}

/// Reads a duration with a unit; `example` is one that fits here.
pub(super) fn duration(node: &Node, example: &str) -> Result<Duration, Fault> {
    let text = match node {
        Node::Text(text) => text,
        Node::Integer(digits) => return Err(without_unit(digits, example)),
        other => return Err(Fault::expected_like("a duration", other, format!("for example `{example}`"))),
    };
    parse_duration(text).map_err(|error| match error {
        ParseDurationError::NoUnit(digits) => without_unit(&digits, example),
        ParseDurationError::UnknownUnit { unit, .. } => Fault::new(
            format!("`{}` is no unit of time", shortened(&unit)),
            format!("the units are us, ms, s and min: for example `{example}`"),
        ),
        ParseDurationError::NotANumber(_) | ParseDurationError::TooLong(_) => Fault::expected_like(
            "a duration",
            node,
            format!("a whole number with a unit: for example `{example}`"),
        ),
    })
}

/// Reads an amount of memory with a unit; `example` is one that fits here.
pub(super) fn memory(node: &Node, example: &str) -> Result<MemorySize, Fault> {
    let text = match node {
        Node::Text(text) => text,
        Node::Integer(digits) => return Err(without_unit(digits, example)),
        other => {
            return Err(Fault::expected_like(
                "an amount of memory",
                other,
                format!("for example `{example}`"),
            ));
        }
    };
    text.parse().map_err(|error| match error {
        ParseSizeError::Unit(_) => Fault::new(
            format!("`{}` has no unit of memory", shortened(text)),
            format!("the units are B, KiB, MiB, GiB and TiB: for example `{example}`"),
        ),
        ParseSizeError::Number(_) | ParseSizeError::TooLarge(_) => Fault::expected_like(
            "an amount of memory",
            node,
            format!("a whole number with a unit: for example `{example}`"),
        ),
    })
}

/// Reads a user's name.
pub(super) fn user(node: &Node) -> Result<UserName, Fault> {
    let Node::Text(name) = node else { return Err(Fault::expected("a user's name", node)) };
    UserName::new(name).map_err(|_| {
        let help = "a name has letters, digits, `_`, `-` and `.`, starts with a letter or `_`, and has at \
                    most 32 of them";
        Fault::expected_like("a user's name", node, help)
    })
}

/// The PCI function that was probably meant: as `lspci` shows it or as libvirt names its devices, or the first one of a
/// card.
pub(super) fn meant_address(text: &str) -> Option<PciAddress> {
    let text = shortened(text.trim());
    let text = match text.strip_prefix("pci_") {
        // pci_0000_03_00_0
        Some(parts) => match parts.split('_').collect::<Vec<_>>()[..] {
            [domain, bus, slot, function] => format!("{domain}:{bus}:{slot}.{function}"),
            _ => return None,
        },
        None => text,
    };
    let spellings = [text.clone(), format!("0000:{text}")];
    let address = spellings.iter().find_map(|text| PciAddress::from_str(text).ok());
    let card = || spellings.iter().find_map(|text| text.parse::<PciSlot>().ok()?.functions().next());
    address.or_else(card)
}

/// `a`, `b` or `c`.
pub(super) fn any_of(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

fn without_unit(digits: &str, example: &str) -> Fault {
    Fault::new(format!("{} has no unit", shortened(digits)), format!("add a unit: for example `{example}`"))
}

/// Reads a name that the writer of a file gave to something.
pub(crate) fn given_name<T: FromStr>(node: &Node, what: &str) -> Result<T, Fault> {
    const HELP: &str = "letters, digits, `-` and `_`, a letter first, at most 32 of them";
    match node {
        Node::Text(text) => text.parse().map_err(|_| Fault::expected_like(what, node, HELP)),
        other => Err(Fault::expected_like(what, other, HELP)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_wrong_with_a_value() {
        let text = |text: &str| Node::Text(text.to_owned());
        let faults = [
            toggle(&text("yes")).unwrap_err(),
            toggle(&text("ture")).unwrap_err(),
            toggle(&Node::Integer("1".to_owned())).unwrap_err(),
            toggle(&text("true")).unwrap_err(),
            choice(&text("Refuse"), &[("refuse", 1), ("warn", 2)]).unwrap_err(),
            choice(&Node::Null, &[("refuse", 1), ("warn", 2), ("allow", 3)]).unwrap_err(),
            duration(&Node::Integer("20".to_owned()), "20s").unwrap_err(),
            duration(&text("20 parsec"), "20s").unwrap_err(),
            duration(&text("soon"), "20s").unwrap_err(),
            memory(&text("2GB"), "2GiB").unwrap_err(),
            memory(&Node::Integer("2048".to_owned()), "2GiB").unwrap_err(),
            memory(&Node::List(Vec::new()), "2GiB").unwrap_err(),
        ];
        let lines: Vec<String> = faults
            .into_iter()
            .map(|fault| format!("{} ({})", fault.message, fault.help.unwrap_or_default()))
            .collect();
        assert_eq!(
            lines,
            [
                "expected `true` or `false`, found `yes` (write `true`)",
                "expected `true` or `false`, found `ture` (did you mean `true`?)",
                "expected `true` or `false`, found the number 1 (write `true`)",
                "expected `true` or `false`, found `\"true\"`, a text (write it without quotes: `true`)",
                "expected `refuse` or `warn`, found `Refuse` (did you mean `refuse`?)",
                "expected `refuse`, `warn` or `allow`, found nothing ()",
                "20 has no unit (add a unit: for example `20s`)",
                "`parsec` is no unit of time (the units are us, ms, s and min: for example `20s`)",
                "expected a duration, found `soon` (a whole number with a unit: for example `20s`)",
                "`2GB` has no unit of memory (the units are B, KiB, MiB, GiB and TiB: for example `2GiB`)",
                "2048 has no unit (add a unit: for example `2GiB`)",
                "expected an amount of memory, found a list (for example `2GiB`)",
            ]
        );
    }
}
