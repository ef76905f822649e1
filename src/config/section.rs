//! Reads sections key by key. Nothing here stops at a mistake: it is noted with its place, and reading goes on.

use super::flow_list;
use super::item::Item;
use super::kernel_value;
use super::key::SectionKeys;
use super::locate::Part;
use super::other_words;
use super::problem::Problem;
use super::suggest::did_you_mean;
use super::tree::{Entry, Node, shortened};
use super::value::{Fault, any_of};

/// A mapping whose keys are asked for one by one; [`finish`](Self::finish) reports the keys that nobody asked for.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    entries: &'a [Entry],
    path: Vec<usize>,
    /// What stands for the whole of it: its key, or where it starts if it is an element of a list.
    part: Part,
    /// The section as messages name it; none for the file itself.
    name: Option<String>,
    known: Vec<&'static str>,
    /// Keys that were read or noted already and that no help offers.
    unfit: Vec<&'static str>,
    /// All sections that such a file may have, for a key that stands in the wrong one.
    sections: &'static [SectionKeys],
    /// Faults of what is not there: they are none if a misspelt key stands for it.
    absent: Vec<(Absent, Fault)>,
    problems: &'a mut Vec<Problem>,
}

/// What a section does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absent {
    /// Anything that has an effect.
    Everything,
    /// This key.
    Key(&'static str),
}

impl<'a> Section<'a> {
    /// The file itself, whose keys are the sections.
    pub(super) fn of_file(root: &'a Node, problems: &'a mut Vec<Problem>) -> Self {
        Self::new(root.entries(), (Vec::new(), Part::Key), None, problems)
    }

    /// Has the help for an unknown section say which of these has a key of that name.
    pub(crate) fn know_sections(&mut self, sections: &'static [SectionKeys]) {
        self.sections = sections;
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
        Self {
            entries,
            path,
            part,
            name,
            known: Vec::new(),
            unfit: Vec::new(),
            sections: &[],
            absent: Vec::new(),
            problems,
        }
    }

    /// Whether a key is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// Whether there is no key but these.
    pub(crate) fn has_only(&self, keys: &[&str]) -> bool {
        self.entries.iter().all(|entry| entry.name().is_some_and(|name| keys.contains(&name)))
    }

    /// Has the help for an unknown key offer this one, for which the section would be read in another way.
    pub(crate) fn offer(&mut self, key: &'static str) {
        self.known.push(key);
    }

