//! A look at something that may not answer: a file system, the driver of a drive.

use std::io;
use std::path::Path;
use std::sync::mpsc::Sender;

use super::worker::{BoundedThread, NotStarted, StuckIn, StuckRegistry, TookTooLong};
use super::{Host, HostError};
use crate::deadline::Deadline;

/// What is looked at, and how that is told.
pub(super) struct BoundedLook<'a> {
    /// The call that is made.
    pub(super) call: &'static str,
    /// The path, as the machine has it.
    pub(super) path: &'a Path,
    /// What is said where the call does not come back.
    pub(super) silent: &'static str,
}

impl Host {
    /// Looks in a thread of its own, which is left behind where it does not come back: a path that it hangs in is not
    /// looked at twice. The look gets the path where it really is.
    ///
    /// # Errors
    /// Those of the look; it does not come back in time.
    pub(super) fn look_in_time<T: Send + 'static>(
        &self,
        BoundedLook { call, path, silent }: BoundedLook<'_>,
        deadline: Deadline,
        look: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, HostError> {
        let place = path.display().to_string();
        let failed = |error: io::Error| HostError::call(call, &place, error.to_string());
        let late = || HostError::late_call(call, &place, silent);
        let there = self.files.locate(path);
        let stuck_in = StuckIn::Path(there.clone());
        let work = move |tell: &Sender<io::Result<T>>| {
            // The caller may have given up.
            let _ = tell.send(look(&there));
        };
        let mut thread = match BoundedThread::start(&StuckRegistry::of_this_process(), stuck_in, work) {
            Ok(thread) => thread,
            Err(NotStarted::Hangs) => return Err(late()),
            Err(NotStarted::NoThread(error)) => return Err(failed(error)),
        };
        match thread.next(deadline) {
            Ok(Some(seen)) => seen.map_err(failed),
            Ok(None) => Err(failed(io::Error::other("the thread that looks ended without an answer"))),
            Err(TookTooLong) => Err(late()),
        }
    }
}
