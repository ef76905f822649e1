//! The unit a process belongs to, by its control group.

use std::fmt;

use crate::host::service::ServiceUnit;
use crate::host::{Host, SessionId};
use crate::printable::printable;
use crate::unit_file_name::UnitFileName;
use crate::user_name::UserName;

/// Types of units that have processes in a control group of their own. A slice only holds others.
const TYPES: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];

/// A user by number, and by name where the host's files have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitOwner {
    /// The number.
    pub uid: u32,
    /// The name; none for a user that only a directory service knows.
    pub name: Option<String>,
}

/// The unit a process belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HolderUnit {
    /// A unit of the system: `sddm.service`.
    System(String),
    /// A session of logind, in which a process is that was started from the login itself.
    Session {
        /// logind's identity of the session.
        id: SessionId,
        /// The user who is logged in.
        owner: UnitOwner,
    },
    /// A unit of a user's own manager: `wireplumber.service`. It may outlive the user's sessions.
    User {
        /// The unit, with its type.
        unit: String,
        /// Whose manager.
        owner: UnitOwner,
    },
}

impl HolderUnit {
    /// By the path of a control group; none for one that is no unit's, such as that of kernel threads.
    pub(super) fn of_cgroup(host: &Host, path: &str) -> Option<Self> {
        let mut parts = path.split('/');
        // Below a unit are the groups that it made itself, so that the first one counts.
        let unit = parts.by_ref().find(|part| is_unit(part))?;
        let owner = |uid| UnitOwner { uid, name: host.user_name(uid) };
        if let Some(uid) = between(unit, "user@", ".service") {
            return Some(match parts.find(|part| is_unit(part)) {
                Some(inner) => Self::User { unit: inner.to_owned(), owner: owner(uid) },
                None => Self::System(unit.to_owned()),
            });
        }
        let uid = path.split('/').find_map(|part| between(part, "user-", ".slice"));
        let session = unit.strip_prefix("session-").and_then(|rest| rest.strip_suffix(".scope"));
        let session = session.and_then(|id| id.parse::<SessionId>().ok());
        Some(match (session, uid) {
            (Some(id), Some(uid)) => Self::Session { id, owner: owner(uid) },
            _ => Self::System(unit.to_owned()),
        })
    }

    /// The unit to stop so that the process ends; none for a session, which is terminated, and for what is not stopped
    /// by name.
    #[must_use]
    pub fn service_unit(&self) -> Option<ServiceUnit> {
        match self {
            Self::System(unit) => Some(ServiceUnit { unit: UnitFileName::new(unit).ok()?, user: None }),
            Self::Session { .. } => None,
            Self::User { unit, owner } => Some(ServiceUnit {
                unit: UnitFileName::new(unit).ok()?,
                user: Some(UserName::new(owner.name.as_ref()?).ok()?),
            }),
        }
    }
}

fn is_unit(part: &str) -> bool {
    TYPES.iter().any(|kind| part.strip_suffix(kind).is_some_and(|stem| !stem.is_empty()))
}

fn between(part: &str, before: &str, after: &str) -> Option<u32> {
    part.strip_prefix(before)?.strip_suffix(after)?.parse().ok()
}

impl fmt::Display for UnitOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(&printable(name)),
            None => write!(f, "user {}", self.uid),
        }
    }
}

impl fmt::Display for HolderUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(unit) => f.write_str(&printable(unit)),
            Self::Session { id, owner } => write!(f, "{} of {owner}", id.scope()),
            Self::User { unit, owner } => write!(f, "{} of {owner}", printable(unit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::manifest::lay_out;
    use crate::host::simulated::Faults;

    #[test]
    fn units_are_read_off_control_groups() {
        let root = tempfile::tempdir().unwrap();
        lay_out("/etc/passwd = anna:x:1000:1000::/home/anna:/bin/sh\n/etc/group =\n", root.path()).unwrap();
        let host = Host::simulated(root.path(), &Faults::default());
        let at_user = "/user.slice/user-1000.slice/user@1000.service";
        for (path, expected, stopped) in [
            ("/system.slice/sddm.service", "sddm.service", "sddm.service"),
            (
                "/system.slice/system-getty.slice/getty@tty1.service",
                "getty@tty1.service",
                "getty@tty1.service",
            ),
            ("/init.scope", "init.scope", ""),
            ("/system.slice/docker-3f2a.scope", "docker-3f2a.scope", ""),
            ("/system.slice/docker.service/inner/other.service", "docker.service", "docker.service"),
            ("/user.slice/user-1000.slice/session-2.scope", "session-2.scope of anna", ""),
            ("/user.slice/user-42.slice/session-c1.scope", "session-c1.scope of user 42", ""),
            (
                &format!("{at_user}/session.slice/wireplumber.service"),
                "wireplumber.service of anna",
                "wireplumber.service of anna",
            ),
            (
                &format!("{at_user}/app.slice/app-gnome-firefox-4711.scope"),
                "app-gnome-firefox-4711.scope of anna",
                "",
            ),
            (&format!("{at_user}/init.scope"), "init.scope of anna", ""),
            (at_user, "user@1000.service", "user@1000.service"),
            ("/system.slice/a\u{1b}b.service", r"a\u{1b}b.service", ""),
        ] {
            let unit = HolderUnit::of_cgroup(&host, path).unwrap();
            assert_eq!(unit.to_string(), expected, "{path}");
            let unit = unit.service_unit().map(|unit| unit.to_string()).unwrap_or_default();
            assert_eq!(unit, stopped, "{path}");
        }
        for path in ["/", "", "/system.slice", "/.service", "/kubepods"] {
            assert_eq!(HolderUnit::of_cgroup(&host, path), None, "{path}");
        }
    }
}
