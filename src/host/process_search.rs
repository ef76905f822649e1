//! A look through all processes that nobody has to wait for.
//!
//! The kernel keeps a reader of `/proc/PID/maps` or `/proc/PID/cmdline` waiting while that process holds the lock on
//! its memory, and a process that hangs in a driver may do so for ever. So the look is a thread's: its wait ends with
//! the program (`mmap_read_lock_killable` in `fs/proc/task_mmu.c`, `access_remote_vm` in `mm/memory.c`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::time::Duration;

use super::HostError;
use super::worker::{BoundedThread, NotStarted, StuckIn, StuckRegistry, TookTooLong};
use crate::deadline::Deadline;

/// How long one look through all processes may take, where its caller has no reason to wait less.
pub(crate) const ONE_LOOK: Duration = Duration::from_secs(3);

/// A look that goes on while its answers are read.
#[derive(Debug)]
pub(super) struct ProcessSearch<T> {
    /// The folder of the processes.
    proc: PathBuf,
    /// The process that is being looked at.
    last: Option<i32>,
    thread: BoundedThread<Step<T>>,
}

/// What the thread says.
#[derive(Debug)]
enum Step<T> {
    /// It is about to look at this process.
    At(i32),
    Found(T),
    Failed(HostError),
}

impl<T: Send + 'static> ProcessSearch<T> {
    /// Begins to look at the processes in this folder, in the order of their numbers; not at this one.
    ///
    /// # Errors
    /// An earlier look there still hangs ([`io::ErrorKind::TimedOut`]); there is no thread to be had.
    pub(super) fn start(
        proc: PathBuf,
        look: impl Fn(i32) -> Result<Option<T>, HostError> + Send + 'static,
    ) -> Result<Self, HostError> {
        Self::start_at(proc, Vec::new(), look)
    }

    /// The same, but with these processes first: what is likely found among them is found soon, and before another
    /// process hangs.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(super) fn start_at(
        proc: PathBuf,
        first: Vec<i32>,
        look: impl Fn(i32) -> Result<Option<T>, HostError> + Send + 'static,
    ) -> Result<Self, HostError> {
        let folder = proc.clone();
        let search = move |tell: &Sender<Step<T>>| look_through(&folder, first, look, tell);
        let stuck = StuckRegistry::of_this_process();
        let thread = BoundedThread::start(&stuck, StuckIn::Processes(proc.clone()), search);
        let thread = thread.map_err(|reason| match reason {
            NotStarted::Hangs => took_too_long(&proc),
            NotStarted::NoThread(error) => HostError::list(&proc, error),
        })?;
        Ok(Self { proc, last: None, thread })
    }

    /// The next one that is found; none once it has looked at all of them.
    ///
    /// # Errors
    /// It takes longer than until the deadline ([`io::ErrorKind::TimedOut`]), or one cannot be looked at. Then there is
    /// no telling about the rest.
    pub(super) fn next(&mut self, deadline: Deadline) -> Result<Option<T>, HostError> {
        loop {
            match self.thread.next(deadline) {
                Ok(Some(Step::At(pid))) => self.last = Some(pid),
                Ok(Some(Step::Found(one))) => return Ok(Some(one)),
                Ok(Some(Step::Failed(error))) => return Err(error),
                Ok(None) => return Ok(None),
                Err(TookTooLong) => {
                    let place = self.last.map(|pid| self.proc.join(pid.to_string()));
                    return Err(took_too_long(place.as_ref().unwrap_or(&self.proc)));
                }
            }
        }
    }
}

fn took_too_long(place: &Path) -> HostError {
    HostError::read(
        place,
        io::Error::new(io::ErrorKind::TimedOut, "it took too long, and the rest was not looked at"),
    )
}

/// What the thread does. Where nobody listens any more it ends.
fn look_through<T>(
    proc: &Path,
    first: Vec<i32>,
    look: impl Fn(i32) -> Result<Option<T>, HostError>,
    tell: &Sender<Step<T>>,
) {
    let others = match pids(proc) {
        Ok(pids) => pids.into_iter().filter(|pid| !first.contains(pid)).collect::<Vec<_>>(),
        Err(error) => return drop(tell.send(Step::Failed(HostError::list(proc, error)))),
    };
    for pid in first.into_iter().chain(others).filter(|pid| u32::try_from(*pid) != Ok(std::process::id())) {
        if tell.send(Step::At(pid)).is_err() {
            return;
        }
        let step = match look(pid) {
            Ok(None) => continue,
            Ok(Some(found)) => Step::Found(found),
            Err(error) => Step::Failed(error),
        };
        if tell.send(step).is_err() {
            return;
        }
    }
}

fn pids(proc: &Path) -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir(proc)? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    pids.sort_unstable();
    Ok(pids)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;
    use std::sync::{Arc, Mutex};
    use std::thread;

    use super::*;

    #[test]
    fn one_that_hangs_is_not_waited_for_nor_joined_by_others() {
        let proc = tempfile::tempdir().unwrap();
        fs::create_dir(proc.path().join("4711")).unwrap();
        let (lets_go, hangs) = channel::<()>();
        let (hangs, looks) = (Mutex::new(hangs), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&looks);
        let look = move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = hangs.lock().unwrap().recv();
            Ok(None::<()>)
        };
        let start = || ProcessSearch::start(proc.path().to_owned(), |_| Ok(None::<()>));
        let mut hanging = ProcessSearch::start(proc.path().to_owned(), look).unwrap();
        while looks.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        let error = hanging.next(Deadline::after(Duration::from_millis(50))).unwrap_err();
        let place = proc.path().join("4711").display().to_string();
        assert!(
            error.to_string().starts_with(&format!("failed to read {place}: it took too long")),
            "{error}"
        );
        assert!(took_too_long("/proc/4711".as_ref()).help().unwrap().contains("wchan"));
        start().unwrap_err();
        drop(lets_go);
        let mut again = loop {
            match start() {
                Ok(search) => break search,
                Err(_) => thread::yield_now(),
            }
        };
        assert!(again.next(Deadline::after(Duration::from_secs(20))).unwrap().is_none());
    }
}
