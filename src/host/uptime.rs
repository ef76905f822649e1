//! Clocks that cannot be set.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::{Host, HostError};

/// How long the machine has slept since its boot: of two clocks that cannot be set, one goes on meanwhile (`time(7)`).
/// Zero where the kernel does not say.
pub(crate) fn time_asleep() -> Duration {
    let now = |clock| clock_gettime(clock).map(Duration::from);
    match (now(ClockId::CLOCK_MONOTONIC), now(ClockId::CLOCK_BOOTTIME)) {
        // Read first, the one that stands still cannot be ahead.
        (Ok(awake), Ok(since_boot)) => since_boot.saturating_sub(awake),
        _ => Duration::ZERO,
    }
}

impl Host {
    /// `/proc/uptime`: the time since the boot, sleep included, to the whole second.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn uptime(&self) -> Result<Duration, HostError> {
        const PATH: &str = "/proc/uptime";
        let text = self.text(PATH)?;
        let seconds = text.split(['.', ' ']).next().unwrap_or_default();
        let seconds = seconds.parse().map_err(|error| HostError::content(PATH.as_ref(), error))?;
        Ok(Duration::from_secs(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::simulated::Faults;

    #[test]
    fn reads_whole_seconds() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("proc")).unwrap();
        let host = Host::simulated(folder.path(), &Faults::default());
        let set = |text: &str| std::fs::write(folder.path().join("proc/uptime"), text).unwrap();
        assert!(host.uptime().unwrap_err().is_absent());
        set("350735.47 234388.90\n");
        assert_eq!(host.uptime().unwrap(), Duration::from_secs(350_735));
        set("soon\n");
        let error = host.uptime().unwrap_err().to_string();
        assert!(error.starts_with("failed to read /proc/uptime: "), "{error}");
    }
}
