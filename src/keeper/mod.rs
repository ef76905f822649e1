//! The keeper: the one process that lives as long as its guest.
//!
//! It holds what lives only as long as a file descriptor, watches QEMU, runs the guest's commands, and does what must
//! come later than an event of libvirt's. It decides nothing about the host by itself: what it gives back or sets again
//! goes through the ledger, as everything does. It may be killed at any moment; what it left is found by its successor,
//! by the next event or by `vfio-hook undo`.
//!
//! This thread answers and waits, all askers at once (`askers`), and never for the ledger, so that a hook which has the
//! ledger locked gets its answer. Others do what may take long, and send notices: `ledger_work` what needs the ledger,
//! `command_queue` the commands of events, `background` each command in the background, `notices` listens to systemd and
//! logind, `reboot` to QEMU's end, and the log and the output of each command have one.

mod askers;
mod background;
mod command_queue;
mod cpus_came_back;
mod guest_life;
mod held;
mod ledger_view;
mod ledger_work;
mod monitors;
mod notices;
mod reboot;
mod subject;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::unistd::{geteuid, setsid};

use crate::deadline::Deadline;
use crate::event::Operation;
use crate::exit::Exit;
use crate::guest::{GuestName, GuestUuid};
use crate::host::{
    Host, LocalSocket, LockFile, ProcessId, keeper_lock, keeper_socket, let_go_of_code, send, take_limits,
    take_signals, time_asleep,
};
use crate::keeper_protocol::{Answer, AnswerAt, KeeperState, Request};
use crate::ledger::{LeaseState, Ledger, Occasion, Record};
use crate::lifecycle::{self, AfterTheEnd};
use crate::log;
use askers::{Askers, TAKES_ANSWER};
use command_queue::CommandQueue;
use cpus_came_back::CpusCameBack;
use held::Held;
use ledger_view::{LeaseView, LedgerView};
use ledger_work::{Job, LedgerWork};
use monitors::{MonitorStep, MonitorSteps};
use notices::{Notice, Notices};
use reboot::RebootWatch;
use subject::Subject;

/// How long libvirt has, after QEMU's death, to say that it stopped, before the lease is given back without it.
const GRACE: Duration = Duration::from_secs(5);

/// The same, once libvirt has said that QEMU is gone: it may still have devices to give back.
const GRACE_ONCE_TOLD: Duration = Duration::from_secs(30);

/// The pause before giving back, or setting again, is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// The first look for interrupts and threads of the kernel's after QEMU came up; the pause doubles with each look that finds nothing.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// The longest pause between two looks: a guest that was rebooted gets new interrupts, and nothing tells.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// How often a keeper tries to start, and its pauses: some four minutes in all.
const START_TRIES: u32 = 10;
const FIRST_START_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_START_PAUSE: Duration = Duration::from_secs(60);

/// How often in a row the wait for events may fail before a successor has to do, and the pause after each.
const FAILED_WAITS: u32 = 60;
const AFTER_FAILED_WAIT: Duration = Duration::from_secs(1);

/// A wait in which the keeper takes up no more memory than it needs for waiting.
const LONG_WAIT: Duration = Duration::from_secs(10);

/// How often the keeper looks whether work was done unannounced: the write that wakes this thread may have failed.
const LOST_WORD: Duration = Duration::from_secs(10);

/// How long it may take to have the guest started again.
const START_AGAIN: Duration = Duration::from_secs(8);

/// How long an earlier keeper of the guest may take to end.
const PREDECESSOR: Duration = Duration::from_secs(4);

/// How long what the guest's commands left running may take to end.
const LEFT_RUNNING: Duration = Duration::from_secs(3);

