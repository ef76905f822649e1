//! Contacts with the kernel that may take long or never come back, made by a child that can be left behind: a worker.
//! What only reads may also be a thread's ([`BoundedThread`]): its wait ends with the process. What was left behind is
//! in one registry ([`StuckRegistry`]).
//!
//! One is started for the first such contact, and makes those that follow until it is dismissed or one of them hangs. It
//! is told each when the one before is over, so that nothing more is done once this process is gone, and each has a time
//! of its own.

mod child;
mod order;
mod process;
mod stuck;
#[cfg(test)]
mod tests;
mod thread;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use serde::de::DeserializeOwned;

pub use child::run_worker;
use order::Refusal;
pub(super) use order::{Order, Said};
use process::Worker;
pub(super) use process::{End, Heard};
pub(super) use stuck::{StuckIn, StuckRegistry};
pub(super) use thread::{BoundedThread, NotStarted, TookTooLong};

use super::error::rounded;
use super::kernel_log::KernelLogEnd;
use super::monitors::{MonitorFound, Talk};
use super::simulated::Faults;
use super::{Host, HostError};
use crate::deadline::Deadline;
use crate::failpoint;
use crate::pci::PciAddress;

/// The hidden first argument of a worker.
pub const WORKER: &str = "worker";

/// How much earlier than its parent a worker that talks with monitors gives up, so that it can still say why.
const MARGIN: Duration = Duration::from_millis(150);

/// Who makes such contacts in place of this process.
pub(super) enum Workers {
    /// A child.
    Machine {
        /// The file of this program.
        vfio_hook: PathBuf,
        /// The one at hand.
        at_hand: Mutex<Option<Worker>>,
    },
    /// This process itself, on a host in a folder. The workers that a machine would have are counted.
    Simulated {
        /// The counter of workers that a machine would start.
        faults: Faults,
        /// Whether a machine would have one at hand.
        at_hand: AtomicBool,
    },
    /// This process itself: it is a worker.
    Itself,
}

impl Workers {
    /// Those of the machine: processes of this `vfio-hook`.
    pub(super) fn machine(vfio_hook: PathBuf) -> Self {
        Self::Machine { vfio_hook, at_hand: Mutex::new(None) }
    }

    /// Those of a host in a folder.
    pub(super) fn simulated(faults: Faults) -> Self {
        Self::Simulated { faults, at_hand: AtomicBool::new(false) }
    }

    /// Has a worker carry out an order, and hears what it answers until the deadline; none where this process is to do it
    /// itself, as on a host in a folder.
    ///
    /// # Errors
    /// No process can be started.
    pub(super) fn ask<T: DeserializeOwned>(
        &self,
        order: &Order,
        deadline: Deadline,
    ) -> io::Result<Option<Heard<T>>> {
        match self {
            Self::Machine { vfio_hook, at_hand } => {
                let (heard, worker) = ask_one(vfio_hook, at_hand, order, deadline)?;
                keep(at_hand, worker);
                Ok(Some(heard))
            }
            Self::Simulated { faults, at_hand } => {
                if !at_hand.swap(true, Ordering::Relaxed) {
                    faults.worker_starts();
                }
                Ok(None)
            }
            Self::Itself => Ok(None),
        }
    }

    /// Has a worker talk with monitors, some of which were just found, but not over buses where an earlier one hangs, and
    /// hears what is said until the deadline. The worker gives up [`MARGIN`] before. One that a bus keeps from ending is
    /// left behind, and that is remembered. None where this process is to talk itself.
    ///
    /// # Errors
    /// No process can be started.
    pub(super) fn talk<T: DeserializeOwned>(
        &self,
        talk: Talk,
        found: Vec<MonitorFound>,
        deadline: Deadline,
    ) -> io::Result<Option<Heard<Said<T>>>> {
        let Self::Machine { vfio_hook, at_hand } = self else { return Ok(None) };
        let stuck = StuckRegistry::of_this_process();
        let time = deadline.remaining().saturating_sub(MARGIN).as_millis();
        let order = Order::Monitors {
            talk,
            milliseconds: u64::try_from(time).unwrap_or(u64::MAX),
            hanging: stuck.buses(),
            found,
        };
        let (heard, worker): (Heard<Said<T>>, _) = ask_one(vfio_hook, at_hand, &order, deadline)?;
        let hanging = heard.answers.iter().flatten().flat_map(|said| said.hanging.iter().copied());
        let places: Vec<StuckIn> = hanging.map(StuckIn::Bus).collect();
        match worker {
            Some(worker) if !places.is_empty() => worker.leave_behind(places, &stuck),
            worker => keep(at_hand, worker),
        }
        Ok(Some(heard))
    }

    /// The worker at hand hangs, on a host in a folder.
    pub(super) fn lose(&self) {
        if let Self::Simulated { at_hand, .. } = self {
            at_hand.store(false, Ordering::Relaxed);
        }
    }

    fn dismiss(&self) {
        match self {
            Self::Machine { at_hand, .. } => {
                if let Some(worker) = lock(at_hand).take() {
                    worker.dismiss();
                }
            }
            Self::Simulated { .. } => self.lose(),
            Self::Itself => {}
        }
    }
}

/// What came of an order, and the worker unless it is lost. Another thread that asks at the same time has one of its own.
fn ask_one<T: DeserializeOwned>(
    vfio_hook: &Path,
    at_hand: &Mutex<Option<Worker>>,
    order: &Order,
    deadline: Deadline,
) -> io::Result<(Heard<T>, Option<Worker>)> {
    let worker = lock(at_hand).take();
    Worker::ask(worker, vfio_hook, order, deadline)
}

