//! A process at the other end of a socket that misbehaves, for tests.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::{Backlog, listen};

use crate::deadline::Deadline;

/// The pause between two bytes, and between two looks for a connection.
const PAUSE: Duration = Duration::from_millis(5);

/// After that it is gone: a test that waits for it fails, and does not hang.
const LONGEST: Duration = Duration::from_secs(20);

/// How it misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It hangs, and its queue of connections is full.
    TakesNoConnection,
    /// It takes connections, and neither reads nor writes.
    SaysNothing,
    /// It sends a byte now and then, and never comes to an end.
    TricklesForEver,
    /// It closes each connection.
    Closes,
}

/// One that listens until it is dropped, even while a test waits for it.
pub(crate) struct HungPeer {
    is_over: Arc<AtomicBool>,
    taken: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl HungPeer {
    /// Listens at this path, which has no file.
    pub(crate) fn start(path: &Path, kind: Kind) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        listener.set_nonblocking(true).unwrap();
        // The connections of others that wait to be taken.
        let mut waiting = Vec::new();
        if kind == Kind::TakesNoConnection {
            listen(&listener, Backlog::new(1).unwrap()).unwrap();
            // The kernel takes one more than it is told.
            waiting.extend((0..2).map(|_| UnixStream::connect(path).unwrap()));
        }
        let (is_over, taken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (over, count) = (Arc::clone(&is_over), Arc::clone(&taken));
        let serve = move || {
            let mut connections = Vec::new();
            let end = Deadline::after(LONGEST);
            while !over.load(Ordering::SeqCst) && !end.has_passed() {
                if kind != Kind::TakesNoConnection
                    && let Ok((stream, _)) = listener.accept()
                {
                    count.fetch_add(1, Ordering::SeqCst);
                    connections.push(stream);
                }
                match kind {
                    Kind::Closes => connections.clear(),
                    Kind::TricklesForEver => connections.retain_mut(|stream| stream.write_all(b"x").is_ok()),
                    Kind::SaysNothing | Kind::TakesNoConnection => {}
                }
                thread::sleep(PAUSE);
            }
            drop((listener, waiting));
        };
        Self { is_over, taken, thread: Some(thread::spawn(serve)) }
    }

    /// How many connections it has taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
}

impl Drop for HungPeer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
