//! The section `hugepages`: memory in huge pages; size, count and node come from the guest's XML.

use std::time::Duration;

use super::section::Section;
use super::tree::Node;
use super::value::{Fault, choice, duration, memory};
use crate::pages::MemorySize;

/// The shortest time in which anything can be tried.
const MIN_TIMEOUT: Duration = Duration::from_secs(1);
/// `prepare` has 60 s in all, and other actions need some of them.
const MAX_TIMEOUT: Duration = Duration::from_secs(50);

/// How huge pages are got together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hugepages {
    /// How long the kernel may take to free pages, all attempts together.
    pub timeout: Duration,
    /// The memory that stays for the host; none leaves the amount to the action.
    pub keep_free: Option<MemorySize>,
    /// What happens if there are not enough pages.
    pub on_shortage: OnShortage,
}

/// What happens to a guest for which there are not enough huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnShortage {
    /// Its start is refused.
    Refuse,
    /// The log says so, and libvirt decides.
    Warn,
}

impl Default for Hugepages {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(20), keep_free: None, on_shortage: OnShortage::Refuse }
    }
}

impl Hugepages {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let choices = [("refuse", OnShortage::Refuse), ("warn", OnShortage::Warn)];
        let config = Self {
            timeout: section.value("timeout", read_timeout).unwrap_or(default.timeout),
            keep_free: section.value("keep_free", |node| memory(node, "2GiB")),
            on_shortage: section
                .value("on_shortage", |node| choice(node, &choices))
                .unwrap_or(default.on_shortage),
        };
        section.finish();
        config
    }
}

fn read_timeout(node: &Node) -> Result<Duration, Fault> {
    let timeout = duration(node, "20s")?;
    if (MIN_TIMEOUT..=MAX_TIMEOUT).contains(&timeout) {
        return Ok(timeout);
    }
    Err(Fault::new(
        format!("not between {}s and {}s", MIN_TIMEOUT.as_secs(), MAX_TIMEOUT.as_secs()),
        "libvirt waits meanwhile, and `prepare` has 60 s in all; without a timeout it is 20s",
    ))
}
