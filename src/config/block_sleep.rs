//! The section `block_sleep`: the host stays awake while the guest runs.

use std::collections::BTreeSet;

use super::item::Item;
use super::key::Key;
use super::section::Section;
use super::tree::Node;
use super::value::{Fault, choice};
use super::word_list::WordList;

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

impl BlockSleep {
    /// Its keys, for people.
    pub const KEYS: &'static [Key] = &[
        Key::new(
            "what",
            "`sleep`, `shutdown`, `idle`, or a list of them",
            "`[sleep]`",
            "what the host does not do while the guest runs: suspend or hibernate, power off or \
                    reboot, be taken for idle",
        ),
        Key::new(
            "strength",
            "`lock`, `mask`",
            "`lock`",
            "a lock of logind, as `systemd-inhibit` takes one; `mask` also masks systemd's sleep \
                    targets until the guest is gone",
        ),
        Key::new(
            "lid",
            "`ignore`, `leave`",
            "`leave`",
            "closing a laptop's lid: nothing happens, or what the host is set up for",
        ),
    ];
}

/// Something that logind's locks block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Blocked {
    /// Suspending and hibernating.
    Sleep,
    /// Powering off and rebooting.
    Shutdown,
    /// The host counting as idle: what dims screens and locks sessions waits for that.
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
    /// The lid does nothing.
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
    pub(crate) fn read(mut section: Section<'_>) -> Self {
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
            refuse_words_of_systemd_inhibit(node)?;
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

/// Other words for what sleep, shutdown and idle are.
const SLEEPS: WordList = WordList("suspend hibernate hybrid-sleep suspend-then-hibernate standby");
const ENDS: WordList = WordList("poweroff power-off reboot halt kexec");
const IDLES: WordList = WordList("screensaver screen-off dpms blank");

/// `systemd-inhibit --what=` has words with colons between them, and others for keys.
fn refuse_words_of_systemd_inhibit(node: &Node) -> Result<(), Fault> {
    let Node::Text(text) = node else { return Ok(()) };
    let other = [(SLEEPS, "sleep"), (ENDS, "shutdown"), (IDLES, "idle")];
    if let Some((_, meant)) = other.iter().find(|(words, _)| words.contain(&text.to_lowercase())) {
        let help = format!("write `{meant}`, which is that too");
        return Err(Fault::expected_like("`sleep`, `shutdown` or `idle`", node, help));
    }
    let words: Vec<&str> = text.split([':', ',', ' ']).filter(|word| !word.is_empty()).collect();
    let is_key = |word: &&str| word.starts_with("handle-");
    let known: Vec<&str> = words.iter().copied().filter(|word| !is_key(word)).collect();
    let all_known = known.iter().all(|word| Blocked::ALL.iter().any(|blocked| blocked.as_str() == *word));
    let is_about_the_lid = words.contains(&"handle-lid-switch");
    let mut help = match known.as_slice() {
        _ if !all_known => return Ok(()),
        [_] if words.len() == 1 => return Ok(()),
        [] => None,
        [one] => Some(format!("write `what: {one}`")),
        several => Some(format!("write a list: `[{}]`", several.join(", "))),
    };
    if is_about_the_lid {
        let lid = "for the lid, write `lid: ignore`";
        help = Some(help.map_or_else(|| lid.to_owned(), |help| format!("{help}; {lid}")));
    }
    match help {
        Some(help) => Err(Fault::expected_like("`sleep`, `shutdown` or `idle`", node, help)),
        None => Ok(()),
    }
}
