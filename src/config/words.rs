//! Reads texts for people.

use super::tree::Node;
use super::value::Fault;

/// Longer texts nobody reads in an error message.
const MAX_LETTERS: usize = 1000;

/// A text of one line.
pub(super) fn words(node: &Node) -> Result<String, Fault> {
    const WHAT: &str = "a text";
    let Node::Text(text) = node else {
        return Err(Fault::expected_like(WHAT, node, "put quotes around it"));
    };
    let text = text.trim();
    if text.is_empty() || text.contains(char::is_control) || text.chars().count() > MAX_LETTERS {
        let help = format!("one line of at most {MAX_LETTERS} letters");
        return Err(Fault::expected_like(WHAT, node, help));
    }
    Ok(text.to_owned())
}
