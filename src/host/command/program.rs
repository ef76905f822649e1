//! The child's part of running a command: what only the process itself can set, then the program takes its place.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

use crate::exit::Exit;
use crate::host::inherited::{keep_descriptors, take_signals};
use crate::host::user::User;

/// The hidden first argument of the child.
pub const RUN_PROGRAM: &str = "run-program";

/// As whom a program runs: on the command line `caller`, or `UID:GID:GROUP,GROUP`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunAs {
    /// The user of this process.
    Caller,
    /// A user, with the supplementary groups that std would take away: those of sound and video are among them.
    User {
        /// Its number.
        uid: u32,
        /// Its first group.
        gid: u32,
        /// All its groups.
        groups: Vec<u32>,
    },
}

impl RunAs {
    /// As a user, with all groups of that user.
    #[must_use]
    pub fn user(user: &User) -> Self {
        Self::User { uid: user.uid, gid: user.gid, groups: user.groups.clone() }
    }

    fn apply(&self) -> nix::Result<()> {
        let Self::User { uid, gid, groups } = self else { return Ok(()) };
        let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
        // The user comes last: after that the others may not be set any more.
        setgroups(&groups)?;
        setgid(Gid::from_raw(*gid))?;
        setuid(Uid::from_raw(*uid))
    }
}

impl fmt::Display for RunAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller => f.write_str("caller"),
            Self::User { uid, gid, groups } => {
                let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
                write!(f, "{uid}:{gid}:{}", groups.join(","))
            }
        }
    }
}

impl FromStr for RunAs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "caller" {
            return Ok(Self::Caller);
        }
        let user = || {
            let mut parts = text.split(':');
            let (uid, gid, groups) =
                (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
            let groups = groups.split(',').filter(|group| !group.is_empty()).map(|group| group.parse().ok());
            let groups = groups.collect::<Option<Vec<u32>>>()?;
            parts.next().is_none().then_some(Self::User { uid, gid, groups })
        };
        user().ok_or_else(|| "neither `caller` nor UID:GID:GROUP,GROUP".to_owned())
    }
}

/// What stands before the program where it ends with the process that starts it; else `--`.
pub const WITH_ITS_PARENT: &str = "--with-its-parent";

/// What becomes of a program whose parent is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orphaned {
    /// It runs on to its end.
    RunsOn,
    /// It gets SIGTERM: nobody else would end it.
    Ends,
}

/// Becomes the program. Standard error is where a failure is said, and is standard output to the program.
///
/// Returns only where the program cannot be run.
#[must_use]
pub fn run_program(run_as: &RunAs, orphaned: Orphaned, program: &Path, arguments: &[OsString]) -> Exit {
    // std gives the program its own standard error before it knows whether there is one.
    let report = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let reason = become_program(run_as, orphaned, program, arguments);
    if let Ok(mut report) = report {
        let _ = writeln!(report, "{reason}");
    }
    Exit::Failed
}

fn become_program(run_as: &RunAs, orphaned: Orphaned, program: &Path, arguments: &[OsString]) -> String {
    let path = program.display();
    // The hook has taken transparent huge pages away from itself, and children inherit that.
    let _ = prctl::set_thp_disable(false);
    umask(Mode::from_bits_truncate(0o022));
    keep_descriptors();
    // std sets SIGPIPE back by itself, and leaves all else as it was inherited.
    take_signals();
    let output = match io::stdout().as_fd().try_clone_to_owned() {
        Ok(output) => Stdio::from(output),
        Err(error) => return format!("failed to run {path}: its standard error cannot be set up: {error}"),
    };
    if let Err(errno) = run_as.apply() {
        return format!(
            "failed to run {path} as uid:gid:groups {run_as}: {}; only root can do that",
            io::Error::from(errno)
        );
    }
    // A change of the user would take it back, and so does a program that changes it by itself (`prctl(2)`).
    if orphaned == Orphaned::Ends {
        let _ = prctl::set_pdeathsig(Signal::SIGTERM);
    }
    let error = Command::new(program).args(arguments).stderr(output).exec();
    format!("failed to run {path}: {error}{}", explanation(program, &error))
}

fn explanation(program: &Path, error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound if program.exists() => "; what its first line names after `#!` is not there",
        io::ErrorKind::PermissionDenied if !program.is_dir() => {
            "; it needs `chmod +x`, and every folder on the way must be open to who runs it"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let user = |groups: &[u32]| RunAs::User { uid: 1000, gid: 100, groups: groups.to_vec() };
        for run_as in [RunAs::Caller, user(&[]), user(&[100, 44, u32::MAX])] {
            assert_eq!(run_as.to_string().parse(), Ok(run_as));
        }
        for text in ["", "1000", "1000:100", "1000:100:x", "1000:100:1:2", "-1:0:", "root"] {
            assert!(text.parse::<RunAs>().is_err(), "{text}");
        }
    }
}
