//! The system calls that may fail, what each is about, and how it may fail.

use nix::errno::Errno;
use nix::libc;

/// What a call is about, and in which argument that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Nothing that has a name.
    None,
    /// A path.
    Path(usize),
    /// A path below an open folder: the folder's descriptor, the path.
    At(usize, usize),
    /// A descriptor.
    Descriptor(usize),
    /// A socket's descriptor, and the address that it is to have or to reach, if one is given.
    Address(usize, usize),
    /// A list of descriptors to wait for, and its length.
    Waits(usize, usize),
    /// Memory: the flags of the mapping.
    Memory(usize),
}

/// A kind of system call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) number: i64,
    pub(crate) name: &'static str,
    pub(crate) subject: Subject,
    errors: &'static [Errno],
}

use Errno::{EAGAIN, EINTR, EIO, EMFILE, ENOMEM, ENOSPC};
use Subject::{Address, At, Descriptor, Memory, Path, Waits};

const fn call(number: i64, name: &'static str, subject: Subject, errors: &'static [Errno]) -> Call {
    Call { number, name, subject, errors }
}

/// All that can fail for reasons outside of the program. Left out: what only reads or sets the process itself.
pub(crate) const CALLS: &[Call] = &[
    call(libc::SYS_open, "open", Path(0), &[EIO, EMFILE, ENOMEM, EINTR]),
    call(libc::SYS_openat, "openat", At(0, 1), &[EIO, EMFILE, ENOMEM, EINTR]),
    call(libc::SYS_openat2, "openat2", At(0, 1), &[EIO, EMFILE, ENOMEM, EINTR]),
    call(libc::SYS_read, "read", Descriptor(0), &[EIO, ENOMEM, EINTR]),
    call(libc::SYS_pread64, "pread64", Descriptor(0), &[EIO, ENOMEM, EINTR]),
    call(libc::SYS_readv, "readv", Descriptor(0), &[EIO, ENOMEM, EINTR]),
    call(libc::SYS_write, "write", Descriptor(0), &[EIO, ENOSPC, ENOMEM, EINTR]),
    call(libc::SYS_pwrite64, "pwrite64", Descriptor(0), &[EIO, ENOSPC, ENOMEM, EINTR]),
    call(libc::SYS_writev, "writev", Descriptor(0), &[EIO, ENOSPC, ENOMEM, EINTR]),
    call(libc::SYS_fsync, "fsync", Descriptor(0), &[EIO, ENOSPC, EINTR]),
    call(libc::SYS_fdatasync, "fdatasync", Descriptor(0), &[EIO, ENOSPC, EINTR]),
    call(libc::SYS_fallocate, "fallocate", Descriptor(0), &[EIO, ENOSPC, EINTR]),
    call(libc::SYS_ftruncate, "ftruncate", Descriptor(0), &[EIO, ENOSPC, EINTR]),
    call(libc::SYS_copy_file_range, "copy_file_range", Descriptor(2), &[EIO, ENOSPC, ENOMEM]),
    call(libc::SYS_sendfile, "sendfile", Descriptor(0), &[EIO, ENOMEM]),
    call(libc::SYS_getdents64, "getdents64", Descriptor(0), &[EIO, ENOMEM]),
    call(libc::SYS_statx, "statx", At(0, 1), &[EIO, ENOMEM]),
    call(libc::SYS_newfstatat, "newfstatat", At(0, 1), &[EIO, ENOMEM]),
    call(libc::SYS_fstat, "fstat", Descriptor(0), &[EIO, ENOMEM]),
    call(libc::SYS_stat, "stat", Path(0), &[EIO, ENOMEM]),
    call(libc::SYS_lstat, "lstat", Path(0), &[EIO, ENOMEM]),
    call(libc::SYS_access, "access", Path(0), &[EIO, ENOMEM]),
    call(libc::SYS_faccessat, "faccessat", At(0, 1), &[EIO, ENOMEM]),
    call(libc::SYS_faccessat2, "faccessat2", At(0, 1), &[EIO, ENOMEM]),
    call(libc::SYS_readlink, "readlink", Path(0), &[EIO, ENOMEM]),
    call(libc::SYS_readlinkat, "readlinkat", At(0, 1), &[EIO, ENOMEM]),
    call(libc::SYS_mkdir, "mkdir", Path(0), &[EIO, ENOSPC, ENOMEM]),
    call(libc::SYS_mkdirat, "mkdirat", At(0, 1), &[EIO, ENOSPC, ENOMEM]),
    call(libc::SYS_rmdir, "rmdir", Path(0), &[EIO, ENOMEM]),
    call(libc::SYS_unlink, "unlink", Path(0), &[EIO, ENOMEM]),
    call(libc::SYS_unlinkat, "unlinkat", At(0, 1), &[EIO, ENOMEM]),
    call(libc::SYS_rename, "rename", Path(1), &[EIO, ENOSPC, ENOMEM]),
    call(libc::SYS_renameat, "renameat", At(2, 3), &[EIO, ENOSPC, ENOMEM]),
    call(libc::SYS_renameat2, "renameat2", At(2, 3), &[EIO, ENOSPC, ENOMEM]),
    call(libc::SYS_link, "link", Path(1), &[EIO, ENOSPC, ENOMEM]),
    call(libc::SYS_linkat, "linkat", At(2, 3), &[EIO, ENOSPC, ENOMEM]),
    call(libc::SYS_symlink, "symlink", Path(1), &[EIO, ENOSPC, ENOMEM]),
    call(libc::SYS_symlinkat, "symlinkat", At(1, 2), &[EIO, ENOSPC, ENOMEM]),
    call(libc::SYS_chmod, "chmod", Path(0), &[EIO, ENOMEM]),
    call(libc::SYS_fchmod, "fchmod", Descriptor(0), &[EIO, ENOMEM]),
    call(libc::SYS_fchmodat, "fchmodat", At(0, 1), &[EIO, ENOMEM]),
    call(libc::SYS_chdir, "chdir", Path(0), &[EIO, ENOMEM]),
    call(libc::SYS_flock, "flock", Descriptor(0), &[ENOMEM, EINTR]),
    call(libc::SYS_socket, "socket", Subject::None, &[EMFILE, ENOMEM]),
    call(libc::SYS_socketpair, "socketpair", Subject::None, &[EMFILE, ENOMEM]),
    call(libc::SYS_bind, "bind", Address(0, 1), &[EIO, ENOSPC, ENOMEM]),
    call(libc::SYS_listen, "listen", Descriptor(0), &[ENOMEM]),
    call(libc::SYS_connect, "connect", Address(0, 1), &[EAGAIN, ENOMEM, EINTR]),
    call(libc::SYS_accept, "accept", Descriptor(0), &[EMFILE, ENOMEM, EINTR]),
    call(libc::SYS_accept4, "accept4", Descriptor(0), &[EMFILE, ENOMEM, EINTR]),
    call(libc::SYS_sendto, "sendto", Address(0, 4), &[ENOMEM, EINTR]),
    call(libc::SYS_sendmsg, "sendmsg", Descriptor(0), &[ENOMEM, EINTR]),
    call(libc::SYS_recvfrom, "recvfrom", Descriptor(0), &[ENOMEM, EINTR]),
    call(libc::SYS_recvmsg, "recvmsg", Descriptor(0), &[ENOMEM, EINTR]),
    call(libc::SYS_setsockopt, "setsockopt", Descriptor(0), &[ENOMEM]),
    call(libc::SYS_getsockopt, "getsockopt", Descriptor(0), &[ENOMEM]),
    call(libc::SYS_pipe2, "pipe2", Subject::None, &[EMFILE, ENOMEM]),
    call(libc::SYS_eventfd2, "eventfd2", Subject::None, &[EMFILE, ENOMEM]),
    call(libc::SYS_epoll_create1, "epoll_create1", Subject::None, &[EMFILE, ENOMEM]),
    call(libc::SYS_epoll_ctl, "epoll_ctl", Descriptor(2), &[ENOMEM, ENOSPC]),
    call(libc::SYS_timerfd_create, "timerfd_create", Subject::None, &[EMFILE, ENOMEM]),
    call(libc::SYS_signalfd4, "signalfd4", Subject::None, &[EMFILE, ENOMEM]),
    call(libc::SYS_inotify_init1, "inotify_init1", Subject::None, &[EMFILE, ENOMEM]),
    call(libc::SYS_memfd_create, "memfd_create", Subject::None, &[EMFILE, ENOMEM]),
    call(libc::SYS_pidfd_open, "pidfd_open", Subject::None, &[EMFILE, ENOMEM]),
    call(libc::SYS_dup, "dup", Descriptor(0), &[EMFILE]),
    call(libc::SYS_dup2, "dup2", Descriptor(0), &[EMFILE, EINTR]),
    call(libc::SYS_dup3, "dup3", Descriptor(0), &[EMFILE, EINTR]),
    call(libc::SYS_fcntl, "fcntl", Descriptor(0), &[EMFILE]),
    call(libc::SYS_poll, "poll", Waits(0, 1), &[ENOMEM, EINTR]),
    call(libc::SYS_ppoll, "ppoll", Waits(0, 1), &[ENOMEM, EINTR]),
    call(libc::SYS_epoll_wait, "epoll_wait", Descriptor(0), &[EINTR]),
    call(libc::SYS_epoll_pwait, "epoll_pwait", Descriptor(0), &[EINTR]),
    call(libc::SYS_wait4, "wait4", Subject::None, &[EINTR]),
    call(libc::SYS_waitid, "waitid", Subject::None, &[EINTR]),
    call(libc::SYS_nanosleep, "nanosleep", Subject::None, &[EINTR]),
    call(libc::SYS_clock_nanosleep, "clock_nanosleep", Subject::None, &[EINTR]),
    call(libc::SYS_clone, "clone", Subject::None, &[EAGAIN, ENOMEM]),
    call(libc::SYS_clone3, "clone3", Subject::None, &[EAGAIN, ENOMEM]),
    call(libc::SYS_fork, "fork", Subject::None, &[EAGAIN, ENOMEM]),
    call(libc::SYS_vfork, "vfork", Subject::None, &[EAGAIN, ENOMEM]),
    call(libc::SYS_execve, "execve", Path(0), &[EIO, ENOMEM]),
    call(libc::SYS_mmap, "mmap", Memory(3), &[ENOMEM]),
    call(libc::SYS_mremap, "mremap", Subject::None, &[ENOMEM]),
    call(libc::SYS_mprotect, "mprotect", Subject::None, &[ENOMEM]),
    call(libc::SYS_brk, "brk", Subject::None, &[ENOMEM]),
];

