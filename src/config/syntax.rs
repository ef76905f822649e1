//! What keeps a text from being read as YAML at all.

/// Values a file may have, those that aliases repeat counted each time: aliases of aliases grow without bound.
pub(super) const MAX_VALUES: usize = 5000;

/// Directives a file may have: it needs none.
const MAX_DIRECTIVES: usize = 100;

/// So often the parser may look at an open bracket again: it looks at all of them with every word that follows. A file
/// of [`MAX_VALUES`] values, each in a bracket of its own, has half as many.
const MAX_LOOKS: usize = 50_000_000;

/// What makes a text no YAML, or none that is read here.
#[derive(Debug)]
pub(super) struct SyntaxFault {
    /// Where: the number of bytes before it.
    pub(super) offset: Option<usize>,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// Finds what the parser would report without a place, or only after a long time.
pub(super) fn check(text: &str) -> Result<(), SyntaxFault> {
    refuse_control_characters(text)?;
    refuse_directives_without_end(text)?;
    refuse_brackets_without_end(text)
}

/// The parser refuses them too, but without saying where.
fn refuse_control_characters(text: &str) -> Result<(), SyntaxFault> {
    let allowed = |c: char| {
        matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}')
            || matches!(c, '\u{e000}'..='\u{fffd}' | '\u{10000}'..) && c != '\u{feff}'
    };
    match text.char_indices().find(|(_, c)| !allowed(*c)) {
        None => Ok(()),
        Some((offset, c)) => Err(SyntaxFault {
            offset: Some(offset),
            message: format!("the control character U+{:04X} is not allowed in YAML", u32::from(c)),
            help: Some("remove it".to_owned()),
        }),
    }
}

/// The parser compares each of them with all before it.
fn refuse_directives_without_end(text: &str) -> Result<(), SyntaxFault> {
    let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(newline, _)| newline + 1));
    let mut directives = starts.filter(|start| text[*start..].starts_with('%'));
    match directives.nth(MAX_DIRECTIVES) {
        None => Ok(()),
        Some(offset) => Err(SyntaxFault {
            offset: Some(offset),
            message: format!("more than {MAX_DIRECTIVES} lines that begin with `%`"),
            help: Some("a file needs none".to_owned()),
        }),
    }
}

/// The parser's time grows with the square of the depth, and it only stops when it has seen all of them. Those that
/// are closed count too: where a bracket is none, as in a quote or a comment, only the parser knows.
fn refuse_brackets_without_end(text: &str) -> Result<(), SyntaxFault> {
    let mut opened = 0;
    let mut looks = 0;
    for (offset, byte) in text.bytes().enumerate() {
        // Two words have at least one of these between them.
        if byte.is_ascii_whitespace() || b",:[]{}\"'".contains(&byte) {
            looks += opened;
        }
        opened += usize::from(matches!(byte, b'[' | b'{'));
        let message = if opened > MAX_VALUES {
            format!("more than {MAX_VALUES} opening brackets")
        } else if looks > MAX_LOOKS {
            format!("too much follows {opened} opening brackets")
        } else {
            continue;
        };
        let help = Some("a file needs only a few".to_owned());
        return Err(SyntaxFault { offset: Some(offset), message, help });
    }
    Ok(())
}

/// The parser's error in words that help; `values` is how many were read until then.
pub(super) fn fault(text: &str, error: &serde_yaml::Error, values: usize) -> SyntaxFault {
    let location = error.location();
    let offset = location.as_ref().map(serde_yaml::Location::index);
    let mut message = error.to_string();
    if let Some(location) = &location {
        message =
            message.replacen(&format!(" at line {} column {}", location.line(), location.column()), "", 1);
    }
    let with_help = |message: &str, help: &str| SyntaxFault {
        offset,
        message: message.to_owned(),
        help: Some(help.to_owned()),
    };
    if values > MAX_VALUES || message == "repetition limit exceeded" {
        return with_help(
            &format!("more than {MAX_VALUES} values, aliases counted each time"),
            "write the values out instead of repeating them with `*aliases`",
        );
    }
    if message == "recursion limit exceeded" {
        return with_help(
            "nested too deeply, or an alias that holds itself",
            "a file needs only a few levels",
        );
    }
    if offset.and_then(|offset| text.get(offset..)).is_some_and(|rest| rest.starts_with('\t')) {
        return with_help("invalid YAML: a tab stands where YAML allows only spaces", "indent with spaces");
    }
    if let Some(opened) = unclosed_quote(text, &message) {
        let fault = with_help("invalid YAML: this quote is never closed", "close it at the end of the value");
        return SyntaxFault { offset: Some(opened), ..fault };
    }
    let help = if message.starts_with("mapping values are not allowed") {
        "check the indentation here and of the line above; a text that holds `: ` needs quotes"
    } else if message.starts_with("found character that cannot start") {
        "a text that starts with this character needs quotes"
    } else {
        "check indentation, colons, quotes and brackets here and in the lines above"
    };
    with_help(&format!("invalid YAML: {message}"), help)
}

/// The parser's place is the end of the file; where the quote was opened it tells in the text of its message.
fn unclosed_quote(text: &str, message: &str) -> Option<usize> {
    let place =
        message.strip_prefix("found unexpected end of stream, while scanning a quoted scalar at line ")?;
    let (line, column) = place.split_once(" column ")?;
    let (line, column): (usize, usize) = (line.parse().ok()?, column.parse().ok()?);
    let start: usize = text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let (before, quote) = text.get(start..)?.char_indices().nth(column.checked_sub(1)?)?;
    matches!(quote, '"' | '\'').then_some(start + before)
}
