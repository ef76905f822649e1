//! The guest's XML on standard input.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::deadline::Deadline;
use crate::guest::MAX_XML_BYTES;

/// Reads to the end, but not for longer than there is time, nor more than a guest's XML can have.
pub(super) fn read(deadline: Deadline) -> io::Result<Vec<u8>> {
    let mut stdin = io::stdin().lock();
    let mut bytes = Vec::with_capacity(16 * 1024);
    let mut chunk = vec![0; 64 * 1024];
    while bytes.len() <= MAX_XML_BYTES {
        wait_until_readable(&stdin, deadline)?;
        match stdin.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

fn wait_until_readable(stdin: &io::StdinLock<'_>, deadline: Deadline) -> io::Result<()> {
    let mut waiting = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let remaining = deadline.remaining().max(Duration::from_millis(1));
    let timeout = PollTimeout::try_from(remaining).unwrap_or(PollTimeout::MAX);
    match poll(&mut waiting, timeout)? {
        0 => Err(io::Error::new(io::ErrorKind::TimedOut, "it did not come in time")),
        _ => Ok(()),
    }
}
