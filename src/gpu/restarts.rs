//! How often a guest that reboots itself is started again: a guest that cannot get up would be started for ever.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// So many restarts are made within [`RESTARTS_WITHIN`]: an update of Windows reboots two or three times.
pub const MOST_RESTARTS: usize = 3;

/// The time in which restarts are counted.
pub const RESTARTS_WITHIN: Duration = Duration::from_mins(5);

/// When a guest was started again, in seconds since the boot of the host, the earliest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Restarts(Vec<u64>);

/// Whether a guest may be started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartAnswer {
    /// It may.
    Allowed,
    /// It was started again too often in too short a time.
    TooMany,
}

impl Restarts {
    /// Judges a restart at this moment (time since the boot), and counts it if it may be made.
    pub fn admit(&mut self, now: Duration) -> RestartAnswer {
        let now = now.as_secs();
        // A moment that is yet to come is none of this boot.
        self.0.retain(|at| *at <= now && now - at < RESTARTS_WITHIN.as_secs());
        if self.0.len() >= MOST_RESTARTS {
            return RestartAnswer::TooMany;
        }
        self.0.push(now);
        RestartAnswer::Allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of restarts at these seconds.
    fn verdicts(seconds: &[u64]) -> Vec<bool> {
        let mut restarts = Restarts::default();
        let is_allowed = |at: &u64| restarts.admit(Duration::from_secs(*at)) == RestartAnswer::Allowed;
        seconds.iter().map(is_allowed).collect()
    }

    #[test]
    fn three_restarts_in_five_minutes_are_made_and_no_fourth() {
        assert_eq!(verdicts(&[100, 130, 160, 190, 399]), [true, true, true, false, false]);
        assert_eq!(verdicts(&[100, 130, 160, 400, 430]), [true, true, true, true, true]);
        assert_eq!(verdicts(&[100, 100, 100, 100]), [true, true, true, false]);
    }

    #[test]
    fn one_that_is_not_made_does_not_count() {
        assert_eq!(verdicts(&[0, 1, 2, 250, 299, 300, 301]), [true, true, true, false, false, true, true]);
    }

    #[test]
    fn moments_to_come_do_not_count() {
        assert_eq!(verdicts(&[1000, 1001, 1002, 5]), [true, true, true, true]);
    }
}
