//! An error as a person gets it: what went wrong, what to do about it, and how the program ends.

use std::error::Error;
use std::fmt;

use crate::config::{ConfigErrors, TrustError};
use crate::exit::Exit;
use crate::guest::GuestError;
use crate::host::HostError;
use crate::host::manifest::ManifestError;
use crate::ledger::{LedgerError, remedy};
use crate::lifecycle::LifecycleError;

/// What a command comes to.
pub(super) type UserResult<T> = Result<T, UserError>;

/// An error as a person gets it.
#[derive(Debug)]
pub(super) struct UserError {
    /// What was tried and why it failed.
    pub(super) message: String,
    /// What a person can do about it.
    pub(super) help: Option<String>,
    /// How the program ends.
    pub(super) exit: Exit,
    /// What is wrong in a YAML file, or with what it asks for: shown with its lines instead of the message.
    pub(super) mistakes: Option<ConfigErrors>,
}

impl UserError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, exit: Exit::Failed, mistakes: None }
    }

    /// The same with what a person can do about it.
    pub(super) fn with_help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    fn caused(error: &dyn Error, help: Option<String>) -> Self {
        Self { help, ..Self::new(error.to_string()) }
    }
}

impl fmt::Display for UserError {
    /// The message, and the help on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.help.iter().try_for_each(|help| write!(f, "\nhelp: {help}"))
    }
}

impl Error for UserError {}

impl From<LifecycleError> for UserError {
    fn from(error: LifecycleError) -> Self {
        match error {
            LifecycleError::Config(mistakes) => mistakes.into(),
            // The file is right, and this host cannot do what it says.
            LifecycleError::Refused(problems) | LifecycleError::DeadCards { errors: problems, .. } => {
                Self { exit: Exit::Failed, ..problems.into() }
            }
            error => Self::caused(&error, error.help()),
        }
    }
}

/// A file that is wrong is the user's mistake, whichever command reads it.
impl From<ConfigErrors> for UserError {
    fn from(mistakes: ConfigErrors) -> Self {
        Self { exit: Exit::Usage, mistakes: Some(mistakes.clone()), ..Self::new(mistakes.to_string()) }
    }
}

impl From<LedgerError> for UserError {
    fn from(error: LedgerError) -> Self {
        Self::caused(&error, error.help())
    }
}

impl From<HostError> for UserError {
    fn from(error: HostError) -> Self {
        Self::caused(&error, remedy(&error))
    }
}

impl From<TrustError> for UserError {
    fn from(error: TrustError) -> Self {
        Self::caused(&error, Some(error.help()))
    }
}

impl From<GuestError> for UserError {
    fn from(error: GuestError) -> Self {
        Self::caused(&error, Some(error.help().to_owned()))
    }
}

impl From<ManifestError> for UserError {
    fn from(error: ManifestError) -> Self {
        Self::caused(&error, None)
    }
}

impl From<std::io::Error> for UserError {
    fn from(error: std::io::Error) -> Self {
        Self::caused(&error, None)
    }
}

/// What was tried when it failed.
pub(super) trait Trying<T> {
    /// The same result; an error says first what was tried.
    fn trying(self, what: impl FnOnce() -> String) -> UserResult<T>;
}

impl<T, E: Into<UserError>> Trying<T> for Result<T, E> {
    fn trying(self, what: impl FnOnce() -> String) -> UserResult<T> {
        self.map_err(|error| {
            let error = error.into();
            UserError { message: format!("{}: {}", what(), error.message), ..error }
        })
    }
}
