//! A file as a whole: sections, and the mistakes of all of them with their places.

use super::diagnostic::{ConfigErrors, Diagnostic};
use super::locate::Part;
use super::section::{Problem, Section, note_duplicates};
use super::source::{ConfigSource, MAX_FILE_BYTES};
use super::tree::{self, Node};
use super::value::Fault;

/// Places are looked for one by one, each in a walk of its own, and nobody mends more than this at once.
const MAX_DIAGNOSTICS: usize = 20;

/// Reads a file's sections. All that is wrong with it comes back in the order of the lines. `example` is a section on
/// one line, for a file that has none.
pub(super) fn read<T>(
    source: &ConfigSource,
    example: &str,
    read_sections: impl FnOnce(&mut Section<'_>) -> T,
) -> Result<T, ConfigErrors> {
    let root = read_tree(source, example)?;
    let mut problems = Vec::new();
    note_duplicates(&root, &mut problems);

    let mut sections = Section::of_file(&root, &mut problems);
    let config = read_sections(&mut sections);
    sections.finish();

    match ConfigErrors::new(located(source, &mut problems), problems.len()) {
        Some(errors) => Err(errors),
        None => Ok(config),
    }
}

/// The file's sections as a tree, or the one mistake that keeps it from being read at all.
fn read_tree(source: &ConfigSource, example: &str) -> Result<Node, ConfigErrors> {
    if source.text().len() > MAX_FILE_BYTES {
        let message = format!("the file is larger than {MAX_FILE_BYTES} bytes");
        return Err(Diagnostic::new(source.file(), message, None).into());
    }
    let root = tree::parse(source.text()).map_err(|fault| {
        let diagnostic = Diagnostic::new(source.file(), fault.message, fault.help);
        match fault.offset {
            Some(offset) => diagnostic.at(source.spot(offset, Part::Value)),
            None => diagnostic,
        }
    })?;
    let fault = match &root {
        Node::Map(entries) if !entries.is_empty() => return Ok(root),
        Node::Map(_) | Node::Null => {
            let help = format!("add one, for example `{example}`, or remove the file");
            Fault::new("does nothing: no section", help)
        }
        other => Fault::expected_like("sections", other, format!("a section looks like `{example}`")),
    };
    let diagnostic = Diagnostic::new(source.file(), fault.message, fault.help);
    Err(match root {
        Node::Null => diagnostic.into(),
        _ => diagnostic.at_some(source.find(&[], Part::Value)).into(),
    })
}

/// Gives the problems their places and puts them into the order of the lines; takes the first ones away.
fn located(source: &ConfigSource, problems: &mut Vec<Problem>) -> Vec<Diagnostic> {
    problems.sort_by(|a, b| a.path.cmp(&b.path));
    let first = problems.len().min(MAX_DIAGNOSTICS);
    problems
        .drain(..first)
        .map(|problem| {
            let spot = source.find(&problem.path, problem.part);
            Diagnostic::new(source.file(), problem.fault.message, problem.fault.help).at_some(spot)
        })
        .collect()
}
