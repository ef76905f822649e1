//! Child processes: waited for without looking again and again, signalled only while their number is theirs, and
//! never left as zombies.
//!
//! A process that nobody waits for keeps its number, and so does a group as long as one of its members does. So a child
//! is looked at first (a pidfd, or `WNOWAIT`), its group is signalled while its number cannot be another's, and only
//! then it is waited for.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use procfs::process::{Stat, all_processes};
use procfs::{ProcError, ProcResult};
use rustix::process::{PidfdFlags, pidfd_open};

use super::inherited::keep_descriptors;
use crate::deadline::Deadline;

/// How often a child is looked at on a kernel without pidfds (before Linux 5.3), and what is left of a group.
const LOOK: Duration = Duration::from_millis(10);

/// Has a program inherit nothing: no variables, no streams, no folder. [`spawn`] sees to the descriptors.
pub(super) fn inherit_nothing(command: &mut Command) -> &mut Command {
    let command = command.env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

/// What the standard library looks for before it starts a program with `posix_spawn`, and does not find in a program that
/// has the C library linked in. Otherwise it forks, and then waits for the child's end without a bound where the kernel
/// has no memory to tell it whether the program was found (`Command::spawn` in its `sys/process/unix/unix.rs`): a worker's end, which
/// waits for orders of this process.
#[cfg(target_env = "gnu")]
mod linked_in {
    use std::ffi::{c_char, c_int};

    use nix::libc;

    #[used]
    static VERSION: unsafe extern "C" fn() -> *const c_char = libc::gnu_get_libc_version;

    #[used]
    static ADD_FOLDER: unsafe extern "C" fn(*mut libc::posix_spawn_file_actions_t, *const c_char) -> c_int =
        libc::posix_spawn_file_actions_addchdir_np;
}

/// Starts a program, the only way in which this one does: of all descriptors it gets its standard streams.
pub(super) fn spawn(command: &mut Command) -> io::Result<Child> {
    keep_descriptors();
    command.spawn()
}

/// The children that some thread waits for by itself.
static OWNED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn owned() -> MutexGuard<'static, BTreeSet<i32>> {
    OWNED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// The child has ended, and keeps its number until it is waited for.
    Ended,
    /// The descriptor is readable or hung up.
    Cancelled,
    /// The time is over.
    TimedOut,
}

/// A child that this process started and waits for itself.
pub(super) struct OwnedChild {
    child: Child,
    pid: Pid,
    pidfd: Option<OwnedFd>,
}

impl OwnedChild {
    /// Starts a program.
    pub(super) fn spawn(command: &mut Command) -> io::Result<Self> {
        // Held over the start: an adopted orphan could not be told from a child that is not written down yet.
        let mut owned = owned();
        let child = spawn(command)?;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        owned.insert(pid.as_raw());
        let pidfd = pidfd_open(rustix::process::Pid::from_child(&child), PidfdFlags::empty()).ok();
        Ok(Self { child, pid, pidfd })
    }

    /// What it reads, where that was asked for.
    pub(super) fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// What it writes, where that was asked for.
    pub(super) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its number.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits for its end, for the descriptor or for the time, whichever comes first.
    pub(super) fn wait(&self, deadline: Deadline, cancel: Option<BorrowedFd<'_>>) -> io::Result<Wake> {
        loop {
            if self.has_ended()? {
                return Ok(Wake::Ended);
            }
            let remaining = deadline.remaining();
            if remaining.is_zero() {
                return Ok(Wake::TimedOut);
            }
            let wait = if self.pidfd.is_some() { remaining } else { remaining.min(LOOK) };
            // Rounded up: a poll of less than a millisecond would not wait at all.
            let timeout = PollTimeout::try_from(wait.as_millis() + 1).unwrap_or(PollTimeout::MAX);
            // The descriptor to cancel comes first: whether there is a pidfd or not, its place is known.
            let descriptors = cancel.into_iter().chain(self.pidfd.as_ref().map(AsFd::as_fd));
            let mut polled: Vec<_> = descriptors.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            let is_cancelled = match poll(&mut polled, timeout) {
                Ok(_) => cancel.is_some() && polled[0].any() != Some(false),
                Err(Errno::EINTR) => false,
                // A kernel without memory for it says nothing of the child, which is looked at again.
                Err(_) => {
                    deadline.pause(LOOK);
                    false
                }
            };
            if is_cancelled && !self.has_ended()? {
                return Ok(Wake::Cancelled);
            }
        }
    }

