//! Keys that a mapping has twice, and the key with which some YAML readers merge one mapping into another.

use super::locate::Part;
use super::problem::Problem;
use super::tree::{Node, shortened};
use super::value::Fault;

/// Notes every key that stands twice in one mapping, anywhere in the file: YAML readers silently take one of the two.
pub(super) fn note_duplicates(node: &Node, problems: &mut Vec<Problem>) {
    let mut path = Vec::new();
    walk_duplicates(node, &mut path, problems);
}

/// The key with which some YAML readers merge one mapping into another.
pub(super) const MERGE: &str = "<<";

/// Where the first such key stands.
pub(super) fn merge_key(node: &Node) -> Option<Vec<usize>> {
    let below = |(index, value): (usize, &Node)| {
        let mut path = merge_key(value)?;
        path.insert(0, index);
        Some(path)
    };
    match node {
        Node::Map(entries) => {
            let here = entries.iter().position(|entry| entry.name() == Some(MERGE));
            let values = || entries.iter().map(|entry| &entry.value).enumerate();
            here.map(|index| vec![index]).or_else(|| values().find_map(below))
        }
        Node::List(values) => values.iter().enumerate().find_map(below),
        _ => None,
    }
}

fn walk_duplicates(node: &Node, path: &mut Vec<usize>, problems: &mut Vec<Problem>) {
    match node {
        Node::Map(entries) => {
            let mut seen = std::collections::HashSet::new();
            for (index, entry) in entries.iter().enumerate() {
                path.push(index);
                if let Some(name) = entry.name()
                    && name != MERGE
                    && !seen.insert(name)
                {
                    let message = format!("the key `{}` stands here for the second time", shortened(name));
                    let fault = Fault::new(message, "keep one of the two");
                    problems.push(Problem::new(path.clone(), Part::Key, fault));
                }
                walk_duplicates(&entry.value, path, problems);
                path.pop();
            }
        }
        Node::List(values) => {
            for (index, value) in values.iter().enumerate() {
                path.push(index);
                walk_duplicates(value, path, problems);
                path.pop();
            }
        }
        _ => {}
    }
}