/// The call by which Rust's runtime has prepared a process, just before `main`: what fails before that, no program can
/// help.
pub(crate) const LAST_BEFORE_MAIN: i64 = libc::SYS_sigaltstack;

impl Call {
    pub(crate) fn of(number: i64) -> Option<&'static Self> {
        CALLS.iter().find(|call| call.number == number)
    }

    /// How often the same call is taken for another one: memory may be short anywhere, and the ledger is written before
    /// and after what it is about.
    pub(crate) fn occurrences(&self, place: &str) -> u32 {
        match self.number {
            libc::SYS_mmap | libc::SYS_brk => 6,
            libc::SYS_clone | libc::SYS_clone3 => 3,
            libc::SYS_write
            | libc::SYS_fdatasync
            | libc::SYS_fsync
            | libc::SYS_rename
            | libc::SYS_renameat
                if place.starts_with("/run/vfio-hook") =>
            {
                5
            }
            _ => 1,
        }
    }

    /// How it may fail at a place, with these arguments.
    pub(crate) fn errors(&self, place: &str, arguments: &[u64; 6]) -> Vec<Errno> {
        let mut errors = self.errors.to_vec();
        let creates = match self.number {
            libc::SYS_open => arguments[1] & libc::O_CREAT as u64 != 0,
            libc::SYS_openat => arguments[2] & libc::O_CREAT as u64 != 0,
            _ => false,
        };
        if creates {
            errors.push(ENOSPC);
        }
        if self.number == libc::SYS_fcntl {
            let makes = [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC].map(|command| command as u64);
            if !makes.contains(&arguments[1]) {
                return Vec::new();
            }
        }
        // What is no file has no disk.
        if !place.starts_with('/') && matches!(self.subject, Descriptor(_)) {
            errors.retain(|error| !matches!(error, EIO | ENOSPC));
        }
        errors
    }

    /// Whether it may have to wait for another process, with these arguments. A descriptor is `nonblocking` if it does
    /// not wait.
    pub(crate) fn may_block(&self, place: &str, arguments: &[u64; 6], nonblocking: bool) -> bool {
        let looks_only = match self.number {
            libc::SYS_wait4 => arguments[2] & libc::WNOHANG as u64 != 0,
            libc::SYS_waitid => arguments[3] & libc::WNOHANG as u64 != 0,
            libc::SYS_flock => arguments[1] & libc::LOCK_NB as u64 != 0,
            libc::SYS_poll => arguments[2] == 0,
            libc::SYS_sendto | libc::SYS_recvfrom => arguments[3] & libc::MSG_DONTWAIT as u64 != 0,
            libc::SYS_sendmsg | libc::SYS_recvmsg => arguments[2] & libc::MSG_DONTWAIT as u64 != 0,
            _ => false,
        };
        let is_wait = matches!(self.subject, Waits(..) | Subject::None)
            || matches!(self.number, libc::SYS_epoll_wait | libc::SYS_flock);
        if looks_only || (nonblocking && !is_wait) {
            return false;
        }
        let is_file = place.starts_with('/') && !place.starts_with("/pipes");
        match self.number {
            libc::SYS_flock
            | libc::SYS_connect
            | libc::SYS_sendto
            | libc::SYS_sendmsg
            | libc::SYS_recvfrom
            | libc::SYS_recvmsg
            | libc::SYS_poll
            | libc::SYS_ppoll
            | libc::SYS_epoll_wait
            | libc::SYS_fsync
            | libc::SYS_fdatasync
            | libc::SYS_wait4
            | libc::SYS_waitid => true,
            libc::SYS_read => !is_file,
            libc::SYS_write => !is_file || place.starts_with("/sys/") || place.starts_with("/proc/"),
            _ => false,
        }
    }
}
