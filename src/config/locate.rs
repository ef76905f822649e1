//! Finds where in a text a value stands.
//!
//! The parser gives a position only with an error, so this walks the text again and fails on purpose at the place
//! in question.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Which half of an entry is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Key,
    Value,
    /// A number, if decimal digits stand there: YAML gives only what a number is, not how it was written.
    DecimalValue,
}

/// How many bytes stand before the start of a key or value; `path` counts entries and elements from 0, so that
/// the second of two equal keys can be told from the first.
pub(super) fn offset_of(text: &str, path: &[usize], part: Part) -> Option<usize> {
    let document = serde_yaml::Deserializer::from_str(text).next()?;
    Seed { path, part }.deserialize(document).err()?.location().map(|location| location.index())
}

/// Where a document's first value starts.
pub(super) fn offset_of_root(document: serde_yaml::Deserializer<'_>) -> Option<usize> {
    let found = Seed { path: &[], part: Part::Value }.deserialize(document);
    found.err()?.location().map(|location| location.index())
}

#[derive(Clone, Copy)]
struct Seed<'p> {
    path: &'p [usize],
    part: Part,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.path {
            [] => deserializer.deserialize_any(Here),
            [index, rest @ ..] => deserializer
                .deserialize_any(Through { index: *index, rest: Seed { path: rest, part: self.part } }),
        }
    }
}

/// Accepts nothing: every visit is an error, and the parser adds the position to it.
struct Here;

impl Visitor<'_> for Here {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("to fail here")
    }
}

/// Skips the entries before the one that the path leads through.
struct Through<'p> {
    index: usize,
    rest: Seed<'p>,
}

impl<'de> Visitor<'de> for Through<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or keys and values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        for _ in 0..self.index {
            list.next_element::<IgnoredAny>()?;
        }
        list.next_element_seed(self.rest)?;
        Err(A::Error::custom("no such element"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        for _ in 0..self.index {
            map.next_entry::<IgnoredAny, IgnoredAny>()?;
        }
        if self.rest.path.is_empty() && self.rest.part == Part::Key {
            map.next_key_seed(self.rest)?;
        } else if map.next_key::<IgnoredAny>()?.is_some() {
            map.next_value_seed(self.rest)?;
        }
        Err(A::Error::custom("no such entry"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_keys_and_values() {
        let text = "# ä\na:\n  b: 1\n  b: [x, {c: \"ö\", d: y}]\n";
        for (path, part, expected) in [
            (&[0][..], Part::Key, "a:"),
            (&[0], Part::Value, "b: 1"),
            (&[0, 0], Part::Value, "1"),
            (&[0, 1], Part::Key, "b: ["),
            (&[0, 1], Part::Value, "[x"),
            (&[0, 1, 1, 1], Part::Key, "d: y"),
            (&[0, 1, 1, 1], Part::Value, "y}"),
        ] {
            let offset = offset_of(text, path, part).unwrap();
            let rest = &text[offset..];
            assert!(rest.starts_with(expected), "{path:?} {part:?}: {rest:?}");
        }
    }

    #[test]
    fn counts_lines_with_any_ending() {
        let text = "a: 1\r\nb: 2\r\n";
        assert_eq!(offset_of(text, &[1], Part::Value), Some(9));
    }
}
