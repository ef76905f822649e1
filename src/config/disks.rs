//! The section `disks`: drives of the host that the guest's XML hands over.

use super::item::Item;
use super::key::Key;
use super::section::Section;
use super::tree::Node;
use super::value::{Fault, choice};
use crate::key_path::KeyPath;

const EXAMPLE: &str = "for example `expect: nvme-Samsung_SSD_980_PRO_1TB_S5GXNF0R123456`";

/// The longest name of a link in `/dev/disk/by-id`.
const MOST_BYTES: usize = 255;

/// Drives of the host that the guest's XML hands over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disks {
    /// What becomes of a guest whose drives the host uses.
    pub in_use: InUse,
    /// The drives that it is to get, and no others; none where it may get any.
    pub expect: Vec<ExpectedDrive>,
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
    ];

    pub(crate) fn read(mut section: Section<'_>) -> Self {
        let words = [("refuse", InUse::Refuse), ("warn", InUse::Warn)];
        let in_use = section.value("in_use", |node| choice(node, &words)).unwrap_or_default();
        let expect = section.item("expect").map(read_expected).unwrap_or_default();
        section.finish();
        Self { in_use, expect }
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
