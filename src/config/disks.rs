//! The section `disks`: drives of the host that the guest's XML hands over.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::item::Item;
use super::key::Key;
use super::section::Section;
use super::timeout::Timeout;
use super::tree::Node;
use super::value::{Fault, choice};
use super::word_list::WordList;
use crate::key_path::KeyPath;

const EXAMPLE: &str = "for example `expect: nvme-Samsung_SSD_980_PRO_1TB_S5GXNF0R123456`";

const TIMEOUT: Timeout = Timeout::during_prepare(Duration::from_secs(20));

/// The host ends with these.
const NEVER: WordList =
    WordList("/ /usr /var /etc /nix /nix/store /boot /boot/efi /efi /run /proc /sys /dev /tmp");

/// The longest name of a link in `/dev/disk/by-id`.
const MOST_BYTES: usize = 255;

/// Drives of the host that the guest's XML hands over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disks {
    /// What becomes of a guest whose drives the host uses.
    pub in_use: InUse,
    /// The drives that it is to get, and no others; none where it may get any.
    pub expect: Vec<ExpectedDrive>,
    /// The mounts, and the devices that are swapped to, that are taken down for the guest; none twice.
    pub unmount: Vec<UnmountedPath>,
    /// How long taking down may take, all together.
    pub timeout: Duration,
}

/// A mount that is taken down for a guest, or a device that is swapped to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnmountedPath {
    /// Where in the file.
    pub at: KeyPath,
    /// Where it is mounted; the device's path in `/dev`.
    pub path: PathBuf,
}

impl Default for Disks {
    fn default() -> Self {
        Self { in_use: InUse::Refuse, expect: Vec::new(), unmount: Vec::new(), timeout: TIMEOUT.default }
    }
}

/// What becomes of a guest whose drives the host uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InUse {
    /// It does not start.
    #[default]
    Refuse,
    /// It starts, and that is said. The drive that the host itself lives on is refused all the same.
    Warn,
}

/// A drive that a guest is to get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedDrive {
    /// Where in the file.
    pub at: KeyPath,
    /// Its serial number, its World Wide Name, or its name in `/dev/disk/by-id`.
    pub name: String,
}

impl Disks {
    /// Its keys, for people.
    pub const KEYS: &'static [Key] = &[
        Key::new(
            "in_use",
            "`refuse` or `warn`",
            "`refuse`",
            "what becomes of the start where the host uses a drive that the XML hands over; the drive of the host's \
             root file system is refused in any case",
        ),
        Key::new(
            "expect",
            "a serial number, a World Wide Name or a name in `/dev/disk/by-id`, or a list of them",
            "any drives",
            "the drives that the guest is to get, and no others: PCI addresses and `/dev/sdX` may be another drive's \
             tomorrow",
        ),
        Key::new(
            "unmount",
            "a path such as `/games`, or a list of them",
            "nothing",
            "unmounted before the guest starts, with what is below it and what it is upon: LVM, LUKS, RAID; all of it comes \
             back after the guest. A path in `/dev` is swap",
        ),
        Key::new("timeout", "`1s` to `50s`", "`20s`", "how long taking all of it down may take"),
    ];

    pub(crate) fn read(mut section: Section<'_>) -> Self {
        let words = [("refuse", InUse::Refuse), ("warn", InUse::Warn)];
        let in_use = section.value("in_use", |node| choice(node, &words)).unwrap_or_default();
        let expect = section.item("expect").map(read_expected).unwrap_or_default();
        let unmount = section.item("unmount").map(read_unmounted).unwrap_or_default();
        let timeout = section.value("timeout", |node| TIMEOUT.read(node));
        if timeout.is_some() && unmount.is_empty() {
            section.refuse("timeout", Fault::new("has no effect without `unmount`", "remove it"));
        }
        section.finish();
        Self { in_use, expect, unmount, timeout: timeout.unwrap_or(TIMEOUT.default) }
    }
}

fn read_expected(item: Item<'_>) -> Vec<ExpectedDrive> {
    let key = KeyPath::from(&["disks", "expect"]);
    let is_list = matches!(item.node(), Node::List(_));
    let (mut count, mut seen) = (0, Vec::new());
    item.elements("expects no drive", |element| {
        let at = if is_list { key.element(count) } else { key.clone() };
        count += 1;
        let name = element.value(|node| {
            let name = read_name(node)?;
            match seen.contains(&name) {
                true => Err(Fault::new("this one stands here for the second time", "keep one of the two")),
                false => Ok(name),
            }
        })?;
        seen.push(name.clone());
        Some(ExpectedDrive { at, name })
    })
}

fn read_unmounted(item: Item<'_>) -> Vec<UnmountedPath> {
    let key = KeyPath::from(&["disks", "unmount"]);
    let is_list = matches!(item.node(), Node::List(_));
    let (mut count, mut seen) = (0, Vec::new());
    item.elements("unmounts nothing", |element| {
        let at = if is_list { key.element(count) } else { key.clone() };
        count += 1;
        let path = element.value(|node| {
            let path = read_path(node)?;
            match seen.contains(&path) {
                true => Err(Fault::new("this one stands here for the second time", "keep one of the two")),
                false => Ok(path),
            }
        })?;
        seen.push(path.clone());
        Some(UnmountedPath { at, path })
    })
}

fn read_path(node: &Node) -> Result<PathBuf, Fault> {
    let expected = || Fault::expected_like("the path of a mount", node, "for example `/games`");
    let Node::Text(text) = node else { return Err(expected()) };
    let path = Path::new(text);
    let is_plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !is_plain || text.contains(char::is_control) {
        return Err(expected());
    }
    // Without a slash at its end, or two in it.
    let path: PathBuf = path.components().collect();
    if path.to_str().is_some_and(|path| NEVER.contain(path)) {
        return Err(Fault::new(format!("`{text}` is never unmounted"), "the host needs it"));
    }
    Ok(path)
}

fn read_name(node: &Node) -> Result<String, Fault> {
    const WHAT: &str = "a serial number, a World Wide Name or a name in /dev/disk/by-id";
    let expected = |help: String| Err(Fault::expected_like(WHAT, node, help));
    match node {
        Node::Integer(digits) => expected(format!("in quotes: \"{digits}\"")),
        Node::Text(text) if text.starts_with("/dev/") && !text.starts_with("/dev/disk/by-id/") => {
            let help = "such a path may be another drive's tomorrow; `ls -l /dev/disk/by-id` shows the names that stay";
            Err(Fault::new(format!("`{text}` does not say which drive it is"), help))
        }
        Node::Text(text)
            if text.trim().is_empty() || text.len() > MOST_BYTES || text.contains(char::is_control) =>
        {
            expected(EXAMPLE.to_owned())
        }
        Node::Text(text) => Ok(text.trim().to_owned()),
        _ => expected(EXAMPLE.to_owned()),
    }
}
