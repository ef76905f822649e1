//! The name of a unit that can be stopped and started.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::serde_as_text::serde_as_text;

/// systemd's `UNIT_NAME_MAX` is 256 with the final zero (`src/basic/unit-name.h`).
const MAX_BYTES: usize = 255;

/// Types that systemd has and nobody stops for a guest: what is in them would end with them, or they cannot be stopped.
const OTHER_TYPES: [&str; 3] = ["slice", "scope", "device"];

/// A unit as `systemctl` names it, with its type: `ollama.service`. Whether this host has it is not known here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitFileName(String);

/// Why a text names no unit that can be stopped.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UnitFileNameError {
    /// Nothing, or nothing before the `.` or the `@`.
    #[error("`{0}` names no unit")]
    Nameless(String),
    /// Longer than systemd takes.
    #[error("a unit's name has at most {MAX_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// Another character than systemd allows.
    #[error("a unit's name has no `{}` in it", .0.escape_debug())]
    Character(char),
    /// It does not end with a type.
    #[error("`{0}` does not end with a unit's type")]
    NoType(String),
    /// A type that is not stopped for a guest.
    #[error("a {0} is neither stopped nor started for a guest")]
    UnsuitableType(&'static str),
    /// `name@.service`: a pattern for units, none itself.
    #[error("`{0}` is a template, not a unit")]
    Template(String),
}

impl UnitFileName {
    /// The types that a name may end with: units that are stopped and started by name.
    pub const TYPES: &'static [&'static str] =
        &["service", "socket", "timer", "path", "target", "mount", "automount", "swap"];

    /// A name that systemd takes (`unit_name_is_valid` in `src/basic/unit-name.c`), of a unit that can be stopped.
    ///
    /// # Errors
    /// Too long, a character that systemd refuses, no type or one that is not stopped, a template without its instance.
    pub fn new(name: &str) -> Result<Self, UnitFileNameError> {
        if name.len() > MAX_BYTES {
            return Err(UnitFileNameError::TooLong(name.len()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '.' | '-' | '@' | '\\');
        if let Some(other) = name.chars().find(|c| !allowed(*c)) {
            return Err(UnitFileNameError::Character(other));
        }
        if name.is_empty() || name.starts_with('@') {
            return Err(UnitFileNameError::Nameless(name.to_owned()));
        }
        let no_type = || UnitFileNameError::NoType(name.to_owned());
        let (stem, kind) = name.rsplit_once('.').ok_or_else(no_type)?;
        if let Some(unsuitable) = OTHER_TYPES.iter().find(|other| **other == kind) {
            return Err(UnitFileNameError::UnsuitableType(unsuitable));
        }
        if !Self::TYPES.contains(&kind) {
            return Err(no_type());
        }
        match stem.split_once('@') {
            _ if stem.is_empty() => Err(UnitFileNameError::Nameless(name.to_owned())),
            Some((_, "")) => Err(UnitFileNameError::Template(name.to_owned())),
            _ => Ok(Self(name.to_owned())),
        }
    }

    /// The whole name, with its type: `a.service`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UnitFileName {
    type Err = UnitFileNameError;

    fn from_str(text: &str) -> Result<Self, UnitFileNameError> {
        Self::new(text)
    }
}

impl fmt::Display for UnitFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(UnitFileName);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn takes_what_systemd_takes() {
        for name in [
            "ollama.service",
            "dbus-org.freedesktop.login1.service",
            "getty@tty1.service",
            "a@b@c.service",
            "home-user\\x2dname.mount",
            "a:b_c.timer",
            "fstrim.timer",
            "cups.socket",
            "cups.path",
            "graphical.target",
            "proc-sys-fs-binfmt_misc.automount",
            "dev-sda2.swap",
            &format!("{}.service", "x".repeat(247)),
        ] {
            let unit = UnitFileName::new(name).unwrap();
            assert_eq!((unit.as_str(), unit.to_string()), (name, name.to_owned()));
            let json = serde_json::to_string(&unit).unwrap();
            assert_eq!(serde_json::from_str::<UnitFileName>(&json).unwrap(), unit);
        }
    }

    #[test]
    fn says_why_a_text_is_no_unit() {
        for (name, reason) in [
            ("", "`` names no unit"),
            (".service", "`.service` names no unit"),
            ("@a.service", "`@a.service` names no unit"),
            ("ollama", "`ollama` does not end with a unit's type"),
            ("org.example.app", "`org.example.app` does not end with a unit's type"),
            ("ollama.", "`ollama.` does not end with a unit's type"),
            ("ollama.Service", "`ollama.Service` does not end with a unit's type"),
            ("user.slice", "a slice is neither stopped nor started for a guest"),
            ("init.scope", "a scope is neither stopped nor started for a guest"),
            ("dev-sda.device", "a device is neither stopped nor started for a guest"),
            ("getty@.service", "`getty@.service` is a template, not a unit"),
            ("a b.service", "a unit's name has no ` ` in it"),
            ("cups*", "a unit's name has no `*` in it"),
            ("../a.service", "a unit's name has no `/` in it"),
            ("a\n.service", "a unit's name has no `\\n` in it"),
            ("ü.service", "a unit's name has no `ü` in it"),
            (&"x".repeat(256), "a unit's name has at most 255 bytes, this one has 256"),
        ] {
            assert_eq!(UnitFileName::new(name).unwrap_err().to_string(), reason, "{name:?}");
        }
        assert!(serde_json::from_str::<UnitFileName>("\"../a.service\"").is_err());
    }

    proptest! {
        #[test]
        fn a_name_stays_in_its_folder(text in "([a-z@.:\\\\/-]|\\.service|ü|\\n){0,30}") {
            if let Ok(unit) = UnitFileName::new(&text) {
                prop_assert_eq!(std::path::Path::new(unit.as_str()).file_name(), Some(unit.as_str().as_ref()));
            }
        }
    }
}
