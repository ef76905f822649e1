//! Reads numbers and inputs of monitors.

use std::str::FromStr;

use super::item::Item;
use super::suggest::did_you_mean;
use super::tree::{Node, shortened};
use super::value::Fault;
use crate::monitor::{InputName, ParseVcpError, VcpValue, hexadecimal_input, standard_inputs};

/// The word for the input that was active before.
pub(super) const PREVIOUS: &str = "previous";

/// Words that people and makers have for a kind of input, and the one that is used here.
const OTHER_WORDS: [(&str, &str); 8] = [
    ("displayport", "dp"),
    ("display-port", "dp"),
    ("minidp", "dp"),
    ("mini-dp", "dp"),
    ("usbc", "usb-c"),
    ("type-c", "usb-c"),
    ("typec", "usb-c"),
    ("d-sub", "vga"),
];

/// One input of a monitor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InputChoice {
    /// By its name.
    Named(InputName),
    /// By the value that the monitor has for it.
    Raw(VcpValue),
}

/// Reads a number, which YAML may have made decimal or left as a text.
pub(super) fn number<T: FromStr<Err = ParseVcpError>>(node: &Node, what: &str) -> Result<T, Fault> {
    match node {
        Node::Integer(digits) | Node::Text(digits) => match digits.parse() {
            Ok(number) => Ok(number),
            Err(_) if digits.len() > 60 => Err(Fault::expected(what, node)),
            Err(error) if matches!(node, Node::Integer(_)) => {
                Err(Fault { message: error.to_string(), help: None })
            }
            Err(_) => Err(Fault::expected_like(what, node, "for example `0x11` or `17`")),
        },
        other => Err(Fault::expected_like(what, other, "for example `0x11` or `17`")),
    }
}

/// Notes a decimal number that would be another input in hexadecimal. It has to be looked up in the file, since YAML
/// gives 0x0c and 12 as the same number, and the first is right.
pub(super) fn refuse_decimal_input(item: Item<'_>) {
    if let Node::Integer(digits) = item.node()
        && let Some(fault) = bare_input(digits)
    {
        item.refuse_in_decimal(fault);
    }
}

fn bare_input(bare: &str) -> Option<Fault> {
    hexadecimal_input(bare).map(|input| Fault::new(input.problem(bare), input.help()))
}

/// Reads the value of an input.
pub(super) fn input_value(node: &Node) -> Result<VcpValue, Fault> {
    if let Node::Text(text) = node {
        bare_input(text).map_or(Ok(()), Err)?;
    }
    number(node, "a value from 0 to 0xffff")
}

/// Whether a text is meant as a number: the names of inputs begin with a letter.
fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

/// Reads an input: its name or its value. Whether a monitor has it, its deviation tells.
pub(super) fn input(node: &Node) -> Result<InputChoice, Fault> {
    const WHAT: &str = "an input's name or value";
    let text = match node {
        Node::Text(text) if is_number(text) => {
            bare_input(text).map_or(Ok(()), Err)?;
            return number(node, WHAT).map(InputChoice::Raw);
        }
        Node::Text(text) => text,
        Node::Integer(_) => return number(node, WHAT).map(InputChoice::Raw),
        other => return Err(Fault::expected_like(WHAT, other, "for example `hdmi-1`, or `0x11`")),
    };
    if text == PREVIOUS {
        return Err(Fault::expected_like(WHAT, node, "`previous` is for `host` alone"));
    }
    input_name(node).map(InputChoice::Named)
}

/// Reads the name of an input.
pub(super) fn input_name(node: &Node) -> Result<InputName, Fault> {
    const WHAT: &str = "an input's name";
    let Node::Text(text) = node else {
        return Err(Fault::expected_like(WHAT, node, "for example `hdmi-1`"));
    };
    if text == PREVIOUS {
        return Err(Fault::new(
            "`previous` is no name: it stands for the input that was active",
            "take another",
        ));
    }
    let standard: Vec<&str> = standard_inputs().map(|(name, _)| name).collect();
    text.parse().map_err(|_| {
        let help = match meant_input(text, &standard) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "lower-case letters, digits and `-`: for example `hdmi-1`".to_owned(),
        };
        Fault::expected_like(WHAT, node, help)
    })
}

/// The input that was probably meant, in another of the words that there are for it.
pub(super) fn meant_input<'n>(text: &str, names: &[&'n str]) -> Option<&'n str> {
    let word = shortened(text).trim().to_lowercase().replace(['_', ' '], "-");
    let in_our_words = OTHER_WORDS
        .iter()
        .find_map(|(other, ours)| word.strip_prefix(other).map(|number| format!("{ours}{number}")));
    let word = in_our_words.unwrap_or(word);
    let kind = word.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = &word[kind.len()..];
    let kind = kind.trim_end_matches('-');
    // Without a number the first one is meant; `usb-c` has none.
    let spellings = [word.clone(), format!("{kind}-{number}"), format!("{kind}-1"), kind.to_owned()];
    let is_whole = |spelling: &String| number.is_empty() || number == "1" || spelling.ends_with(number);
    let exact = spellings
        .iter()
        .filter(|spelling| is_whole(spelling))
        .find_map(|spelling| names.iter().find(|name| *name == spelling).copied());
    // Of an input with another number nobody knows whether it was meant.
    exact.or_else(|| did_you_mean(&word, names).filter(|meant| meant.ends_with(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_words_that_makers_have() {
        let names: Vec<&str> = standard_inputs().map(|(name, _)| name).collect();
        for (word, meant) in [
            ("hdmi1", Some("hdmi-1")),
            ("HDMI-2", Some("hdmi-2")),
            ("HDMI 1", Some("hdmi-1")),
            ("hdmi", Some("hdmi-1")),
            ("hmdi-1", Some("hdmi-1")),
            ("displayport-1", Some("dp-1")),
            ("DisplayPort", Some("dp-1")),
            ("DisplayPort2", Some("dp-2")),
            ("dp", Some("dp-1")),
            ("DP1", Some("dp-1")),
            ("usb_c", Some("usb-c")),
            ("usb-c-1", Some("usb-c")),
            ("Type-C", Some("usb-c")),
            ("dvi", Some("dvi-1")),
            ("hdmi-3", None),
            ("scart", None),
            ("", None),
        ] {
            assert_eq!(meant_input(word, &names), meant, "{word:?}");
        }
    }
}
