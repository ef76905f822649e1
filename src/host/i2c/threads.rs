//! A thread for each bus: drivers of graphics cards can block for ever in a transfer, and then nobody may wait for
//! them.

use std::collections::BTreeMap;
use std::io;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;

use super::trouble::MonitorTrouble;
use super::{I2cBus, I2cBuses};
use crate::deadline::Deadline;

/// What a thread needs: a few frames and messages of at most 128 bytes. A quarter of this is used without optimisation.
const STACK: usize = 256 * 1024;

/// A conversation ends so long before the caller's deadline, so that it can still say what it waited for.
pub(super) const MARGIN: Duration = Duration::from_millis(100);

/// What is said on a bus.
pub(in crate::host) type BusJob<T> = Box<dyn FnOnce(&dyn I2cBuses, I2cBus, Deadline) -> T + Send>;

/// Threads that did not come back, by the bus they are on.
type LeftBehind = Mutex<BTreeMap<I2cBus, Vec<JoinHandle<()>>>>;

static OF_THIS_PROCESS: LazyLock<Arc<LeftBehind>> = LazyLock::new(Arc::default);

/// The way to a host's buses.
pub(in crate::host) struct BusDoor {
    buses: Arc<dyn I2cBuses>,
    left_behind: Arc<LeftBehind>,
    known_to_hang: Vec<I2cBus>,
}

struct Running<T> {
    thread: JoinHandle<()>,
    answer: Receiver<T>,
}

impl BusDoor {
    /// To the buses of the machine: all hosts of the process know which of them hang.
    pub(in crate::host) fn machine(buses: impl I2cBuses + 'static) -> Self {
        Self { buses: Arc::new(buses), left_behind: Arc::clone(&OF_THIS_PROCESS), known_to_hang: Vec::new() }
    }

    /// To the buses of the machine but these, where another process hangs.
    pub(in crate::host) fn machine_but(buses: impl I2cBuses + 'static, hanging: &[I2cBus]) -> Self {
        Self { known_to_hang: hanging.to_vec(), ..Self::machine(buses) }
    }

    /// To the buses of a host in a folder.
    pub(in crate::host) fn simulated(buses: impl I2cBuses + 'static) -> Self {
        Self { buses: Arc::new(buses), left_behind: Arc::default(), known_to_hang: Vec::new() }
    }

    /// Does these jobs, each on its bus and all at once; the answers in the order of the jobs. At the deadline a thread
    /// whose bus hangs is left behind; while it is, the bus is not touched again.
    ///
    /// # Panics
    /// Where a job does.
    pub(in crate::host) fn on_each<T: Send + 'static>(
        &self,
        jobs: Vec<(I2cBus, BusJob<T>)>,
        deadline: Deadline,
    ) -> Vec<Result<T, MonitorTrouble>> {
        let running: Vec<(I2cBus, Result<Running<T>, MonitorTrouble>)> =
            jobs.into_iter().map(|(bus, job)| (bus, self.start(bus, job, deadline))).collect();
        let answers = running.into_iter().map(|(bus, running)| self.answer(bus, running?, deadline));
        answers.collect()
    }

    fn start<T: Send + 'static>(
        &self,
        bus: I2cBus,
        job: BusJob<T>,
        deadline: Deadline,
    ) -> Result<Running<T>, MonitorTrouble> {
        if self.hangs(bus) {
            return Err(MonitorTrouble::Hangs);
        }
        let buses = Arc::clone(&self.buses);
        let its_deadline = Deadline::after(deadline.remaining().saturating_sub(MARGIN));
        let (sender, answer) = sync_channel(1);
        let talk = move || {
            // Nobody may wait any more.
            let _ = sender.send(job(buses.as_ref(), bus, its_deadline));
        };
        let thread = thread::Builder::new().name(bus.to_string()).stack_size(STACK).spawn(talk);
        let thread = thread.map_err(|error: io::Error| {
            MonitorTrouble::Refused(error.raw_os_error().map_or(Errno::EAGAIN, Errno::from_raw))
        })?;
        Ok(Running { thread, answer })
    }

    fn answer<T>(&self, bus: I2cBus, running: Running<T>, deadline: Deadline) -> Result<T, MonitorTrouble> {
        match running.answer.recv_timeout(deadline.remaining()) {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("{bus} hangs: the thread that talks on it is left behind");
                self.left_behind().entry(bus).or_default().push(running.thread);
                Err(MonitorTrouble::Hangs)
            }
            Err(RecvTimeoutError::Disconnected) => match running.thread.join() {
                Err(panic) => resume_unwind(panic),
                // It sends before it ends.
                Ok(()) => Err(MonitorTrouble::Hangs),
            },
        }
    }

    fn hangs(&self, bus: I2cBus) -> bool {
        if self.known_to_hang.contains(&bus) {
            return true;
        }
        let mut left_behind = self.left_behind();
        let Some(threads) = left_behind.get_mut(&bus) else { return false };
        threads.retain(|thread| !thread.is_finished());
        !threads.is_empty()
    }

    fn left_behind(&self) -> MutexGuard<'_, BTreeMap<I2cBus, Vec<JoinHandle<()>>>> {
        self.left_behind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
