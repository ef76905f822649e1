//! A call by libvirt: from its arguments to the exit status.

mod refusal;
mod standing;
mod stdin;
mod watchdog;

use std::cell::Cell;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use nix::sys::prctl;
use nix::unistd::geteuid;

use crate::deadline::Deadline;
use crate::event::{Event, FailureEffect, Operation};
use crate::exit::Exit;
use crate::guest::{Guest, GuestUuid};
use crate::host::{Host, WorkEnd, apart, block_signals, is_named};
use crate::ledger::{LEDGER_PATH, Ledger};
use crate::lifecycle::{self, LifecycleError};
use crate::log;
use crate::log::message_id::REFUSED;

use refusal::{AfterBug, Failure};
use standing::Standing;
use watchdog::Watchdog;

pub use crate::host::IDENTIFIER;

/// How much later than the watchdog of the child that does the work its parent gives up: only a wait in the kernel
/// keeps the child then.
const AFTER_WATCHDOG: Duration = Duration::from_millis(300);

/// How long the log may take to hear that the child which did the work was ended.
const LAST_LINE: Duration = Duration::from_millis(500);

/// Answers a call by libvirt. The arguments are those after the program's name.
///
/// Whatever happens, standard output stays empty, and only `prepare` and `start` can end with anything but success.
#[must_use]
pub fn run(arguments: &[OsString]) -> Exit {
    match arguments.get(1).map(|operation| Operation::from_bytes(operation.as_bytes())) {
        Some(Operation::Prepare | Operation::Start) => answer_or_refuse(arguments),
        Some(
            operation @ (Operation::Started | Operation::Stopped | Operation::Release | Operation::Reconnect),
        ) => answer_with_success(operation, arguments),
        // `migrate` and `restore` carry passwords and must neither fail nor print: they are not even looked at.
        Some(Operation::Migrate | Operation::Restore | Operation::Attach | Operation::Unknown) | None => {
            Exit::Done
        }
    }
}

/// Answers a call that may refuse the start of the guest.
fn answer_or_refuse(arguments: &[OsString]) -> Exit {
    let Some(event) = Event::from_arguments(arguments) else { return Exit::Done };
    if !geteuid().is_root() {
        return Exit::Done;
    }
    let effect = match Standing::of(&event) {
        Standing::NothingToDo => return Exit::Done,
        Standing::MayConcern(effect) => effect,
        Standing::Unknown => {
            log::print_to_stderr(&Standing::unknown_message());
            return Exit::Failed;
        }
    };
    // The child's own end comes first, where the kernel lets it.
    let end = apart(Operation::Prepare.budget() + AFTER_WATCHDOG, || answer(&event, effect));
    match end {
        WorkEnd::Exited(code) if code == Exit::Done.code() => return Exit::Done,
        // It has said why, and knows by the guest's XML whether it may refuse.
        WorkEnd::Exited(code) if code == Exit::Failed.code() => return Exit::Failed,
        WorkEnd::Exited(_) | WorkEnd::Killed(_) | WorkEnd::TimedOut | WorkEnd::Lost => {
            apart(LAST_LINE, || log_failure(arguments, end));
            if effect == FailureEffect::RefusesStart {
                let help = "`journalctl -t vfio-hook` shows how far it came, `vfio-hook status` what is held";
                log::print_to_stderr(&format!("{} {end}\nhelp: {help}\n", event.operation.as_str()));
            }
        }
        WorkEnd::NotStarted => return answer(&event, effect),
    }
    Exit::after_failure(effect)
}

