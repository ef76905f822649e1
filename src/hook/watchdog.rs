//! The hard end of a hook call: whatever hangs, libvirt does not wait longer than the budget.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::deadline::Deadline;
use crate::event::{FailureEffect, Operation};
use crate::exit::Exit;
use crate::log;

/// The part of a budget that is left for undoing what a timeout interrupted.
const RESERVE: f64 = 0.1;

/// When the call ends, whatever it is at.
static END: Mutex<Option<Deadline>> = Mutex::new(None);

/// When a call should be over by itself, so that there is time left to undo.
#[must_use]
pub(super) fn soft_budget(operation: Operation) -> Duration {
    operation.budget().mul_f64(1.0 - RESERVE)
}

/// Ends the process when the budget is used up. That is safe at every moment: the ledger holds what was begun, and the
/// next event finishes or undoes it.
pub(super) fn start(operation: Operation) {
    set_end(Deadline::after(operation.budget()));
    let watch = move || {
        while let Some(left) = end().map(Deadline::remaining).filter(|left| !left.is_zero()) {
            thread::sleep(left);
        }
        tracing::error!("{} did not end within its time, giving up", operation.as_str());
        let exit = match operation.failure_effect() {
            FailureEffect::RefusesStart => {
                log::print_to_stderr(&format!(
                    "{} did not end within its time\nhelp: `journalctl -t vfio-hook` shows what it waited for\n",
                    operation.as_str(),
                ));
                Exit::Failed
            }
            FailureEffect::MustNotHappen => Exit::Done,
        };
        std::process::exit(exit.code());
    };
    // Without a thread there is no watch, and every single wait is still bounded.
    let _ = thread::Builder::new().name("watchdog".to_owned()).stack_size(64 * 1024).spawn(watch);
}

/// Gives the call the time that another operation has, from now on: the guest's own commands need it. Returns when it
/// should be over by itself.
pub(super) fn extend_to(operation: Operation) -> Duration {
    set_end(Deadline::after(operation.budget()));
    soft_budget(operation)
}

fn end() -> Option<Deadline> {
    *END.lock().unwrap_or_else(PoisonError::into_inner)
}

fn set_end(deadline: Deadline) {
    *END.lock().unwrap_or_else(PoisonError::into_inner) = Some(deadline);
}
