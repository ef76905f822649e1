//! Reads lists of CPUs, and says what a list is where a file has a mask or a list of YAML's.

use super::item::Item;
use super::tree::{Node, shortened};
use super::value::Fault;
use crate::cpuset::CpuSet;

const WHAT: &str = "`auto` or a list of CPUs";
const HELP: &str =
    "`auto` takes the CPUs that the guest's XML pins its vCPUs to; a list looks like \"4-15,20-31\"";

/// Digits of one word of a mask as the kernel writes it (`bitmap_print_to_pagebuf`).
const WORD: usize = 8;

/// `auto`, or CPUs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AutoOrCpus {
    Auto,
    /// Never none.
    Cpus(CpuSet),
}

/// Reads `auto` or a list of CPUs.
pub(super) fn auto_or_cpus(mut item: Item<'_>) -> Option<AutoOrCpus> {
    if let Node::Integer(digits) = item.node() {
        let digits = digits.clone();
        item.judge_as_written(move |written| number_in_hexadecimal(written, &digits));
    }
    item.value(read)
}

fn read(node: &Node) -> Result<AutoOrCpus, Fault> {
    let text = match node {
        Node::Text(text) | Node::Integer(text) => text,
        Node::List(values) => return Err(not_a_list_of_yaml(node, values)),
        other => return Err(Fault::expected_like(WHAT, other, HELP)),
    };
    if text == "auto" {
        return Ok(AutoOrCpus::Auto);
    }
    if super::did_you_mean(text, &["auto"]).is_some() {
        return Err(Fault::expected_like(WHAT, node, "did you mean `auto`?"));
    }
    if let Some(cpus) = mask(text) {
        return Err(is_mask(text, &cpus));
    }
    match text.parse::<CpuSet>() {
        Ok(cpus) if cpus.is_empty() => Err(Fault::new("isolates none: the list of CPUs is empty", HELP)),
        Ok(cpus) => Ok(AutoOrCpus::Cpus(cpus)),
        Err(error) => Err(Fault::new(format!("no list of CPUs: {}", shortened(&error.to_string())), HELP)),
    }
}

/// `[1, 2, 3]` or `["1-3", 8]`: the list as one text.
fn not_a_list_of_yaml(node: &Node, values: &[Node]) -> Fault {
    let cpus = values.iter().try_fold(CpuSet::new(), |all, value| match value {
        Node::Text(text) | Node::Integer(text) => text.parse::<CpuSet>().ok().map(|cpus| all.union(&cpus)),
        _ => None,
    });
    match cpus.filter(|cpus| !cpus.is_empty()) {
        Some(cpus) => Fault::expected_like(WHAT, node, format!("write it as one text: `\"{cpus}\"`")),
        None => Fault::expected_like(WHAT, node, HELP),
    }
}

/// The CPUs of a mask, as scripts have them: `0xff0`, `ff0`, or the kernel's words `00000000,00000ff0`.
fn mask(text: &str) -> Option<CpuSet> {
    let digits = text.trim().strip_prefix("0x").or_else(|| text.trim().strip_prefix("0X"));
    let words: Vec<&str> = digits.unwrap_or(text).trim().split(',').collect();
    let is_hexadecimal = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let has_letters = words.iter().any(|word| word.bytes().any(|byte| byte.is_ascii_alphabetic()));
    let has_whole_words = words.iter().skip(usize::from(words.len() > 1)).all(|word| word.len() == WORD);
    let is_mask = digits.is_some() || has_letters || has_whole_words;
    if !is_mask || !words.iter().all(is_hexadecimal) {
        return None;
    }
    CpuSet::from_mask(&words.join(",")).ok().filter(|cpus| !cpus.is_empty())
}

fn is_mask(text: &str, cpus: &CpuSet) -> Fault {
    Fault::new(
        format!("`{}` is a mask, not a list of CPUs", shortened(text)),
        format!("the list is `\"{cpus}\"`"),
    )
}

/// YAML makes a number of `0xff0`.
fn number_in_hexadecimal(written: &str, digits: &str) -> Option<Fault> {
    if written == digits {
        return None;
    }
    Some(match mask(written) {
        Some(cpus) => is_mask(written, &cpus),
        None => Fault::new(
            format!("YAML makes the number {digits} of `{}`", shortened(written)),
            format!("write `\"{digits}\"` if that CPU is meant"),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_told_from_a_list() {
        for (text, cpus) in [
            ("0xff0", Some("4-11")),
            ("0XFF0", Some("4-11")),
            ("ff0", Some("4-11")),
            ("0000ff00", Some("8-15")),
            ("1,00000000", Some("32")),
            ("ff00,0000ff00", Some("8-15,40-47")),
            ("f", Some("0-3")),
            ("7", None),
            ("10,20", None),
            ("4-15", None),
            ("4-f", None),
            ("0x", None),
            ("0xgg", None),
            ("0x0", None),
            ("abc-def", None),
            ("", None),
        ] {
            assert_eq!(mask(text), cpus.map(|cpus| cpus.parse().unwrap()), "{text:?}");
        }
    }
}