/// Runs as the keeper of a guest until its lease is given back.
#[must_use]
pub(crate) fn run(guest: GuestUuid) -> Exit {
    if !geteuid().is_root() {
        return Exit::Failed;
    }
    // A hook that blocks signals hands that on, and so does one with few descriptors.
    take_signals();
    take_limits();
    // Fails where systemd has made a session already.
    let _ = setsid();
    let _ = prctl::set_thp_disable(true);
    std::panic::set_hook(Box::new(|panic| crate::log::log_error!("bug: {panic}")));
    let mut host = Host::real();
    let name = name_of(&host, guest);
    log::open(&GuestName::new(&name), Some(guest), None);
    log::set_level(lifecycle::log_level());
    let hosts: HostSource = Arc::new(Host::real);
    let exit = match serve(&mut host, guest, &name, &hosts) {
        Ok(()) => Exit::Done,
        Err(error) => {
            crate::log::log_error!("the keeper cannot work: {error}");
            Exit::Failed
        }
    };
    log::flush();
    exit
}

/// The guest's name; its UUID where the ledger does not say, or cannot be read.
fn name_of(host: &Host, guest: GuestUuid) -> String {
    let name = |record: Option<Record>| Some(record?.leases.get(&guest)?.name.clone());
    Ledger::peek(host).ok().and_then(name).unwrap_or_else(|| guest.to_string())
}

/// Makes the host anew for a thread of its own.
type HostSource = Arc<dyn Fn() -> Host + Send + Sync>;

/// Starts a keeper, and stays until it has nothing more to do. What may pass (no descriptor or memory left, a full
/// `/run`, a predecessor that does not end) is waited for here: systemd would give up after five starts in 10 s.
fn serve(host: &mut Host, guest: GuestUuid, name: &str, hosts: &HostSource) -> io::Result<()> {
    let mut pause = FIRST_START_PAUSE;
    for tried in 1..=START_TRIES {
        let error = match Keeper::new(host, guest, name.to_owned(), Arc::clone(hosts)) {
            Ok(keeper) => return keeper.keep(host),
            Err(error) => error,
        };
        if matches!(LedgerView::new(guest).read(host, Instant::now()), LeaseView::Nothing) {
            return Ok(());
        }
        if tried == START_TRIES {
            return Err(error);
        }
        if tried == 1 {
            crate::log::log_error!("the keeper cannot work yet, and tries again: {error}");
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_START_PAUSE);
    }
    Ok(())
}

struct Keeper {
    guest: GuestUuid,
    askers: Askers,
    notices: Notices,
    held: Held,
    commands: CommandQueue,
    work: LedgerWork,
    subject: Subject,
    ledger: LedgerView,
    /// When the lease is given back unless libvirt says something.
    give_back_at: Option<Instant>,
    /// The pause before giving back is tried again: it doubles each time.
    retry: Duration,
    /// Whether the lease is given back once the commands of `stopped` are run and the monitors are back.
    give_back_when_free: bool,
    monitors: MonitorSteps,
    reboot: RebootWatch,
    /// Why the guest ended, where libvirt said so.
    reason: String,
    /// Who starts the guest again.
    restarted_by: Option<ProcessId>,
    name: String,
    look: Option<Look>,
    /// When what could not be set again is tried once more.
    reconcile_at: Option<Instant>,
    cpus_came_back: CpusCameBack,
    is_leaving: bool,
    watches_buses: bool,
    _only_one: LockFile,
}

/// The next look for interrupts and threads of the kernel's.
struct Look {
    at: Instant,
    pause: Duration,
}

impl Look {
    fn after(pause: Duration) -> Self {
        Self { at: Instant::now() + pause, pause }
    }
}

