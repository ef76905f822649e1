//! The section `conflicts`: guests beside which this one does not start.

use super::condition::Condition;
use super::item::Item;
use super::key::Key;
use super::section::Section;
use super::tree::Node;
use super::value::Fault;

const EXAMPLE: &str = "{guest: macos, message: \"both use the sound card\"}";

/// The longest name of a file: libvirt's files of a guest are named after it, with an ending.
const MOST_BYTES: usize = 255 - ".xml".len();

/// Guests beside which this one does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts {
    /// Their names as libvirt has them, in the order of the file; never none, and none twice.
    pub guests: Vec<Condition<String>>,
}

impl Conflicts {
    /// Its keys, for people.
    pub const KEYS: &'static [Key] = &[
        Key::new("guest", "a guest's name", "needed", "must not run, nor hold anything of the host"),
        Key::new("message", "a line of text", "none", "what a refusal says first; the reason follows"),
    ];

    pub(crate) fn read(item: Item<'_>) -> Self {
        Self { guests: Condition::read_all(item, "names no guest", EXAMPLE, guest, keys) }
    }
}

fn keys(section: &mut Section<'_>) -> Option<String> {
    let missing = Fault::new("`conflicts.guest` is missing", "name the guest: `guest: macos`");
    section.required("guest", missing)?.value(guest)
}

fn guest(node: &Node) -> Result<String, Fault> {
    const WHAT: &str = "a guest's name";
    let expected = |help: String| Err(Fault::expected_like(WHAT, node, help));
    match node {
        Node::Text(name) if name.is_empty() || name.len() > MOST_BYTES => {
            expected("as `virsh list --all` shows it".to_owned())
        }
        Node::Text(name) if name.contains('/') || name.contains(char::is_control) => {
            expected("libvirt has no guest of such a name".to_owned())
        }
        Node::Text(name) if name.contains(['*', '?', '[', '{']) || name.starts_with('^') => {
            expected("patterns are not read here: name each guest, as `virsh list --all` shows it".to_owned())
        }
        Node::Text(name) => Ok(name.clone()),
        Node::Integer(digits) => expected(format!("in quotes: \"{digits}\"")),
        _ => expected("as `virsh list --all` shows it".to_owned()),
    }
}
