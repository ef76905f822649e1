//! A user's name.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::serde_as_text::serde_as_text;

/// The longest name that a program may log in with (`LOGIN_NAME_MAX` in `limits.h` of the C library).
const MAX_BYTES: usize = 255;

/// A user by name. Whether this host has one of that name is not known here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(String);

/// A text that is no user's name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{0}` is no user's name: letters, digits and `_-.@\\`, not first a digit, at most {MAX_BYTES}")]
pub struct UserNameError(String);

impl UserName {
    /// A portable name: POSIX's characters (Base Definitions 3.426 "User Name"), starting with a letter or `_`, so that
    /// it is no number and no option; and those of names with a domain, `anna@example.org` and `EXAMPLE\anna`.
    ///
    /// # Errors
    /// Any other name.
    pub fn new(name: &str) -> Result<Self, UserNameError> {
        let first = |c: char| c.is_ascii_alphabetic() || c == '_';
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '@' | '\\');
        let valid = name.starts_with(first) && name.chars().all(allowed) && name.len() <= MAX_BYTES;
        valid.then(|| Self(name.to_owned())).ok_or_else(|| UserNameError(name.to_owned()))
    }

    /// As the user database has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = UserNameError;

    fn from_str(text: &str) -> Result<Self, UserNameError> {
        Self::new(text)
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(UserName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_portable_names_only() {
        for name in
            ["root", "_apt", "anna-2", "Anna.B", "x", "anna@example.org", r"EX\anna", &"x".repeat(255)]
        {
            assert_eq!(UserName::new(name).unwrap().as_str(), name);
        }
        for name in [
            "",
            "1000",
            "-x",
            ".x",
            "a b",
            "a/b",
            "a:b",
            "a$",
            "ü",
            "a\n",
            "a\0",
            "@a",
            r"\a",
            &"x".repeat(256),
        ] {
            assert!(UserName::new(name).is_err(), "{name:?}");
        }
        assert!(serde_json::from_str::<UserName>("\"a:b\"").is_err());
        assert_eq!(serde_json::to_string(&UserName::new("anna").unwrap()).unwrap(), "\"anna\"");
    }
}
