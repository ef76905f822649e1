//! How long monitors take between two messages.

use std::time::Duration;

/// The pauses of DDC/CI 1.1, as ddcutil keeps them too, and those of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) struct Pace {
    /// Between a question and its answer.
    pub(in crate::host) reply: Duration,
    /// After anything, a reply and a failure included, before the next request of any process.
    pub(in crate::host) between: Duration,
    /// After "save current settings".
    pub(in crate::host) save: Duration,
    /// Before it is looked again whether the lock is free.
    pub(in crate::host) lock: Duration,
}

impl Pace {
    /// Monitors of glass.
    pub(in crate::host) const STANDARD: Self = Self {
        reply: Duration::from_millis(40),
        between: Duration::from_millis(50),
        save: Duration::from_millis(200),
        lock: Duration::from_millis(20),
    };

    /// Monitors that are files.
    pub(in crate::host) const NONE: Self = Self {
        reply: Duration::ZERO,
        between: Duration::ZERO,
        save: Duration::ZERO,
        lock: Duration::from_millis(1),
    };
}
