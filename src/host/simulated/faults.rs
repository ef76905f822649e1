//! What goes wrong on a simulated host, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

/// What goes wrong, and when; shared by a test and the host it breaks. Every write to a knob or to the program's own
/// files counts, and so does the removal of a file.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    writes: usize,
    fail_at: BTreeSet<usize>,
    panic_at: Option<usize>,
    refused: BTreeMap<PathBuf, Errno>,
    unreadable: BTreeMap<PathBuf, Errno>,
    interruptions: BTreeMap<PathBuf, Box<dyn FnOnce() + Send>>,
}

impl Faults {
    /// The Nth write from now (counted from 1) fails with EIO.
    pub fn fail_write(&self, nth: usize) {
        self.fail_writes([nth]);
    }

    /// These writes from now (counted from 1) fail with EIO.
    pub fn fail_writes(&self, which: impl IntoIterator<Item = usize>) {
        let mut state = self.lock();
        state.writes = 0;
        state.fail_at = which.into_iter().collect();
        state.panic_at = None;
    }

    /// The Nth write from now unwinds as a panic does, without a message: as if the program had been killed there.
    pub fn panic_at_write(&self, nth: usize) {
        let mut state = self.lock();
        state.writes = 0;
        state.fail_at.clear();
        state.panic_at = Some(nth);
    }

    /// Every write to this file of the machine fails with this error.
    pub fn refuse(&self, path: impl Into<PathBuf>, errno: Errno) {
        self.lock().refused.insert(path.into(), errno);
    }

    /// Every read of this file, link or folder of the machine fails with this error.
    pub fn refuse_read(&self, path: impl Into<PathBuf>, errno: Errno) {
        self.lock().unreadable.insert(path.into(), errno);
    }

    /// Before the next write to this file of the machine somebody else does something.
    pub fn interrupt(&self, path: impl Into<PathBuf>, other: impl FnOnce() + Send + 'static) {
        self.lock().interruptions.insert(path.into(), Box::new(other));
    }

    /// No more faults; counts from zero again.
    pub fn clear(&self) {
        *self.lock() = State::default();
    }

    /// How many writes there were since the last change of orders.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.lock().writes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn before_read(&self, path: &Path) -> io::Result<()> {
        self.lock().unreadable.get(path).map_or(Ok(()), |errno| Err((*errno).into()))
    }

    pub(super) fn before_write(&self, path: &Path) -> io::Result<()> {
        let interruption = self.lock().interruptions.remove(path);
        if let Some(other) = interruption {
            other();
        }
        let mut state = self.lock();
        state.writes += 1;
        let writes = state.writes;
        if state.panic_at == Some(writes) {
            drop(state);
            std::panic::resume_unwind(Box::new(format!("simulated panic at write {writes}")));
        }
        match state.refused.get(path) {
            Some(errno) => Err((*errno).into()),
            None if state.fail_at.contains(&writes) => Err(Errno::EIO.into()),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Faults")
            .field("writes", &state.writes)
            .field("fail_at", &state.fail_at)
            .field("panic_at", &state.panic_at)
            .field("refused", &state.refused)
            .field("unreadable", &state.unreadable)
            .field("interruptions", &state.interruptions.keys())
            .finish()
    }
}
