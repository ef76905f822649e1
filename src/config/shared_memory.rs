//! The section `shared_memory`: files that a guest and programs of the host have in common.

use super::item::Item;
use super::key::Key;
use super::tree::Node;
use super::value::{Fault, memory, user};
use crate::key_path::KeyPath;
use crate::pages::MemorySize;
use crate::shared_memory::SharedMemoryPath;
use crate::user_name::UserName;

const EXAMPLE: &str = "{path: /dev/shm/looking-glass, owner: anna}";

/// The permission bits that a file of data may have.
const READ_AND_WRITE: u32 = 0o666;

/// The mode where the file has none: the owner's, and the group's.
const DEFAULT_MODE: u32 = 0o660;

/// Files that a guest and programs of the host have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedMemoryFiles {
    /// In the order of the file; never none, and no path twice.
    pub files: Vec<SharedMemoryFile>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedMemoryFile {
    /// Where in the YAML file.
    pub at: KeyPath,
    /// Where it is.
    pub path: SharedMemoryPath,
    /// How large it is; none takes what the XML or the module says.
    pub size: Option<MemorySize>,
    /// Its owner; none for root.
    pub owner: Option<UserName>,
    /// Its group; none for the one that QEMU is in.
    pub group: Option<UserName>,
    /// Its permission bits.
    pub mode: u32,
}

impl SharedMemoryFiles {
    /// Its keys, for people.
    pub const KEYS: &'static [Key] = &[
        Key::new(
            "path",
            "a file in `/dev/shm`, or `/dev/kvmfr0`",
            "needed",
            "made before QEMU starts where it is missing; a device is not",
        ),
        Key::new(
            "size",
            "`auto`, or an amount such as `128MiB`",
            "`auto`",
            "`auto` takes that of the `<shmem>` of this name; of a device, that of its module",
        ),
        Key::new("owner", "a user's name", "`root`", "whose it is"),
        Key::new(
            "group",
            "a group's name",
            "`kvm`",
            "its group: QEMU has to be in it, if it is not the owner",
        ),
        Key::new("mode", "`\"0600\"` to `\"0666\"`", "`\"0660\"`", "who may read and write it"),
    ];

    pub(crate) fn read(item: Item<'_>) -> Self {
        let section = KeyPath::from(&["shared_memory"]);
        let is_list = matches!(item.node(), Node::List(_));
        let (mut count, mut seen) = (0, Vec::new());
        let files = item.elements("shares nothing", |element| {
            let at = if is_list { section.element(count) } else { section.clone() };
            count += 1;
            let mut keys = element.section(EXAMPLE)?;
            let missing =
                Fault::new("`shared_memory.path` is missing", "name it: `path: /dev/shm/looking-glass`");
            let path = keys.required("path", missing).and_then(|item| item.value(read_path));
            if path.as_ref().is_some_and(|path| seen.contains(path)) {
                keys.refuse("path", Fault::new("stands here for the second time", "keep one of the two"));
            }
            seen.extend(path.clone());
            let size = keys.value("size", read_size).flatten();
            let owner = keys.value("owner", user);
            let group = keys.value("group", user);
            let mode = keys.value("mode", read_mode).unwrap_or(DEFAULT_MODE);
            keys.finish();
            Some(SharedMemoryFile { at, path: path?, size, owner, group, mode })
        });
        Self { files }
    }
}

fn read_path(node: &Node) -> Result<SharedMemoryPath, Fault> {
    const WHAT: &str = "a file directly in /dev/shm, or /dev/kvmfr0";
    let path = if let Node::Text(text) = node { text.parse().ok() } else { None };
    path.ok_or_else(|| Fault::expected_like(WHAT, node, "for example `/dev/shm/looking-glass`"))
}

fn read_size(node: &Node) -> Result<Option<MemorySize>, Fault> {
    if matches!(node, Node::Text(text) if text == "auto") {
        return Ok(None);
    }
    let size = memory(node, "128MiB")?;
    match size.bytes() {
        bytes if bytes.is_power_of_two() && bytes >= 1024 * 1024 => Ok(Some(size)),
        _ => Err(Fault::new(
            "a guest's shared memory has 1 MiB at least, doubled as often as needed",
            "for example `64MiB` or `128MiB`",
        )),
    }
}

fn read_mode(node: &Node) -> Result<u32, Fault> {
    let digits = match node {
        Node::Text(digits) | Node::Integer(digits) => digits.as_str(),
        _ => "",
    };
    let is_octal =
        (3..=4).contains(&digits.len()) && digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    let mode = u32::from_str_radix(digits, 8).ok().filter(|_| is_octal);
    match mode {
        Some(mode) if mode & !READ_AND_WRITE == 0 && mode & 0o600 == 0o600 => Ok(mode),
        _ => {
            let help = "in quotes, for example \"0660\": the owner and the group; nobody executes it";
            Err(Fault::expected_like("a mode from \"0600\" to \"0666\"", node, help))
        }
    }
}
