//! A guest's name as libvirt passes it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use crate::printable::printable;

/// The longest name that leaves room for `.yaml` in the 255 bytes of a file name.
const MAX_BYTES: usize = 250;

/// A guest's name from the command line. libvirt refuses only a `/` in it: it may be `..`, `--help` or hold a newline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestName(OsString);

impl GuestName {
    /// Takes a name as it came.
    #[must_use]
    pub fn new(name: impl Into<OsString>) -> Self {
        Self(name.into())
    }

    /// The bytes as they came.
    #[must_use]
    pub fn as_os_str(&self) -> &OsStr {
        &self.0
    }

    /// The name of its YAML file; none for a name that is no safe file name, which thus can have no such file.
    #[must_use]
    pub fn config_file_name(&self) -> Option<OsString> {
        let name = self.0.to_str()?;
        let safe = !name.is_empty()
            && name.len() <= MAX_BYTES
            && !name.starts_with('.')
            && !name.contains(|character: char| character == '/' || character.is_control());
        safe.then(|| OsString::from(format!("{name}.yaml")))
    }
}

impl From<&OsStr> for GuestName {
    fn from(name: &OsStr) -> Self {
        Self::new(name)
    }
}

impl fmt::Display for GuestName {
    /// Safe for a terminal and a log line: control characters are escaped, bytes that are no UTF-8 replaced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&String::from_utf8_lossy(self.0.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_the_file_of_names_that_are_safe() {
        for name in ["win11", "--help", "a b", " ", "$(id);*", "é", "a.b", "win11.yaml", &"x".repeat(250)] {
            assert_eq!(
                GuestName::new(name).config_file_name(),
                Some(format!("{name}.yaml").into()),
                "{name:?}"
            );
        }
    }

    #[test]
    fn has_no_file_for_a_name_that_is_not_safe() {
        for name in ["", ".", "..", ".hidden", "../x", "a/b", "a\nb", "a\tb", "a\0b", "a\x7f", "a\u{85}b"] {
            assert_eq!(GuestName::new(name).config_file_name(), None, "{name:?}");
        }
        assert_eq!(GuestName::new("x".repeat(251)).config_file_name(), None);
        assert_eq!(GuestName::new("é".repeat(126)).config_file_name(), None);
        assert_eq!(GuestName::from(OsStr::from_bytes(b"a\xff")).config_file_name(), None);
        assert_eq!(GuestName::from(OsStr::from_bytes(b"a\x9b")).config_file_name(), None);
    }

    #[test]
    fn prints_on_one_line() {
        assert_eq!(GuestName::new("win 11 é").to_string(), "win 11 é");
        assert_eq!(GuestName::new("a\nb\x1b[31m").to_string(), r"a\nb\u{1b}[31m");
        assert_eq!(GuestName::from(OsStr::from_bytes(b"a\xffb")).to_string(), "a\u{fffd}b");
    }

    proptest! {
        #[test]
        fn a_file_name_stays_in_its_folder(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let name = GuestName::from(OsStr::from_bytes(&bytes));
            prop_assert!(!name.to_string().contains(char::is_control));
            if let Some(file) = name.config_file_name() {
                prop_assert_eq!(std::path::Path::new(&file).file_name(), Some(file.as_os_str()));
                prop_assert!(file.len() <= 255);
            }
        }
    }
}
