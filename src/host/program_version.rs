//! Versions of other programs, by their own word.

use std::path::Path;
use std::process::Command;

use super::bounded_child::{ChildEnd, run_bounded};
use super::root_path::{ROOT_PATH, find_program};
use super::{Host, HostError};
use crate::deadline::Deadline;
use crate::printable::excerpt;

/// Programs that are not in root's `PATH` on some distributions (Fedora's and RHEL's QEMU).
const ELSEWHERE: &str = "/usr/libexec";

/// On a host in a folder, what a program says of its version: it runs no programs.
const SIMULATED: &str = "/simulated/versions";

/// Longer lines are no version.
const LONGEST: usize = 120;

impl Host {
    /// The first line that `PROGRAM --version` prints, cut after 120 letters and printable; none where the host does
    /// not have the program, or the program does not tell in time. It runs without this program's environment and is
    /// killed at the deadline.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn program_version(&self, program: &str, deadline: Deadline) -> Result<Option<String>, HostError> {
        if self.root() != Path::new("/") {
            return self.text_if_present(Path::new(SIMULATED).join(program));
        }
        let elsewhere = || Some(Path::new(ELSEWHERE).join(program)).filter(|path| path.is_file());
        let Some(path) = find_program(program).or_else(elsewhere) else { return Ok(None) };
        first_line(&path, deadline)
    }
}

fn first_line(program: &Path, deadline: Deadline) -> Result<Option<String>, HostError> {
    let mut command = Command::new(program);
    command.arg("--version").env_clear().envs([("LC_ALL", "C"), ("PATH", ROOT_PATH)]).current_dir("/");
    let child = run_bounded(command, deadline)
        .map_err(|error| HostError::call("--version", &program.display().to_string(), error))?;
    let text = String::from_utf8_lossy(&child.output);
    let first = text.lines().next().map(|line| excerpt(line.trim(), LONGEST));
    Ok(first.filter(|line| matches!(child.end, ChildEnd::Ended(end) if end.success()) && !line.is_empty()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::host::manifest::lay_out;
    use crate::host::simulated::Faults;

    /// A script, written by another process: a child that another test starts just then would have it open for writing,
    /// and such a file cannot be run.
    fn said(script: &str, time: Duration) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod 755 \"$0\"";
        let written = Command::new("/bin/sh").args(["-c", write]).arg(&program).arg(script).status();
        assert!(written.unwrap().success());
        first_line(&program, Deadline::after(time)).unwrap()
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn the_first_line_counts() {
        let script = "echo \"  QEMU $* 10.0.8 $LC_ALL$HOME\"; echo Copyright";
        assert_eq!(said(script, PATIENCE).as_deref(), Some("QEMU --version 10.0.8 C"));
        assert_eq!(said("printf 'a\\033b\\n'", PATIENCE).as_deref(), Some("a\\u{1b}b"));
        let long = said("printf '%0200d\\n' 0", PATIENCE).unwrap();
        assert_eq!(long.chars().count(), LONGEST + 1);
    }

    #[test]
    fn one_that_fails_says_nothing_or_hangs_has_none() {
        assert_eq!(said("echo 1.0; exit 1", PATIENCE), None);
        assert_eq!(said("exit 0", PATIENCE), None);
        assert_eq!(said("echo 1.0; exec sleep 1000", Duration::from_millis(50)), None);
        let soon = Deadline::after(PATIENCE);
        assert_eq!(Host::real().program_version("no-program-has-this-name", soon).unwrap(), None);
    }

    #[test]
    fn what_a_program_leaves_behind_is_not_waited_for() {
        let began = std::time::Instant::now();
        assert_eq!(said("sleep 30 & echo 1.0", PATIENCE).as_deref(), Some("1.0"));
        assert_eq!(said("echo 1.0; yes &", PATIENCE).as_deref(), Some("1.0"));
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }

    #[test]
    fn a_host_in_a_folder_says_it_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        lay_out("/simulated/versions/libvirtd = libvirtd (libvirt) 11.3.0\n", folder.path()).unwrap();
        let host = Host::simulated(folder.path(), &Faults::default());
        let version = host.program_version("libvirtd", Deadline::after(PATIENCE)).unwrap();
        assert_eq!(version.as_deref(), Some("libvirtd (libvirt) 11.3.0"));
        assert_eq!(host.program_version("virtqemud", Deadline::after(PATIENCE)).unwrap(), None);
    }
}
