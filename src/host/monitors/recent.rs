//! What this process has just found, so that the same step does not ask buses twice who is at their end.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::find::{MonitorFound, MonitorsFound};

/// One step of a guest's life, or one command of a person's, is over by then.
const ONE_STEP: Duration = Duration::from_secs(5);

/// The monitors of the last look.
#[derive(Debug, Default)]
pub(in crate::host) struct RecentlyFound(Mutex<Option<(Instant, Vec<MonitorFound>)>>);

impl RecentlyFound {
    /// What was found before, by the process that this one works for.
    pub(in crate::host) fn of(monitors: &[MonitorFound]) -> Self {
        Self(Mutex::new(Some((Instant::now(), monitors.to_vec()))))
    }

    pub(super) fn remember(&self, found: &MonitorsFound) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((Instant::now(), found.monitors.clone()));
    }

    /// None where the look is too long ago: a driver that is loaded anew gives buses other numbers.
    pub(super) fn get(&self) -> Vec<MonitorFound> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = last.as_ref().filter(|(at, _)| at.elapsed() < ONE_STEP);
        recent.map(|(_, monitors)| monitors.clone()).unwrap_or_default()
    }
}
