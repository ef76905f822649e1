//! A program run as a child for a bounded time, and left behind where the kernel does not let it end.
//!
//! A process that the kernel keeps in a driver's `probe` or `remove` cannot be ended, and neither can the process it is
//! a thread of. So the child holds nothing of ours but pipes that are used no more, and nobody waits for it.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;

use super::ProcessId;
use super::children::{OwnedChild, Wake};
use crate::deadline::Deadline;

/// How long a killed child may take to end before it counts as kept by the kernel.
pub(super) const ENDS: Duration = Duration::from_millis(200);

/// The most that is heard of a child; one that says more is not waited for.
pub(super) const MAX_HEARD: usize = 8 * 1024 * 1024;

/// What became of a child.
#[derive(Debug)]
pub(super) struct BoundedChild {
    /// What it said on standard output until then.
    pub(super) output: Vec<u8>,
    /// How that came to an end.
    pub(super) end: ChildEnd,
}

/// How a child came to its end.
#[derive(Debug)]
pub(super) enum ChildEnd {
    /// By itself.
    Ended(ExitStatus),
    /// It took too long, and was killed.
    Killed,
    /// It took too long, and the kernel does not let it end.
    Stuck(ProcessId),
}

/// Runs a program as a child of its own process group until it ends, at the latest until the deadline, and hears what it
/// says: lines that fit into the pipe.
pub(super) fn run_bounded(mut command: Command, deadline: Deadline) -> io::Result<BoundedChild> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let mut child = OwnedChild::spawn(&mut command)?;
    let mut heard = Vec::new();
    let in_time = match child.take_stdout() {
        Some(mut stdout) => hear(&child, &mut stdout, &mut heard, deadline)?,
        None => child.wait(deadline, None)?,
    };
    if in_time != Wake::Ended {
        return Ok(BoundedChild { output: heard, end: end_it(child, ENDS)? });
    }
    Ok(BoundedChild { output: heard, end: ChildEnd::Ended(child.reap()?) })
}

/// Kills a child that took too long, and waits so long for its end. One that ends at the same moment by itself has
/// ended.
pub(super) fn end_it(child: OwnedChild, ends: Duration) -> io::Result<ChildEnd> {
    child.signal_group(Signal::SIGKILL);
    if child.wait(Deadline::after(ends), None)? != Wake::Ended {
        let pid = child.pid().as_raw();
        let process = ProcessId::of(pid).unwrap_or(ProcessId { pid, start_time: 0 });
        return Ok(ChildEnd::Stuck(process));
    }
    let status = child.reap()?;
    let is_ours = status.signal() == Some(Signal::SIGKILL as i32);
    Ok(if is_ours { ChildEnd::Killed } else { ChildEnd::Ended(status) })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, budget: Duration) -> BoundedChild {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        run_bounded(command, Deadline::after(budget)).unwrap()
    }

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(300);

    #[test]
    fn one_that_can_be_killed_is_not_left_behind() {
        assert!(matches!(shell("sleep 60", SHORT).end, ChildEnd::Killed));
    }

    #[test]
    fn what_was_said_before_the_deadline_counts() {
        let child = shell("echo one; echo two; exec sleep 60", SHORT);
        assert!(matches!(child.end, ChildEnd::Killed));
        assert_eq!(child.output, b"one\ntwo\n");
        let child = shell("echo one; echo two", LONG);
        assert!(matches!(child.end, ChildEnd::Ended(status) if status.success()));
        assert_eq!(child.output, b"one\ntwo\n");
    }

    #[test]
    fn neither_what_is_left_in_the_background_nor_a_flood_is_waited_for() {
        let (sender, end) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            sender.send(shell("echo one; sleep 1000 & echo $!", LONG)).unwrap();
            sender.send(shell("exec cat /dev/zero", LONG)).unwrap();
        });
        let left = end.recv_timeout(LONG).expect("it waits for what is left in the background");
        let text = String::from_utf8(left.output).unwrap();
        let pid: i32 = text.strip_prefix("one\n").unwrap().trim().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        assert!(matches!(left.end, ChildEnd::Ended(status) if status.success()));
        let flood = end.recv_timeout(LONG).expect("it hears a flood to its end");
        assert!(!matches!(flood.end, ChildEnd::Ended(status) if status.success()), "{:?}", flood.end);
        assert!(flood.output.len() <= MAX_HEARD + 64 * 1024);
    }
}
