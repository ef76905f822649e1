//! The system calls that have a thread scheduled in another way.

use std::io;

use nix::errno::Errno;
use nix::libc;
use rustix::process::{Pid, setpriority_process};

/// `SCHED_RESET_ON_FORK` of `include/uapi/linux/sched.h`: it stays as the thread has it.
const RESET_ON_FORK: libc::c_long = 0x4000_0000;

/// `sched_setscheduler(2)` of one thread.
pub(super) fn set_policy(thread: i32, policy: i32, priority: i32) -> io::Result<()> {
    let flag = current_policy(thread)? & RESET_ON_FORK;
    set_scheduler(thread, libc::c_long::from(policy) | flag, priority)
}

/// `setpriority(2)` of one thread: in Linux a nice value is a thread's own.
pub(super) fn set_nice(thread: i32, nice: i32) -> io::Result<()> {
    let thread = Pid::from_raw(thread).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(setpriority_process(Some(thread), nice)?)
}

#[expect(unsafe_code, reason = "neither nix nor rustix has `sched_getscheduler`, and musl's always fails")]
fn current_policy(thread: i32) -> io::Result<libc::c_long> {
    // SAFETY: a number goes in and a number comes out.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, thread) };
    Ok(Errno::result(policy)?)
}

#[expect(unsafe_code, reason = "neither nix nor rustix has `sched_setscheduler`, and musl's always fails")]
fn set_scheduler(thread: i32, policy: libc::c_long, priority: i32) -> io::Result<()> {
    // `struct sched_param` of the kernel has this one number.
    let parameter: libc::c_int = priority;
    // SAFETY: the kernel reads one `int` from the pointer, which is one of this function's own and outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_sched_setscheduler, thread, policy, &raw const parameter) };
    Errno::result(done)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use crate::host::{Host, ThreadId};

    /// The kernel of this machine: what any user may do with a thread of one's own.
    #[test]
    fn the_kernel_takes_it_for_one_thread_alone() {
        let (tell, told) = channel();
        let (end, ends) = channel::<()>();
        let other = thread::spawn(move || {
            tell.send(nix::unistd::gettid().as_raw()).unwrap();
            let _ = ends.recv();
        });
        let process = nix::unistd::getpid().as_raw();
        let of = |thread: i32| {
            let path = format!("/proc/{process}/task/{thread}/stat");
            let text = std::fs::read_to_string(path).unwrap();
            let start_time = text.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().parse().unwrap();
            ThreadId { process, thread, start_time }
        };
        let (it, this) = (of(told.recv().unwrap()), of(nix::unistd::gettid().as_raw()));
        let mut host = Host::real();
        let before = host.thread_scheduling(it).unwrap();
        let this_before = host.thread_scheduling(this).unwrap();
        for wanted in ["batch, nice 7", "idle, nice 9"] {
            let wanted = wanted.parse().unwrap();
            host.set_thread_scheduling(it, wanted).unwrap();
            assert_eq!(host.thread_scheduling(it).unwrap(), wanted);
        }
        assert_eq!(host.thread_scheduling(this).unwrap(), this_before);
        if nix::unistd::geteuid().is_root() {
            host.set_thread_scheduling(it, before).unwrap();
            assert_eq!(host.thread_scheduling(it).unwrap(), before);
        }
        // The same number with another start is another thread.
        let later = ThreadId { start_time: it.start_time + 1, ..it };
        assert!(host.set_thread_scheduling(later, before).unwrap_err().is_absent());
        drop(end);
        other.join().unwrap();
    }
}
