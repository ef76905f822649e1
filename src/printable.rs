//! Text from outside, made safe for a terminal and a log line.

use std::borrow::Cow;

/// Escapes what could move a cursor, start a line or turn the writing direction; everything else stays as it is.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unsafe(character) { safe.extend(character.escape_default()) } else { safe.push(character) }
    }
    Cow::Owned(safe)
}

/// As [`printable`], cut after so many characters.
pub(crate) fn excerpt(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", printable(&text[..end])),
        None => printable(text).into_owned(),
    }
}

/// `1 change`, `2 changes`.
pub(crate) fn count(number: usize, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

fn is_unsafe(character: char) -> bool {
    character.is_control() || changes_layout(character)
}

/// Unicode's line separators and direction overrides, which are no control characters to Rust.
fn changes_layout(character: char) -> bool {
    matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_only_what_is_not_safe() {
        for (text, safe) in [
            ("Windows 11 — gaming é", "Windows 11 — gaming é"),
            ("a\nb\tc\u{1b}[2J", r"a\nb\tc\u{1b}[2J"),
            ("c1 \u{9b}", r"c1 \u{9b}"),
            ("\u{202e}txt", r"\u{202e}txt"),
            ("\u{61c}txt", r"\u{61c}txt"),
        ] {
            assert_eq!(printable(text), safe);
        }
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!([0, 1, 2].map(|number| count(number, "change")), ["0 changes", "1 change", "2 changes"]);
    }

    #[test]
    fn cuts_between_characters() {
        assert_eq!(excerpt("ééé", 3), "ééé");
        assert_eq!(excerpt("éééé", 3), "ééé…");
    }
}
