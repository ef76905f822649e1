//! A file's text, kept to point into it.

use std::path::{Path, PathBuf};

use super::canonical::canonical;
use super::diagnostic::{ConfigErrors, Diagnostic, Excerpt, Place, Spot};
use super::host::HostConfig;
use super::locate::{self, Part};
use super::tree::{self, Entry, Node};
use crate::key_path::KeyPath;

/// The largest file that is read: a guest's file has a few hundred bytes.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// Longer lines are not shown; their place is.
const MAX_LINE: usize = 1000;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// A configuration file and its text; makes diagnostics that point into it.
#[derive(Clone, Debug)]
pub struct ConfigSource {
    file: PathBuf,
    text: String,
}

impl ConfigSource {
    /// A file with this text; a byte order mark is dropped.
    pub fn new(file: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.starts_with(BYTE_ORDER_MARK) {
            text.remove(0);
        }
        Self { file: file.into(), text }
    }

    /// A file with these bytes.
    ///
    /// # Errors
    /// Bytes that are not UTF-8, with the place of the first one.
    pub fn from_bytes(file: impl Into<PathBuf>, bytes: Vec<u8>) -> Result<Self, ConfigErrors> {
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self::new(file, text)),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let lossy = String::from_utf8_lossy(error.as_bytes());
                let mark = lossy.len() - lossy.trim_start_matches(BYTE_ORDER_MARK).len();
                let source = Self::new(file, lossy);
                let help = "save it as UTF-8".to_owned();
                let diagnostic = Diagnostic::new(&source.file, "the file is not UTF-8", Some(help));
                Err(diagnostic.at(source.spot(valid.saturating_sub(mark), Part::Value)).into())
            }
        }
    }

    /// The file's path.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Reads it as the host's file; see [`HostConfig::parse`].
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse_host(&self) -> Result<HostConfig, ConfigErrors> {
        HostConfig::read(self)
    }

    /// What is wrong with a value that only the host or the guest's XML can tell, placed at the value. The path are
    /// keys and, for elements of a list, their numbers from 0; a value that is no list counts as its only element. If
    /// the value is not in the file (it was left to its default), the place is the innermost section that is.
    pub fn diagnose(
        &self,
        path: impl Into<KeyPath>,
        message: impl Into<String>,
        help: Option<String>,
    ) -> Diagnostic {
        let diagnostic = Diagnostic::new(&self.file, message, help);
        let Ok(root) = tree::parse(&self.text) else { return diagnostic };
        let (indices, part) = resolve(&root, &path.into());
        diagnostic.at_some((!indices.is_empty()).then(|| self.find(&indices, part)).flatten())
    }

    /// Where a value stands, as editors read it: `FILE:LINE:COLUMN`. The path as for [`Self::diagnose`].
    #[must_use]
    pub fn place_of(&self, path: impl Into<KeyPath>) -> String {
        let file = self.file.display();
        match self.diagnose(path, String::new(), None).place {
            Some(Place { line, column }) => format!("{file}:{line}:{column}"),
            None => file.to_string(),
        }
    }

    /// What stands at a path of keys, in one form for all ways to write the same. None where nothing does.
    #[must_use]
    pub fn canonical(&self, path: &KeyPath) -> Option<String> {
        let root = tree::parse(&self.text).ok()?;
        let value = path.steps().try_fold(&root, |node, step| {
            let entry = node.entries().iter().find(|entry| is_called(entry, &step))?;
            Some(&entry.value)
        });
        value.map(canonical)
    }

    /// Where a key or value stands.
    pub(super) fn find(&self, path: &[usize], part: Part) -> Option<Spot> {
        locate::offset_of(&self.text, path, part).map(|offset| self.spot(offset, part))
    }

    /// The line and column of what starts after so many bytes of the text.
    pub(super) fn spot(&self, offset: usize, part: Part) -> Spot {
        let byte =
            (0..=offset.min(self.text.len())).rfind(|byte| self.text.is_char_boundary(*byte)).unwrap_or(0);
        let start = self.text[..byte].rfind('\n').map_or(0, |newline| newline + 1);
        let end = self.text[byte..].find('\n').map_or(self.text.len(), |newline| byte + newline);
        let line = self.text[start..end].trim_end_matches('\r');
        let before = (byte - start).min(line.len());
        let place = Place {
            line: self.text[..start].matches('\n').count() + 1,
            column: line[..before].chars().count() + 1,
        };
        let span = before..before + token_length(&line[before..], part);
        let excerpt = (line.len() <= MAX_LINE).then(|| Excerpt { line: line.to_owned(), span });
        Spot { place, excerpt }
    }
}

