//! What a guest's YAML file asks to be run: programs with arguments, never a shell's command line.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::Operation;
use crate::user_name::UserName;

/// One command, and when it is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The event.
    pub when: Operation,
    /// What is run.
    pub program: Program,
    /// How long each program may take; in the background, how long it may take to end once it is asked to.
    pub timeout: Duration,
    /// As whom; root if nobody is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    /// What its failure means.
    pub on_failure: OnCommandFailure,
    /// Variables of its own, beside those that every command gets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Whether its end is waited for.
    #[serde(default, skip_serializing_if = "CommandMode::is_default")]
    pub mode: CommandMode,
    /// A file that keeps it from being run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unless_exists: Option<PathBuf>,
    /// What takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Undo>,
    /// Where the YAML file asks for it: file, line and column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

/// Whether the end of a command is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommandMode {
    /// What comes after it is.
    #[default]
    Waited,
    /// It runs until the guest ends.
    Background,
}

/// What takes a command back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Undo {
    /// The command's number in the guest's file, which tells it from the others.
    pub entry: usize,
    /// The program and its arguments.
    pub command: Vec<String>,
}

/// What is run: never a shell's command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// A program and its arguments.
    Arguments(Vec<String>),
    /// The executable files of `FOLDER/GUEST/OPERATION/SUB-OPERATION`, by their names.
    Scripts(PathBuf),
}

/// What a command's failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnCommandFailure {
    /// The log says so.
    Warn,
    /// The guest must not start.
    Refuse,
}

impl CommandMode {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Command {
    /// What is run to take it back, once it may have begun.
    #[must_use]
    pub fn undoing(&self) -> Option<Self> {
        let undo = self.undo.as_ref()?;
        Some(Self {
            when: Operation::Release,
            program: Program::Arguments(undo.command.clone()),
            on_failure: OnCommandFailure::Warn,
            mode: CommandMode::Waited,
            unless_exists: None,
            undo: None,
            ..self.clone()
        })
    }

    /// All there is to say about it on one line, but for the values of its variables.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = self.to_string();
        if !self.env.is_empty() {
            let names: Vec<&str> = self.env.keys().map(String::as_str).collect();
            text.push_str(&format!(", with {}", names.join(", ")));
        }
        if self.mode == CommandMode::Background {
            text.push_str(", in the background until the guest ends");
        }
        if let Some(path) = &self.unless_exists {
            text.push_str(&format!(", unless {} exists", path.display()));
        }
        if let Some(undo) = &self.undo {
            text.push_str(&format!("; undo: {}", undo.command.join(" ")));
        }
        text
    }

    /// Words about it with the place in the YAML file before them.
    #[must_use]
    pub fn say(&self, words: impl fmt::Display) -> String {
        match &self.place {
            Some(place) => format!("{place}: {words}"),
            None => words.to_string(),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.program {
            Program::Arguments(words) => f.write_str(&words.join(" "))?,
            Program::Scripts(folder) => write!(f, "the scripts of {}", folder.display())?,
        }
        match &self.user {
            Some(user) => write!(f, " (as {user})"),
            None => Ok(()),
        }
    }
}
