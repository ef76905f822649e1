//! Reads sections key by key. Nothing here stops at a mistake: it is noted with its place, and reading goes on.

use super::locate::Part;
use super::suggest::did_you_mean;
use super::tree::{Entry, Node, shortened};
use super::value::{Fault, any_of};

/// One mistake and the entry it is in.
#[derive(Debug)]
pub(super) struct Problem {
    /// Entries and elements counted from 0, the outermost first.
    pub(super) path: Vec<usize>,
    pub(super) part: Part,
    pub(super) fault: Fault,
}

/// A mapping whose keys are asked for one by one; [`finish`](Self::finish) reports the keys that nobody asked for.
#[derive(Debug)]
pub(super) struct Section<'a> {
    entries: &'a [Entry],
    path: Vec<usize>,
    /// The section's own name; none for the file itself.
    name: Option<&'static str>,
    known: Vec<&'static str>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Section<'a> {
    /// The file itself, whose keys are the sections.
    pub(super) fn of_file(root: &'a Node, problems: &'a mut Vec<Problem>) -> Self {
        Self { entries: root.entries(), path: Vec::new(), name: None, known: Vec::new(), problems }
    }

    /// Reads one value. `None` if the key is not there or its value is wrong, which is then noted.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node) -> Result<T, Fault>,
    ) -> Option<T> {
        let (index, node) = self.find(key)?;
        if *node == Node::Null {
            let fault = Fault::new(
                format!("`{}` has no value", self.full_name(key)),
                "write one after the colon, or remove the key",
            );
            self.note(index, Part::Key, fault);
            return None;
        }
        read(node).map_err(|fault| self.note_value(index, key, fault)).ok()
    }

    /// Opens a section inside this one; with nothing after its colon it is an empty one.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'_>> {
        let (index, node) = self.find(key)?;
        if !matches!(node, Node::Map(_) | Node::Null) {
            let help =
                format!("keys go on lines of their own below it; for the defaults write `{key}: {{}}`");
            self.note_value(index, key, Fault::expected_like("keys and values", node, help));
            return None;
        }
        let mut path = self.path.clone();
        path.push(index);
        let known = Vec::new();
        Some(Section { entries: node.entries(), path, name: Some(key), known, problems: self.problems })
    }

    /// Notes every key that was not asked for.
    pub(super) fn finish(mut self) {
        let (kind, place) = match self.name {
            Some(name) => ("key", format!(" in `{name}`")),
            None => ("section", String::new()),
        };
        for (index, entry) in self.entries.iter().enumerate() {
            let fault = match entry.name() {
                Some(name) if self.known.contains(&name) => continue,
                Some(name) => {
                    let known = any_of(&self.known);
                    let help = match did_you_mean(name, &self.known) {
                        Some(meant) => format!("did you mean `{meant}`? allowed here: {known}"),
                        None => format!("allowed here: {known}"),
                    };
                    Fault::new(format!("unknown {kind} `{}`{place}", shortened(name)), help)
                }
                None => Fault::expected(&format!("a {kind}'s name{place}"), &entry.key),
            };
            self.note(index, Part::Key, fault);
        }
    }

    fn find(&mut self, key: &'static str) -> Option<(usize, &'a Node)> {
        self.known.push(key);
        let entries = self.entries;
        entries
            .iter()
            .enumerate()
            .find(|(_, entry)| entry.name() == Some(key))
            .map(|(index, entry)| (index, &entry.value))
    }

    /// The key as a message names it: a log shows no line around it.
    fn full_name(&self, key: &str) -> String {
        self.name.map_or_else(|| key.to_owned(), |section| format!("{section}.{key}"))
    }

    fn note_value(&mut self, index: usize, key: &str, fault: Fault) {
        let message = format!("`{}`: {}", self.full_name(key), fault.message);
        self.note(index, Part::Value, Fault { message, ..fault });
    }

    fn note(&mut self, index: usize, part: Part, fault: Fault) {
        let mut path = self.path.clone();
        path.push(index);
        self.problems.push(Problem { path, part, fault });
    }
}

/// Notes every key that stands twice in one mapping, anywhere in the file: YAML readers silently take one of the two.
pub(super) fn note_duplicates(node: &Node, problems: &mut Vec<Problem>) {
    let mut path = Vec::new();
    walk_duplicates(node, &mut path, problems);
}

fn walk_duplicates(node: &Node, path: &mut Vec<usize>, problems: &mut Vec<Problem>) {
    match node {
        Node::Map(entries) => {
            let mut seen = std::collections::HashSet::new();
            for (index, entry) in entries.iter().enumerate() {
                path.push(index);
                if let Some(name) = entry.name()
                    && !seen.insert(name)
                {
                    let message = format!("the key `{}` stands here for the second time", shortened(name));
                    let fault = Fault::new(message, "keep one of the two");
                    problems.push(Problem { path: path.clone(), part: Part::Key, fault });
                }
                walk_duplicates(&entry.value, path, problems);
                path.pop();
            }
        }
        Node::List(values) => {
            for (index, value) in values.iter().enumerate() {
                path.push(index);
                walk_duplicates(value, path, problems);
                path.pop();
            }
        }
        _ => {}
    }
}
