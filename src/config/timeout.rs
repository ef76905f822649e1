//! The key `timeout` of several sections.

use std::time::Duration;

use super::tree::Node;
use super::value::{Fault, duration};

/// The shortest time in which anything can be tried.
const SHORTEST: Duration = Duration::from_secs(1);

/// What a timeout may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeout {
    /// Where the file has none.
    pub(crate) default: Duration,
    longest: Duration,
    /// Why it may not be longer.
    reason: &'static str,
}

impl Timeout {
    /// Of something that the guest's start waits for: `prepare` has 60 s in all, and other actions need some of them.
    pub(crate) const fn during_prepare(default: Duration) -> Self {
        let reason = "libvirt waits meanwhile, and `prepare` has 60 s in all";
        Self { default, longest: Duration::from_secs(50), reason }
    }

    /// The same with another bound.
    pub(crate) const fn at_most(self, longest: Duration) -> Self {
        Self { longest, ..self }
    }

    /// Of something that libvirt does not wait for. Ten minutes tell a slow command from one that hangs.
    pub(crate) const fn afterwards(default: Duration) -> Self {
        let reason = "what runs for longer is better a service, which the command starts";
        Self { default, longest: Duration::from_secs(600), reason }
    }

    /// Reads a duration within the bounds.
    pub(crate) fn read(&self, node: &Node) -> Result<Duration, Fault> {
        let default = written(self.default);
        let timeout = duration(node, &default)?;
        if (SHORTEST..=self.longest).contains(&timeout) {
            return Ok(timeout);
        }
        Err(Fault::new(
            format!("not between {} and {}", written(SHORTEST), written(self.longest)),
            format!("{}; without a timeout it is {default}", self.reason),
        ))
    }
}

/// Whole minutes or seconds, as the file has them.
fn written(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds >= 60 && seconds.is_multiple_of(60) => format!("{}min", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}
