//! Whose processes may be a QEMU of libvirt's: root's, and those of the user that `user=` of `qemu.conf` names.

use crate::host::{Host, HostError};

/// Where distributions have libvirt look for it. NixOS has it in the second place.
const QEMU_CONF: [&str; 2] = ["/etc/libvirt/qemu.conf", "/var/lib/libvirt/qemu.conf"];

/// The users that packages of libvirt have QEMU run as: Debian, Ubuntu and Arch; Fedora, openSUSE, Gentoo and Alpine;
/// NixOS; what old versions fall back to. Nobody logs in as one of them.
const SERVICE_USERS: [&str; 4] = ["libvirt-qemu", "qemu", "qemu-libvirtd", "nobody"];

/// What the owner of a process says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) enum Standing {
    /// Root or one of the service's own users: no user of the host gets such a process.
    Services,
    /// The user that `qemu.conf` names, who may be a person.
    Named,
    /// Anyone else.
    Other,
}

/// The users whose processes may be a QEMU of libvirt's.
#[derive(Clone, Debug)]
pub(in crate::host) struct QemuOwners {
    root: u32,
    services: Vec<u32>,
    named: Vec<u32>,
}

impl QemuOwners {
    /// Root alone.
    pub(super) fn root(host: &Host) -> Self {
        Self { root: host.trusted_owner().as_raw(), services: Vec::new(), named: Vec::new() }
    }

    pub(super) fn is_root(&self, user: u32) -> bool {
        user == self.root
    }

    pub(in crate::host) fn standing(&self, user: u32) -> Standing {
        match user {
            user if user == self.root || self.services.contains(&user) => Standing::Services,
            user if self.named.contains(&user) => Standing::Named,
            _ => Standing::Other,
        }
    }
}

impl Host {
    /// The users whose processes may be a QEMU of libvirt's. Those that only a directory service knows are not among
    /// them.
    ///
    /// # Errors
    /// A file is there but cannot be read: then QEMU may be any user's.
    pub(in crate::host) fn qemu_owners(&self) -> Result<QemuOwners, HostError> {
        let mut owners = QemuOwners::root(self);
        owners.services = self.qemu_service_users()?;
        for path in QEMU_CONF {
            let Some(text) = self.text_if_present(path)? else { continue };
            if let Some(name) = user_of(&text) {
                owners.named.extend(self.uid_of(name)?);
            }
        }
        Ok(owners)
    }

    /// The numbers of [`SERVICE_USERS`] that this host has.
    ///
    /// # Errors
    /// `/etc/passwd` cannot be read.
    pub(in crate::host) fn qemu_service_users(&self) -> Result<Vec<u32>, HostError> {
        let numbers = SERVICE_USERS.into_iter().map(|name| self.user_number(name));
        Ok(numbers.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// As libvirt's `virGetUserID`: a number after a plus sign, else a name, else a number.
    fn uid_of(&self, name: &str) -> Result<Option<u32>, HostError> {
        if let Some(number) = name.strip_prefix('+') {
            return Ok(number.parse().ok());
        }
        Ok(self.user_number(name)?.or_else(|| name.parse().ok()))
    }

    fn user_number(&self, name: &str) -> Result<Option<u32>, HostError> {
        // QEMU's users are those of packages. What a directory service has under their names is not trusted.
        match self.user_of_files(name) {
            Err(error) if error.is_absent() => Ok(None),
            user => Ok(user?.map(|user| user.uid)),
        }
    }
}

/// The value of `user`; the last one counts. Comments begin with `#`.
fn user_of(text: &str) -> Option<&str> {
    let value = |line: &'_ str| -> Option<(usize, usize)> {
        let rest = line.trim_start().strip_prefix("user")?.trim_start().strip_prefix('=')?.trim_start();
        let quote = rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        let start = line.len() - rest.len() + 1;
        let end = line[start..].find(quote)?;
        Some((start, start + end))
    };
    let mut values = text.lines().filter_map(|line| value(line).map(|(start, end)| &line[start..end]));
    values.next_back().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::manifest::lay_out;
    use crate::host::simulated::Faults;

    /// A directory service has no say in which users QEMU may run as.
    #[test]
    fn users_of_a_directory_service_are_none_of_qemus() {
        let root = tempfile::tempdir().unwrap();
        let users = "\
/etc/passwd = root:x:0:0::/root:/bin/sh
/etc/group = root:x:0:
/simulated/directory/passwd = qemu:*:4711:4711::/:/bin/false\\nlibvirt-qemu:*:4712:4712::/:/bin/false
";
        lay_out(users, root.path()).unwrap();
        let host = Host::simulated(root.path(), &Faults::default());
        assert_eq!(host.user("qemu").unwrap().unwrap().uid, 4711);
        assert_eq!(host.qemu_service_users().unwrap(), Vec::<u32>::new());
        assert!(!host.is_qemu_user(4711).unwrap());
    }

    #[test]
    fn the_user_is_what_qemu_conf_says_last() {
        for (text, user) in [
            ("", None),
            ("#user = \"root\"\n# user = \"anna\"\n", None),
            ("user = \"\"\n", None),
            ("user = anna\n", None),
            ("username = \"anna\"\n", None),
            ("user = \"anna\"\ngroup = \"kvm\"\n", Some("anna")),
            ("  user=\"+1000\" # audio\n", Some("+1000")),
            ("user = 'qemu'\nuser = \"anna\"\n", Some("anna")),
        ] {
            assert_eq!(user_of(text), user, "{text:?}");
        }
    }
}
