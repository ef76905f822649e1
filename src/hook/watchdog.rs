//! The hard end of a hook call: whatever hangs, libvirt does not wait longer than the budget.
//!
//! All that the end needs is made beforehand: from the deadline on, the watchdog allocates nothing, takes no lock and
//! logs nothing, since what hangs may be just that.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::alarm;

use crate::deadline::Deadline;
use crate::event::{FailureEffect, Operation};
use crate::exit::Exit;
use crate::host::{exit_at_once, write_to_stderr_once};
use crate::log;

/// The part of a budget that is left for undoing what a timeout interrupted.
const RESERVE: f64 = 0.1;

/// How long standard error may take to be ready for the last words; libvirt reads it at once.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// The end of the call in milliseconds after [`Watchdog::began`].
static END: AtomicU64 = AtomicU64::new(0);

/// Whether a call that does not end refuses the guest's start.
static REFUSES: AtomicBool = AtomicBool::new(false);

/// When a call should be over by itself, so that there is time left to undo.
#[must_use]
pub(super) fn soft_budget(operation: Operation) -> Duration {
    operation.budget().mul_f64(1.0 - RESERVE)
}

/// The end of a call, as it was set at its beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watchdog {
    operation: Operation,
    began: Instant,
}

impl Watchdog {
    /// Ends the process when the budget is used up, with the answer that a failure has for this guest. That is safe at
    /// every moment: the ledger holds what was begun, and the next event finishes or undoes it.
    pub(super) fn start(operation: Operation, effect: FailureEffect) -> Self {
        let watchdog = Self { operation, began: Instant::now() };
        watchdog.set_end(operation.budget());
        REFUSES.store(effect == FailureEffect::RefusesStart, Ordering::Relaxed);
        let last_words = format!(
            "{} did not end within its time\nhelp: `journalctl -t vfio-hook` shows what it waited for\n",
            operation.as_str(),
        );
        let watch = move || {
            while let Some(left) = watchdog.left() {
                thread::sleep(left);
            }
            if !REFUSES.load(Ordering::Relaxed) {
                exit_at_once(Exit::Done);
            }
            write_to_stderr_once(last_words.as_bytes(), LAST_WORDS);
            exit_at_once(Exit::Failed)
        };
        let thread = thread::Builder::new().name("watchdog".to_owned()).stack_size(64 * 1024).spawn(watch);
        if thread.is_err() && effect == FailureEffect::RefusesStart {
            // SIGALRM ends the process, and a death by a signal refuses the start. Where it must not, every single
            // wait is still bounded.
            alarm::set(u32::try_from(operation.budget().as_secs()).unwrap_or(u32::MAX));
        }
        watchdog
    }

    /// From now on a call that does not end refuses the guest's start.
    pub(super) fn may_refuse(self) {
        REFUSES.store(true, Ordering::Relaxed);
    }

    /// By when the call should be over by itself.
    pub(super) fn soft_end(self) -> Deadline {
        Deadline::after(soft_budget(self.operation).saturating_sub(self.began.elapsed()))
    }

    /// Gives the call the time that another operation has, from now on: the guest's own commands need it. Returns by
    /// when it should be over by itself.
    pub(super) fn extend_to(self, operation: Operation) -> Deadline {
        self.set_end(self.began.elapsed() + operation.budget());
        let soft_end = Deadline::after(soft_budget(operation));
        self.announce(soft_end);
        soft_end
    }

    /// Has the log say that the call hangs, if it does: the watchdog itself cannot.
    pub(super) fn announce(self, soft_end: Deadline) {
        let what = self.operation.as_str();
        log::announce_at(soft_end, format!("{what} did not end within its time: it is about to be given up"));
    }

    /// What is left; none when it is over.
    fn left(self) -> Option<Duration> {
        let end = Duration::from_millis(END.load(Ordering::Relaxed));
        end.checked_sub(self.began.elapsed()).filter(|left| !left.is_zero())
    }

    fn set_end(self, after_began: Duration) {
        END.store(u64::try_from(after_began.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
