//! How the kernel schedules a thread (`sched(7)`), as values and in words.

use std::fmt;
use std::str::FromStr;

use crate::serde_as_text::serde_as_text;

/// A thread's nice value: -20, which gets the most time, to 19.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nice(i8);

/// A priority among real-time threads: 1 to 99 (`sched_get_priority_max(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FifoPriority(u8);

/// How a guest's thread is to be scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedScheduling {
    /// With this nice value; its policy stays.
    Nice(Nice),
    /// As `SCHED_FIFO`: it runs until it sleeps, and nothing of a lower priority runs on its CPU meanwhile.
    Fifo(FifoPriority),
}

/// A policy, with the numbers of `include/uapi/linux/sched.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchedulingPolicy {
    /// `SCHED_OTHER`.
    Other,
    /// `SCHED_FIFO`.
    Fifo(FifoPriority),
    /// `SCHED_RR`.
    RoundRobin(FifoPriority),
    /// `SCHED_BATCH`.
    Batch,
    /// `SCHED_IDLE`.
    Idle,
    /// One that is left alone: `SCHED_DEADLINE`, `SCHED_EXT`, or one that a later kernel has.
    Unknown(u32),
}

/// How a thread is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduling {
    /// Its policy.
    pub policy: SchedulingPolicy,
    /// Its nice value, which a real-time policy does not look at.
    pub nice: Nice,
}

impl Nice {
    /// None where the kernel has no such value.
    #[must_use]
    pub fn new(value: i64) -> Option<Self> {
        i8::try_from(value).ok().filter(|value| (-20..=19).contains(value)).map(Self)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> i8 {
        self.0
    }
}

impl FifoPriority {
    /// The lowest: enough to come before all threads that are not real-time ones.
    pub const LOWEST: Self = Self(1);

    /// None where the kernel has no such priority.
    #[must_use]
    pub fn new(value: i64) -> Option<Self> {
        u8::try_from(value).ok().filter(|value| (1..=99).contains(value)).map(Self)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl SchedulingPolicy {
    /// A policy by the kernel's numbers.
    #[must_use]
    pub fn from_kernel(policy: u32, priority: u32) -> Self {
        let priority = FifoPriority::new(priority.into());
        match (policy, priority) {
            (0, _) => Self::Other,
            (1, Some(priority)) => Self::Fifo(priority),
            (2, Some(priority)) => Self::RoundRobin(priority),
            (3, _) => Self::Batch,
            (5, _) => Self::Idle,
            _ => Self::Unknown(policy),
        }
    }

    /// The kernel's numbers: the policy and the priority; none for one that is left alone.
    #[must_use]
    pub fn to_kernel(self) -> Option<(i32, i32)> {
        match self {
            Self::Other => Some((0, 0)),
            Self::Fifo(priority) => Some((1, priority.get().into())),
            Self::RoundRobin(priority) => Some((2, priority.get().into())),
            Self::Batch => Some((3, 0)),
            Self::Idle => Some((5, 0)),
            Self::Unknown(_) => None,
        }
    }
}

impl Scheduling {
    /// What it becomes with what a guest wants.
    #[must_use]
    pub fn with(self, want: WantedScheduling) -> Self {
        match want {
            WantedScheduling::Nice(nice) => Self { nice, ..self },
            WantedScheduling::Fifo(priority) => Self { policy: SchedulingPolicy::Fifo(priority), ..self },
        }
    }
}

impl fmt::Display for Nice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nice {}", self.0)
    }
}

impl fmt::Display for WantedScheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nice(nice) => nice.fmt(f),
            Self::Fifo(priority) => write!(f, "fifo {}", priority.get()),
        }
    }
}

impl fmt::Display for SchedulingPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other => f.write_str("other"),
            Self::Fifo(priority) => write!(f, "fifo {}", priority.get()),
            Self::RoundRobin(priority) => write!(f, "rr {}", priority.get()),
            Self::Batch => f.write_str("batch"),
            Self::Idle => f.write_str("idle"),
            Self::Unknown(number) => write!(f, "policy {number}"),
        }
    }
}

/// `nice -10`, `fifo 1, nice 0`, `batch, nice 5`.
impl fmt::Display for Scheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.policy {
            SchedulingPolicy::Other => self.nice.fmt(f),
            policy => write!(f, "{policy}, {}", self.nice),
        }
    }
}

fn unknown(text: &str) -> String {
    format!("`{text}` says nothing of how a thread is scheduled")
}

impl FromStr for Nice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix("nice ").and_then(|number| number.parse().ok());
        number.and_then(Self::new).ok_or_else(|| unknown(text))
    }
}

impl FromStr for WantedScheduling {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("fifo ") {
            Some(number) => {
                let priority = number.parse().ok().and_then(FifoPriority::new);
                priority.map(Self::Fifo).ok_or_else(|| unknown(text))
            }
            None => text.parse().map(Self::Nice),
        }
    }
}

impl FromStr for SchedulingPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, number) = text.split_once(' ').unwrap_or((text, ""));
        let priority = || number.parse().ok().and_then(FifoPriority::new).ok_or_else(|| unknown(text));
        match (word, number) {
            ("other", "") => Ok(Self::Other),
            ("fifo", _) => priority().map(Self::Fifo),
            ("rr", _) => priority().map(Self::RoundRobin),
            ("batch", "") => Ok(Self::Batch),
            ("idle", "") => Ok(Self::Idle),
            ("policy", _) => number.parse().map(Self::Unknown).map_err(|_| unknown(text)),
            _ => Err(unknown(text)),
        }
    }
}

impl FromStr for Scheduling {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(", ") {
            Some((policy, nice)) => Ok(Self { policy: policy.parse()?, nice: nice.parse()? }),
            None => Ok(Self { policy: SchedulingPolicy::Other, nice: text.parse()? }),
        }
    }
}

serde_as_text!(Nice);
serde_as_text!(WantedScheduling);
serde_as_text!(Scheduling);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_read_again() {
        for policy in 0..9 {
            for (priority, nice) in [(0, 0), (1, -20), (99, 19)] {
                let policy = SchedulingPolicy::from_kernel(policy, priority);
                let scheduling = Scheduling { policy, nice: Nice::new(nice).unwrap() };
                assert_eq!(scheduling.to_string().parse(), Ok(scheduling), "{scheduling}");
            }
        }
        for text in ["nice -10", "fifo 1", "fifo 99"] {
            assert_eq!(text.parse::<WantedScheduling>().unwrap().to_string(), text);
        }
        for text in ["", "nice", "nice 20", "nice -21", "fifo 0", "fifo 100", "fifo", "other"] {
            text.parse::<WantedScheduling>().unwrap_err();
            text.parse::<Scheduling>().unwrap_err();
        }
    }

    #[test]
    fn what_is_wanted_leaves_the_rest_as_it_is() {
        let batch: Scheduling = "batch, nice 5".parse().unwrap();
        let with = |want: &str| batch.with(want.parse().unwrap()).to_string();
        assert_eq!(with("nice -10"), "batch, nice -10");
        assert_eq!(with("fifo 2"), "fifo 2, nice 5");
    }
}
