//! Lists that a person wrote with commas inside `{ }`, where a comma ends the value: YAML reads `{cpus: 4,5}` as two keys.

use super::tree::{Entry, Node, shortened};
use super::value::Fault;
use crate::cpuset::CpuSet;

/// What is wrong with keys without values that stand behind this entry, if they look like the rest of its value.
pub(super) fn fault(before: &Entry, rest: &[&Node]) -> Option<Fault> {
    let (name, first) = (before.name()?, scalar(&before.value)?);
    let rest: Vec<&str> = rest.iter().copied().map(scalar).collect::<Option<_>>()?;
    let next = rest.first()?;
    let words: Vec<&str> = std::iter::once(first).chain(rest.iter().copied()).collect();
    let message =
        format!("`{}` stands alone: inside `{{ }}` a comma ends the value of `{name}`", shortened(next));
    let line = words.join(",");
    if line.parse::<CpuSet>().is_ok() {
        let help =
            format!("a list of CPUs with commas needs quotes here: `{name}: \"{}\"`", shortened(&line));
        return Some(Fault::new(message, help));
    }
    // A key has none of these, so that this is none.
    let is_value = |word: &&str| word.contains(['.', '/', '*', ':', '@', ' ']);
    let help = format!("write a list: `{name}: [{}]`", shortened(&words.join(", ")));
    rest.iter().all(is_value).then(|| Fault::new(message, help))
}

fn scalar(node: &Node) -> Option<&str> {
    match node {
        Node::Text(text) | Node::Integer(text) => Some(text),
        _ => None,
    }
}