impl Keeper {
    fn new(host: &mut Host, guest: GuestUuid, name: String, hosts: HostSource) -> io::Result<Self> {
        let only_one =
            host.lock_state(&keeper_lock(guest), Deadline::after(PREDECESSOR)).map_err(io::Error::other)?;
        let askers = Askers::listen(&host.locate(&keeper_socket(guest)))?;
        let notices = Notices::new()?;
        host.adopt_orphans().map_err(io::Error::other)?;
        let mut keeper = Self {
            guest,
            askers,
            held: Held::new(&name),
            commands: CommandQueue::new(guest, Arc::clone(&hosts), notices.sender())?,
            work: LedgerWork::new(guest, hosts, notices.sender()),
            subject: Subject::default(),
            ledger: LedgerView::new(guest),
            give_back_at: None,
            retry: RETRY,
            give_back_when_free: false,
            monitors: MonitorSteps::default(),
            reboot: RebootWatch::new(guest, notices.sender()),
            reason: String::new(),
            restarted_by: None,
            name,
            look: None,
            reconcile_at: None,
            cpus_came_back: CpusCameBack::new(time_asleep()),
            is_leaving: false,
            watches_buses: false,
            notices,
            _only_one: only_one,
        };
        // Known before there may be no descriptor left to ask for it.
        let _ = host.this_process();
        match keeper.read_ledger(host) {
            // Its guest was gone before it was started again.
            LeaseView::Nothing => keeper.leave(host),
            LeaseView::Held(held) if matches!(held.lease.phase, LeaseState::Preparing(_)) => {
                keeper.look_at_lease(host, &held.lease);
            }
            // A keeper that takes over holds nothing yet.
            LeaseView::Held(held) => keeper.take_over(host, &held),
            LeaseView::Unknown => {}
        }
        Ok(keeper)
    }

    /// Stays until it has nothing more to do.
    ///
    /// # Errors
    /// It has, but cannot go on: a successor has to.
    fn keep(mut self, host: &mut Host) -> io::Result<()> {
        let mut failed = 0;
        while !(self.is_leaving && self.work.is_idle()) {
            match self.wait(host) {
                Ok(()) => failed = 0,
                Err(error) if failed == FAILED_WAITS => return Err(error),
                Err(error) => {
                    if failed == 0 {
                        crate::log::log_error!("the keeper cannot wait, and tries again: {error}");
                    }
                    failed += 1;
                    thread::sleep(AFTER_FAILED_WAIT);
                }
            }
            // Where there is no journal, lines would pile up.
            log::print_kept();
        }
        self.commands.cancel();
        for process in host.end_children(Deadline::after(LEFT_RUNNING)) {
            crate::log::log_error!("{} (process {}) does not end", process.name, process.id.pid);
        }
        // The next keeper, if it waits, has the file open.
        let _ = host.remove_state_file(&keeper_lock(self.guest));
        Ok(())
    }

