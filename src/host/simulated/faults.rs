//! What goes wrong on a simulated host, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

/// What goes wrong, and when; shared by a test and the host it breaks. Every write to a setting or to the program's own
/// files counts, and so does the removal of a file.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    writes: usize,
    workers: usize,
    fail_at: BTreeSet<usize>,
    panic_at: Option<usize>,
    full_from: Option<usize>,
    refused: BTreeMap<PathBuf, Errno>,
    unreadable: BTreeMap<PathBuf, Errno>,
    interruptions: BTreeMap<PathBuf, Box<dyn FnOnce() + Send>>,
    late_answers: BTreeMap<PathBuf, Box<dyn FnOnce() + Send>>,
    talk: Talk,
}

/// What was said on i2c buses.
#[derive(Clone, Debug, Default)]
struct Talk {
    conversations: usize,
    /// How many there are now, by the graphics card or, where there is none, by the bus.
    at_once: BTreeMap<PathBuf, usize>,
    most_at_once: usize,
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

    /// From the Nth write from now (counted from 1) on no file of the program's own can grow, and none can be made.
    pub fn fill_disk_at_write(&self, nth: usize) {
        let mut state = self.lock();
        state.writes = 0;
        state.full_from = Some(nth);
    }

    /// Every write to this file of the machine fails with this error.
    pub fn refuse(&self, path: impl Into<PathBuf>, errno: Errno) {
        self.lock().refused.insert(path.into(), errno);
    }

    /// Every read of this file, link or folder of the machine fails with this error.
    pub fn refuse_read(&self, path: impl Into<PathBuf>, errno: Errno) {
        self.lock().unreadable.insert(path.into(), errno);
    }

    /// Before the next write to this file of the machine another program does something.
    pub fn interrupt(&self, path: impl Into<PathBuf>, other: impl FnOnce() + Send + 'static) {
        self.lock().interruptions.insert(path.into(), Box::new(other));
    }

    /// The next answer that lies in this file takes its time: another program does something before it arrives.
    pub fn delay_answer(&self, path: impl Into<PathBuf>, other: impl FnOnce() + Send + 'static) {
        self.lock().late_answers.insert(path.into(), Box::new(other));
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

    /// How many workers a machine would have started since the last [`Self::clear`].
    #[must_use]
    pub fn workers(&self) -> usize {
        self.lock().workers
    }

    /// How many conversations with monitors there were since the last [`Self::clear`]: openings of a bus on which something
    /// was said.
    #[must_use]
    pub fn conversations(&self) -> usize {
        self.lock().talk.conversations
    }

    /// How many of them there were at once on one graphics card, at most.
    #[must_use]
    pub fn most_conversations_on_a_card(&self) -> usize {
        self.lock().talk.most_at_once
    }

    pub(super) fn conversation_begins(&self, card: &Path) {
        let talk = &mut self.lock().talk;
        talk.conversations += 1;
        let at_once = talk.at_once.entry(card.to_owned()).or_default();
        *at_once += 1;
        talk.most_at_once = talk.most_at_once.max(*at_once);
    }

    pub(super) fn conversation_ends(&self, card: &Path) {
        if let Some(at_once) = self.lock().talk.at_once.get_mut(card) {
            *at_once = at_once.saturating_sub(1);
        }
    }

    pub(in crate::host) fn worker_starts(&self) {
        self.lock().workers += 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_disk_full(&self) -> bool {
        let state = self.lock();
        state.full_from.is_some_and(|from| state.writes >= from)
    }

    pub(super) fn before_read(&self, path: &Path) -> io::Result<()> {
        self.lock().unreadable.get(path).map_or(Ok(()), |errno| Err((*errno).into()))
    }

    pub(super) fn after_answer(&self, path: &Path) {
        let other = self.lock().late_answers.remove(path);
        if let Some(other) = other {
            other();
        }
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
            .field("workers", &state.workers)
            .field("fail_at", &state.fail_at)
            .field("panic_at", &state.panic_at)
            .field("full_from", &state.full_from)
            .field("refused", &state.refused)
            .field("unreadable", &state.unreadable)
            .field("interruptions", &state.interruptions.keys())
            .field("late_answers", &state.late_answers.keys())
            .field("talk", &state.talk)
            .finish()
    }
}
