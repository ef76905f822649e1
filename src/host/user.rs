//! The machine's users: as its files have them, or a directory service (`directory_user`).
//!
//! `getpwnam` is not used: the C library is linked in, and would have to load plug-ins of another one to answer.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Host, HostError};

const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

/// A user of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name to log in with.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The first group.
    pub gid: u32,
    /// All groups, the first one included.
    pub groups: Vec<u32>,
    /// The home folder; `/` if there is none.
    pub home: PathBuf,
}

impl Host {
    /// A user from `/etc/passwd`, with the groups of `/etc/group`, or else from a directory service, which has 4 s to
    /// answer; none if there is no such user.
    ///
    /// # Errors
    /// A file is not there, or the user's line makes no sense; a directory service does not answer.
    pub fn user(&self, name: &str) -> Result<Option<User>, HostError> {
        match self.user_of_files(name)? {
            None if !name.is_empty() => self.directory_user(name),
            user => Ok(user),
        }
    }

    /// The same without a directory service: nothing but files is read.
    pub(super) fn user_of_files(&self, name: &str) -> Result<Option<User>, HostError> {
        let users = self.bytes(USERS)?;
        let of_user = |line: &&[u8]| line.split(|byte| *byte == b':').next() == Some(name.as_bytes());
        if name.is_empty() {
            return Ok(None);
        }
        let Some(line) = users.split(|byte| *byte == b'\n').find(of_user) else { return Ok(None) };
        let mut user = user_of_line(Path::new(USERS), line)?;
        for fields in lines(&self.bytes(GROUPS)?) {
            let mut members = fields.get(3).into_iter().flat_map(|names| names.split(|byte| *byte == b','));
            if let Some(group) = number(&fields, 2)
                && members.any(|member| member == name.as_bytes())
                && !user.groups.contains(&group)
            {
                user.groups.push(group);
            }
        }
        Ok(Some(user))
    }

    /// The name of a user by number; none where `/etc/passwd` has none.
    #[must_use]
    pub fn user_name(&self, uid: u32) -> Option<String> {
        let users = self.bytes(USERS).ok()?;
        let fields = lines(&users).find(|fields| number(fields, 2) == Some(uid))?;
        std::str::from_utf8(fields[0]).ok().filter(|name| !name.is_empty()).map(str::to_owned)
    }

    /// The number of a group of `/etc/group`; none if there is no such group.
    ///
    /// # Errors
    /// The file is not there.
    pub fn group_number(&self, name: &str) -> Result<Option<u32>, HostError> {
        let groups = self.bytes(GROUPS)?;
        let line = lines(&groups).find(|fields| fields[0] == name.as_bytes() && !name.is_empty());
        Ok(line.and_then(|fields| number(&fields, 2)))
    }

    /// Whether a user by number is one of those that packages of libvirt have QEMU run as.
    ///
    /// # Errors
    /// `/etc/passwd` cannot be read.
    pub fn is_qemu_user(&self, uid: u32) -> Result<bool, HostError> {
        Ok(self.qemu_service_users()?.contains(&uid))
    }

    /// Not as text: the full names in it may be of any encoding.
    fn bytes(&self, path: &str) -> Result<Vec<u8>, HostError> {
        let path = Path::new(path);
        self.files.read(path).map_err(|error| HostError::read(path, error))
    }
}

/// A user from a line in the manner of `passwd(5)`, with the first group alone.
///
/// # Errors
/// The line has no numbers; `source` is where it is from.
pub(super) fn user_of_line(source: &Path, line: &[u8]) -> Result<User, HostError> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
    let name = String::from_utf8_lossy(fields[0]).into_owned();
    let (Some(uid), Some(gid)) = (number(&fields, 2), number(&fields, 3)) else {
        let reason = format!("the line of `{name}` has no user and group number");
        return Err(HostError::content(source, reason));
    };
    let home = fields.get(5).filter(|home| home.starts_with(b"/")).map_or(&b"/"[..], |home| home);
    Ok(User { name, uid, gid, groups: vec![gid], home: PathBuf::from(OsStr::from_bytes(home)) })
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    bytes.split(|byte| *byte == b'\n').map(|line| line.split(|byte| *byte == b':').collect())
}

fn number(fields: &[&[u8]], index: usize) -> Option<u32> {
    std::str::from_utf8(fields.get(index)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::host::simulated::Faults;

    fn host(users: &[u8], groups: &str) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/passwd"), users).unwrap();
        fs::write(root.path().join("etc/group"), groups).unwrap();
        let host = Host::simulated(root.path(), &Faults::default());
        (root, host)
    }

    #[test]
    fn finds_a_user_with_all_groups() {
        let (_root, host) = host(
            b"root:x:0:0:root:/root:/bin/sh\n# a comment\n\nann:x:1000:100:M\xfcller,,:/home/ann:/bin/sh\nbob:x:1001:100::relative:\n+::::::\n",
            "root:x:0:\nusers:x:100:ann\nvideo:x:44:bob,ann\nrender:x:105:ann\naudio:x:29:joann\nbad:x:y:ann\n",
        );
        let ann = host.user("ann").unwrap().unwrap();
        assert_eq!(
            ann,
            User {
                name: "ann".to_owned(),
                uid: 1000,
                gid: 100,
                groups: vec![100, 44, 105],
                home: "/home/ann".into()
            }
        );
        assert_eq!(host.user("bob").unwrap().unwrap().home, Path::new("/"));
        for name in ["", "nobody", "an", "# a comment:"] {
            assert_eq!(host.user(name).unwrap(), None, "{name}");
        }
        assert_eq!(host.user_name(1001).as_deref(), Some("bob"));
        assert_eq!(host.user_name(100), None);
    }

    #[test]
    fn says_what_is_wrong() {
        let (root, host) = host(b"ann:x:many:100\n", "");
        let error = host.user("ann").unwrap_err().to_string();
        assert_eq!(error, "failed to read /etc/passwd: the line of `ann` has no user and group number");
        fs::remove_file(root.path().join("etc/passwd")).unwrap();
        assert!(host.user("ann").unwrap_err().is_absent());
    }
}
