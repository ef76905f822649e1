//! The section `hugepages`: memory in huge pages; size, count and node come from the guest's XML.

use std::time::Duration;

use super::key::Key;
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

impl Hugepages {
    /// Its keys, for people.
    pub const KEYS: &'static [Key] = &[
        Key::new(
            "timeout",
            "`1s` to `50s`",
            "`20s`",
            "how long the kernel may take to gather the pages; `virsh start` takes that much longer \
                    at most",
        ),
        Key::new(
            "keep_free",
            "an amount such as `4GiB`",
            "2 GiB, or a tenth of the memory if that is more",
            "what must stay for the host",
        ),
        Key::new(
            "on_shortage",
            "`refuse`, `warn`",
            "`refuse`",
            "too few pages: refuse the start and say why, or log it and let QEMU decide",
        ),
    ];
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
    pub(crate) fn read(mut section: Section<'_>) -> Self {
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
