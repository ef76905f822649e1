//! What needs the ledger: done in a thread of its own, since the process that has it locked may be waiting for an
//! answer of the keeper.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::HostSource;
use super::monitors::MonitorStep;
use super::notices::{Notice, NoticeSender, STACK};
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::{Host, ProcessId};
use crate::ledger::{Occasion, Tried};
use crate::lifecycle::{self, LifecycleError};

/// How long setting things again may take, the wait for the ledger included.
const RECONCILE: Duration = Duration::from_secs(10);

/// How long giving back may take: the guest's commands have limits of their own.
const GIVE_BACK: Duration = Duration::from_secs(30 * 60);

/// How long one step with monitors may take, the waits for the ledger included.
const MONITORS: Duration = Duration::from_secs(15);

/// One piece of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// To set again what was taken away, and to move interrupts and threads of the kernel's that came.
    Reconcile(Occasion),
    /// To give the lease back, because libvirt said so or seems to be gone.
    GiveBack {
        /// libvirt's reason.
        reason: String,
        /// The process that starts the guest again.
        restarted_by: Option<ProcessId>,
    },
    /// Something with the guest's monitors.
    Monitors(MonitorStep),
}

impl Job {
    /// What is told when it is over. None: it failed, and may be tried again.
    fn over(self, tried: Option<Tried>) -> Notice {
        let (changes, unfinished, undecided) = tried.map_or((0, 1, 0), |tried| {
            (tried.outcome.changes.len(), tried.unfinished, tried.outcome.undecided)
        });
        match self {
            Self::Reconcile(occasion) => {
                Notice::Reconciled { occasion, changes, failures: unfinished, undecided }
            }
            Self::GiveBack { .. } => Notice::GaveBack,
            Self::Monitors(step) => Notice::MonitorsDone { step, unfinished },
        }
    }
}

/// What a thread is to do.
type Work = Box<dyn FnOnce() + Send>;

/// The work at hand and what waits, one piece at a time.
pub(super) struct LedgerWork {
    guest: GuestUuid,
    hosts: HostSource,
    notices: NoticeSender,
    current: Option<Job>,
    waiting: VecDeque<Job>,
    /// Starts a thread; tests have one that cannot.
    pub(super) spawn: fn(Work) -> io::Result<()>,
}

impl LedgerWork {
    pub(super) fn new(guest: GuestUuid, hosts: HostSource, notices: NoticeSender) -> Self {
        Self { guest, hosts, notices, current: None, waiting: VecDeque::new(), spawn: spawn_thread }
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
        let hosts = Arc::clone(&self.hosts);
        let work = move || {
            let done = catch_unwind(AssertUnwindSafe(|| carry_out(&mut hosts(), guest, &at_hand)));
            notices.send(at_hand.over(done.ok().flatten()));
        };
        // Also where there is no thread for it: it is at hand until its notice is taken, as one that failed is, so that
        // the same pauses come before the next try.
        self.current = Some(job.clone());
        if let Err(error) = (self.spawn)(Box::new(work)) {
            crate::log::log_error!("the keeper cannot work, and tries again: {error}");
            self.notices.send(job.over(None));
        }
    }

    /// CPUs came back: what waits shall know.
    pub(super) fn cpus_came_back(&mut self) {
        for job in &mut self.waiting {
            if let Job::Reconcile(_) = job {
                *job = Job::Reconcile(Occasion::CpusCameBack);
            }
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

fn spawn_thread(work: Work) -> io::Result<()> {
    thread::Builder::new().name("ledger".to_owned()).stack_size(STACK).spawn(work).map(drop)
}

/// None: it failed, which is then in the log.
fn carry_out(host: &mut Host, guest: GuestUuid, job: &Job) -> Option<Tried> {
    let (name, done) = match job {
        Job::Reconcile(occasion) => {
            let done = lifecycle::reconcile(host, guest, *occasion, Deadline::after(RECONCILE));
            ("while the guest runs", done.map(Tried::from))
        }
        Job::GiveBack { reason, restarted_by } => {
            let done = lifecycle::finish(host, guest, reason, *restarted_by, Deadline::after(GIVE_BACK));
            ("after the guest", done.map(Tried::from))
        }
        Job::Monitors(step) => ("monitors", carry_out_step(host, guest, *step)),
    };
    match done {
        Ok(tried) => {
            lifecycle::report(name, &tried.outcome);
            Some(tried)
        }
        Err(error) => {
            crate::log::log_error!("{name}: {error}");
            None
        }
    }
}

fn carry_out_step(host: &mut Host, guest: GuestUuid, step: MonitorStep) -> Result<Tried, LifecycleError> {
    let deadline = Deadline::after(MONITORS);
    match step {
        MonitorStep::Note => lifecycle::note_monitors(host, guest, deadline),
        MonitorStep::Follow { up_for, attempt } => {
            lifecycle::follow_monitors(host, guest, up_for, attempt, deadline)
        }
        MonitorStep::Return(attempt) => lifecycle::return_monitors(host, guest, attempt, deadline),
    }
}
