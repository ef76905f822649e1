//! Users whom the files of the machine do not have: those of LDAP, of a domain, of systemd-homed. `getent` asks all that
//! `nsswitch.conf` names; the C library that is linked in here cannot.

use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::command::{CommandEnd, CommandLine, MachinePrograms};
use super::root_path::find_program;
use super::user::{User, user_of_line};
use super::{Host, HostError};
use crate::deadline::Deadline;

/// How long a directory service may take; each question is asked once.
const ASKED: Duration = Duration::from_secs(2);

/// `getent` where no database has such a key (`getent(1)`).
const NOT_FOUND: i32 = 2;

/// What a simulated host has instead of a directory service: a line of `/etc/passwd` for each user.
const SIMULATED: &str = "/simulated/directory/passwd";

impl Host {
    /// A user from whatever `nsswitch.conf` names; none where none has such a user, or the host has no `getent`.
    ///
    /// # Errors
    /// A service does not answer in time, or its answer makes no sense.
    pub(super) fn directory_user(&self, name: &str) -> Result<Option<User>, HostError> {
        if let Some(known) = self.early_answers.directory_user(name) {
            return Ok(known);
        }
        let found = self.ask_for_user(name)?;
        self.early_answers.keep_directory_user(name, found.as_ref());
        Ok(found)
    }

    fn ask_for_user(&self, name: &str) -> Result<Option<User>, HostError> {
        let Some(line) = self.getent("passwd", name)? else { return Ok(None) };
        let mut user = user_of_line(Path::new("getent passwd"), line.as_bytes())?;
        // `name  100 985 1000`; without it there is the first group alone.
        if let Some(groups) = self.getent("initgroups", name)? {
            let numbers = groups.split_whitespace().skip(1).filter_map(|number| number.parse().ok());
            for group in numbers {
                if !user.groups.contains(&group) {
                    user.groups.push(group);
                }
            }
        }
        Ok(Some(user))
    }

    /// The first line that `getent` prints about a key; none where there is no such key.
    fn getent(&self, database: &'static str, key: &str) -> Result<Option<String>, HostError> {
        if !self.is_real() {
            return self.simulated_getent(database, key);
        }
        let Some(program) = find_program("getent") else { return Ok(None) };
        let command = CommandLine {
            program,
            arguments: [database, "--", key].map(OsString::from).into(),
            environment: Vec::new(),
            user: None,
            stdin: None,
        };
        let printed = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&printed);
        let sink =
            move |line: &str| into.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
        let end = MachinePrograms::default().run(&command, Deadline::after(ASKED), None, Box::new(sink));
        let printed = std::mem::take(&mut *printed.lock().unwrap_or_else(PoisonError::into_inner));
        match end {
            CommandEnd::Exited(0) => Ok(printed.into_iter().next()),
            CommandEnd::Exited(NOT_FOUND) => Ok(None),
            CommandEnd::TimedOut => {
                Err(HostError::late_call("getent", key, "the directory service does not answer"))
            }
            end => Err(HostError::call("getent", key, format!("{end}: {}", printed.join("; ")))),
        }
    }

    fn simulated_getent(&self, database: &str, key: &str) -> Result<Option<String>, HostError> {
        if database != "passwd" {
            return Ok(None);
        }
        let users = self.text_if_present(SIMULATED)?.unwrap_or_default();
        let line = users.lines().find(|line| line.split(':').next() == Some(key));
        Ok(line.map(str::to_owned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::manifest::lay_out;
    use crate::host::simulated::Faults;

    #[test]
    fn a_user_whom_the_files_do_not_have_is_asked_for() {
        let root = tempfile::tempdir().unwrap();
        let users = "\
/etc/passwd = root:x:0:0::/root:/bin/sh\\nbob:x:1001:1001::/home/bob:/bin/sh
/etc/group = audio:x:29:anna@example.org
/simulated/directory/passwd = anna@example.org:*:60001:60002:Anna:/home/anna:/bin/bash\\nbob:*:7:7::/:/bin/false
";
        lay_out(users, root.path()).unwrap();
        let host = Host::simulated(root.path(), &Faults::default());
        let anna = host.user("anna@example.org").unwrap().unwrap();
        assert_eq!((anna.uid, anna.gid, anna.home.to_str()), (60001, 60002, Some("/home/anna")));
        assert!(anna.is_person());
        // The files come first.
        assert_eq!(host.user("bob").unwrap().unwrap().uid, 1001);
        assert_eq!(host.user("eve").unwrap(), None);
        assert_eq!(host.user("").unwrap(), None);
    }
}
