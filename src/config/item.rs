//! A single value in its place: the value of a key, or an element of a list.

use super::locate::Part;
use super::section::{Problem, Section};
use super::tree::Node;
use super::value::Fault;

/// A value that knows where it stands, so that what is wrong with it is noted there.
#[derive(Debug)]
pub(super) struct Item<'a> {
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
    pub(super) fn node(&self) -> &'a Node {
        self.node
    }

    /// Reads it. `None` if it is wrong, which is then noted.
    pub(super) fn value<T>(self, read: impl FnOnce(&Node) -> Result<T, Fault>) -> Option<T> {
        read(self.node).map_err(|fault| self.refuse(fault)).ok()
    }

    /// Reads each element of a list; a value that is no list counts as its only element. What is wrong with an element
    /// is noted and the element left out, and an empty list is noted as having this effect: "does nothing".
    pub(super) fn elements<T>(self, without: &str, mut read: impl FnMut(Item<'_>) -> Option<T>) -> Vec<T> {
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

    /// Opens it as keys and values; `example` is how it looks on one line.
    pub(super) fn section(self, example: &str) -> Option<Section<'a>> {
        if let Node::Map(entries) = self.node {
            return Some(Section::of_element(entries, self.path, self.name, self.problems));
        }
        let fault = Fault::expected_like("keys and values", self.node, format!("for example `{example}`"));
        self.refuse(fault);
        None
    }

    /// Notes what is wrong with it.
    pub(super) fn refuse(self, fault: Fault) {
        let message = format!("`{}`: {}", self.name, fault.message);
        self.problems.push(Problem { path: self.path, part: Part::Value, fault: Fault { message, ..fault } });
    }
}
