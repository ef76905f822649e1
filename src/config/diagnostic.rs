//! What is wrong with a file, shown to people in rustc's look, in a few lines for the log, or as JSON.

use std::fmt;
use std::io::IsTerminal;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::printable::printable;

/// libvirt shows a person the first lines of what the hook says, and the journal cuts long fields.
const MAX_SHORT: usize = 2048;

/// One mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file.
    pub file: PathBuf,
    /// Where in it; none if the file as a whole is meant.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// How to fix it.
    pub help: Option<String>,
    excerpt: Option<Excerpt>,
}

/// A line and a column, both counted from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// Whether text for a person has colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Letters only.
    Plain,
    /// With a terminal's colours.
    Coloured,
}

/// The line that a mistake is in, and which bytes of it are wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Excerpt {
    pub(super) line: String,
    pub(super) span: Range<usize>,
}

/// A place with the line around it.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub(super) place: Place,
    pub(super) excerpt: Option<Excerpt>,
}

impl Spot {
    /// Whether a number in decimal digits stands there.
    pub(super) fn is_decimal(&self) -> bool {
        let rest = self.excerpt.as_ref().and_then(|excerpt| excerpt.line.get(excerpt.span.start..));
        let rest = rest.unwrap_or_default();
        let behind = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        rest.len() > behind.len() && !behind.starts_with(|c: char| c.is_ascii_alphanumeric())
    }
}

/// Everything that is wrong with a file; at least one thing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    diagnostics: Vec<Diagnostic>,
    /// How many more there are.
    omitted: usize,
}

impl Style {
    /// Colours for a terminal, unless `NO_COLOR` is set and not empty.
    #[must_use]
    pub fn of(stream: &impl IsTerminal) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if stream.is_terminal() && !refused { Self::Coloured } else { Self::Plain }
    }
}

impl Diagnostic {
    /// A mistake of the file as a whole.
    pub fn new(file: &Path, message: impl Into<String>, help: Option<String>) -> Self {
        let help = help.map(|help| printable(&help).into_owned());
        let message = printable(&message.into()).into_owned();
        Self { file: file.to_owned(), place: None, message, help, excerpt: None }
    }

    pub(super) fn at(self, spot: Spot) -> Self {
        Self { place: Some(spot.place), excerpt: spot.excerpt, ..self }
    }

    pub(super) fn at_some(self, spot: Option<Spot>) -> Self {
        match spot {
            Some(spot) => self.at(spot),
            None => self,
        }
    }

    /// For a person: what is wrong, the line with the wrong part underlined, and how to fix it. No newline at the end.
    #[must_use]
    pub fn render(&self, style: Style) -> String {
        let renderer = match style {
            Style::Plain => Renderer::plain(),
            Style::Coloured => Renderer::styled(),
        };
        let path = self.path();
        let mut group = match (&self.excerpt, self.place) {
            (Some(excerpt), Some(place)) => Level::ERROR.primary_title(&self.message).element(
                Snippet::source(&excerpt.line)
                    .line_start(place.line)
                    .path(path)
                    .annotation(AnnotationKind::Primary.span(excerpt.span.clone())),
            ),
            (_, Some(place)) => Level::ERROR
                .primary_title(&self.message)
                .element(Origin::path(path).line(place.line).char_column(place.column)),
            (_, None) => Level::ERROR.primary_title(&self.message).element(Origin::path(path)),
        };
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help));
        }
        renderer.render(&[group])
    }

    /// For a log: `FILE:LINE:COLUMN: message`, and how to fix it on the next line. No newline at the end.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.path();
        if let Some(place) = self.place {
            text.push_str(&format!(":{}:{}", place.line, place.column));
        }
        text.push_str(": ");
        text.push_str(&self.message);
        if let Some(help) = &self.help {
            text.push_str("\nhelp: ");
            text.push_str(help);
        }
        text
    }

    fn path(&self) -> String {
        printable(&self.file.to_string_lossy()).into_owned()
    }
}

impl Serialize for Diagnostic {
    /// `file`, `line`, `column`, `message`, `help`; what there is not is null.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Diagnostic", 5)?;
        fields.serialize_field("file", &self.file.to_string_lossy())?;
        fields.serialize_field("line", &self.place.map(|place| place.line))?;
        fields.serialize_field("column", &self.place.map(|place| place.column))?;
        fields.serialize_field("message", &self.message)?;
        fields.serialize_field("help", &self.help)?;
        fields.end()
    }
}

impl ConfigErrors {
    /// These, and so many more that are not shown; none where there is none.
    #[must_use]
    pub fn new(diagnostics: Vec<Diagnostic>, omitted: usize) -> Option<Self> {
        (!diagnostics.is_empty()).then_some(Self { diagnostics, omitted })
    }

    /// The mistakes, in the order of the lines; at least one.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// How many more there are than [`diagnostics`](Self::diagnostics) tells.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// For a person: each mistake as [`Diagnostic::render`] shows it. No newline at the end.
    #[must_use]
    pub fn render(&self, style: Style) -> String {
        let mut parts: Vec<String> = self.diagnostics.iter().map(|each| each.render(style)).collect();
        if self.omitted > 0 {
            parts.push(more(self.omitted));
        }
        parts.join("\n\n")
    }
}

impl fmt::Display for ConfigErrors {
    /// The mistakes as [`Diagnostic::short`] tells them, as many as fit into 2 KB.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reserved = more(usize::MAX).len() + 1;
        let mut text = String::new();
        let mut told = 0;
        for diagnostic in &self.diagnostics {
            let next = diagnostic.short();
            if text.len() + 1 + next.len() + reserved > MAX_SHORT && told > 0 {
                break;
            }
            if told > 0 {
                text.push('\n');
            }
            text.push_str(&next);
            told += 1;
        }
        while text.len() > MAX_SHORT - reserved {
            text.pop();
        }
        let left = self.diagnostics.len() - told + self.omitted;
        if left > 0 {
            text.push('\n');
            text.push_str(&more(left));
        }
        f.write_str(&text)
    }
}

impl std::error::Error for ConfigErrors {}

impl From<Diagnostic> for ConfigErrors {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { diagnostics: vec![diagnostic], omitted: 0 }
    }
}

impl Serialize for ConfigErrors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.diagnostics.serialize(serializer)
    }
}

fn more(count: usize) -> String {
    match count {
        1 => "and 1 more mistake".to_owned(),
        _ => format!("and {count} more mistakes"),
    }
}
