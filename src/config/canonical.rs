//! One text for all ways to write the same values: fingerprints of it are kept over an upgrade of the program.

use super::tree::{Entry, Node};

/// A value without its place in the file, its comments, its style and the order of its keys. Numbers count by their value,
/// lists by their order. Other values have another text: the length of each text stands before it.
pub(super) fn canonical(node: &Node) -> String {
    match node {
        Node::Null => "null".to_owned(),
        Node::Bool(value) => value.to_string(),
        Node::Integer(digits) => digits.clone(),
        Node::Float(value) => format!("float {value:?}"),
        Node::Text(text) => format!("text {}:{text}", text.len()),
        Node::List(values) => format!("[{}]", values.iter().map(canonical).collect::<Vec<_>>().join(", ")),
        Node::Map(entries) => {
            let pair = |Entry { key, value }: &Entry| format!("{}: {}", canonical(key), canonical(value));
            let mut pairs: Vec<String> = entries.iter().map(pair).collect();
            pairs.sort_unstable();
            format!("{{{}}}", pairs.join(", "))
        }
        Node::Tagged => "tagged".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;

    fn of(text: &str) -> String {
        canonical(&tree::parse(text).unwrap())
    }

    /// A change here makes every lease's fingerprint another one: see `SCHEME` in `lifecycle/basis.rs`.
    #[test]
    fn the_text_is_this_one() {
        assert_eq!(
            of("b: {d: 0x10, c: [x, ~, 1.50, true, -3]}\na:\n1: \"1\"\n"),
            "{1: text 1:1, text 1:a: null, text 1:b: {text 1:c: [text 1:x, null, float 1.5, true, -3], text 1:d: 16}}"
        );
    }

    #[test]
    fn the_same_is_equal_and_nothing_else_is() {
        assert_eq!(of("a: [1, 2]\nb: x\n"), of("# a comment\n\"b\": 'x'\na:\n  - 1\n  - 0x2\n"));
        let others = [
            "a: [2, 1]",
            "a: [1]",
            "a: 1",
            "a: '1'",
            "a: 1.0",
            "a: true",
            "a: ''",
            "a: {}",
            "a: {b: 1}",
            "a:",
        ];
        let more = ["a: 'x, text 1:b: text 1:y'", "a: x\nb: y", "a: [x, y]", "a: 'x, text 1:y'"];
        let texts: std::collections::BTreeSet<String> =
            others.iter().chain(&more).map(|text| of(text)).collect();
        assert_eq!(texts.len(), others.len() + more.len());
    }
}
