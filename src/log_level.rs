//! How much the journal gets.

/// The least important lines that the log takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Failures.
    Error,
    /// What is not as it was asked for, too.
    Warn,
    /// What an event did, too.
    #[default]
    Info,
    /// Every setting with its value before and after, and how long the write took, too.
    Debug,
}

impl LogLevel {
    /// The levels, and the words for them in the YAML file.
    pub const WORDS: [(&'static str, Self); 4] =
        [("error", Self::Error), ("warn", Self::Warn), ("info", Self::Info), ("debug", Self::Debug)];
}
