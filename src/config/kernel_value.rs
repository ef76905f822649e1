//! Values for files of the kernel's, as a person writes them.

use super::tree::{Node, is_quoted};
use super::value::{Fault, any_of, memory};
use super::word_list::WordList;
use crate::pages::MemorySize;

/// Longer names have neither disks (`DISK_NAME_LEN` of the kernel is 32) nor other devices that are known.
const LONGEST_NAME: usize = 64;

/// What people write for something that is not to be.
const OFF: WordList = WordList("off no none disable disabled false");

/// What people write for something that is to be.
const ON: WordList = WordList("on yes enable enabled true");

/// Longer than all values that are known.
const LONGEST_VALUE: usize = 1000;

/// Reads a whole number between these two, both among them.
pub(crate) fn number(node: &Node, min: i64, max: i64) -> Result<i64, Fault> {
    let what = format!("a number from {min} to {max}");
    let digits = match node {
        Node::Integer(digits) => digits,
        Node::Bool(value) if min == 0 => {
            return Err(Fault::expected_like(&what, node, format!("write `{}`", u8::from(*value))));
        }
        Node::Text(text) if min == 0 && is_off(text) => {
            return Err(Fault::expected_like(&what, node, "write `0`"));
        }
        Node::Text(text) if min == 0 && is_on(text) => {
            return Err(Fault::expected_like(&what, node, "write `1`"));
        }
        Node::Text(text) if is_quoted(text) => return Err(Fault::quoted(&what, node)),
        other => return Err(Fault::expected(&what, other)),
    };
    let number = digits.parse::<i64>().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| Fault::expected(&what, node))
}

/// The path of a value that sysctl names: `vm.swappiness`, `kernel/sched_autogroup_enabled`. None for what is no such
/// name.
pub(crate) fn path_of_sysctl(name: &str) -> Option<String> {
    const FOLDERS: WordList = WordList("abi crypto debug dev fs kernel net sunrpc user vm");
    let (folder, rest) = name.split_once(['.', '/'])?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let is_name = FOLDERS.contain(folder) && !rest.is_empty() && name.chars().all(is_plain);
    // Where sysctl has dots between folders, it has slashes for dots.
    let is_dotted = name[folder.len()..].starts_with('.');
    let path = if is_dotted {
        name.chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect()
    } else {
        name.to_owned()
    };
    (is_name && !path.contains("//") && !path.ends_with('/')).then(|| format!("/proc/sys/{path}"))
}

fn is_off(text: &str) -> bool {
    OFF.contain(&text.to_lowercase())
}

fn is_on(text: &str) -> bool {
    ON.contain(&text.to_lowercase())
}

/// Reads one of several words.
pub(crate) fn word(node: &Node, words: &[&'static str]) -> Result<&'static str, Fault> {
    // YAML takes `off` for a text, but people take `true` for `always`.
    let expected = any_of(words);
    let meant = match node {
        Node::Bool(false) => "never",
        Node::Bool(true) => "always",
        Node::Text(text) if is_off(text) => "never",
        Node::Text(text) if is_on(text) => "always",
        _ => "",
    };
    if words.contains(&meant) {
        return Err(Fault::expected_like(&expected, node, format!("write `{meant}`")));
    }
    let Node::Text(text) = node else { return Err(Fault::expected(&expected, node)) };
    let found = words.iter().find(|word| *word == text);
    found.copied().ok_or_else(|| match super::did_you_mean(text, words) {
        Some(meant) => Fault::expected_like(&expected, node, format!("did you mean `{meant}`?")),
        None => Fault::expected(&expected, node),
    })
}

/// Reads an amount of memory of at least so many bytes.
pub(crate) fn amount(node: &Node, least: u64, example: &str) -> Result<MemorySize, Fault> {
    let amount = memory(node, example)?;
    match amount.bytes() >= least {
        true => Ok(amount),
        false => Err(Fault::new(
            format!("less than {}", MemorySize::from_bytes(least)),
            format!("for example `{example}`"),
        )),
    }
}

/// Reads a part of a whole: `30%`.
pub(crate) fn percent(node: &Node) -> Result<u8, Fault> {
    let read =
        |text: &str| text.strip_suffix('%')?.trim().parse::<u8>().ok().filter(|percent| *percent <= 100);
    match node {
        Node::Text(text) => read(text),
        _ => None,
    }
    .ok_or_else(|| Fault::expected_like("a part from `0%` to `100%`", node, "for example `30%`"))
}

/// Reads the name of a disk or another device, as sysfs has it.
pub(crate) fn device_name(node: &Node) -> Result<String, Fault> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.len() <= LONGEST_NAME
            && name != "."
            && name != ".."
            && name.chars().all(|c| c.is_ascii_graphic() && c != '/')
    };
    match node {
        Node::Text(name) if is_name(name) => Ok(name.clone()),
        Node::Text(name) if name.starts_with("/dev/") => Err(Fault::expected_like(
            "a device's name",
            node,
            format!("write `{}`", name.trim_start_matches("/dev/")),
        )),
        other => Err(Fault::expected_like("a device's name", other, "as in /sys: for example `nvme0n1`")),
    }
}

/// Reads what a file of the kernel's is to hold: a line. What stands between its words does not count.
pub(crate) fn kernel_text(node: &Node) -> Result<String, Fault> {
    const WHAT: &str = "a value";
    let text = match node {
        Node::Text(text) | Node::Integer(text) => text,
        Node::Bool(_) => {
            return Err(Fault::expected_like(
                WHAT,
                node,
                "write what the file takes: `1`, or `\"Y\"` in quotes",
            ));
        }
        Node::Float(_) => return Err(Fault::expected_like(WHAT, node, "write it in quotes")),
        other => return Err(Fault::expected(WHAT, other)),
    };
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Fault::new("has a line break or another control character", "a value is one line"));
    }
    if text.len() > LONGEST_VALUE {
        return Err(Fault::new(
            format!("longer than {LONGEST_VALUE} bytes"),
            "no file of the kernel's takes that",
        ));
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.is_empty() {
        true => Err(Fault::new("sets nothing: the value is empty", "write what the file is to hold")),
        false => Ok(words.join(" ")),
    }
}
