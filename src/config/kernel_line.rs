//! Reads what lines of the kernel's log mean.

use super::item::Item;
use super::section::Section;
use super::suggest::did_you_mean;
use super::tree::Node;
use super::value::{Fault, choice, given_name};
use super::words::words;
use crate::gpu::{
    KernelLine, KernelLineName, KernelVersion, LinePattern, ParseLinePatternError, Severity,
    known_kernel_lines, pasted,
};

/// A row on one line.
const EXAMPLE: &str = "{pattern: \"ring * timeout\", severity: harmless, meaning: \"a job did not end\"}";

const SEVERITY: [(&str, Severity); 4] = [
    ("wedged", Severity::Wedged),
    ("suspicious", Severity::Suspicious),
    ("recovered", Severity::Recovered),
    ("harmless", Severity::Harmless),
];

/// Rows by their names, in the order of the file. A row with the name of a built-in one changes that one: what it does
/// not say, the built-in one says.
pub(super) fn kernel_lines(item: Item<'_>) -> Vec<KernelLine> {
    let example = format!("{{my-line: {EXAMPLE}}}");
    let rows = item.pairs("names no line", &example, line_name, row);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn line_name(node: &Node) -> Result<KernelLineName, Fault> {
    given_name(node, "a line's name")
}

fn row(item: Item<'_>) -> Option<KernelLine> {
    let full_name = item.name().to_owned();
    let name: KernelLineName = full_name.rsplit('.').next()?.parse().ok()?;
    let built_in = known_kernel_lines().iter().find(|row| row.name == name);
    let mut section = item.section(EXAMPLE)?;
    let known: Vec<&str> = known_kernel_lines().iter().map(|row| row.name.as_str()).collect();
    let missing = |key: &str, help: &str| {
        let help = match did_you_mean(name.as_str(), &known) {
            Some(meant) => format!("did you mean `{meant}`, which is built in? Else {help}"),
            None => help.to_owned(),
        };
        Fault::new(format!("`{full_name}.{key}` is missing"), help)
    };
    let patterns = {
        let help = "write what the line's message begins with, with `*` for a word and `**` for anything";
        let item = item_of(&mut section, "pattern", built_in.is_some(), missing("pattern", help));
        item.map(|item| item.elements("fits no line", |element| element.value(pattern)))
    };
    let severity = {
        let help = "write `wedged`, `suspicious`, `recovered` or `harmless`";
        let item = item_of(&mut section, "severity", built_in.is_some(), missing("severity", help));
        item.and_then(|item| item.value(|node| choice(node, &SEVERITY)))
    };
    let meaning = {
        let help = "say what it means, with the card as `it`: `meaning: \"it does not answer\"`";
        let item = item_of(&mut section, "meaning", built_in.is_some(), missing("meaning", help));
        item.and_then(|item| item.value(words))
    };
    let patterns = patterns.or_else(|| built_in.map(|row| row.patterns.clone())).unwrap_or_default();
    let line = KernelLine {
        name,
        severity: severity.or(built_in.map(|row| row.severity)).unwrap_or(Severity::Harmless),
        meaning: meaning.or_else(|| built_in.map(|row| row.meaning.clone())).unwrap_or_default(),
        fix: section.value("fix", words).or_else(|| built_in?.fix.clone()),
        since: section.value("since", version),
        until: section.value("until", version),
        source: section.value("source", words),
        example: section.value("example", |node| line_that(node, &patterns, Fits::Yes)),
        near_miss: section.value("near_miss", |node| line_that(node, &patterns, Fits::No)),
        patterns,
    };
    section.finish();
    Some(line)
}

/// A key that is needed only where no built-in row says it.
fn item_of<'a>(
    section: &'a mut Section<'_>,
    key: &'static str,
    is_known: bool,
    missing: Fault,
) -> Option<Item<'a>> {
    if is_known { section.item(key) } else { section.required(key, missing) }
}

fn pattern(node: &Node) -> Result<LinePattern, Fault> {
    const WHAT: &str = "what a line begins with, such as \"ring * test failed\"";
    let Node::Text(text) = node else {
        return Err(Fault::expected_like(WHAT, node, "put quotes around it"));
    };
    text.parse().map_err(|error: ParseLinePatternError| {
        let help = match error {
            ParseLinePatternError::Short(_) => {
                "write more of the line: what is so short fits lines that you do not mean"
            }
            ParseLinePatternError::Wildcards(_) => "`**` stands for several words",
        };
        Fault::new(error.to_string(), help)
    })
}

fn version(node: &Node) -> Result<KernelVersion, Fault> {
    const WHAT: &str = "a release of the kernel in quotes, such as \"6.6\"";
    let Node::Text(text) = node else { return Err(Fault::expected(WHAT, node)) };
    text.parse().map_err(|_| Fault::expected(WHAT, node))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fits {
    Yes,
    No,
}

/// A line of the log that the patterns fit, or do not.
fn line_that(node: &Node, patterns: &[LinePattern], wanted: Fits) -> Result<String, Fault> {
    let line = pasted(&words(node)?).to_owned();
    let fits = patterns.iter().any(|pattern| pattern.fits(&line));
    let help =
        "the names of driver and device before a message are no part of it; `*` is one word, `**` anything";
    match (fits, wanted) {
        (false, Fits::Yes) if !patterns.is_empty() => Err(Fault::new("no pattern fits this line", help)),
        (true, Fits::No) => Err(Fault::new("a pattern fits this line, which it should not", help)),
        _ => Ok(line),
    }
}