/// Answers a call that must not fail: libvirt kills the running guest if `started` or `reconnect` does. Whatever becomes
/// of the child that does the work (memory, signals, limits), this process ends with success. It allocates nothing and
/// blocks all signals, so that it cannot fail itself.
fn answer_with_success(operation: Operation, arguments: &[OsString]) -> Exit {
    block_signals();
    // Without a ledger nothing is held.
    if !geteuid().is_root() || !is_named(LEDGER_PATH.as_ref()) {
        return Exit::Done;
    }
    let work = || match Event::from_arguments(arguments) {
        Some(event) => answer(&event, FailureEffect::MustNotHappen),
        None => Exit::Done,
    };
    let end = apart(operation.budget() + AFTER_WATCHDOG, work);
    match end {
        WorkEnd::Exited(_) => {}
        WorkEnd::Killed(_) | WorkEnd::TimedOut | WorkEnd::Lost => {
            apart(LAST_LINE, || log_failure(arguments, end));
        }
        // libvirt ignores the failure of these two.
        WorkEnd::NotStarted if matches!(operation, Operation::Stopped | Operation::Release) => return work(),
        WorkEnd::NotStarted => {}
    }
    Exit::Done
}

/// Has the log say how a call failed that must not fail.
fn log_failure(arguments: &[OsString], end: WorkEnd) -> Exit {
    if let Some(event) = Event::from_arguments(arguments) {
        log::open(&event.guest, None, Some(event.operation));
        crate::log::log_error!("{} {end}: the next event goes on with it", event.operation.as_str());
        log::flush_until(Deadline::after(LAST_LINE));
    }
    Exit::Done
}

fn answer(event: &Event, effect: FailureEffect) -> Exit {
    // Where transparent huge pages are always on, every stack and heap would take 2 MiB, and the time to clear them.
    let _ = prctl::set_thp_disable(true);
    let call = Call { event, effect: Cell::new(effect), watchdog: Watchdog::start(event.operation, effect) };
    call.answer(&mut Host::real())
}

/// A call, and what hangs on it.
struct Call<'a> {
    event: &'a Event,
    /// What a failure does to this guest, as far as it is known.
    effect: Cell<FailureEffect>,
    watchdog: Watchdog,
}

/// What giving back may take after a bug has ended `prepare`.
const UNDO: Duration = Duration::from_secs(20);

