//! How single values are written in the file.
//!
//! YAML makes 15 of `0x0f`, `0o17` and `+15`, and the tree has the number only. Where the difference matters the text is
//! read a second time, with every value taken as a text.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::tree::Node;

/// Texts, by entries and elements counted from 0, the outermost first.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) values: BTreeMap<Vec<usize>, String>,
    pub(super) keys: BTreeMap<Vec<usize>, String>,
}

/// The text of every number and boolean of the tree, and of every key that is a number, which was read from this text.
pub(super) fn scalars(text: &str, root: &Node) -> Written {
    let mut written = Written::default();
    if let Some(document) = serde_yaml::Deserializer::from_str(text).next() {
        let seed = Seed { node: root, path: &mut Vec::new(), written: &mut written };
        // The tree was read from the same text; what it might not say here, is not judged.
        let _ = seed.deserialize(document);
    }
    written
}

struct Seed<'a> {
    node: &'a Node,
    path: &'a mut Vec<usize>,
    written: &'a mut Written,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.node {
            Node::Bool(_) | Node::Integer(_) | Node::Float(_) => deserializer.deserialize_str(self),
            Node::List(_) => deserializer.deserialize_seq(self),
            Node::Map(_) => deserializer.deserialize_map(self),
            Node::Null | Node::Text(_) | Node::Tagged => {
                deserializer.deserialize_ignored_any(IgnoredAny).map(drop)
            }
        }
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what was read before")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.written.values.insert(self.path.clone(), text.to_owned());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Node::List(nodes) = self.node else { return Err(A::Error::custom("a list")) };
        for (index, node) in nodes.iter().enumerate() {
            self.path.push(index);
            let read = list.next_element_seed(Seed { node, path: self.path, written: self.written });
            self.path.pop();
            read?;
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        for (index, entry) in self.node.entries().iter().enumerate() {
            self.path.push(index);
            if let Node::Integer(_) = entry.key {
                let text: Option<String> = map.next_key()?;
                self.written.keys.extend(text.map(|text| (self.path.clone(), text)));
            } else {
                map.next_key::<IgnoredAny>()?;
            }
            let seed = Seed { node: &entry.value, path: self.path, written: self.written };
            let read = map.next_value_seed(seed);
            self.path.pop();
            read?;
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;

    #[test]
    fn each_number_is_found_as_it_was_written() {
        let text = "a: [&n 0x0f, +1, {b: 0o17, c: x}, *n, 5]\nd: True\ne: 1.50\n0x10: {12: x}\n";
        let written = scalars(text, &tree::parse(text).unwrap());
        let keys: Vec<(&[usize], &str)> =
            written.keys.iter().map(|(path, text)| (path.as_slice(), text.as_str())).collect();
        assert_eq!(keys, [(&[3][..], "0x10"), (&[3, 0], "12")]);
        let found: Vec<(&[usize], &str)> =
            written.values.iter().map(|(path, text)| (path.as_slice(), text.as_str())).collect();
        assert_eq!(
            found,
            [
                (&[0, 0][..], "0x0f"),
                (&[0, 1], "+1"),
                (&[0, 2, 0], "0o17"),
                (&[0, 3], "0x0f"),
                (&[0, 4], "5"),
                (&[1], "True"),
                (&[2], "1.50"),
            ]
        );
    }
}