/// The entries that a path of names leads through, as far as it can be followed: to the value, or only to the key of
/// the last section on the way.
fn resolve(root: &Node, path: &KeyPath) -> (Vec<usize>, Part) {
    let mut node = root;
    let mut indices = Vec::new();
    for step in path.steps() {
        let found = match node {
            Node::Map(entries) => entries
                .iter()
                .enumerate()
                .find(|(_, entry)| is_called(entry, &step))
                .map(|(index, entry)| (index, &entry.value)),
            Node::List(values) => {
                step.parse().ok().and_then(|index: usize| values.get(index).map(|value| (index, value)))
            }
            _ => None,
        };
        match found {
            Some((index, value)) => {
                indices.push(index);
                node = value;
            }
            None if step == "0" && !matches!(node, Node::List(_)) => {}
            None => return (indices, Part::Key),
        }
    }
    (indices, Part::Value)
}

/// Whether an entry has this key: a name, or a number such as that of a BAR.
fn is_called(entry: &Entry, step: &str) -> bool {
    match &entry.key {
        Node::Integer(digits) => digits == step,
        _ => entry.name() == Some(step),
    }
}

/// How many bytes of the rest of a line belong to the key or value that starts there.
fn token_length(rest: &str, part: Part) -> usize {
    let length = match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => rest[1..].find(quote).map_or(rest.len(), |end| end + 2),
        _ if part == Part::Key => rest.find(':').unwrap_or(rest.len()),
        _ => [" #", ", ", "}", "]"].iter().filter_map(|end| rest.find(end)).min().unwrap_or(rest.len()),
    };
    let first = rest.chars().next().map_or(0, char::len_utf8);
    rest[..length].trim_end().len().max(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_at_values_that_only_the_host_can_judge() {
        let text =
            "# ü\nisolate_cpus:\n  cpus: \"4-99\" # too many\nhugepages: {timeout: 5s, keep_free: 1GiB}\n";
        let source = ConfigSource::new("/etc/x.yaml", text);
        for (path, line, column) in [
            (&["isolate_cpus", "cpus"][..], 3, 9),
            (&["isolate_cpus"], 3, 3),
            (&["isolate_cpus", "governor"], 2, 1),
            (&["hugepages", "keep_free"], 4, 37),
            (&["hugepages", "timeout", "deeper"], 4, 13),
        ] {
            let place = source.diagnose(path, "wrong", None).place.unwrap();
            assert_eq!((place.line, place.column), (line, column), "{path:?}");
        }
        assert_eq!(source.diagnose(&["services"], "wrong", None).place, None);
    }

    #[test]
    fn points_at_elements_of_lists_and_at_numbered_values() {
        let text = "services:\n  stop: [a.service, {unit: b.service}]\nrun: {scripts: /x}\n";
        let one = "services: {stop: a.service}\nrun:\n  - when: started\n  - scripts: /x\n";
        for (text, path, line, column) in [
            (text, &["services", "stop", "0"][..], 2, 10),
            (text, &["services", "stop", "1"], 2, 21),
            (text, &["services", "stop", "1", "unit"], 2, 28),
            (text, &["services", "stop", "2"], 2, 3),
            (text, &["run", "0", "scripts"], 3, 16),
            (one, &["services", "stop", "0"], 1, 18),
            (one, &["run", "1", "scripts"], 4, 14),
            (one, &["run", "1", "timeout"], 4, 5),
            ("gpu: {bars: {0: 1 GiB, 2: 8 MiB}}", &["gpu", "bars", "2"], 1, 27),
        ] {
            let place = ConfigSource::new("x.yaml", text).diagnose(path, "wrong", None).place.unwrap();
            assert_eq!((place.line, place.column), (line, column), "{path:?}");
        }
    }

    #[test]
    fn points_at_the_byte_that_is_not_utf8() {
        let errors =
            ConfigSource::from_bytes("x.yaml", b"# \xc3\xbc\nhugepages: \xff{}\n".to_vec()).unwrap_err();
        assert_eq!(errors.to_string(), "x.yaml:2:12: the file is not UTF-8\nhelp: save it as UTF-8");
    }
}
