//! How long a CPU may take to wake up.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::num::{NonZeroU32, ParseIntError};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::str::FromStr;

use super::{Host, HostError};

/// A CPU's `power/pm_qos_resume_latency_us` (`Documentation/ABI/testing/sysfs-devices-power`), in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeLatency {
    /// `0`: any idle state may be entered.
    Unlimited,
    /// Only idle states that are left within so many microseconds.
    AtMost(NonZeroU32),
    /// `n/a`: no waiting at all; the CPU only polls.
    None,
}

impl ResumeLatency {
    /// As `/dev/cpu_dma_latency` takes it, in microseconds (`Documentation/power/pm_qos_interface.rst`): 0 is no
    /// waiting at all there.
    #[must_use]
    pub fn longest_wait_micros(self) -> u32 {
        match self {
            // PM_QOS_CPU_LATENCY_DEFAULT_VALUE
            Self::Unlimited => 2_000_000_000,
            Self::AtMost(micros) => micros.get(),
            Self::None => 0,
        }
    }
}

impl FromStr for ResumeLatency {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "n/a" => Ok(Self::None),
            number => Ok(NonZeroU32::new(number.parse()?).map_or(Self::Unlimited, Self::AtMost)),
        }
    }
}

impl Host {
    /// Asks the kernel to keep all CPUs from idle states that take longer to leave than so many microseconds. The
    /// request lasts as long as the descriptor is open (`Documentation/power/pm_qos_interface.rst`).
    ///
    /// # Errors
    /// The kernel has no `/dev/cpu_dma_latency`.
    pub fn hold_cpu_dma_latency(&self, micros: u32) -> Result<OwnedFd, HostError> {
        let path = Path::new("/dev/cpu_dma_latency");
        let ask = || {
            let mut file = OpenOptions::new().write(true).open(self.files.locate(path))?;
            file.write_all(&i32::try_from(micros).unwrap_or(i32::MAX).to_ne_bytes())?;
            Ok(file.into())
        };
        ask().map_err(|error| HostError::write(path, &micros.to_string(), error))
    }
}

impl fmt::Display for ResumeLatency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("0"),
            Self::AtMost(microseconds) => write!(f, "{microseconds}"),
            Self::None => f.write_str("n/a"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_the_kernels_spelling() {
        for text in ["0", "20", "n/a"] {
            assert_eq!(text.parse::<ResumeLatency>().unwrap().to_string(), text);
        }
        assert!("soon".parse::<ResumeLatency>().is_err());
    }
}
