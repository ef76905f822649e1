//! Work done by a child, so that nothing that befalls the work befalls this process: neither a signal nor a limit, and
//! above all no wait in the kernel, which no process can end for itself.

use std::fmt;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::mem::size_of;
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, close, dup2_stderr, dup2_stdout, fork, getpid, getppid};

use super::exit_at_once::exit_at_once;
use super::inherited::take_signal;
use super::stderr::write_to_stderr;
use crate::deadline::Deadline;
use crate::exit::Exit;

/// How long all that the child printed may take to get into standard error.
const FORWARD: Duration = Duration::from_millis(40);

/// How the work of the child came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkEnd {
    /// It ended by itself, with this code.
    Exited(i32),
    /// A signal ended it.
    Killed(Signal),
    /// It goes on; nobody waits for it.
    TimedOut,
    /// How it ended cannot be told: it did its work, or is at it.
    Lost,
    /// There was no child.
    NotStarted,
}

impl fmt::Display for WorkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "ended with exit status {code}"),
            Self::Killed(signal) => write!(f, "was ended by {signal}"),
            Self::TimedOut => f.write_str("did not end in time"),
            Self::Lost => f.write_str("cannot be waited for"),
            Self::NotStarted => f.write_str("was not begun"),
        }
    }
}

/// Has no signal end or stop this process from here on, but SIGKILL and SIGSTOP. Children inherit it; a long-lived one
/// takes it back.
#[expect(
    unsafe_code,
    reason = "the C library never blocks its own two signals, 32 and 33, and they end a process too"
)]
pub(crate) fn block_signals() {
    let all = u64::MAX;
    // SAFETY: the kernel reads the 8 bytes of `all`, which is the size of its signal set, and writes nothing. The C
    // library needs its two signals in processes with threads only, and takes them back for those by itself.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_BLOCK,
            &raw const all,
            ptr::null_mut::<u64>(),
            size_of::<u64>(),
        )
    };
}

/// Has a child do the work, and waits for its end, but not for longer than the budget. What the child prints on standard
/// error comes out here when it has ended; it has none of this process's pipes, so that nobody waits for it who waits
/// for their end. It dies with this process.
///
/// This process must have one thread. It allocates nothing and takes no lock.
pub(crate) fn apart(budget: Duration, work: impl FnOnce() -> Exit) -> WorkEnd {
    let deadline = Deadline::after(budget);
    // Where it is ignored, no child can be waited for.
    take_signal(Signal::SIGCHLD);
    // Pending from now on whenever a child ends: none is missed.
    let _ = child_signal().thread_block();
    let pipe = io::pipe().ok();
    let parent = getpid();
    match fork_alone() {
        Ok(ForkResult::Child) => {
            let output = pipe.map(|(_, output)| output);
            let exit = if is_set_up(parent, output).is_ok() { work() } else { Exit::NotSetUp };
            // No destructor of the parent's runs a second time.
            exit_at_once(exit)
        }
        Ok(ForkResult::Parent { child }) => {
            let printed = pipe.map(|(printed, _)| printed);
            let end = wait(child, deadline);
            if let Some(printed) = printed.filter(|_| end != WorkEnd::TimedOut) {
                forward(printed);
            }
            end
        }
        Err(_) => WorkEnd::NotStarted,
    }
}

/// The caller has one thread.
#[expect(
    unsafe_code,
    reason = "a child of several threads may find locks held for ever; this process has one"
)]
pub(super) fn fork_alone() -> nix::Result<ForkResult> {
    // SAFETY: no other thread exists (its callers are the start of a hook call, and one that has counted the threads), so
    // no lock is held in the child.
    unsafe { fork() }
}

/// Has standard input end here, for a child that reads none of it and may be left behind: the caller's pipe is then
/// open in this process alone.
pub(crate) fn let_go_of_stdin() {
    // Closed, not replaced: there may be no descriptor left.
    let _ = close(libc::STDIN_FILENO);
}

/// What the child does first.
fn is_set_up(parent: Pid, output: Option<PipeWriter>) -> nix::Result<()> {
    // Where no descriptor is left, standard input takes the place: it cannot be written to.
    match File::options().write(true).open("/dev/null") {
        Ok(null) => dup2_stdout(null)?,
        Err(_) => dup2_stdout(io::stdin())?,
    }
    match output {
        Some(output) => dup2_stderr(output)?,
        None => dup2_stderr(io::stdout())?,
    }
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // It may have died before that.
    if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH) }
}

/// Waits until the child has ended.
fn wait(child: Pid, deadline: Deadline) -> WorkEnd {
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => return WorkEnd::Exited(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return WorkEnd::Killed(signal),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return WorkEnd::Lost,
        }
        let left = deadline.remaining();
        if left.is_zero() {
            return WorkEnd::TimedOut;
        }
        take_child_signal(left);
    }
}

fn child_signal() -> SigSet {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals
}

/// Waits for a SIGCHLD.
#[expect(unsafe_code, reason = "neither std, nix nor rustix has `sigtimedwait` as a safe call")]
fn take_child_signal(patience: Duration) {
    let seconds = libc::time_t::try_from(patience.as_secs()).unwrap_or(libc::time_t::MAX);
    let timeout = libc::timespec { tv_sec: seconds, tv_nsec: patience.subsec_nanos().into() };
    // SAFETY: both pointers are to values that live longer than the call; none is asked for what came. What it returns
    // does not matter: the child is looked at in any case.
    unsafe { libc::sigtimedwait(child_signal().as_ref(), ptr::null_mut(), &raw const timeout) };
}

/// Prints what is in the pipe now.
fn forward(mut printed: PipeReader) {
    if fcntl(&printed, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).is_err() {
        return;
    }
    let deadline = Deadline::after(FORWARD);
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = printed.read(&mut piece) {
        write_to_stderr(&piece[..length], deadline);
    }
}
