//! The askers of a keeper: heard while others are, so that one that hangs keeps nobody waiting.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::host::{Heard, LocalSocket};
use crate::keeper_protocol::{MAX_MESSAGE, Request};

/// How long an asker may take to say what.
const ASKED: Duration = Duration::from_secs(1);

/// How long an answer may take into the asker's queue, which is empty: no time at all.
pub(super) const TAKES_ANSWER: Duration = Duration::from_millis(100);

/// The pause where an asker cannot be let in (no descriptor is left): else the wait would end at once, for ever.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);

/// How many are heard at once; more wait in the kernel's queue, the length of which the standard library chooses.
const MOST: usize = 16;

/// Those that are connected and have not said yet what they ask.
pub(super) struct Askers {
    listener: UnixListener,
    heard: Vec<Asker>,
    /// Nobody can be let in until then.
    closed_until: Option<Instant>,
}

struct Asker {
    socket: LocalSocket,
    said: Vec<u8>,
    until: Instant,
}

impl Askers {
    /// Listens at this path, and at it alone: what an earlier keeper left there goes.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        let _ = fs::remove_file(path);
        let listener = UnixListener::bind(path)?;
        // An asker may be gone when its connection is taken.
        listener.set_nonblocking(true)?;
        Ok(Self { listener, heard: Vec::new(), closed_until: None })
    }

    /// Whether one more can be heard.
    fn is_open(&self) -> bool {
        self.heard.len() < MOST && self.closed_until.is_none()
    }

    /// What becomes readable when [`Self::take`] has something to do.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let listener = self.is_open().then(|| self.listener.as_fd());
        listener.into_iter().chain(self.heard.iter().map(|asker| asker.socket.as_fd()))
    }

    /// When [`Self::take`] has something to do although nothing becomes readable.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.heard.iter().map(|asker| asker.until).chain(self.closed_until).min()
    }

    /// The requests that are complete by now. Never waits.
    pub(super) fn take(&mut self) -> Vec<(Request, LocalSocket)> {
        self.closed_until = self.closed_until.filter(|until| *until > Instant::now());
        while self.is_open() {
            match self.listener.accept().and_then(|(stream, _)| LocalSocket::accepted(stream)) {
                Ok(socket) => {
                    self.heard.push(Asker { socket, said: Vec::new(), until: Instant::now() + ASKED });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.closed_until = Some(Instant::now() + AFTER_FAILED_ACCEPT),
            }
        }
        let mut requests = Vec::new();
        for mut asker in std::mem::take(&mut self.heard) {
            match asker.hear() {
                Said::Request(request) => requests.push((request, asker.socket)),
                Said::NotYet if asker.until > Instant::now() => self.heard.push(asker),
                Said::NotYet => crate::log::log_warning!("a request to the keeper did not come to its end"),
                Said::Nonsense(error) => {
                    crate::log::log_warning!("a request to the keeper made no sense: {error}")
                }
                Said::Nothing => {}
            }
        }
        requests
    }
}

/// What an asker has said.
enum Said {
    Request(Request),
    NotYet,
    Nonsense(io::Error),
    /// It hung up.
    Nothing,
}

impl Asker {
    fn hear(&mut self) -> Said {
        loop {
            let before = self.said.len();
            let heard = match self.socket.hear(&mut self.said, MAX_MESSAGE) {
                Ok(heard) => heard,
                Err(error) => return Said::Nonsense(error),
            };
            let line_ends = self.said[before..].iter().position(|byte| *byte == b'\n');
            match (heard, line_ends) {
                (Heard::Bytes, Some(end)) => return Said::of_line(&self.said[..before + end]),
                (Heard::Bytes, None) => {}
                (Heard::Nothing, _) => return Said::NotYet,
                (Heard::End, _) => return Said::Nothing,
            }
        }
    }
}

impl Said {
    fn of_line(line: &[u8]) -> Self {
        match serde_json::from_slice(line) {
            Ok(request) => Self::Request(request),
            Err(error) => Self::Nonsense(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    struct Keeper {
        _folder: tempfile::TempDir,
        path: PathBuf,
        askers: Askers,
    }

    impl Keeper {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("keeper.sock");
            fs::write(&path, "what an earlier one left").unwrap();
            let askers = Askers::listen(&path).unwrap();
            Self { _folder: folder, path, askers }
        }

        fn connect(&self) -> UnixStream {
            UnixStream::connect(&self.path).unwrap()
        }

        fn ask(&self, bytes: &[u8]) -> UnixStream {
            let mut stream = self.connect();
            stream.write_all(bytes).unwrap();
            stream
        }

        /// What is asked, once something is readable.
        fn hear(&mut self) -> Vec<Request> {
            let polled = |descriptor| PollFd::new(descriptor, PollFlags::POLLIN);
            let mut waiting: Vec<_> = self.askers.descriptors().map(polled).collect();
            let timeout = PollTimeout::try_from(LONG).unwrap();
            assert!(poll(&mut waiting, timeout).unwrap() > 0, "nothing comes");
            drop(waiting);
            self.askers.take().into_iter().map(|(request, _)| request).collect()
        }
    }

    #[test]
    fn nobody_waits_for_one_that_says_nothing_or_half_of_it() {
        let mut keeper = Keeper::new();
        let _silent = keeper.connect();
        let mut slow = keeper.ask(b"\"sta");
        let _asks = keeper.ask(b"\"look\"\n");
        assert_eq!(keeper.hear(), [Request::Look]);
        slow.write_all(b"te\"\n").unwrap();
        assert_eq!(keeper.hear(), [Request::State]);
        assert_eq!(keeper.askers.heard.len(), 1);
    }

    #[test]
    fn one_that_takes_too_long_is_given_up_although_it_goes_on() {
        let mut keeper = Keeper::new();
        let mut slow = keeper.ask(b"\"");
        assert_eq!(keeper.hear(), []);
        assert!(keeper.askers.next_look().unwrap() <= Instant::now() + ASKED);
        keeper.askers.heard[0].until = Instant::now();
        slow.write_all(b"s").unwrap();
        assert_eq!(keeper.hear(), []);
        assert!(keeper.askers.next_look().is_none());
        assert_eq!(slow.read(&mut [0; 1]).unwrap(), 0, "it is hung up");
    }

    #[test]
    fn as_many_as_there_may_be_keep_the_others_from_nothing_for_long() {
        let mut keeper = Keeper::new();
        let silent: Vec<_> = (0..MOST).map(|_| keeper.connect()).collect();
        let _asks = keeper.ask(b"\"state\"\n");
        assert_eq!(keeper.hear(), []);
        assert_eq!(keeper.askers.descriptors().count(), MOST, "the listener would wake it for nothing");
        drop(silent);
        assert_eq!(keeper.hear(), [], "all hung up");
        assert_eq!(keeper.hear(), [Request::State]);
    }

    #[test]
    fn nonsense_and_too_much_are_passed_over() {
        let mut keeper = Keeper::new();
        let _nonsense = keeper.ask(b"\"fly\"\n");
        let gone = keeper.ask(b"\"look");
        drop(gone);
        assert_eq!(keeper.hear(), []);
        let much = keeper.connect();
        much.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while sent <= MAX_MESSAGE {
            match (&much).write(&[b' '; 4096]) {
                Ok(length) => sent += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => assert_eq!(keeper.hear(), []),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(keeper.hear(), []);
        assert!(keeper.askers.heard.is_empty());
        assert_eq!((&much).read(&mut [0; 1]).unwrap_or(0), 0, "it is hung up");
    }
}
