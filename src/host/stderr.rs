//! Standard error, whose reader may be gone or may not read.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

use crate::deadline::Deadline;

/// As much as a pipe that is ready takes without a wait (`PIPE_BUF` of `pipe(7)`).
const AT_ONCE: usize = 4096;

/// Writes to standard error until all is written or the deadline comes. What cannot be written is lost.
pub(crate) fn write_to_stderr(mut bytes: &[u8], deadline: Deadline) {
    while !bytes.is_empty() {
        match write_at_once(bytes, deadline.remaining()) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// One write to standard error, of 4096 bytes at most, if it can take them within this time. Allocates nothing and
/// locks nothing.
pub(crate) fn write_at_once(bytes: &[u8], patience: Duration) -> nix::Result<usize> {
    let stderr = io::stderr();
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
    let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut ready, timeout)? {
        0 => Err(Errno::EAGAIN),
        _ => write(&stderr, &bytes[..bytes.len().min(AT_ONCE)]),
    }
}
