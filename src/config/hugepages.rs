//! The section `hugepages`: memory in huge pages; size, count and node come from the guest's XML.

use std::time::Duration;

use super::section::Section;
use super::timeout::Timeout;
use super::value::{choice, memory};
use crate::pages::MemorySize;

const TIMEOUT: Timeout = Timeout::during_prepare(Duration::from_secs(20));

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
        Self { timeout: TIMEOUT.default, keep_free: None, on_shortage: OnShortage::Refuse }
    }
}

impl Hugepages {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let choices = [("refuse", OnShortage::Refuse), ("warn", OnShortage::Warn)];
        let config = Self {
            timeout: section.value("timeout", |node| TIMEOUT.read(node)).unwrap_or(default.timeout),
            keep_free: section.value("keep_free", |node| memory(node, "2GiB")),
            on_shortage: section
                .value("on_shortage", |node| choice(node, &choices))
                .unwrap_or(default.on_shortage),
        };
        section.finish();
        config
    }
}
