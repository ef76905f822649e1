//! Whom a file may belong to, and what depends on it.

use std::fmt;

use nix::unistd::Uid;

/// Who may have written a file: one user, or one of two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owners {
    first: Uid,
    other: Option<Uid>,
}

impl Owners {
    /// Also this one: a program that runs as a user may belong to that user.
    #[must_use]
    pub fn or(self, other: Uid) -> Self {
        Self { other: Some(other).filter(|other| *other != self.first), ..self }
    }

    pub(super) fn has(&self, uid: Uid) -> bool {
        uid == self.first || Some(uid) == self.other
    }

    pub(super) fn first(&self) -> Uid {
        self.first
    }
}

impl From<Uid> for Owners {
    fn from(first: Uid) -> Self {
        Self { first, other: None }
    }
}

impl fmt::Display for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name(self.first))?;
        self.other.map_or(Ok(()), |other| write!(f, " or {}", name(other)))
    }
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It is read.
    Configuration,
    /// It is run.
    Program,
}

impl Purpose {
    /// What a user who can write the file would decide.
    pub(super) fn stake(self, owners: &Owners) -> String {
        match self {
            Self::Configuration => "it decides what root runs".to_owned(),
            Self::Program => format!("{} would run it", name(owners.other.unwrap_or(owners.first))),
        }
    }
}

pub(super) fn name(uid: Uid) -> String {
    if uid.is_root() { "root".to_owned() } else { format!("uid {uid}") }
}
