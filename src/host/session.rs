//! A person's session: what a program needs to reach its bus, its runtime folder and its display.

use std::path::Path;
use std::time::Duration;

use super::service::user_runtime_dir;
use super::user::User;
use super::{Host, HostError};
use crate::deadline::Deadline;

/// How long the user's service manager, or the file system of the runtime folder, may take to answer.
const ANSWERS: Duration = Duration::from_secs(2);

/// The first number of a person; below are the system's own users (`UID_MIN` in `login.defs(5)`).
const FIRST_PERSON: u32 = 1000;

/// The number of `nobody`, which is no person. Those of systemd-homed and of directory services are beside it.
const NOBODY: u32 = 65534;

/// What a desktop tells its user's service manager of itself, and programs need to be shown or to talk to it.
const OF_THE_DESKTOP: &str = "\
    DISPLAY WAYLAND_DISPLAY XAUTHORITY XDG_SESSION_TYPE XDG_SESSION_ID XDG_SESSION_DESKTOP XDG_CURRENT_DESKTOP \
    DESKTOP_SESSION PULSE_SERVER PIPEWIRE_REMOTE SWAYSOCK I3SOCK HYPRLAND_INSTANCE_SIGNATURE";

/// A variable for a program, and its value.
pub type Variable = (&'static str, String);

/// How a user is logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Session {
    /// These variables lead there.
    Open(Vec<Variable>),
    /// The same, but the user's service manager does not say what the desktop has told it: why.
    WithoutDesktop(Vec<Variable>, String),
    /// The user is not logged in.
    None,
}

impl User {
    /// Whether it is a person, not one of the system's own users.
    #[must_use]
    pub fn is_person(&self) -> bool {
        self.uid >= FIRST_PERSON && self.uid != NOBODY
    }
}

impl Host {
    /// How a user is logged in. No display is guessed: one that the user's service manager does not know is not there.
    ///
    /// # Errors
    /// The file system of the runtime folder does not answer.
    pub fn session_of(&self, user: &User) -> Result<Session, HostError> {
        let folder = user_runtime_dir(user.uid);
        if !self.is_logged_in(user)? {
            return Ok(Session::None);
        }
        let is_there =
            |name: &str| self.is_path_there(Path::new(&format!("{folder}/{name}")), Deadline::after(ANSWERS));
        let mut variables = vec![("XDG_RUNTIME_DIR", folder.clone())];
        if is_there("bus")? {
            variables.push(("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={folder}/bus")));
        }
        if !is_there("systemd/private")? {
            return Ok(Session::WithoutDesktop(
                variables,
                "there is no service manager of the user".to_owned(),
            ));
        }
        match self.units.environment(user, Deadline::after(ANSWERS)) {
            Ok(lines) => {
                variables.extend(lines.iter().filter_map(|line| desktop_variable(line)));
                Ok(Session::Open(variables))
            }
            Err(error) => Ok(Session::WithoutDesktop(variables, error.to_string())),
        }
    }

    /// Whether a user has a runtime folder: it is there from the first login to the last logout (`pam_systemd(8)`).
    ///
    /// # Errors
    /// Its file system does not answer.
    pub fn is_logged_in(&self, user: &User) -> Result<bool, HostError> {
        self.is_path_there(Path::new(&user_runtime_dir(user.uid)), Deadline::after(ANSWERS))
    }
}

/// One line of `systemctl show-environment`, if it is of the desktop.
fn desktop_variable(line: &str) -> Option<Variable> {
    let (name, value) = line.split_once('=')?;
    let name = OF_THE_DESKTOP.split(' ').find(|known| *known == name)?;
    Some((name, unquote(value)?))
}

/// A value as `systemctl` prints it: as it is, or quoted for a shell, `$'...'` or `"..."` (`shell_maybe_quote` in
/// `src/basic/escape.c`). None where it holds what no display's name has: a control character.
fn unquote(value: &str) -> Option<String> {
    let quoted = |start: &str, end: &str| value.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
    let Some(inner) = quoted("$'", "'").or_else(|| quoted("\"", "\"")) else {
        return Some(value.to_owned());
    };
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, true) => plain.push(characters.next().filter(|escaped| !escaped.is_alphanumeric())?),
            (other, false) => plain.push(other),
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::manifest::lay_out;
    use crate::host::simulated::Faults;

    fn host(lines: &str) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        lay_out(lines, root.path()).unwrap();
        let host = Host::simulated(root.path(), &Faults::default());
        (root, host)
    }

    fn anna() -> User {
        User { name: "anna".to_owned(), uid: 1000, gid: 1000, groups: vec![1000], home: "/home/anna".into() }
    }

    #[test]
    fn a_desktop_is_found_through_the_users_service_manager() {
        let (_root, host) = host("\
/run/user/1000/bus =
/run/user/1000/systemd/private =
/simulated/systemd-of-1000/environment = LANG=de_DE.UTF-8\\nDISPLAY=:1\\nLD_PRELOAD=/tmp/x.so\\nXAUTHORITY=$'/run/user/1000/x y'\\nWAYLAND_DISPLAY=wayland-1
");
        let expected = [
            ("XDG_RUNTIME_DIR", "/run/user/1000"),
            ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/user/1000/bus"),
            ("DISPLAY", ":1"),
            ("XAUTHORITY", "/run/user/1000/x y"),
            ("WAYLAND_DISPLAY", "wayland-1"),
        ];
        let expected = expected.map(|(name, value)| (name, value.to_owned())).to_vec();
        assert_eq!(host.session_of(&anna()).unwrap(), Session::Open(expected));
    }

    #[test]
    fn without_a_service_manager_there_is_the_runtime_folder() {
        let (_root, host) = host("/run/user/1000/bus =\n");
        let Session::WithoutDesktop(variables, _) = host.session_of(&anna()).unwrap() else { panic!() };
        let names: Vec<_> = variables.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"]);
    }

    #[test]
    fn a_user_who_is_not_logged_in_has_no_session() {
        let (_root, host) = host("/etc/passwd =\n");
        assert_eq!(host.session_of(&anna()).unwrap(), Session::None);
    }

    #[test]
    fn values_are_unquoted_as_systemctl_quotes_them() {
        for (printed, value) in [
            (":0", Some(":0")),
            ("$'a b'", Some("a b")),
            (r"$'a\'b\\c'", Some(r"a'b\c")),
            (r#""a \"b\" \$c""#, Some(r#"a "b" $c"#)),
            (r"$'a\nb'", None),
            (r"$'a\x1bb'", None),
            ("", Some("")),
        ] {
            assert_eq!(unquote(printed).as_deref(), value, "{printed}");
        }
    }
}