    /// Whether it has ended; it keeps its number all the same.
    pub(super) fn has_ended(&self) -> io::Result<bool> {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        Ok(waitid(Id::Pid(self.pid), look)? != WaitStatus::StillAlive)
    }

    /// How it ended, after [`Wake::Ended`]. Its number may be used again from here on.
    pub(super) fn reap(mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Sends a signal to every process of the child's group. The group is still its own: the child has not been waited
    /// for.
    pub(super) fn signal_group(&self, signal: Signal) {
        // A group that is empty has got what it needs; one of another user cannot be helped.
        let _ = killpg(self.pid, signal);
    }

    /// Waits until no process of its group is alive; whether that is so. Where it cannot be told, it is not.
    pub(super) fn group_ends(&self, deadline: Deadline) -> bool {
        let is_of_group = |process: &Stat| process.pgrp == self.pid.as_raw();
        loop {
            let is_gone = live_processes().is_ok_and(|processes| !processes.iter().any(is_of_group));
            if is_gone || deadline.has_passed() {
                return is_gone;
            }
            deadline.pause(LOOK);
        }
    }
}

impl Drop for OwnedChild {
    /// One that was left behind is from now on waited for like an orphan.
    fn drop(&mut self) {
        owned().remove(&self.pid.as_raw());
    }
}

/// All processes but zombies.
///
/// # Errors
/// `/proc` cannot be read, or not the whole of it: then there may be more.
pub(super) fn live_processes() -> ProcResult<Vec<Stat>> {
    let mut processes = all_stats()?;
    processes.retain(|process| !matches!(process.state, 'Z' | 'X'));
    Ok(processes)
}

fn all_stats() -> ProcResult<Vec<Stat>> {
    let mut stats = Vec::new();
    for process in all_processes()? {
        match process.and_then(|process| process.stat()) {
            Ok(stat) => stats.push(stat),
            // It has ended meanwhile, or is another user's.
            Err(ProcError::NotFound(_) | ProcError::PermissionDenied(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(stats)
}

/// Waits for every ended child that no [`OwnedChild`] stands for: adopted orphans, and children left behind.
pub(super) fn reap_orphans() {
    let this = std::process::id();
    // Held to the end: none of these numbers may become that of a new child meanwhile.
    let owned = owned();
    // Those that cannot be seen now stay for the next time.
    for process in all_stats().unwrap_or_default() {
        let is_ours = u32::try_from(process.ppid) == Ok(this);
        if is_ours && process.state == 'Z' && !owned.contains(&process.pid) {
            let _ = waitpid(Pid::from_raw(process.pid), Some(WaitPidFlag::WNOHANG));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};

    use nix::unistd::dup;

    use super::*;

    /// Longer than what is waited for.
    const LONG: Duration = Duration::from_secs(20);

    /// A reader of a pipe's end would wait for as long as a keeper lives.
    #[test]
    fn a_child_keeps_nothing_open_that_its_parent_was_left_with() {
        let (mut reader, writer) = pipe().unwrap();
        // `dup` leaves out the flag that would close it in the child.
        let left_open = dup(&writer).unwrap();
        let mut child = spawn(inherit_nothing(Command::new("/bin/sleep").arg("1000"))).unwrap();
        drop((writer, left_open));
        let waiting = PollFd::new(reader.as_fd(), PollFlags::POLLIN);
        assert_eq!(poll(&mut [waiting], PollTimeout::try_from(LONG).unwrap()), Ok(1), "it is still open");
        assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
