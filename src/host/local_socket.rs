//! A stream socket to another process of this machine that nobody waits at for longer than a deadline says.
//!
//! The standard library's `connect` waits for ever where the other process hangs and its queue of connections is full
//! (`unix_stream_connect` in `net/unix/af_unix.c`), and its timeouts begin anew with each byte that comes. Here one
//! deadline can stand for a whole exchange, however the other side stretches it.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials, connect,
    getsockopt, sendmsg, socket,
};

use crate::deadline::Deadline;

/// How often a queue of connections that is full is tried again: nothing tells when there is room.
const QUEUE_LOOK: Duration = Duration::from_millis(5);

/// How much is read at once.
const PIECE: usize = 4096;

/// One end of a connection; never blocks but in a wait with a deadline.
#[derive(Debug)]
pub(crate) struct LocalSocket(UnixStream);

/// What a look for bytes came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Some came.
    Bytes,
    /// None has come so far.
    Nothing,
    /// The other side sends no more.
    End,
}

impl LocalSocket {
    /// Connects to a socket in the file system.
    ///
    /// # Errors
    /// Nobody listens there (`NotFound`, `ConnectionRefused`); the listener takes no connection until the deadline
    /// (`TimedOut`).
    pub(crate) fn connect(path: &Path, deadline: Deadline) -> io::Result<Self> {
        let address = UnixAddr::new(path)?;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        loop {
            match connect(socket.as_raw_fd(), &address) {
                Ok(()) => return Ok(Self(socket.into())),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if deadline.has_passed() => {
                    return Err(timed_out("it takes no connection: its queue is full"));
                }
                Err(Errno::EAGAIN) => deadline.pause(QUEUE_LOOK),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// A connection that was taken from a listener.
    ///
    /// # Errors
    /// The descriptor cannot be set up.
    pub(crate) fn accepted(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self(stream))
    }

    /// The process on the other side: who connected, or who made the listener.
    ///
    /// # Errors
    /// The kernel does not say.
    pub(crate) fn peer(&self) -> io::Result<i32> {
        Ok(getsockopt(&self.0, PeerCredentials)?.pid())
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// The other side is gone, or does not take it until the deadline (`TimedOut`).
    pub(crate) fn send(&self, mut bytes: &[u8], deadline: Deadline) -> io::Result<()> {
        while !bytes.is_empty() {
            match (&self.0).write(bytes) {
                Ok(taken) => bytes = &bytes[taken..],
                Err(error) => self.after(&error, PollFlags::POLLOUT, deadline, NOT_TAKEN)?,
            }
        }
        Ok(())
    }

    /// Sends all of it, and who this process is.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(crate) fn send_with_credentials(&self, bytes: &[u8], deadline: Deadline) -> io::Result<()> {
        let credentials = UnixCredentials::new();
        let control = [ControlMessage::ScmCredentials(&credentials)];
        loop {
            let slices = [IoSlice::new(bytes)];
            match sendmsg::<()>(self.0.as_raw_fd(), &slices, &control, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(taken) => return self.send(&bytes[taken..], deadline),
                Err(errno) => self.after(&errno.into(), PollFlags::POLLOUT, deadline, NOT_TAKEN)?,
            }
        }
    }

    /// Everything the other side sends until it closes, but not more than `most` bytes.
    ///
    /// # Errors
    /// It does not come to an end until the deadline (`TimedOut`), however much of it has come; there is more.
    pub(crate) fn receive_all(&self, most: usize, deadline: Deadline) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.receive(&mut bytes, most, deadline, |_| false)?;
        Ok(bytes)
    }

    /// The first line the other side sends, or what it sends instead until it closes, but not more than `most` bytes.
    /// What comes after the line is lost.
    ///
    /// # Errors
    /// As [`Self::receive_all`].
    pub(crate) fn receive_line(&self, most: usize, deadline: Deadline) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.receive(&mut bytes, most, deadline, |piece| piece.contains(&b'\n'))?;
        bytes.truncate(bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1));
        Ok(bytes)
    }

    fn receive(
        &self,
        bytes: &mut Vec<u8>,
        most: usize,
        deadline: Deadline,
        is_last: impl Fn(&[u8]) -> bool,
    ) -> io::Result<()> {
        loop {
            let before = bytes.len();
            match self.hear(bytes, most)? {
                Heard::End => return Ok(()),
                Heard::Bytes if is_last(&bytes[before..]) => return Ok(()),
                // A byte now and then does not make the time longer.
                Heard::Bytes if deadline.has_passed() => return Err(timed_out(NOT_ANSWERED)),
                Heard::Bytes => {}
                Heard::Nothing => self.wait(PollFlags::POLLIN, deadline, NOT_ANSWERED)?,
            }
        }
    }

    /// Adds a piece of what has come, without waiting for any.
    ///
    /// # Errors
    /// There would be more than `most` bytes in all; the connection is broken.
    pub(crate) fn hear(&self, bytes: &mut Vec<u8>, most: usize) -> io::Result<Heard> {
        let mut piece = [0; PIECE];
        let length = loop {
            match (&self.0).read(&mut piece) {
                Ok(0) => return Ok(Heard::End),
                Ok(length) => break length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Heard::Nothing),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        if bytes.len() + length > most {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it sends more than {most} bytes"),
            ));
        }
        bytes.extend_from_slice(&piece[..length]);
        Ok(Heard::Bytes)
    }

    /// Waits where the kernel said that it would have to.
    fn after(
        &self,
        error: &io::Error,
        events: PollFlags,
        deadline: Deadline,
        words: &'static str,
    ) -> io::Result<()> {
        match error.kind() {
            io::ErrorKind::Interrupted => Ok(()),
            io::ErrorKind::WouldBlock => self.wait(events, deadline, words),
            kind => Err(error.raw_os_error().map_or(kind.into(), io::Error::from_raw_os_error)),
        }
    }

    fn wait(&self, events: PollFlags, deadline: Deadline, words: &'static str) -> io::Result<()> {
        let mut polled = [PollFd::new(self.0.as_fd(), events)];
        loop {
            let remaining = deadline.remaining();
            if remaining.is_zero() {
                return Err(timed_out(words));
            }
            // Rounded up: a poll of less than a millisecond would not wait at all.
            let timeout = PollTimeout::try_from(remaining.as_millis() + 1).unwrap_or(PollTimeout::MAX);
            match poll(&mut polled, timeout) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for LocalSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const NOT_TAKEN: &str = "it does not take what it is sent";
const NOT_ANSWERED: &str = "it did not answer in time";

fn timed_out(words: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, words)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use super::*;
    use crate::host::hung_peer::{HungPeer, Kind};

    /// What is waited for a peer that hangs.
    const PATIENCE: Duration = Duration::from_millis(300);

    /// Far more than that, on a busy machine too.
    const LONG: Duration = Duration::from_secs(20);

    /// A whole exchange with a peer.
    fn exchange(path: &Path, deadline: Deadline) -> io::Result<Vec<u8>> {
        let socket = LocalSocket::connect(path, deadline)?;
        socket.send_with_credentials(b"question\n", deadline)?;
        socket.receive_all(1024 * 1024, deadline)
    }

    #[test]
    fn a_peer_that_hangs_is_waited_for_until_the_deadline_and_no_longer() {
        for (kind, words) in [
            (Kind::TakesNoConnection, "it takes no connection: its queue is full"),
            (Kind::SaysNothing, NOT_ANSWERED),
            (Kind::TricklesForEver, NOT_ANSWERED),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("socket");
            let _peer = HungPeer::start(&path, kind);
            let (sender, end) = channel();
            let asked = path.clone();
            std::thread::spawn(move || {
                let began = Instant::now();
                let answer = exchange(&asked, Deadline::after(PATIENCE));
                sender.send((answer, began.elapsed())).unwrap();
            });
            let (answer, waited) =
                end.recv_timeout(LONG).unwrap_or_else(|_| panic!("{kind:?} was waited for"));
            let error = answer.unwrap_err();
            assert_eq!(
                (error.kind(), error.to_string().as_str()),
                (io::ErrorKind::TimedOut, words),
                "{kind:?}"
            );
            assert!(waited >= PATIENCE, "{kind:?}: {waited:?}");
        }
    }

    #[test]
    fn one_that_closes_or_is_gone_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let later = || Deadline::after(LONG);
        assert_eq!(exchange(&path, later()).unwrap_err().kind(), io::ErrorKind::NotFound);
        let peer = HungPeer::start(&path, Kind::Closes);
        match exchange(&path, later()) {
            Ok(answer) => assert_eq!(answer, b""),
            Err(error) => assert_ne!(error.kind(), io::ErrorKind::TimedOut),
        }
        drop(peer);
        assert_eq!(exchange(&path, later()).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn what_is_not_taken_is_not_waited_for_either() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _peer = HungPeer::start(&path, Kind::SaysNothing);
        let socket = LocalSocket::connect(&path, Deadline::after(LONG)).unwrap();
        let much = vec![0; 16 * 1024 * 1024];
        let error = socket.send(&much, Deadline::after(PATIENCE)).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::TimedOut, NOT_TAKEN));
    }

    #[test]
    fn what_comes_without_a_pause_makes_no_time_either() {
        let (mut here, there) = UnixStream::pair().unwrap();
        std::thread::spawn(move || while here.write_all(b"x").is_ok() {});
        let (sender, end) = channel();
        std::thread::spawn(move || {
            let socket = LocalSocket::accepted(there).unwrap();
            sender.send(socket.receive_all(usize::MAX, Deadline::after(PATIENCE)))
        });
        let error = end.recv_timeout(LONG).expect("it is heard for ever").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn reads_a_line_or_all_but_never_more_than_is_borne() {
        let later = Deadline::after(LONG);
        let sent = |bytes: &[u8]| {
            let (mut here, there) = UnixStream::pair().unwrap();
            here.write_all(bytes).unwrap();
            LocalSocket::accepted(there).unwrap()
        };
        assert_eq!(sent(b"one\ntwo\n").receive_line(100, later).unwrap(), b"one\n");
        assert_eq!(sent(b"one").receive_line(100, later).unwrap(), b"one");
        assert_eq!(sent(b"one\ntwo").receive_all(7, later).unwrap(), b"one\ntwo");
        let error = sent(b"one\ntwo\n").receive_all(7, later).unwrap_err();
        assert_eq!(error.to_string(), "it sends more than 7 bytes");
    }
}
