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
pub(crate) fn write_to_stderr(bytes: &[u8], deadline: Deadline) {
    write_within(io::stderr(), bytes, deadline);
}

/// One write to standard error, of 4096 bytes at most, if it takes them within this time. Allocates nothing and locks
/// nothing.
pub(crate) fn write_to_stderr_once(bytes: &[u8], patience: Duration) {
    // What it does not take is lost.
    let _ = write_once(io::stderr(), bytes, patience);
}

fn write_within(stream: impl AsFd, mut bytes: &[u8], deadline: Deadline) {
    while !bytes.is_empty() {
        match write_once(&stream, bytes, deadline.remaining()) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

fn write_once(stream: impl AsFd, bytes: &[u8], patience: Duration) -> nix::Result<usize> {
    // Rounded up: a poll of less than a millisecond would not wait at all.
    let timeout = PollTimeout::try_from(patience.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
    let mut ready = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut ready, timeout)? {
        0 => Err(Errno::EAGAIN),
        _ => write(&stream, &bytes[..bytes.len().min(AT_ONCE)]),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::thread;

    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn a_pipe_that_nobody_reads_is_not_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut taken = 0;
        while let Ok(written) = write_once(&writer, &[b'x'; AT_ONCE], Duration::ZERO) {
            taken += written;
        }
        write_within(&writer, b"lost", Deadline::after(MILLISECOND));
        assert_eq!(write_once(&writer, b"lost", MILLISECOND), Err(Errno::EAGAIN));
        drop(writer);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert_eq!((read.len(), read.contains(&b'l')), (taken, false));
    }

    #[test]
    fn what_is_longer_than_one_write_arrives_whole() {
        let (mut reader, writer) = io::pipe().unwrap();
        let text = vec![b'y'; 100_000];
        let expected = text.clone();
        let write =
            thread::spawn(move || write_within(&writer, &text, Deadline::after(MILLISECOND * 20_000)));
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        write.join().unwrap();
        assert!(read == expected);
    }

    #[test]
    fn a_reader_that_is_gone_is_no_failure() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        write_within(&writer, b"lost", Deadline::after(MILLISECOND * 20_000));
        assert_eq!(write_once(&writer, b"lost", MILLISECOND), Err(Errno::EPIPE));
    }
}
