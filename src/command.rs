//! What a guest's YAML file asks to be run: programs with arguments, never a shell's command line.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::Operation;
use crate::host::UserName;

/// One command, and when it is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The event.
    pub when: Operation,
    /// What is run.
    pub program: Program,
    /// How long each program may take.
    pub timeout: Duration,
    /// As whom; root if nobody is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    /// What its failure means.
    pub on_failure: OnCommandFailure,
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
