//! Reads sections key by key. Nothing here stops at a mistake: it is noted with its place, and reading goes on.

use super::item::Item;
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
    /// What stands for the whole of it: its key, or where it starts if it is an element of a list.
    part: Part,
    /// The section as messages name it; none for the file itself.
    name: Option<String>,
    known: Vec<&'static str>,
    /// Keys that were noted already and that no help offers.
    unfit: Vec<&'static str>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Section<'a> {
    /// The file itself, whose keys are the sections.
    pub(super) fn of_file(root: &'a Node, problems: &'a mut Vec<Problem>) -> Self {
        Self::new(root.entries(), (Vec::new(), Part::Key), None, problems)
    }

    /// Keys and values that stand in a list.
    pub(super) fn of_element(
        entries: &'a [Entry],
        path: Vec<usize>,
        name: String,
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        Self::new(entries, (path, Part::Value), Some(name), problems)
    }

    fn new(
        entries: &'a [Entry],
        (path, part): (Vec<usize>, Part),
        name: Option<String>,
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        Self { entries, path, part, name, known: Vec::new(), unfit: Vec::new(), problems }
    }

    /// Whether a key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// Whether there is no key but these.
    pub(super) fn has_only(&self, keys: &[&str]) -> bool {
        self.entries.iter().all(|entry| entry.name().is_some_and(|name| keys.contains(&name)))
    }

    /// Has the help for an unknown key offer this one, for which the section would be read in another way.
    pub(super) fn offer(&mut self, key: &'static str) {
        self.known.push(key);
    }

    /// A key's value in its place. `None` if the key is not there or has no value, which is then noted.
    pub(super) fn item(&mut self, key: &'static str) -> Option<Item<'_>> {
        let (index, node) = self.find(key)?;
        if *node == Node::Null {
            let fault = Fault::new(
                format!("`{}` has no value", self.full_name(key)),
                "write one after the colon, or remove the key",
            );
            self.note(index, Part::Key, fault);
            return None;
        }
        Some(Item::new(node, self.path_to(index), self.full_name(key), self.problems))
    }

    /// Like [`item`](Self::item), and notes this fault of the whole section if the key is not there.
    pub(super) fn required(&mut self, key: &'static str, missing: Fault) -> Option<Item<'_>> {
        if !self.has(key) {
            self.note_whole(missing);
        }
        self.item(key)
    }

    /// Notes what is wrong with the whole section.
    pub(super) fn refuse_whole(&mut self, fault: Fault) {
        let prefix = self.name.as_ref().map_or_else(String::new, |name| format!("`{name}`: "));
        self.note_whole(Fault { message: format!("{prefix}{}", fault.message), ..fault });
    }

    /// Reads one value. `None` if the key is not there or its value is wrong, which is then noted.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node) -> Result<T, Fault>,
    ) -> Option<T> {
        self.item(key)?.value(read)
    }

    /// Notes what is wrong with the value of a key beside others.
    pub(super) fn refuse(&mut self, key: &'static str, fault: Fault) {
        if let Some(item) = self.item(key) {
            item.refuse(fault);
        }
    }

    /// Notes a key, if it is there, that has its place in such sections, but not beside the others of this one.
    pub(super) fn unfit(&mut self, key: &'static str, beside: &str, help: &str) {
        let Some((index, _)) = self.entry(key) else { return };
        self.unfit.push(key);
        let message = format!("`{}` does not go with `{beside}`", self.full_name(key));
        self.note(index, Part::Key, Fault::new(message, help));
    }

    /// Opens a section inside this one; with nothing after its colon it is an empty one. `example` is how it looks on
    /// one line.
    pub(super) fn section(&mut self, key: &'static str, example: &str) -> Option<Section<'_>> {
        let (index, node) = self.find(key)?;
        let path = self.path_to(index);
        if !matches!(node, Node::Map(_) | Node::Null) {
            let help = format!("keys go on lines of their own below it, or all on one line: `{example}`");
            let fault = Fault::expected_like("keys and values", node, help);
            Item::new(node, path, self.full_name(key), self.problems).refuse(fault);
            return None;
        }
        let name = self.full_name(key);
        Some(Section::new(node.entries(), (path, Part::Key), Some(name), self.problems))
    }

    /// Notes every key that was not asked for.
    pub(super) fn finish(mut self) {
        let (kind, place) = match &self.name {
            Some(name) => ("key", format!(" in `{name}`")),
            None => ("section", String::new()),
        };
        for (index, entry) in self.entries.iter().enumerate() {
            let fault = match entry.name() {
                Some(name) if self.known.contains(&name) || self.unfit.contains(&name) => continue,
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

    /// Looks for a key that may be here.
    fn find(&mut self, key: &'static str) -> Option<(usize, &'a Node)> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.entry(key)
    }

    fn entry(&self, key: &str) -> Option<(usize, &'a Node)> {
        let mut entries = self.entries.iter().enumerate();
        let (index, entry) = entries.find(|(_, entry)| entry.name() == Some(key))?;
        Some((index, &entry.value))
    }

    /// The key as a message names it: a log shows no line around it.
    fn full_name(&self, key: &str) -> String {
        self.name.as_ref().map_or_else(|| key.to_owned(), |section| format!("{section}.{key}"))
    }

    fn path_to(&self, index: usize) -> Vec<usize> {
        self.path.iter().copied().chain([index]).collect()
    }

    fn note_whole(&mut self, fault: Fault) {
        let path = self.path.clone();
        self.problems.push(Problem { path, part: self.part, fault });
    }

    fn note(&mut self, index: usize, part: Part, fault: Fault) {
        let path = self.path_to(index);
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
