//! Moments that outlive a process, and how people say how long ago one was.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now.
pub(crate) fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// How long ago, as people say it; `since` is in seconds since 1970.
pub(crate) fn age(since: u64) -> String {
    match seconds_since_1970().saturating_sub(since) {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_said_in_the_unit_that_tells_most() {
        // Half a minute into each, so that the test may take its time.
        for (ago, words) in
            [(150, "2 min"), (3630, "60 min"), (7_170, "119 min"), (7230, "2 h"), (90_030, "25 h")]
        {
            assert_eq!(age(seconds_since_1970() - ago), words);
        }
        // A clock that was set back.
        assert_eq!(age(seconds_since_1970() + 1000), "0 s");
    }
}