fn keep(at_hand: &Mutex<Option<Worker>>, worker: Option<Worker>) {
    if let Some(spare) = worker.and_then(|worker| lock(at_hand).replace(worker)) {
        spare.dismiss();
    }
}

/// None is left without a parent to wait for it.
impl Drop for Workers {
    fn drop(&mut self) {
        self.dismiss();
    }
}

fn lock(at_hand: &Mutex<Option<Worker>>) -> MutexGuard<'_, Option<Worker>> {
    at_hand.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    /// Writes a kernel attribute in a worker, which is killed at the deadline: memory compaction of a large node takes
    /// seconds and cannot be interrupted otherwise, and a driver may never let go of a device.
    ///
    /// # Errors
    /// No time is left, and nothing is done; the kernel refuses the value; it took too long
    /// ([`io::ErrorKind::TimedOut`]), and the worker may hang in it ([`HostError::stuck_process`]); no process can be
    /// started.
    pub fn write_bounded(&mut self, path: &Path, value: &str, deadline: Deadline) -> Result<(), HostError> {
        let waited = deadline.remaining();
        let failed = |error| HostError::write(path, value, error);
        if waited.is_zero() {
            // A worker would be killed in the middle of it.
            return Err(failed(io::Error::new(io::ErrorKind::TimedOut, "no time is left")));
        }
        let order = Order::Write { path: path.to_owned(), value: value.to_owned() };
        let log = self.kernel_log_end();
        if self.is_real() {
            failpoint::reached("setting");
        }
        let Some(Heard { answers, end }) = self.workers.ask::<()>(&order, deadline).map_err(failed)? else {
            // A host in a folder has no slow kernel, but one that hangs where the host says so.
            return match self.files.write(path, value) {
                Ok(()) => Ok(()),
                Err(error) => Err(match simulated_end(&error) {
                    None => failed(error),
                    Some(end) => {
                        self.workers.lose();
                        self.failed_write(path, value, end, log, waited)
                    }
                }),
            };
        };
        failpoint::reached("setting");
        match end {
            End::Answered => {
                answers.into_iter().collect::<Result<(), Refusal>>().map_err(|refusal| failed(refusal.into()))
            }
            end => Err(self.failed_write(path, value, end, log, waited)),
        }
    }

    /// What a write without an answer came to. The kernel's log tells a process that an administrator or the lack of
    /// memory ended from one that the kernel failed in, and keeps the device of: the latter never answers again.
    fn failed_write(
        &self,
        path: &Path,
        value: &str,
        end: End,
        log: KernelLogEnd,
        waited: Duration,
    ) -> HostError {
        match end {
            End::Answered | End::Killed => HostError::write(path, value, took_too_long(waited)),
            End::Died(reason) => HostError::write(path, value, reason),
            End::Signalled { pid, reason } => match self.kernel_log_after(log).failure_of(pid) {
                Some(line) => HostError::kernel_failed(path, value, line),
                None => HostError::write(path, value, reason),
            },
            End::Stuck(process) => {
                let said = self.kernel_log_after(log);
                let said = said.reason_to_hang(process.pid, &about(path, value)).map(str::to_owned);
                HostError::stuck(path, value, process, waited, said)
            }
        }
    }

    /// Reads kernel attributes in a worker, which is killed at the deadline: the kernel shows some of them only while it
    /// holds the device's lock, which a driver that hangs holds for ever. The texts come in the order asked for; none
    /// where a file is absent.
    ///
    /// # Errors
    /// The kernel refuses; it took too long, and the worker may hang in it; no process can be started.
    pub fn read_bounded(
        &self,
        paths: &[PathBuf],
        deadline: Deadline,
    ) -> Result<Vec<Option<String>>, HostError> {
        let Some(first) = paths.first() else { return Ok(Vec::new()) };
        let waited = deadline.remaining();
        let order = Order::Read(paths.to_owned());
        let heard =
            self.workers.ask::<String>(&order, deadline).map_err(|error| HostError::read(first, error))?;
        let Some(Heard { answers, end }) = heard else {
            return paths.iter().map(|path| self.text_if_present(path)).collect();
        };
        // It reads one after the other: the first that is not answered is where it is.
        let at = paths.get(answers.len()).unwrap_or(first);
        match end {
            End::Answered => {}
            End::Died(reason) | End::Signalled { reason, .. } => return Err(HostError::read(at, reason)),
            End::Killed => return Err(HostError::read(at, took_too_long(waited))),
            End::Stuck(process) => return Err(HostError::stuck_read(at, process, waited)),
        }
        let texts = paths.iter().zip(answers).map(|(path, answer)| match answer {
            Ok(text) => Ok(Some(text)),
            Err(Refusal(errno)) if Errno::from_raw(errno) == Errno::ENOENT => Ok(None),
            Err(refusal) => Err(HostError::read(path, refusal.into())),
        });
        texts.collect()
    }

    /// Has the worker at hand end, if there is one; the next contact starts another.
    pub(crate) fn dismiss_worker(&self) {
        self.workers.dismiss();
    }
}

/// How the worker of a machine would have ended, where a host in a folder says so.
fn simulated_end(error: &io::Error) -> Option<End> {
    if let Some(process) = super::simulated::stuck_process(error) {
        return Some(End::Stuck(process));
    }
    let pid = super::simulated::signalled_process(error)?;
    let reason = io::Error::new(io::ErrorKind::Interrupted, error.to_string());
    Some(End::Signalled { pid, reason })
}

/// The PCI functions that a write names, by its value or its path.
fn about(path: &Path, value: &str) -> Vec<PciAddress> {
    let parts = path.iter().filter_map(|part| part.to_str()).chain([value.trim()]);
    parts.filter_map(|part| part.parse().ok()).collect()
}

fn took_too_long(waited: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("it took longer than {}", rounded(waited)))
}