    /// A key's value in its place. `None` if the key is not there or has no value, which is then noted.
    pub(crate) fn item(&mut self, key: &'static str) -> Option<Item<'_>> {
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
    pub(crate) fn required(&mut self, key: &'static str, missing: Fault) -> Option<Item<'_>> {
        if !self.has(key) {
            self.absent.push((Absent::Key(key), missing));
        }
        self.item(key)
    }

    /// Notes what is wrong with the whole section.
    pub(crate) fn refuse_whole(&mut self, fault: Fault) {
        let fault = self.of_whole(fault);
        self.note_whole(fault);
    }

    /// Notes that the section has no effect, unless it has an unknown key: then that is what is wrong.
    pub(crate) fn refuse_as_empty(&mut self, fault: Fault) {
        let fault = self.of_whole(fault);
        self.absent.push((Absent::Everything, fault));
    }

    fn of_whole(&self, fault: Fault) -> Fault {
        let prefix = self.name.as_ref().map_or_else(String::new, |name| format!("`{name}`: "));
        Fault { message: format!("{prefix}{}", fault.message), ..fault }
    }

    /// Reads one value. `None` if the key is not there or its value is wrong, which is then noted.
    pub(crate) fn value<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node) -> Result<T, Fault>,
    ) -> Option<T> {
        self.item(key)?.value(read)
    }

    /// Reads one value of a key that no help offers.
    pub(super) fn unlisted_value<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node) -> Result<T, Fault>,
    ) -> Option<T> {
        let value = self.value(key, read);
        self.known.retain(|known| *known != key);
        self.unfit.push(key);
        value
    }

    /// Notes what is wrong with the value of a key beside others.
    pub(crate) fn refuse(&mut self, key: &'static str, fault: Fault) {
        if let Some(item) = self.item(key) {
            item.refuse(fault);
        }
    }

    /// Notes a key, if it is there, that has its place in such sections, but not beside the others of this one.
    pub(crate) fn unfit(&mut self, key: &'static str, beside: &str, help: &str) {
        let Some((index, _)) = self.entry(key) else { return };
        self.unfit.push(key);
        let message = format!("`{}` does not go with `{beside}`", self.full_name(key));
        self.note(index, Part::Key, Fault::new(message, help));
    }

    /// Notes a key, if it is there, that has another place now: `now` names that, from the file on.
    pub(crate) fn moved(&mut self, key: &'static str, now: &str) {
        let Some((index, _)) = self.entry(key) else { return };
        self.unfit.push(key);
        let message = format!("`{}` is `{now}` now", self.full_name(key));
        let help = match now.split_once('.') {
            Some((section, key)) => format!("write `{key}` into the section `{section}`"),
            None => format!("write `{now}`"),
        };
        self.note(index, Part::Key, Fault::new(message, help));
    }

    /// Opens a section inside this one; with nothing after its colon it is an empty one. `example` is how it looks on
    /// one line.
    pub(crate) fn section(&mut self, key: &'static str, example: &str) -> Option<Section<'_>> {
        let (index, node) = self.find(key)?;
        let path = self.path_to(index);
        if !matches!(node, Node::Map(_) | Node::Null) {
            let help = format!("keys go on lines of their own below it, or all on one line: `{example}`");
            let fault = Fault::expected_like("keys and values", node, help);
            Item::new(node, path, self.full_name(key), self.problems).refuse(fault);
            return None;
        }
        let name = self.full_name(key);
        let inner = Section::new(node.entries(), (path, Part::Key), Some(name), self.problems);
        Some(Section { sections: self.sections, ..inner })
    }

    /// Notes every key that was not asked for.
    pub(crate) fn finish(mut self) {
        let (kind, place) = match &self.name {
            Some(name) => ("key", format!(" in `{name}`")),
            None => ("section", String::new()),
        };
        let mut unknown = Vec::new();
        let mut after_comma = 0;
        for (index, entry) in self.entries.iter().enumerate() {
            if after_comma > 0 {
                after_comma -= 1;
                continue;
            }
            let fault = match entry.name() {
                Some(name) if self.known.contains(&name) || self.unfit.contains(&name) => continue,
                name => {
                    unknown.extend(name);
                    let rest = self.entries[index..].iter().take_while(|entry| entry.value == Node::Null);
                    let rest: Vec<&Node> = rest.map(|entry| &entry.key).collect();
                    let before = index.checked_sub(1).map(|before| &self.entries[before]);
                    match (before.and_then(|before| flow_list::fault(before, &rest)), name) {
                        (Some(fault), _) => {
                            after_comma = rest.len() - 1;
                            fault
                        }
                        (None, Some(name)) => {
                            let help = self.help_for_unknown(name);
                            Fault::new(format!("unknown {kind} `{}`{place}", shortened(name)), help)
                        }
                        (None, None) => Fault::expected(&format!("a {kind}'s name{place}"), &entry.key),
                    }
                }
            };
            self.note(index, Part::Key, fault);
        }
        for (absent, fault) in std::mem::take(&mut self.absent) {
            let is_misspelt = match absent {
                Absent::Everything => !unknown.is_empty(),
                Absent::Key(key) => unknown.iter().any(|name| did_you_mean(name, &[key]).is_some()),
            };
            if !is_misspelt {
                self.note_whole(fault);
            }
        }
    }

    /// What was probably meant: a key of another program, a key of this section, a key of another section.
    fn help_for_unknown(&self, name: &str) -> String {
        let section = self.name.as_deref();
        if let Some(help) = other_words::help_for_key(section, name) {
            return help.to_owned();
        }
        let known = any_of(&self.known);
        // As sysctl names them: `vm.swappiness`.
        if let Some((_, end)) = name.rsplit_once('.')
            && self.known.contains(&end)
        {
            return format!("write `{end}`");
        }
        if let Some(path) = kernel_value::path_of_sysctl(name).filter(|_| self.known.contains(&"files")) {
            return format!("write `files: {{\"{path}\": …}}`; allowed here: {known}");
        }
        if let Some(meant) = did_you_mean(name, &self.known) {
            return format!("did you mean `{meant}`? allowed here: {known}");
        }
        let having: Vec<&str> =
            self.sections.iter().filter(|each| each.has(name)).map(|each| each.name).collect();
        match having.is_empty() {
            true => format!("allowed here: {known}"),
            false => format!("`{name}` is a key of {}; allowed here: {known}", any_of(&having)),
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
        self.problems.push(Problem::new(path, self.part, fault));
    }

    fn note(&mut self, index: usize, part: Part, fault: Fault) {
        let path = self.path_to(index);
        self.problems.push(Problem::new(path, part, fault));
    }
}
