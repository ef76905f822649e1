//! How long a CPU may take to wake up, as the kernel takes it for each CPU.

use std::fmt;
use std::num::{NonZeroU32, ParseIntError};
use std::str::FromStr;

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
