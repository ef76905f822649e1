//! `virsh`, for those that are no hook: libvirt waits for its hooks, so that one that asks libvirt waits for ever
//! (docs/hooks.rst: "you must not call back into libvirt").

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;

use super::HostError;
use super::children::{OwnedChild, Wake, inherit_nothing};
use super::root_path::{ROOT_PATH, find_program};
use crate::deadline::Deadline;
use crate::printable::printable;

/// libvirt's own connection of the system: the one whose guests have hooks.
const CONNECTION: &str = "qemu:///system";

/// How long it may take to die from SIGKILL.
const KILL: Duration = Duration::from_secs(1);

/// The most that is read of what it prints; a state or an error is a line or two.
const MAX_BYTES: u64 = 16 * 1024;

/// What an error begins with or contains where the daemon does not answer, but may later (`virshConnect` and
/// `virshCatchDisconnect` in libvirt's `tools/virsh.c`, `virNetSocketRead` in `src/rpc/virnetsocket.c`).
const AWAY: [&str; 4] = [
    "failed to connect to the hypervisor",
    "Disconnected from",
    "End of file while reading data",
    "Cannot recv data",
];

/// The program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Virsh {
    program: PathBuf,
}

/// Why `virsh` did not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VirshError {
    /// libvirt does not answer now; it may be restarted just then.
    Away(String),
    /// libvirt says no.
    Refused(String),
}

impl Virsh {
    /// Looks for it.
    pub(crate) fn find() -> Result<Self, HostError> {
        let missing = || HostError::call("virsh", CONNECTION, format!("there is none in {ROOT_PATH}"));
        Ok(Self { program: find_program("virsh").ok_or_else(missing)? })
    }

    /// A shell script in its place. Another process writes it: a child that another test starts just then would have it
    /// open for writing, and such a file cannot be run.
    #[cfg(test)]
    pub(crate) fn script(folder: &std::path::Path, script: &str) -> Self {
        let program = folder.join("virsh");
        let written = Command::new("/bin/sh")
            .args(["-c", "printf '#!/bin/sh\n%s\n' \"$1\" > \"$0\" && chmod 755 \"$0\""])
            .arg(&program)
            .arg(script)
            .status();
        assert!(written.unwrap().success());
        Self { program }
    }

    /// A command, with nothing inherited, in a process group of its own. `virsh` speaks English with it.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["-q", "-c", CONNECTION]).args(arguments);
        inherit_nothing(&mut command).envs([("LC_ALL", "C"), ("PATH", ROOT_PATH)]).process_group(0);
        command
    }

    /// Runs a command to its end, at the latest to the deadline; gives what it prints.
    pub(crate) fn run(&self, arguments: &[&str], deadline: Deadline) -> Result<String, VirshError> {
        let failed = |error: io::Error| VirshError::Refused(format!("failed to run virsh: {error}"));
        // Files in memory: nobody can keep a file open so that its reader waits.
        let (mut output, mut errors) = (file("output").map_err(failed)?, file("errors").map_err(failed)?);
        let mut command = self.command(arguments);
        command.stdout(output.try_clone().map_err(failed)?).stderr(errors.try_clone().map_err(failed)?);
        let child = OwnedChild::spawn(&mut command).map_err(failed)?;
        if child.wait(deadline, None).map_err(failed)? != Wake::Ended {
            kill(child);
            let words = format!("virsh {} did not end in time", arguments.join(" "));
            return Err(VirshError::Away(words));
        }
        let status = child.reap().map_err(failed)?;
        if status.success() {
            return content(&mut output).map_err(failed);
        }
        let said = content(&mut errors).map_err(failed)?;
        Err(match said.as_str() {
            "" => VirshError::Refused(format!("virsh {} ended with {status}", arguments.join(" "))),
            _ => VirshError::from_words(said),
        })
    }
}

impl VirshError {
    /// What `virsh` printed as an error.
    fn from_words(words: String) -> Self {
        if AWAY.iter().any(|away| words.contains(away)) { Self::Away(words) } else { Self::Refused(words) }
    }
}

impl fmt::Display for VirshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(reason) | Self::Refused(reason) => f.write_str(reason),
        }
    }
}

/// Kills it, and waits for its end as far as it is to be waited for.
pub(super) fn kill(child: OwnedChild) {
    child.signal_group(Signal::SIGKILL);
    if matches!(child.wait(Deadline::after(KILL), None), Ok(Wake::Ended)) {
        let _ = child.reap();
    }
}

fn file(name: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?))
}

/// What was written to a file, on one line.
fn content(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Ok(printable(&lines.join("; ")).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// What a script in its place comes to, which gets `-q -c qemu:///system` and the arguments.
    fn run(script: &str, time: Duration) -> Result<String, VirshError> {
        let folder = tempfile::tempdir().unwrap();
        Virsh::script(folder.path(), script).run(&["domstate", "x"], Deadline::after(time))
    }

    #[test]
    fn gives_what_is_printed() {
        assert_eq!(run("echo; echo running; echo", PATIENCE), Ok("running".to_owned()));
        assert_eq!(
            run("echo \"$*\" \"$LC_ALL\" \"$HOME\"", PATIENCE),
            Ok("-q -c qemu:///system domstate x C".to_owned())
        );
        assert_eq!(run("printf 'a\\033b\\n'", PATIENCE), Ok("a\\u{1b}b".to_owned()));
    }

    #[test]
    fn tells_a_daemon_that_is_away_from_one_that_refuses() {
        let said =
            |words: &str| run(&format!("echo no; echo \"{words}\" >&2; exit 1"), PATIENCE).unwrap_err();
        let away = "error: failed to connect to the hypervisor";
        assert_eq!(said(away), VirshError::Away(away.to_owned()));
        let refused = "error: failed to get domain 'x'";
        assert_eq!(said(refused), VirshError::Refused(refused.to_owned()));
        assert_eq!(
            run("exit 3", PATIENCE),
            Err(VirshError::Refused("virsh domstate x ended with exit status: 3".to_owned()))
        );
    }

    #[test]
    fn one_that_hangs_is_killed() {
        let error = run("exec sleep 1000", Duration::from_millis(50)).unwrap_err();
        assert_eq!(error, VirshError::Away("virsh domstate x did not end in time".to_owned()));
    }

    #[test]
    fn what_is_left_in_the_background_is_not_waited_for() {
        assert_eq!(run("sleep 5 & echo running", PATIENCE), Ok("running".to_owned()));
    }
}
