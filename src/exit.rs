//! The program's exit codes, all of them.

use crate::event::FailureEffect;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// What was asked is done.
    Done,
    /// It was refused, or failed.
    Failed,
    /// The command line or a YAML file is wrong.
    Usage,
    /// A child of a hook call could not be set up. It is never the program's own.
    NotSetUp,
}

impl Exit {
    /// How a hook call ends that failed.
    #[must_use]
    pub const fn after_failure(effect: FailureEffect) -> Self {
        match effect {
            FailureEffect::RefusesStart => Self::Failed,
            FailureEffect::MustNotHappen => Self::Done,
        }
    }

    /// The number for the operating system.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotSetUp => 3,
        }
    }
}
