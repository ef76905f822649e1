//! The names of the units that systemd finds files of.

use std::collections::BTreeSet;

use super::Host;

/// Where files of the system's units are (systemd.unit(5), "System Unit Search Path").
const OF_SYSTEM: [&str; 7] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/run/systemd/transient",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Where files of users' units are that all users have (systemd.unit(5), "User Unit Search Path").
const OF_USERS: [&str; 4] =
    ["/etc/systemd/user", "/run/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user"];

/// Which systemd has a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitsOf {
    /// That of the system.
    System,
    /// Those of users: what every user has.
    EveryUser,
}

impl Host {
    /// The units of the system, or those of every user, that there are files of. Folders that are missing or cannot be
    /// read have none.
    #[must_use]
    pub fn unit_file_names(&self, whose: UnitsOf) -> Vec<String> {
        let folders: &[&str] = match whose {
            UnitsOf::System => &OF_SYSTEM,
            UnitsOf::EveryUser => &OF_USERS,
        };
        let names = folders.iter().filter_map(|folder| self.files.list(folder.as_ref()).ok()).flatten();
        let names: BTreeSet<String> = names.filter_map(|name| name.into_string().ok()).collect();
        names.into_iter().collect()
    }
}
