//! A single value in its place: the value of a key, or an element of a list.

use std::fmt;

use super::locate::Part;
use super::problem::{Judge, Problem};
use super::section::Section;
use super::tree::Node;
use super::value::Fault;

/// A value that knows where it stands, so that what is wrong with it is noted there.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    node: &'a Node,
    path: Vec<usize>,
    /// The key that it belongs to, as messages name it; elements have that of their list.
    name: String,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Item<'a> {
    pub(super) fn new(
        node: &'a Node,
        path: Vec<usize>,
        name: String,
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        Self { node, path, name, problems }
    }

    /// The value itself.
    pub(crate) fn node(&self) -> &'a Node {
        self.node
    }

    /// The key that it belongs to, as messages name it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Reads it. `None` if it is wrong, which is then noted.
    pub(crate) fn value<T>(self, read: impl FnOnce(&Node) -> Result<T, Fault>) -> Option<T> {
        read(self.node).map_err(|fault| self.refuse(fault)).ok()
    }

    /// Reads each element of a list; a value that is no list counts as its only element. What is wrong with an element
    /// is noted and the element left out, and an empty list is noted as having this effect: "does nothing".
    pub(crate) fn elements<T>(self, without: &str, mut read: impl FnMut(Item<'_>) -> Option<T>) -> Vec<T> {
        let Node::List(values) = self.node else { return read(self).into_iter().collect() };
        if values.is_empty() {
            let fault = Fault::new(format!("{without}: the list is empty"), "fill it, or remove the key");
            self.refuse(fault);
            return Vec::new();
        }
        let Self { path, name, problems, .. } = self;
        let element = |(index, value)| {
            let place = path.iter().copied().chain([index]).collect();
            read(Item::new(value, place, name.clone(), problems))
        };
        values.iter().enumerate().filter_map(element).collect()
    }

    /// Reads keys that the writer of the file chose, each with its value. What is wrong with one is noted and it is
    /// left out; keys written in different ways may be the same. No keys at all are noted as having this effect: "sets
    /// nothing". `example` is how it looks on one line.
    pub(crate) fn pairs<K: Clone + fmt::Display + PartialEq, V>(
        self,
        without: &str,
        example: &str,
        mut read_key: impl FnMut(&Node) -> Result<K, Fault>,
        mut read_value: impl FnMut(Item<'_>) -> Option<V>,
    ) -> Vec<(K, V)> {
        let Node::Map(entries) = self.node else {
            let help = format!("for example `{example}`");
            let fault = Fault::expected_like("keys and values", self.node, help);
            self.refuse(fault);
            return Vec::new();
        };
        if entries.is_empty() {
            let fault = Fault::new(without, format!("fill it, for example `{example}`, or remove the key"));
            self.refuse(fault);
            return Vec::new();
        }
        let Self { path, name, problems, .. } = self;
        let mut seen: Vec<(K, &Node)> = Vec::new();
        let mut pairs = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let place: Vec<usize> = path.iter().copied().chain([index]).collect();
            let mut note = |message: String, help: Option<String>| {
                problems.push(Problem::new(place.clone(), Part::Key, Fault { message, help }));
            };
            let key = match read_key(&entry.key) {
                Ok(key) => key,
                Err(fault) => {
                    note(format!("`{name}`: {}", fault.message), fault.help);
                    continue;
                }
            };
            let full_name = format!("{name}.{key}");
            if let Some((_, first)) = seen.iter().find(|(other, _)| *other == key) {
                // A key that is written in the same way was noted with all such keys of the file.
                if **first != entry.key || entry.name().is_none() {
                    let message = format!("`{full_name}` stands here for the second time");
                    note(message, Some("keep one of the two".to_owned()));
                }
                continue;
            }
            seen.push((key.clone(), &entry.key));
            if entry.value == Node::Null {
                let help = "write one after the colon, or remove the key".to_owned();
                note(format!("`{full_name}` has no value"), Some(help));
            } else if let Some(value) = read_value(Item::new(&entry.value, place, full_name, problems)) {
                pairs.push((key, value));
            }
        }
        pairs
    }

    /// Opens it as keys and values; `example` is how it looks on one line.
    pub(crate) fn section(self, example: &str) -> Option<Section<'a>> {
        if let Node::Map(entries) = self.node {
            return Some(Section::of_element(entries, self.path, self.name, self.problems));
        }
        let fault = Fault::expected_like("keys and values", self.node, format!("for example `{example}`"));
        self.refuse(fault);
        None
    }

    /// Has the value judged once more as it is written in the file: YAML has made a number of `0x0f` by now.
    pub(crate) fn judge_as_written(&mut self, judge: impl Fn(&str) -> Option<Fault> + 'static) {
        let judge = Judge::new(self.name.clone(), judge);
        self.problems.push(Problem::as_written(self.path.clone(), Part::Value, judge));
    }

    /// Has every key that is a number judged once more as it is written in the file.
    pub(crate) fn judge_keys_as_written(&mut self, judge: fn(&str) -> Option<Fault>) {
        for (index, entry) in self.node.entries().iter().enumerate() {
            if let Node::Integer(_) = entry.key {
                let path = self.path.iter().copied().chain([index]).collect();
                let judge = Judge::new(self.name.clone(), judge);
                self.problems.push(Problem::as_written(path, Part::Key, judge));
            }
        }
    }

    /// Notes what is wrong with it.
    pub(crate) fn refuse(self, fault: Fault) {
        self.note(Part::Value, fault);
    }

    /// Notes what is wrong with a number if it is written in decimal.
    pub(super) fn refuse_in_decimal(self, fault: Fault) {
        self.note(Part::DecimalValue, fault);
    }

    fn note(self, part: Part, fault: Fault) {
        let message = format!("`{}`: {}", self.name, fault.message);
        self.problems.push(Problem::new(self.path, part, Fault { message, ..fault }));
    }
}
