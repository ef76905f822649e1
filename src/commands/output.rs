//! What commands print, and how.

use std::fmt;
use std::io::{self, Write};
use std::sync::OnceLock;

use serde::Serialize;

use crate::config::Style;
use crate::exit::Exit;
use crate::host::HostError;
use crate::ledger::{Change, LedgerError, Note, NoteLevel, Outcome};
use crate::lifecycle::LifecycleError;

/// For people or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
}

impl Format {
    pub(super) fn new(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// Why standard output did not take the first line that was lost.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Prints a line on standard output; what it does not take, [`finish`] reports.
pub(super) fn line(text: impl fmt::Display) {
    note(writeln!(io::stdout(), "{text}"));
}

/// Prints what clap answers instead of a command: the help and the version that were asked for, or a usage error.
pub(super) fn usage(answer: &clap::Error) -> Exit {
    let printed = answer.print();
    if answer.use_stderr() {
        return Exit::Usage;
    }
    note(printed);
    Exit::Done
}

/// How the program ends: as the command did, unless standard output did not take all of what it printed.
pub(super) fn finish(exit: Exit) -> Exit {
    note(io::stdout().flush());
    match LOST.get() {
        None => exit,
        Some(error) => {
            report(&format!("failed to write to standard output: {error}"), None);
            Exit::Failed
        }
    }
}

/// A reader that went away (`| head`) is no error.
fn note(printed: io::Result<()>) {
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _ = LOST.set(error);
        }
        _ => {}
    }
}

/// Prints a line on standard error: something to know, beside what was asked for.
pub(super) fn aside(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints a value as JSON.
pub(super) fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(text),
        Err(error) => report(&format!("failed to print JSON: {error}"), None),
    }
}

/// Prints an error and what to do about it on standard error.
pub(super) fn error(error: &anyhow::Error) {
    let style = Style::of(&io::stderr());
    if let Some(LifecycleError::Config(errors)) = error.downcast_ref() {
        let _ = writeln!(io::stderr(), "{}", errors.render(style).trim_end());
        return;
    }
    report(&format!("{error:#}"), help(error).as_deref());
}

fn help(error: &anyhow::Error) -> Option<String> {
    if let Some(error) = error.downcast_ref::<LifecycleError>() {
        return error.help();
    }
    if let Some(error) = error.downcast_ref::<LedgerError>() {
        return error.help();
    }
    error.downcast_ref::<HostError>().and_then(|error| error.help().map(str::to_owned))
}

fn report(message: &str, help: Option<&str>) {
    let _ = writeln!(io::stderr(), "error: {message}");
    if let Some(help) = help {
        let _ = writeln!(io::stderr(), "help: {help}");
    }
}

/// A change as JSON.
#[derive(Debug, Serialize)]
pub(super) struct ChangeView {
    knob: String,
    now: String,
    then: String,
}

impl ChangeView {
    pub(super) fn of(changes: &[Change]) -> Vec<Self> {
        let view = |change: &Change| Self {
            knob: change.knob.to_string(),
            now: change.now.beside(&change.then),
            then: change.then.beside(&change.now),
        };
        changes.iter().map(view).collect()
    }
}

/// What was done, as JSON.
#[derive(Debug, Serialize)]
pub(super) struct OutcomeView<'a> {
    changes: Vec<ChangeView>,
    notes: &'a [Note],
    failures: &'a [String],
}

impl<'a> From<&'a Outcome> for OutcomeView<'a> {
    fn from(outcome: &'a Outcome) -> Self {
        Self { changes: ChangeView::of(&outcome.changes), notes: &outcome.notes, failures: &outcome.failures }
    }
}

/// Prints changes one a line, indented, with the knobs' names aligned.
pub(super) fn changes(changes: &[Change]) {
    change_lines(changes).iter().for_each(line);
}

/// What [`changes`] prints.
pub(super) fn change_lines(changes: &[Change]) -> Vec<String> {
    let width = changes.iter().map(|change| change.knob.to_string().chars().count()).max().unwrap_or(0);
    let line = |change: &Change| {
        let (now, then) = (change.now.beside(&change.then), change.then.beside(&change.now));
        format!("  {:width$}  {now} -> {then}", change.knob.to_string())
    };
    changes.iter().map(line).collect()
}

/// Prints notes one a line, indented.
pub(super) fn notes(notes: &[Note]) {
    note_lines(notes).iter().for_each(line);
}

/// What [`notes`] prints.
pub(super) fn note_lines(notes: &[Note]) -> Vec<String> {
    let line = |note: &Note| match note.level {
        NoteLevel::Info => format!("  note: {}", note.text),
        NoteLevel::Warning => format!("  warning: {}", note.text),
    };
    notes.iter().map(line).collect()
}

/// `1 change`, `2 changes`.
pub(super) fn count(number: usize, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::config::TrustError;
    use crate::guest::Guest;
    use crate::host::manifest;
    use crate::ledger::{FILE, Ledger, Shortage};
    use crate::lifecycle::testing::Machine;
    use crate::pages::PageSize;

    /// What reading a ledger with this text comes to.
    fn ledger_error(text: &str) -> LedgerError {
        let machine = Machine::new();
        machine.add(&format!("/run/vfio-hook/{FILE} = {text}"));
        Ledger::peek(&machine.host()).unwrap_err()
    }

    fn refused() -> io::Error {
        io::ErrorKind::PermissionDenied.into()
    }

    fn examples() -> Vec<anyhow::Error> {
        let place = Path::new("/run/vfio-hook/lock");
        let host = || HostError::lock(place, refused());
        let shortage = Shortage {
            size: PageSize::MIB_2,
            wanted: 2,
            got: 1,
            nodes: "0".parse().unwrap(),
            per_node: vec!["node 0: 1".to_owned()],
        };
        let trust = || TrustError::Io { path: PathBuf::from(place), cause: refused() };
        let guest = "<domain><name>a</name><uuid>00000000-0000-4000-8000-000000000001</uuid><memory>1</memory>\
                     <vcpu cpuset='x'>1</vcpu></domain>";
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "").unwrap();
        vec![
            ledger_error("{").into(),
            ledger_error("{\"format\": 99}").into(),
            LifecycleError::from(ledger_error("{")).into(),
            LedgerError::from(host()).into(),
            LedgerError::from(shortage).into(),
            LedgerError::NotUndone { cause: Box::new(ledger_error("{")), rest: "all".to_owned() }.into(),
            LifecycleError::from(LedgerError::from(host())).into(),
            LifecycleError::from(host()).into(),
            LifecycleError::from(trust()).into(),
            trust().into(),
            host().into(),
            HostError::write(place, "1", refused()).into(),
            HostError::content(place, ledger_error("{")).into(),
            Guest::parse(guest.as_bytes()).unwrap_err().into(),
            Guest::parse(b"<domain").unwrap_err().into(),
            manifest::lay_out("/a/b = c", folder.path()).unwrap_err().into(),
        ]
    }

    #[test]
    fn nothing_is_said_twice() {
        for error in examples() {
            let (whole, chain) = (error.to_string(), format!("{error:#}"));
            assert_eq!(chain, whole, "the message has its causes already");
            let mut parts: Vec<&str> = whole.split(": ").collect();
            parts.sort_unstable();
            parts.dedup();
            assert_eq!(parts.len(), whole.split(": ").count(), "{whole}");
        }
    }
}