    /// Waits for whatever comes first, and answers it.
    fn wait(&mut self, host: &mut Host) -> io::Result<()> {
        let is_at_work = !self.work.is_idle() || self.commands.is_at_work();
        let lost_word = is_at_work.then(|| Instant::now() + LOST_WORD);
        let timers: Vec<Instant> =
            self.next_timers().into_iter().chain([self.askers.next_look(), lost_word]).flatten().collect();
        let timeout = match timers.iter().min() {
            // Rounded up, or it would wake just before the moment and wait for nothing.
            Some(at) => {
                PollTimeout::try_from(at.saturating_duration_since(Instant::now()) + Duration::from_millis(1))
                    .unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        let is_long = timers.iter().all(|at| *at > Instant::now() + LONG_WAIT);
        if is_long && self.subject.qemu().is_some() {
            let_go_of_code();
        }
        let polled = |descriptor| PollFd::new(descriptor, PollFlags::POLLIN);
        let mut waiting = vec![polled(self.notices.as_fd())];
        waiting.extend(self.cpus_came_back.descriptor().map(polled));
        let subject_at = waiting.len();
        waiting.extend(self.subject.descriptor().map(polled));
        let askers_at = waiting.len();
        waiting.extend(self.askers.descriptors().map(polled));
        match poll(&mut waiting, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = waiting.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        if ready[subject_at..askers_at].contains(&true) {
            self.subject_ended(host);
        }
        // Whether it was woken for them or not.
        self.cpus_came_back.look(time_asleep(), Instant::now());
        if self.cpus_came_back.due().is_some() {
            self.work.cpus_came_back();
        }
        for notice in self.notices.take() {
            self.noticed(host, notice);
        }
        for (request, socket) in self.askers.take() {
            self.answer(host, request, socket);
        }
        self.timers(host, Instant::now());
        Ok(())
    }

    /// When there is something to do. Without the ledger there is not: what needs it waits until it can be read.
    fn next_timers(&self) -> [Option<Instant>; 5] {
        if self.ledger.is_unknown() {
            return [self.ledger.read_again_at(), None, None, None, None];
        }
        let look = self.look.as_ref().map(|look| look.at);
        [self.give_back_at, self.reconcile_at, self.cpus_came_back.due(), look, self.monitors.next()]
    }

    fn timers(&mut self, host: &Host, now: Instant) {
        if self.ledger.is_unknown() {
            if self.ledger.read_again_at().is_some_and(|at| at <= now) {
                self.read_ledger_again(host, now);
            }
            return;
        }
        if self.give_back_at.is_some_and(|at| at <= now) {
            self.give_back_at = None;
            self.give_back_if_abandoned(host);
        }
        if self.cpus_came_back.due().is_some_and(|at| at <= now) {
            self.reconcile();
        }
        if self.reconcile_at.take_if(|at| *at <= now).is_some() {
            self.reconcile();
        }
        if let Some(look) = self.look.take_if(|look| look.at <= now) {
            self.look = Some(Look::after((look.pause * 2).min(LONGEST_PAUSE)));
            self.reconcile();
        }
        if let Some(step) = self.monitors.due(now) {
            self.work.start(Job::Monitors(step));
        }
    }

    fn answer(&mut self, host: &Host, request: Request, socket: LocalSocket) {
        let done = match request {
            Request::State => Ok(()),
            Request::SleepLock(what) => self.held.sleep_lock(host, what).map_err(|error| error.to_string()),
            Request::CpuDmaLatency(micros) => {
                self.held.cpu_dma_latency(host, micros).map_err(|error| error.to_string())
            }
            Request::PowerProfile(profile) => {
                self.held.power_profile(host, profile).map_err(|error| error.to_string())
            }
            Request::Look => {
                self.told_to_look(host);
                Ok(())
            }
            Request::Run(batch) => {
                // What was begun while the guest ran is over with it.
                if matches!(batch.event, Operation::Stopped | Operation::Release) {
                    self.commands.cancel_of_running_guest();
                }
                match batch.answer {
                    AnswerAt::End => {
                        if let Err(error) = self.commands.run(batch, &self.name, Some(socket)) {
                            crate::log::log_error!("commands cannot be run: {error}");
                        }
                        return;
                    }
                    AnswerAt::Once => {
                        self.commands.run(batch, &self.name, None).map_err(|error| error.to_string())
                    }
                }
            }
            Request::GiveBack { reason, restarted_by } => {
                self.give_back(host, reason, restarted_by);
                Ok(())
            }
            Request::Leave => {
                self.leave(host);
                Ok(())
            }
        };
        let answer = match done {
            Ok(()) => Answer::Done(self.state(host)),
            Err(reason) => Answer::Failed(reason),
        };
        // The asker may be gone.
        let _ = send(&socket, &answer, Deadline::after(TAKES_ANSWER));
    }

    fn state(&self, host: &Host) -> KeeperState {
        KeeperState {
            process: host.this_process(),
            sleep_lock: self.held.sleep_lock_words(),
            cpu_dma_latency: self.held.cpu_dma_latency_micros(),
            power_profile: self.held.power_profile_name(),
            unfinished: self.commands.unfinished() + usize::from(self.monitors.is_going_back()),
            daemon: self.subject.daemon(),
            qemu: self.subject.qemu(),
        }
    }

    /// Gives the lease back once the commands of `stopped` are run and the monitors are back; a hook that starts the
    /// guest again gets them as they are.
    fn give_back(&mut self, host: &Host, reason: String, restarted_by: Option<ProcessId>) {
        self.give_back_at = None;
        self.reason = reason;
        self.restarted_by = restarted_by;
        self.commands.cancel_of_running_guest();
        match restarted_by {
            Some(_) => self.monitors.forget(),
            None => {
                if let LeaseView::Held(held) = self.read_ledger(host) {
                    self.monitors.guest_is_gone(&held.record, self.guest);
                }
            }
        }
        self.give_back_when_free = true;
        self.give_back_if_free(host);
    }

    fn give_back_if_free(&mut self, host: &Host) {
        if !self.give_back_when_free || self.commands.unfinished() > 0 || self.monitors.is_going_back() {
            return;
        }
        // One that cannot be read gives nothing back: once it can, this goes on.
        if !matches!(self.read_ledger(host), LeaseView::Unknown) {
            self.give_back_when_free = false;
            self.work.start(Job::GiveBack { reason: self.reason.clone(), restarted_by: self.restarted_by });
        }
    }

    /// Nobody shall ask any more: the next life of the guest may have its keeper while this one cleans up.
    fn leave(&mut self, host: &Host) {
        self.is_leaving = true;
        self.held.let_go();
        self.work.forget_waiting();
        self.commands.cancel();
        let _ = std::fs::remove_file(host.locate(&keeper_socket(self.guest)));
    }

    fn noticed(&mut self, host: &mut Host, notice: Notice) {
        match notice {
            Notice::CommandsDone => {
                self.commands.finished();
                self.give_back_if_free(host);
            }
            Notice::BackgroundEnded => self.give_back_if_free(host),
            Notice::GuestEnds(end) => self.reboot.ends(end),
            Notice::MonitorsDone { step, unfinished } => {
                self.work.finished();
                if matches!(step, MonitorStep::Return(_)) {
                    self.monitors.returned(unfinished);
                }
                self.give_back_if_free(host);
            }
            Notice::SystemdReloaded => self.reconcile(),
            Notice::HostWokeUp => self.cpus_came_back.noticed(Instant::now()),
            Notice::LogindIsBack => {
                self.held.renew_sleep_lock(host);
                // A keeper that took over while logind was away holds none yet.
                if self.reconcile_at.take().is_some() {
                    self.reconcile();
                }
            }
            Notice::Reconciled { occasion, changes, failures, undecided } => {
                self.work.finished();
                let now = Instant::now();
                let again = (failures > 0 && !self.is_leaving).then(|| now + RETRY);
                let decided = (undecided > 0).then(|| self.cpus_came_back.undecided(now)).flatten();
                match occasion {
                    Occasion::Usual | Occasion::NoCpuCame => self.reconcile_at = again.or(decided),
                    Occasion::CpusCameBack => self.cpus_came_back.try_again(again),
                }
                if changes > 0 && self.look.is_some() {
                    self.look = Some(Look::after(FIRST_LOOK));
                }
            }
            Notice::GaveBack => {
                self.work.finished();
                // Whether all of it is given back, the ledger says: a lease that is still in it is tried again.
                match self.read_ledger(host) {
                    // The hook that starts the guest again has it.
                    LeaseView::Held(held) if matches!(held.lease.phase, LeaseState::Preparing(_)) => {
                        self.leave(host);
                    }
                    LeaseView::Held(_) if self.is_leaving => {}
                    LeaseView::Held(_) => {
                        self.give_back_at = Some(Instant::now() + self.retry);
                        self.retry = (self.retry * 2).min(LONGEST_PAUSE);
                    }
                    LeaseView::Nothing => {
                        self.start_again_after_reboot(host);
                        self.leave(host);
                    }
                    LeaseView::Unknown => self.give_back_when_free = !self.is_leaving,
                }
            }
        }
    }

    /// All is given back: a guest that rebooted itself is started again.
    fn start_again_after_reboot(&mut self, host: &mut Host) {
        let Some((end, cards)) = self.reboot.finish() else { return };
        let name = GuestName::new(&self.name);
        let deadline = Deadline::after(START_AGAIN);
        let end = (end, self.reason.as_str());
        match lifecycle::start_again_after_reboot(host, self.guest, &name, end, &cards, deadline) {
            Ok(AfterTheEnd::StaysOff) => {}
            Ok(after @ AfterTheEnd::StartsAgain) => crate::log::log_info!("{after}"),
            Ok(after @ AfterTheEnd::CannotGoOn(_)) => crate::log::log_warning!("{after}"),
            Err(error) => {
                crate::log::log_error!("the guest rebooted itself, but is not started again: {error}")
            }
        }
    }
}
