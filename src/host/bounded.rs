//! Contacts with the kernel that may take long or never come back, made by a child that can be left behind.
//!
//! A process that the kernel keeps in a driver's `probe` or `remove` cannot be ended, and neither can the process it is
//! a thread of. So the child holds nothing of ours but a pipe that is read no more, and nobody waits for it.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;

use super::children::{OwnedChild, Wake};
use super::error::rounded;
use super::{Host, HostError, ProcessId};
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::failpoint;

/// The hidden first argument of the child that writes.
pub const WRITE_ATTRIBUTE: &str = "write-attribute";

/// The hidden first argument of the child that reads.
pub const READ_ATTRIBUTES: &str = "read-attributes";

/// How long a killed child may take to end before it counts as kept by the kernel.
const ENDS: Duration = Duration::from_millis(200);

/// The most that is heard of a child; one that says more is not waited for.
const MAX_HEARD: usize = 8 * 1024 * 1024;

/// What became of a child.
#[derive(Debug)]
pub(super) struct Aside {
    /// What it said on standard output until then.
    pub(super) output: Vec<u8>,
    /// How that came to an end.
    pub(super) end: AsideEnd,
}

/// How a child came to its end.
#[derive(Debug)]
pub(super) enum AsideEnd {
    /// By itself.
    Ended(ExitStatus),
    /// It took too long, and was killed.
    Killed,
    /// It took too long, and the kernel does not let it end.
    Stuck(ProcessId),
}

/// Whether what a child says is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// It is: lines that fit into the pipe.
    Heard,
    /// It has none.
    Unheard,
}

/// Runs this program as a child of its own process group with these arguments until it ends, at the latest until the
/// deadline.
pub(super) fn aside(arguments: &[&OsStr], output: Output, deadline: Deadline) -> io::Result<Aside> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("vfio-hook").args(arguments);
    run_aside(command, output, deadline)
}

/// Runs a program in the same way.
pub(super) fn run_aside(mut command: Command, output: Output, deadline: Deadline) -> io::Result<Aside> {
    let stdout = if output == Output::Heard { Stdio::piped() } else { Stdio::null() };
    command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null()).process_group(0);
    let mut child = OwnedChild::spawn(&mut command)?;
    let mut heard = Vec::new();
    let in_time = match child.take_stdout() {
        Some(mut stdout) => hear(&child, &mut stdout, &mut heard, deadline)?,
        None => child.wait(deadline, None)?,
    };
    if in_time != Wake::Ended {
        child.signal_group(Signal::SIGKILL);
        if child.wait(Deadline::after(ENDS), None)? != Wake::Ended {
            let pid = child.pid().as_raw();
            let process = ProcessId::of(pid).unwrap_or(ProcessId { pid, start_time: 0 });
            return Ok(Aside { output: heard, end: AsideEnd::Stuck(process) });
        }
    }
    let status = child.reap()?;
    let is_ours = in_time != Wake::Ended && status.signal() == Some(Signal::SIGKILL as i32);
    Ok(Aside { output: heard, end: if is_ours { AsideEnd::Killed } else { AsideEnd::Ended(status) } })
}

/// Reads what it says as it says it: what is heard until the deadline counts.
fn hear(
    child: &OwnedChild,
    stdout: &mut ChildStdout,
    heard: &mut Vec<u8>,
    deadline: Deadline,
) -> io::Result<Wake> {
    loop {
        match hear_more(child, stdout, heard, deadline)? {
            Some(Wake::Cancelled) => return child.wait(deadline, None),
            Some(end) => return Ok(end),
            None if heard.len() > MAX_HEARD => return Ok(Wake::TimedOut),
            None => {}
        }
    }
}

