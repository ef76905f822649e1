//! Work whose failure must not be the process's: it is done by a child, and nothing that befalls the child reaches the
//! parent.

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdout, fork};

use super::exit_at_once::exit_at_once;
use crate::deadline::Deadline;
use crate::exit::Exit;

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
            libc::SIG_SETMASK,
            &raw const all,
            ptr::null_mut::<u64>(),
            size_of::<u64>(),
        )
    };
}

/// Has a child do the work, and waits for its end, but not for longer than the budget. The child has neither standard
/// output nor standard error of this process: nobody waits for it who waits for them.
///
/// This process allocates nothing and takes no lock; it must have one thread, and signals blocked. What becomes of the
/// child is not told: it may not even come to be.
pub(crate) fn apart(budget: Duration, work: impl FnOnce() -> Exit) {
    let deadline = Deadline::after(budget);
    match fork_alone() {
        Ok(ForkResult::Child) => {
            let exit = if drop_output().is_ok() { work() } else { Exit::Failed };
            // No destructor of the parent's runs a second time.
            exit_at_once(exit)
        }
        Ok(ForkResult::Parent { child }) => wait(child, deadline),
        Err(_) => {}
    }
}

#[expect(
    unsafe_code,
    reason = "a child of several threads may find locks held for ever; this process has one"
)]
fn fork_alone() -> nix::Result<ForkResult> {
    // SAFETY: no other thread exists yet (this is called at the start of a hook call), so no lock is held in the child.
    unsafe { fork() }
}

/// Gives standard output and standard error away. Where no descriptor is left for `/dev/null`, standard input takes
/// their places: it cannot be written to.
fn drop_output() -> nix::Result<()> {
    match File::options().write(true).open("/dev/null") {
        Ok(null) => dup2_stdout(&null).and_then(|()| dup2_stderr(&null)),
        Err(_) => dup2_stdout(io::stdin()).and_then(|()| dup2_stderr(io::stdin())),
    }
}

/// Waits until the child has ended. SIGCHLD, which is blocked, stays pending until it is taken: none is missed.
fn wait(child: Pid, deadline: Deadline) {
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {}
            Err(Errno::EINTR) => continue,
            _ => return,
        }
        let left = deadline.remaining();
        if left.is_zero() {
            return;
        }
        take_child_signal(left);
    }
}

/// Waits for a SIGCHLD.
#[expect(unsafe_code, reason = "neither std, nix nor rustix has `sigtimedwait` as a safe call")]
fn take_child_signal(patience: Duration) {
    let seconds = libc::time_t::try_from(patience.as_secs()).unwrap_or(libc::time_t::MAX);
    let timeout = libc::timespec { tv_sec: seconds, tv_nsec: patience.subsec_nanos().into() };
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    // SAFETY: both pointers are to values that live longer than the call; none is asked for what came. What it returns
    // does not matter: the child is looked at in any case.
    let _: c_int = unsafe { libc::sigtimedwait(signals.as_ref(), ptr::null_mut(), &timeout) };
}
