//! YAML as a tree that keeps every entry, duplicate keys included, so that all mistakes can be reported at once.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::syntax::{self, MAX_VALUES, SyntaxFault};

/// One value of the file.
#[derive(Debug, PartialEq)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    /// A whole number, in decimal digits.
    Integer(String),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// A value with a tag of its own (`!thing`), which means nothing here.
    Tagged,
}

/// A key and its value; keys may repeat and may be anything.
#[derive(Debug, PartialEq)]
pub(crate) struct Entry {
    pub(super) key: Node,
    pub(super) value: Node,
}

/// Reads a whole file.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxFault> {
    syntax::check(text)?;
    let mut documents = serde_yaml::Deserializer::from_str(text);
    let Some(first) = documents.next() else { return Ok(Node::Null) };
    let values = Cell::new(0);
    let root =
        NodeSeed(&values).deserialize(first).map_err(|error| syntax::fault(text, &error, values.get()))?;
    match documents.next() {
        None => Ok(root),
        Some(second) => Err(SyntaxFault {
            offset: super::locate::offset_of_root(second),
            message: "a second document starts here".to_owned(),
            help: Some("a file is one document: remove the `---` between the two".to_owned()),
        }),
    }
}

impl Node {
    /// What it is, for "expected …, found …".
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Integer(digits) => format!("the number {}", shortened(digits)),
            Self::Float(value) => format!("the number {value}"),
            Self::Text(text) => format!("`{}`", shortened(text)),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "keys and values".to_owned(),
            Self::Tagged => "a value with a tag".to_owned(),
        }
    }

    /// Its entries, if it has keys and values.
    pub(super) fn entries(&self) -> &[Entry] {
        match self {
            Self::Map(entries) => entries,
            _ => &[],
        }
    }
}

impl Entry {
    /// The key as written, if it is a text.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.key {
            Node::Text(name) => Some(name),
            _ => None,
        }
    }
}

/// Whether YAML would have read a text as a number, `true` or `false`, had there been no quotes around it.
pub(super) fn is_quoted(text: &str) -> bool {
    let is_number = || text.parse::<i64>().is_ok_and(|number| number.to_string() == text);
    matches!(text, "true" | "false" | "True" | "False" | "TRUE" | "FALSE") || is_number()
}

/// A text of the file for a message: never more than a line's worth of it.
pub(super) fn shortened(text: &str) -> String {
    const MAX: usize = 60;
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[derive(Clone, Copy)]
struct NodeSeed<'c>(&'c Cell<usize>);

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        self.0.set(self.0.get() + 1);
        deserializer.deserialize_any(self)
    }
}

impl NodeSeed<'_> {
    fn check<E: Error>(self) -> Result<(), E> {
        if self.0.get() > MAX_VALUES { Err(E::custom("too many values")) } else { Ok(()) }
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Integer(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Integer(value.to_string()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Integer(value.to_string()))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Node, E> {
        Ok(Node::Integer(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            self.check()?;
            values.push(value);
        }
        Ok(Node::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key_seed(self)? {
            let value = map.next_value_seed(self)?;
            self.check()?;
            entries.push(Entry { key, value });
        }
        Ok(Node::Map(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Node, A::Error> {
        let (_tag, content) = tagged.variant::<serde::de::IgnoredAny>()?;
        content.newtype_variant_seed(self)?;
        Ok(Node::Tagged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_every_entry_and_type() {
        let node = parse("a: 1\na: [true, ~, 1.5, 0x10, -3]\n1: !t x\n").unwrap();
        let text = |text: &str| Node::Text(text.to_owned());
        let integer = |digits: &str| Node::Integer(digits.to_owned());
        let list = vec![Node::Bool(true), Node::Null, Node::Float(1.5), integer("16"), integer("-3")];
        assert_eq!(
            node.entries(),
            [
                Entry { key: text("a"), value: integer("1") },
                Entry { key: text("a"), value: Node::List(list) },
                Entry { key: integer("1"), value: Node::Tagged },
            ]
        );
        assert_eq!(parse("").unwrap(), Node::Null);
        assert_eq!(parse("# nothing\n---\n").unwrap(), Node::Null);
    }

    #[test]
    fn bombs_are_refused_quickly() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let below = format!("*a{},", level - 1).repeat(10);
            bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        let wide = format!("a: &a [{}]\nb: [{}]\n", "x, ".repeat(100_000), "*a, ".repeat(100_000));
        for text in [
            bomb,
            wide,
            "a: &a [*a, *a]".to_owned(),
            "[".repeat(10_000),
            "- ".repeat(10_000),
            "&a *a".to_owned(),
        ] {
            assert!(parse(&text).is_err(), "{}", shortened(&text));
        }
    }
}