/// Waits for the next piece that a child says, and reads it; or how that came to an end: it ended, the time is over, or
/// it has closed its output ([`Wake::Cancelled`]). Something that it left running may keep the output open.
pub(super) fn hear_more(
    child: &OwnedChild,
    stdout: &mut ChildStdout,
    heard: &mut Vec<u8>,
    deadline: Deadline,
) -> io::Result<Option<Wake>> {
    fcntl(&*stdout, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    match child.wait(deadline, Some(stdout.as_fd()))? {
        Wake::TimedOut => Ok(Some(Wake::TimedOut)),
        Wake::Ended => match stdout.take(MAX_HEARD as u64).read_to_end(heard) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(Some(Wake::Ended)),
        },
        Wake::Cancelled => {
            let mut piece = [0; 4096];
            match stdout.read(&mut piece) {
                Ok(0) => Ok(Some(Wake::Cancelled)),
                Ok(length) => {
                    heard.extend_from_slice(&piece[..length]);
                    Ok(None)
                }
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
                {
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        }
    }
}

impl Host {
    /// Writes a kernel attribute in a child process, which is killed at the deadline: memory compaction of a large
    /// node takes seconds and cannot be interrupted otherwise, and a driver may never let go of a device.
    ///
    /// # Errors
    /// No time is left, and nothing is done; the kernel refuses the value; it took too long
    /// ([`io::ErrorKind::TimedOut`]), and the child may hang in it ([`HostError::stuck_process`]); no process can be
    /// started.
    pub fn write_bounded(&mut self, path: &Path, value: &str, deadline: Deadline) -> Result<(), HostError> {
        let waited = deadline.remaining();
        if waited.is_zero() {
            // A child would be killed in the middle of it.
            return Err(HostError::write(
                path,
                value,
                io::Error::new(io::ErrorKind::TimedOut, "no time is left"),
            ));
        }
        let real = self.files.locate(path);
        if real != path {
            // A host in a folder has no slow kernel, but one that hangs where the host says so.
            return self.files.write(path, value).map_err(|error| {
                match super::simulated::stuck_process(&error) {
                    Some(process) => HostError::stuck(path, value, process, waited),
                    None => HostError::write(path, value, error),
                }
            });
        }
        let failed = |error| HostError::write(path, value, error);
        failpoint::reached("knob");
        let arguments = [WRITE_ATTRIBUTE.as_ref(), path.as_os_str(), value.as_ref()];
        let ended = aside(&arguments, Output::Unheard, deadline).map_err(failed)?.end;
        failpoint::reached("knob");
        match ended {
            AsideEnd::Ended(status) => of_child(status).map_err(failed),
            AsideEnd::Killed => Err(failed(took_too_long(waited))),
            AsideEnd::Stuck(process) => Err(HostError::stuck(path, value, process, waited)),
        }
    }

    /// Reads kernel attributes, all in one child process, which is killed at the deadline: the kernel shows some of
    /// them only while it holds the device's lock, which a driver that hangs holds for ever. The texts come in the
    /// order asked for; none where a file is absent.
    ///
    /// # Errors
    /// The kernel refuses; it took too long, and the child may hang in it; no process can be started.
    pub fn read_bounded(
        &self,
        paths: &[PathBuf],
        deadline: Deadline,
    ) -> Result<Vec<Option<String>>, HostError> {
        let Some(first) = paths.first() else { return Ok(Vec::new()) };
        if self.files.locate(first) != *first {
            return paths.iter().map(|path| self.text_if_present(path)).collect();
        }
        let waited = deadline.remaining();
        let mut arguments: Vec<&OsStr> = vec![READ_ATTRIBUTES.as_ref()];
        arguments.extend(paths.iter().map(|path| path.as_os_str()));
        let failed = |error| HostError::read(first, error);
        let Aside { output, end } = aside(&arguments, Output::Heard, deadline).map_err(failed)?;
        let answers: Vec<Result<String, i32>> =
            output.split(|byte| *byte == b'\n').map_while(|line| serde_json::from_slice(line).ok()).collect();
        // It reads one after the other: the first that is not answered is where it is.
        let at = paths.get(answers.len()).unwrap_or(first);
        match end {
            AsideEnd::Ended(status) => of_child(status).map_err(|error| HostError::read(at, error))?,
            AsideEnd::Killed => return Err(HostError::read(at, took_too_long(waited))),
            AsideEnd::Stuck(process) => return Err(HostError::stuck_read(at, process, waited)),
        }
        let texts = paths.iter().zip(answers).map(|(path, answer)| match answer {
            Ok(text) => Ok(Some(text)),
            Err(errno) if Errno::from_raw(errno) == Errno::ENOENT => Ok(None),
            Err(errno) => Err(HostError::read(path, io::Error::from_raw_os_error(errno))),
        });
        texts.collect()
    }
}

fn took_too_long(waited: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("it took longer than {}", rounded(waited)))
}

/// What a child says by its end.
pub(super) fn of_child(status: ExitStatus) -> io::Result<()> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(errno), _) => Err(io::Error::from_raw_os_error(errno)),
        (None, signal) => {
            let signal = signal.and_then(|signal| Signal::try_from(signal).ok()).map_or("?", Signal::as_str);
            Err(io::Error::other(format!("the process that did it was ended by {signal}")))
        }
    }
}

