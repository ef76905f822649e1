//! The section `block_sleep`: the host stays awake while the guest runs.

use std::collections::BTreeSet;

use super::item::Item;
use super::section::Section;
use super::value::{Fault, choice};

/// What the host does not do meanwhile, and how hard that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSleep {
    /// What is blocked; never nothing.
    pub what: BTreeSet<Blocked>,
    /// How it is blocked.
    pub strength: LockStrength,
    /// What the lid of a laptop does.
    pub lid: LidSwitch,
}

/// Something that logind's locks block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Blocked {
    /// Suspending and hibernating.
    Sleep,
    /// Powering off and rebooting.
    Shutdown,
    /// The host taking itself for idle.
    Idle,
}

/// How sleep is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockStrength {
    /// By a lock of logind; before systemd 257 root and the lock's own user pass over it.
    Lock,
    /// By the lock, and systemd's sleep targets are masked until the next boot at the latest.
    Mask,
}

/// What closing a laptop's lid does; logind passes over locks for it (`LidSwitchIgnoreInhibited=` in logind.conf(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LidSwitch {
    /// What the host is set up for.
    LeftAlone,
    /// Nothing.
    Ignored,
}

impl Blocked {
    const ALL: [Self; 3] = [Self::Sleep, Self::Shutdown, Self::Idle];

    /// logind's word for it (`Inhibit` in org.freedesktop.login1(5)).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sleep => "sleep",
            Self::Shutdown => "shutdown",
            Self::Idle => "idle",
        }
    }
}

impl Default for BlockSleep {
    fn default() -> Self {
        let what = BTreeSet::from([Blocked::Sleep]);
        Self { what, strength: LockStrength::Lock, lid: LidSwitch::LeftAlone }
    }
}

impl BlockSleep {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let strengths = [("lock", LockStrength::Lock), ("mask", LockStrength::Mask)];
        let lids = [("ignore", LidSwitch::Ignored), ("leave", LidSwitch::LeftAlone)];
        let config = Self {
            what: section.item("what").map_or(default.what, read_what),
            strength: section.value("strength", |node| choice(node, &strengths)).unwrap_or(default.strength),
            lid: section.value("lid", |node| choice(node, &lids)).unwrap_or(default.lid),
        };
        let sleeps = !config.what.is_empty() && !config.what.contains(&Blocked::Sleep);
        if config.strength == LockStrength::Mask && sleeps {
            section.refuse(
                "strength",
                Fault::new(
                    "`mask` has no effect: it masks sleep, which `what` does not name",
                    "add `sleep` to `what`, or write `strength: lock`",
                ),
            );
        }
        section.finish();
        config
    }
}

fn read_what(item: Item<'_>) -> BTreeSet<Blocked> {
    let choices = Blocked::ALL.map(|blocked| (blocked.as_str(), blocked));
    let mut what = BTreeSet::new();
    item.elements("blocks nothing", |element| {
        element.value(|node| {
            let blocked = choice(node, &choices)?;
            if what.insert(blocked) {
                return Ok(());
            }
            let message = format!("`{}` stands here for the second time", blocked.as_str());
            Err(Fault::new(message, "keep one of the two"))
        })
    });
    what
}
