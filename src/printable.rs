//! Text from outside, made safe for a terminal and a log line.

use std::fmt::Write;

/// Escapes what could move a cursor, start a line or turn the writing direction; everything else stays as it is.
pub(crate) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || changes_layout(character) {
            // Writing to a String cannot fail.
            let _ = write!(safe, "{}", character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}

/// As [`printable`], cut after so many characters.
pub(crate) fn excerpt(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", printable(&text[..end])),
        None => printable(text),
    }
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
        ] {
            assert_eq!(printable(text), safe);
        }
    }

    #[test]
    fn cuts_between_characters() {
        assert_eq!(excerpt("ééé", 3), "ééé");
        assert_eq!(excerpt("éééé", 3), "ééé…");
    }
}
