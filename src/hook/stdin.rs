//! The guest's XML on standard input.

use std::io::{self, Read};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::deadline::Deadline;
use crate::guest::MAX_XML_BYTES;

/// Reads to the end, but not for longer than there is time, nor more than a guest's XML can have.
pub(super) fn read(deadline: Deadline) -> io::Result<Vec<u8>> {
    read_from(&mut io::stdin().lock(), deadline)
}

fn read_from(input: &mut (impl Read + AsFd), deadline: Deadline) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(16 * 1024);
    let mut chunk = vec![0; 64 * 1024];
    while bytes.len() <= MAX_XML_BYTES {
        wait_until_readable(input, deadline)?;
        match input.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// Bytes that come one by one do not make the time longer.
fn wait_until_readable(input: &impl AsFd, deadline: Deadline) -> io::Result<()> {
    let mut waiting = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    loop {
        // Rounded up: a poll of less than a millisecond would not wait at all.
        let milliseconds = deadline.remaining().as_micros().div_ceil(1000);
        let ready = poll(&mut waiting, PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX));
        if deadline.has_passed() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it did not come in time"));
        }
        match ready {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::BorrowedFd;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// One from which a byte comes now and then, for ever.
    struct Trickle(UnixStream);

    impl Read for Trickle {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            thread::sleep(Duration::from_millis(1));
            bytes[0] = b'x';
            Ok(1)
        }
    }

    impl AsFd for Trickle {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    fn read_in_time(mut input: impl Read + AsFd + Send + 'static, time: Duration) -> io::Result<Vec<u8>> {
        let (sender, result) = channel();
        thread::spawn(move || sender.send(read_from(&mut input, Deadline::after(time))));
        result.recv_timeout(Duration::from_secs(20)).expect("it hangs")
    }

    #[test]
    fn reads_to_the_end_and_no_longer_than_there_is_time() {
        let (mut writer, input) = UnixStream::pair().unwrap();
        writer.write_all(b"<domain/>").unwrap();
        drop(writer);
        assert_eq!(read_in_time(input, Duration::from_secs(20)).unwrap(), b"<domain/>");

        let soon = Duration::from_millis(100);
        let (_writer, input) = UnixStream::pair().unwrap();
        assert_eq!(read_in_time(input, soon).unwrap_err().kind(), io::ErrorKind::TimedOut);

        let (mut writer, input) = UnixStream::pair().unwrap();
        writer.write_all(b"x").unwrap();
        assert_eq!(read_in_time(Trickle(input), soon).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
