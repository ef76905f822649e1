//! Names that the writer of a YAML file gives to something.

/// The longest name.
const MAX_LETTERS: usize = 32;

/// Takes a name: letters, digits, `-` and `_`, a letter first.
pub(crate) fn given_name(text: &str) -> Result<String, String> {
    let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.len() <= MAX_LETTERS
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if is_name { Ok(text.to_owned()) } else { Err(format!("`{text}` is no name")) }
}
