//! What needs the ledger: done in a thread of its own, since whoever has it locked may be waiting for an answer of the
//! keeper.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use super::notices::{Notice, NoticeSender, STACK};
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::Host;
use crate::ledger::Outcome;
use crate::lifecycle::{self, LifecycleError};
use crate::log;

/// How long setting things again may take, the wait for the ledger included.
const UPHOLD: Duration = Duration::from_secs(10);

/// How long giving back may take: the guest's commands have limits of their own.
const GIVE_BACK: Duration = Duration::from_secs(30 * 60);

/// One piece of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// To set again what was taken away, and to move interrupts that came.
    Uphold,
    /// To give the lease back, because libvirt said so or seems to be gone.
    GiveBack(String),
}

/// The work at hand and what waits, one piece at a time.
pub(super) struct LedgerWork {
    guest: GuestUuid,
    notices: NoticeSender,
    current: Option<Job>,
    waiting: VecDeque<Job>,
}

impl LedgerWork {
    pub(super) fn new(guest: GuestUuid, notices: NoticeSender) -> Self {
        Self { guest, notices, current: None, waiting: VecDeque::new() }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.current.is_none()
    }

    /// Starts a piece of work, or puts it in the queue where it does not stand there already.
    pub(super) fn start(&mut self, job: Job) {
        if self.current.is_some() {
            if !self.waiting.contains(&job) {
                self.waiting.push_back(job);
            }
            return;
        }
        let (guest, notices, at_hand) = (self.guest, self.notices.clone(), job.clone());
        let work = move || {
            let done = catch_unwind(AssertUnwindSafe(|| carry_out(guest, &at_hand)));
            let (changes, failures) = done.unwrap_or((0, 1));
            notices.send(match at_hand {
                Job::Uphold => Notice::Upheld { changes, failures },
                Job::GiveBack(_) => Notice::GaveBack,
            });
        };
        match thread::Builder::new().name("ledger".to_owned()).stack_size(STACK).spawn(work) {
            Ok(_) => self.current = Some(job),
            Err(error) => tracing::error!("the keeper cannot work: {error}"),
        }
    }

    /// Nothing is begun any more.
    pub(super) fn forget_waiting(&mut self) {
        self.waiting.clear();
    }

    /// The work at hand is done.
    pub(super) fn finished(&mut self) {
        self.current = None;
        if let Some(next) = self.waiting.pop_front() {
            self.start(next);
        }
    }
}

/// Returns how many knobs were changed, and how many could not be.
fn carry_out(guest: GuestUuid, job: &Job) -> (usize, usize) {
    let mut host = Host::real();
    let (name, done): (_, Result<Outcome, LifecycleError>) = match job {
        Job::Uphold => ("while the guest runs", lifecycle::uphold(&mut host, guest, Deadline::after(UPHOLD))),
        Job::GiveBack(reason) => {
            ("after the guest", lifecycle::finish(&mut host, guest, reason, Deadline::after(GIVE_BACK)))
        }
    };
    match done {
        Ok(outcome) => {
            log::report(name, &outcome);
            (outcome.changes.len(), outcome.failures.len())
        }
        Err(error) => {
            tracing::error!("{name}: {error}");
            (0, 1)
        }
    }
}