/// What the child that writes does; it ends with the kernel's `errno`.
#[must_use]
pub fn write_attribute(path: &Path, value: &str) -> Exit {
    match super::files::write_existing(path, value) {
        Ok(()) => Exit::Done,
        Err(error) => Exit::Errno(error.raw_os_error().unwrap_or(Errno::EIO as i32)),
    }
}

/// What the child that reads does: a line of JSON for each file, as soon as it is read.
///
/// # Errors
/// Nobody is there any more to hear the answer.
pub fn read_attributes(paths: &[PathBuf]) -> io::Result<Exit> {
    for path in paths {
        let answer = super::files::read_limited(path)
            .map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned())
            .map_err(|error| error.raw_os_error().unwrap_or(Errno::EIO as i32));
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        io::stdout().write_all(&line)?;
        io::stdout().flush()?;
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, output: Output, budget: Duration) -> Aside {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        run_aside(command, output, Deadline::after(budget)).unwrap()
    }

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(300);

    #[test]
    fn a_child_says_by_its_exit_code_what_the_kernel_answered() {
        let end = |script| match shell(script, Output::Unheard, LONG).end {
            AsideEnd::Ended(status) => of_child(status),
            end => panic!("{end:?}"),
        };
        assert!(end("exit 0").is_ok());
        assert_eq!(end("exit 16").unwrap_err().raw_os_error(), Some(Errno::EBUSY as i32));
        let killed = end("kill -TERM $$").unwrap_err();
        assert_eq!(killed.to_string(), "the process that did it was ended by SIGTERM");
    }

    #[test]
    fn one_that_can_be_killed_is_not_left_behind() {
        assert!(matches!(shell("sleep 60", Output::Unheard, SHORT).end, AsideEnd::Killed));
    }

    #[test]
    fn what_was_said_before_the_deadline_counts() {
        let aside = shell("echo one; echo two; exec sleep 60", Output::Heard, SHORT);
        assert!(matches!(aside.end, AsideEnd::Killed));
        assert_eq!(aside.output, b"one\ntwo\n");
        let aside = shell("echo one; echo two", Output::Heard, LONG);
        assert!(matches!(aside.end, AsideEnd::Ended(status) if status.success()));
        assert_eq!(aside.output, b"one\ntwo\n");
    }

    #[test]
    fn neither_what_is_left_in_the_background_nor_a_flood_is_waited_for() {
        let (sender, end) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            sender.send(shell("echo one; sleep 1000 & echo $!", Output::Heard, LONG)).unwrap();
            sender.send(shell("exec cat /dev/zero", Output::Heard, LONG)).unwrap();
        });
        let left = end.recv_timeout(LONG).expect("it waits for what is left in the background");
        let text = String::from_utf8(left.output).unwrap();
        let pid: i32 = text.strip_prefix("one\n").unwrap().trim().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        assert!(matches!(left.end, AsideEnd::Ended(status) if status.success()));
        let flood = end.recv_timeout(LONG).expect("it hears a flood to its end");
        assert!(!matches!(flood.end, AsideEnd::Ended(status) if status.success()), "{:?}", flood.end);
        assert!(flood.output.len() <= MAX_HEARD + 64 * 1024);
    }

    #[test]
    fn the_child_that_writes_ends_with_the_errno() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(write_attribute(&folder.path().join("absent"), "1"), Exit::Errno(Errno::ENOENT as i32));
        std::fs::write(folder.path().join("present"), "").unwrap();
        assert_eq!(write_attribute(&folder.path().join("present"), "1"), Exit::Done);
        assert_eq!(std::fs::read(folder.path().join("present")).unwrap(), b"1");
    }
}
