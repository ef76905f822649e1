//! A file as a whole: sections, and the mistakes of all of them with their places.

use std::mem;

use super::as_written;
use super::diagnostic::{ConfigErrors, Diagnostic, Spot};
use super::locate::Part;
use super::problem::Problem;
use super::repeated_keys::{MERGE, merge_key, note_duplicates};
use super::section::Section;
use super::source::{ConfigSource, MAX_FILE_BYTES};
use super::tree::{self, Node};
use super::value::{Fault, any_of};

/// Places are looked for one by one, each in a walk of its own, and no one fixes more than this at once.
const MAX_DIAGNOSTICS: usize = 20;

/// The key that says which version of the format a file is written in. Without it, it is the first.
const VERSION_KEY: &str = "version";

/// The versions of the format that this program reads.
const VERSIONS: [&str; 1] = ["1"];

fn version(node: &Node) -> Result<(), Fault> {
    match node {
        Node::Integer(digits) if VERSIONS.contains(&digits.as_str()) => Ok(()),
        Node::Integer(digits) if digits == "0" || digits.starts_with('-') => {
            let message = format!("there is no version {digits} of the format");
            Err(Fault::new(message, format!("write `{VERSION_KEY}: {}`", VERSIONS[0])))
        }
        Node::Integer(digits) => {
            let message = format!("this program does not read version {digits} of the format");
            Err(Fault::new(
                message,
                format!("it reads version {}; a newer vfio-hook may read it", any_of(&VERSIONS)),
            ))
        }
        Node::Text(text) if VERSIONS.contains(&text.as_str()) => {
            Err(Fault::quoted("a version of the format", node))
        }
        other => Err(Fault::expected_like("a version of the format", other, "write `version: 1`")),
    }
}

/// Reads a file's sections. All that is wrong with it comes back in the order of the lines. `example` is a section on
/// one line, for a file that has none.
pub(crate) fn read<T>(
    source: &ConfigSource,
    example: &str,
    read_sections: impl FnOnce(&mut Section<'_>) -> T,
) -> Result<T, ConfigErrors> {
    let root = read_tree(source, example)?;
    let mut problems = Vec::new();
    note_duplicates(&root, &mut problems);

    let mut sections = Section::of_file(&root, &mut problems);
    let config = read_sections(&mut sections);
    sections.unlisted_value(VERSION_KEY, version);
    sections.finish();
    judge_as_written(source.text(), &root, &mut problems);

    match ConfigErrors::new(located(source, &mut problems), problems.len()) {
        Some(errors) => Err(errors),
        None => Ok(config),
    }
}

/// Reads what can be read of a file that is wrong; none where it is no YAML, or has no sections.
pub(crate) fn read_what_is_right<T>(
    source: &ConfigSource,
    read_sections: impl FnOnce(&mut Section<'_>) -> T,
) -> Option<T> {
    let root = read_tree(source, "").ok()?;
    Some(read_sections(&mut Section::of_file(&root, &mut Vec::new())))
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
    if let Some(path) = merge_key(&root) {
        let help = "write the keys out; what several guests have in common stands in guests.yaml";
        let message = format!("`{MERGE}` merges nothing here: it is not read");
        let diagnostic = Diagnostic::new(source.file(), message, Some(help.to_owned()));
        return Err(diagnostic.at_some(source.find(&path, Part::Key)).into());
    }
    let fault = match &root {
        Node::Map(entries) if entries.iter().any(|entry| entry.name() != Some(VERSION_KEY)) => {
            return Ok(root);
        }
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

/// Decides the problems that are some only if a value is written in a certain way.
fn judge_as_written(text: &str, root: &Node, problems: &mut Vec<Problem>) {
    if problems.iter().all(Problem::is_decided) {
        return;
    }
    let written = as_written::scalars(text, root);
    let decide = |problem: Problem| {
        let written = match problem.part {
            Part::Key => written.keys.get(&problem.path),
            Part::Value | Part::DecimalValue => written.values.get(&problem.path),
        };
        problem.decided_by(written.map(String::as_str))
    };
    *problems = mem::take(problems).into_iter().filter_map(decide).collect();
}

/// Gives the problems their places and puts them into the order of the lines; takes the first ones away.
fn located(source: &ConfigSource, problems: &mut Vec<Problem>) -> Vec<Diagnostic> {
    problems.sort_by(|a, b| a.path.cmp(&b.path));
    let first = problems.len().min(MAX_DIAGNOSTICS);
    problems
        .drain(..first)
        .filter_map(|problem| {
            let spot = source.find(&problem.path, problem.part);
            if problem.part == Part::DecimalValue && !spot.as_ref().is_some_and(Spot::is_decimal) {
                return None;
            }
            Some(Diagnostic::new(source.file(), problem.fault.message, problem.fault.help).at_some(spot))
        })
        .collect()
}