impl Call<'_> {
    fn answer(&self, host: &mut Host) -> Exit {
        // The default hook prints to standard error, and would panic again if nobody reads that.
        panic::set_hook(Box::new(|panic| crate::log::log_error!("bug: {panic}")));
        let operation = self.event.operation.as_str();
        let mut uuid = None;
        let answered = panic::catch_unwind(AssertUnwindSafe(|| self.answer_by_operation(host, &mut uuid)));
        let failure = match answered {
            Ok(Ok(())) => {
                log::flush();
                log::print_kept();
                return Exit::Done;
            }
            Ok(Err(failure)) => failure,
            Err(_) => {
                // The ledger holds what was begun; undoing it is what the next event would do.
                let undone = uuid.map(|uuid| panic::catch_unwind(AssertUnwindSafe(|| self.undo(host, uuid))));
                let after = match undone {
                    Some(Ok(after)) => after,
                    // It had not come to the guest's UUID, before which nothing is changed.
                    None => AfterBug::NothingToUndo,
                    Some(Err(_)) => AfterBug::StillHeld,
                };
                Failure::from_bug(operation, after)
            }
        };
        match self.effect.get() {
            FailureEffect::RefusesStart => {
                tracing::error!(message_id = REFUSED, "{operation} failed: {}", failure.message);
            }
            FailureEffect::MustNotHappen => crate::log::log_error!("{operation} failed: {}", failure.message),
        }
        log::flush();
        match self.effect.get() {
            FailureEffect::MustNotHappen => log::print_kept(),
            FailureEffect::RefusesStart => log::print_to_stderr(&failure.for_libvirt()),
        }
        Exit::after_failure(self.effect.get())
    }

    fn answer_by_operation(
        &self,
        host: &mut Host,
        known_uuid: &mut Option<GuestUuid>,
    ) -> Result<(), Failure> {
        let (event, deadline) = (self.event, self.watchdog.soft_end());
        let arrived = stdin::read(Deadline::after(event.operation.budget() / 3).earlier(deadline))
            .map_err(Failure::from_stdin)
            .and_then(|xml| Ok((Guest::parse(&xml).map_err(Failure::from_xml)?, xml)));
        let uuid = arrived.as_ref().ok().map(|(guest, _)| guest.uuid);
        log::open(&event.guest, uuid, Some(event.operation));
        log::set_level(lifecycle::log_level());
        self.watchdog.announce(deadline);
        let (guest, xml) = match arrived {
            Ok(arrived) => arrived,
            Err(failure) => return self.without_xml(host, failure, deadline),
        };
        *known_uuid = Some(guest.uuid);
        let (operation, reason) = (event.operation.as_str(), event.reason_in_words());
        if event.operation != Operation::Prepare {
            lifecycle::refresh_xml(host, guest.uuid, &xml)?;
        }
        let outcome = match event.operation {
            Operation::Prepare => {
                let loaded = lifecycle::load_config(host, &event.guest, &guest);
                if loaded.is_err() && lifecycle::is_in_wrong_group(host, &event.guest, &guest) {
                    self.may_refuse();
                }
                let loaded = loaded?;
                if loaded.is_some() {
                    self.may_refuse();
                }
                lifecycle::prepare(host, loaded.as_ref(), &guest, &xml, deadline)?
            }
            Operation::Start => {
                if lifecycle::has_lease(host, guest.uuid)? {
                    self.may_refuse();
                }
                let deadline = if lifecycle::has_commands(host, guest.uuid, Operation::Start)? {
                    self.watchdog.extend_to(Operation::Prepare)
                } else {
                    deadline
                };
                lifecycle::start(host, guest.uuid, deadline)?
            }
            Operation::Started | Operation::Reconnect => {
                // The guest runs: it is followed all the same.
                if let Err(error) = lifecycle::note_network_devices(host, &guest, deadline) {
                    crate::log::log_warning!(
                        "interrupts of devices that libvirt chose may stay with the host: {error}"
                    );
                }
                lifecycle::started(host, guest.uuid, event.operation, deadline)?
            }
            Operation::Stopped => lifecycle::stopped(host, guest.uuid, &reason, deadline)?,
            Operation::Release => lifecycle::release(host, guest.uuid, &reason, deadline)?,
            _ => return Ok(()),
        };
        lifecycle::report(operation, &outcome);
        Ok(())
    }

    /// The guest is configured, or holds something: from now on a failure refuses its start.
    fn may_refuse(&self) {
        self.effect.set(FailureEffect::RefusesStart);
        self.watchdog.may_refuse();
    }

    /// A guest whose XML cannot be read must not keep what it holds: its lease is looked for by name.
    fn without_xml(&self, host: &mut Host, failure: Failure, deadline: Deadline) -> Result<(), Failure> {
        let event = self.event;
        if event.operation != Operation::Release {
            return Err(failure);
        }
        crate::log::log_warning!("{}; looking for the lease by the guest's name", failure.message);
        let record = Ledger::peek(host).map_err(LifecycleError::from)?;
        let name = event.guest.to_string();
        let lease = record.map(|record| lifecycle::lease_by_name(&record, &name)).transpose()?;
        if let Some(uuid) = lease.flatten() {
            let outcome = lifecycle::release(host, uuid, &event.reason_in_words(), deadline)?;
            lifecycle::report(event.operation.as_str(), &outcome);
        }
        Ok(())
    }

    fn undo(&self, host: &mut Host, uuid: GuestUuid) -> AfterBug {
        if self.event.operation != Operation::Prepare {
            return AfterBug::NothingToUndo;
        }
        // The watchdog ends it at the end of the whole budget in any case.
        match lifecycle::release(host, uuid, "failed", Deadline::after(UNDO)) {
            Ok(outcome) if outcome.failures.is_empty() => AfterBug::GivenBack,
            Ok(_) | Err(_) => AfterBug::StillHeld,
        }
    }
}
