//! The hard end of a hook call: whatever hangs, libvirt does not wait longer than the budget.

use std::thread;
use std::time::Duration;

use super::log;
use crate::event::{FailureEffect, Operation};
use crate::exit::Exit;

/// The part of a budget that is left for undoing what a timeout interrupted.
const RESERVE: f64 = 0.1;

/// When a call should be over by itself, so that there is time left to undo.
#[must_use]
pub(super) fn soft_budget(operation: Operation) -> Duration {
    operation.budget().mul_f64(1.0 - RESERVE)
}

/// Ends the process when the budget is used up. That is safe at every moment: the ledger holds what was begun, and the
/// next event finishes or undoes it.
pub(super) fn start(operation: Operation) {
    let watch = move || {
        thread::sleep(operation.budget());
        tracing::error!("{} did not end within {:?}, giving up", operation.as_str(), operation.budget());
        let exit = match operation.failure_effect() {
            FailureEffect::RefusesStart => {
                log::print_to_stderr(&format!(
                    "{} did not end within {} s\nhelp: `journalctl -t vfio-hook` shows what it waited for\n",
                    operation.as_str(),
                    operation.budget().as_secs()
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
