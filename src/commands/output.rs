//! What commands print, and how.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::sync::OnceLock;

use serde::Serialize;

use super::grouped;
use crate::commands::user_error::UserError;
use crate::config::{ConfigErrors, Style};
use crate::exit::Exit;
use crate::ledger::{Change, Note, NoteLevel, Outcome};

pub(super) use crate::printable::count;
use crate::printable::printable;

/// For people or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
}

/// Why standard output did not take the first line that was lost.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Prints a line, or several, on standard output; what it does not take, [`finish`] reports. Names that others chose are in
/// many: what a terminal would act on is escaped.
pub(super) fn line(text: impl fmt::Display) {
    note(writeln!(io::stdout(), "{}", printable_lines(&text.to_string())));
}

fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// Prints what is wrong with a file, with its colours; what it quotes is escaped already.
pub(super) fn mistakes(mistakes: &ConfigErrors) {
    note(writeln!(io::stdout(), "{}", mistakes.render(Style::of(&io::stdout())).trim_end()));
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
    let _ = writeln!(io::stderr(), "{}", printable_lines(&text.to_string()));
}

/// Prints a value as JSON.
pub(super) fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(escaped(&text)),
        Err(error) => report(&format!("failed to print JSON: {error}"), None),
    }
}

/// JSON with what [`printable`] would escape as JSON escapes it: it stands in strings only.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        match printable(character.encode_utf8(&mut [0; 4])) {
            Cow::Owned(_) if character != '\n' => {
                // None of them is beyond the first plane.
                text.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            _ => text.push(character),
        }
    }
    text
}

/// Prints an error and what to do about it on standard error.
pub(super) fn error(error: &UserError) {
    if let Some(mistakes) = &error.mistakes {
        let style = Style::of(&io::stderr());
        let _ = writeln!(io::stderr(), "{}", mistakes.render(style).trim_end());
        return;
    }
    report(&error.message, error.help.as_deref());
}

fn report(message: &str, help: Option<&str>) {
    let _ = writeln!(io::stderr(), "error: {}", printable_lines(message));
    if let Some(help) = help {
        let _ = writeln!(io::stderr(), "help: {}", printable_lines(help));
    }
}

/// A change as JSON.
#[derive(Debug, Serialize)]
pub(super) struct ChangeView {
    setting: String,
    now: String,
    then: String,
}

impl ChangeView {
    pub(super) fn of(changes: &[Change]) -> Vec<Self> {
        let view = |change: &Change| Self {
            setting: change.setting.to_string(),
            now: change.now.clone(),
            then: change.then.clone(),
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

/// Prints changes, indented, with the settings' names aligned; what happens alike to many is one line.
pub(super) fn changes(changes: &[Change]) {
    change_lines(changes).iter().for_each(line);
}

/// What [`changes`] prints.
pub(super) fn change_lines(changes: &[Change]) -> Vec<String> {
    grouped::changes(changes).into_iter().map(|line| format!("  {line}")).collect()
}

/// Prints notes one a line, indented.
pub(super) fn notes(notes: &[Note]) {
    note_lines(notes).iter().for_each(line);
}

/// What [`notes`] prints.
pub(super) fn note_lines(notes: &[Note]) -> Vec<String> {
    let line = |note: &Note| match note.level {
        NoteLevel::Info => format!("  note: {}", note.text),
        NoteLevel::Warning | NoteLevel::Quarantine => format!("  warning: {}", note.text),
    };
    notes.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::config::TrustError;
    use crate::guest::Guest;
    use crate::host::HostError;
    use crate::host::manifest;
    use crate::ledger::{ClaimTerms, FILE, GivenUp, Ledger, LedgerError, Shortage};
    use crate::lifecycle::LifecycleError;
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

    fn examples() -> Vec<UserError> {
        let place = Path::new("/run/vfio-hook/lock");
        let host = || HostError::lock(place, refused());
        let shortage = Shortage {
            size: PageSize::MIB_2,
            wanted: 2,
            got: 1,
            nodes: "0".parse().unwrap(),
            per_node: vec!["node 0: 1".to_owned()],
            reason: GivenUp::NoneToBeHad,
            terms: ClaimTerms::default(),
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
            LedgerError::from(Box::new(shortage)).into(),
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
    fn what_a_terminal_acts_on_is_escaped_and_json_stays_json() {
        const ODD: &str = "a\u{9b}2J\u{202e}\u{7f}é";
        assert_eq!(printable_lines(&format!("one\n{ODD}")), "one\na\\u{9b}2J\\u{202e}\\u{7f}é");
        let json = escaped(&serde_json::to_string_pretty(&[ODD]).unwrap());
        assert_eq!(json, "[\n  \"a\\u009b2J\\u202e\\u007fé\"\n]");
        assert_eq!(serde_json::from_str::<[String; 1]>(&json).unwrap(), [ODD]);
    }

    #[test]
    fn nothing_is_said_twice() {
        for error in examples() {
            let whole = error.message;
            let mut parts: Vec<&str> = whole.split(": ").collect();
            parts.sort_unstable();
            parts.dedup();
            assert_eq!(parts.len(), whole.split(": ").count(), "{whole}");
        }
    }
}
