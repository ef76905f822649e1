//! What a process has from its parent, and what it hands on: descriptors and the way it takes signals.
//!
//! libvirt hands on its standard streams alone. A shell, a script or a runner of tests may have left more open, a lock's
//! file or the end of a pipe; a keeper lives for days and would hold it for as long.

use std::fs;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};

/// The first descriptor that is no standard stream.
const FIRST: libc::c_uint = 3;

/// Signals that are left as they are: two that the standard library handles (the end of a stack), one that it ignores
/// (a reader that is gone is an error of the write), two that are nobody's to set.
const NOT_SET: [Signal; 5] =
    [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGPIPE, Signal::SIGKILL, Signal::SIGSTOP];

/// From now on no program that this process starts or becomes gets any descriptor that is open here, but for its
/// standard streams.
pub(super) fn keep_descriptors() {
    if close_range_on_exec() == Err(Errno::ENOSYS) {
        for descriptor in open_descriptors() {
            close_on_exec(descriptor);
        }
    }
}

/// Those that are open, without the standard streams.
fn open_descriptors() -> Vec<libc::c_int> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|number| u32::try_from(*number).is_ok_and(|number| number >= FIRST)).collect()
}

/// `close_range(2)` with `CLOSE_RANGE_CLOEXEC`: `ENOSYS` where the kernel does not have both (before Linux 5.11), or a
/// filter of system calls does not know it.
#[expect(unsafe_code, reason = "no crate here has `close_range`, and the C library only since glibc 2.34")]
fn close_range_on_exec() -> Result<(), Errno> {
    let (last, flags) = (libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    // SAFETY: three numbers go in, and no memory is touched. The flag closes nothing in this process, so that no
    // descriptor becomes another's while it is in use; no program is started here that is to inherit one.
    let done = unsafe { libc::syscall(libc::SYS_close_range, FIRST, last, flags) };
    Errno::result(done).map(drop).map_err(|_| Errno::ENOSYS)
}

/// The same for one descriptor. One that is closed meanwhile needs nothing.
#[expect(unsafe_code, reason = "the safe call wants the descriptor's owner, who is not known")]
fn close_on_exec(descriptor: libc::c_int) {
    // SAFETY: numbers go in, no memory is touched, and the flag closes nothing in this process. Should the number
    // belong to another descriptor by now, that one is not to be inherited either.
    let _ = unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// Takes signals as a program does that nobody has started in a special way: none is blocked and none ignored, which
/// both are inherited. To be called while the process has one thread.
///
/// Where SIGCHLD is ignored, no child can be waited for; where SIGTERM is blocked, a process cannot be asked to end.
pub(crate) fn take_signals() {
    for each in Signal::iterator().filter(|each| !NOT_SET.contains(each)) {
        take_signal(each);
    }
    let _ = SigSet::empty().thread_set_mask();
}

#[expect(unsafe_code, reason = "setting a handler may break what another part of the process relies on")]
pub(super) fn take_signal(which: Signal) {
    // SAFETY: the default action is no code of ours, and the standard library, which alone sets handlers in this
    // process, has none for the signals that come here.
    let _ = unsafe { signal(which, SigHandler::SigDfl) };
}

/// The descriptors that a process of systemd's may have (`DefaultLimitNOFILE=`).
const DESCRIPTORS: u64 = 1024;

/// Limits that would end, or stop the work of, a process that lives for days.
const NO_LIMIT: [Resource; 3] = [Resource::RLIMIT_CPU, Resource::RLIMIT_FSIZE, Resource::RLIMIT_AS];

/// Raises limits that are lower than those of services: what lives long is not to suffer from who started it. Root may
/// do that.
pub(crate) fn take_limits() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < DESCRIPTORS
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, hard.max(DESCRIPTORS));
    }
    for resource in NO_LIMIT {
        let _ = setrlimit(resource, RLIM_INFINITY, RLIM_INFINITY);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use nix::unistd::dup;

    use super::*;

    #[test]
    fn both_ways_mark_what_is_open() {
        let one_by_one = || open_descriptors().into_iter().for_each(close_on_exec);
        for mark in [&keep_descriptors as &dyn Fn(), &one_by_one] {
            // `dup` leaves the flag out.
            let left_open = dup(fs::File::open("/dev/null").unwrap()).unwrap();
            assert!(open_descriptors().contains(&left_open.as_raw_fd()));
            mark();
            let flags = fcntl(&left_open, FcntlArg::F_GETFD).unwrap();
            assert_eq!(flags, FdFlag::FD_CLOEXEC.bits());
        }
        assert!(open_descriptors().iter().all(|number| *number > 2));
    }
}
