//! What the sections `requires` and `conflicts` have in common: conditions of a start, each with words of the user's own.

use super::item::Item;
use super::section::Section;
use super::tree::Node;
use super::value::Fault;
use crate::key_path::KeyPath;

/// The longest message: the first line of a refusal shall fit where people read it.
const MOST_CHARACTERS: usize = 200;

/// One condition of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition<T> {
    /// Where in the file.
    pub at: KeyPath,
    /// What has to be, or must not be.
    pub what: T,
    /// The user's own words for a start that is refused; never empty.
    pub message: Option<String>,
}

impl<T: PartialEq> Condition<T> {
    /// Reads a list of them, or one. An element is keys and values, or a text that says all.
    pub(super) fn read_all(
        item: Item<'_>,
        without: &str,
        example: &str,
        read_text: impl Fn(&Node) -> Result<T, Fault>,
        read_keys: impl Fn(&mut Section<'_>) -> Option<T>,
    ) -> Vec<Self> {
        let section = KeyPath::from(&[][..]).key(item.name().to_owned());
        let is_list = matches!(item.node(), Node::List(_));
        let mut count = 0;
        let mut all: Vec<Self> = Vec::new();
        let twice = || Fault::new("this one stands here for the second time", "keep one of the two");
        item.elements(without, |element| {
            let at = if is_list { section.element(count) } else { section.clone() };
            count += 1;
            if !matches!(element.node(), Node::Map(_)) {
                let what = element.value(|node| {
                    let what = read_text(node)?;
                    if all.iter().any(|other| other.what == what) { Err(twice()) } else { Ok(what) }
                })?;
                all.push(Self { at, what, message: None });
                return Some(());
            }
            let mut keys = element.section(example)?;
            let what = read_keys(&mut keys);
            let message = keys.value("message", message);
            if what.as_ref().is_some_and(|what| all.iter().any(|other| other.what == *what)) {
                keys.refuse_whole(twice());
            }
            keys.finish();
            all.push(Self { at, what: what?, message });
            Some(())
        });
        all
    }
}

impl<T> Condition<T> {
    /// What a refusal says: the user's words first, then the reason.
    #[must_use]
    pub fn refusal(&self, reason: &str) -> String {
        match &self.message {
            Some(message) => format!("{}: {reason}", message.trim_end_matches(['.', ':', ' '])),
            None => reason.to_owned(),
        }
    }
}

fn message(node: &Node) -> Result<String, Fault> {
    const EXAMPLE: &str = "one line, for example `message: \"start the NAS first\"`";
    let Node::Text(text) = node else { return Err(Fault::expected_like("a message", node, EXAMPLE)) };
    let text = text.trim();
    if text.is_empty() || text.contains(char::is_control) {
        return Err(Fault::expected_like("a message of one line", node, EXAMPLE));
    }
    if text.chars().count() > MOST_CHARACTERS {
        return Err(Fault::new(format!("longer than {MOST_CHARACTERS} characters"), "write a shorter one"));
    }
    Ok(text.to_owned())
}
