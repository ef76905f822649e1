//! The program's exit codes, all of them.

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// What was asked is done.
    Done,
    /// It was refused, or failed.
    Failed,
    /// The command line or a YAML file is wrong.
    Usage,
}

impl Exit {
    /// The number for the operating system.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
        }
    }
}
