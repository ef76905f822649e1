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
    /// A child could not do what it was started for: the kernel's `errno`, for the process that started it.
    Errno(i32),
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
            Self::Errno(errno) => errno,
        }
    }
}
