//! A call by libvirt: from its arguments to the exit status.

mod stdin;
mod watchdog;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use nix::sys::prctl;
use nix::unistd::geteuid;

use crate::deadline::Deadline;
use crate::event::{Event, FailureEffect, Operation};
use crate::exit::Exit;
use crate::guest::{Guest, GuestError, GuestUuid};
use crate::host::{Host, apart, block_signals};
use crate::ledger::{LEDGER_PATH, Ledger};
use crate::lifecycle::{self, LifecycleError};
use crate::log;

use watchdog::Watchdog;

pub use crate::log::IDENTIFIER;

/// The most that is written to standard error: libvirt keeps all of it, and shows it to the person who typed
/// `virsh start`.
const MAX_MESSAGE: usize = 2048;

/// Answers a call by libvirt. The arguments are those after the program's name.
///
/// Whatever happens, standard output stays empty, and only `prepare` and `start` can end with anything but success.
#[must_use]
pub fn run(arguments: &[OsString]) -> Exit {
    match arguments.get(1).map(|operation| Operation::from_bytes(operation.as_bytes())) {
        Some(Operation::Started | Operation::Reconnect) => {
            answer_apart(arguments);
            Exit::Done
        }
        Some(Operation::Prepare | Operation::Start | Operation::Stopped | Operation::Release) => {
            answer_here(arguments)
        }
        // `migrate` and `restore` carry passwords and must neither fail nor print: they are not even looked at.
        Some(Operation::Migrate | Operation::Restore | Operation::Attach | Operation::Unknown) | None => {
            Exit::Done
        }
    }
}

/// Answers a call at which libvirt kills the running guest if it fails. A child does the work; whatever becomes of it
/// (memory, signals, limits), this process ends with success. It allocates nothing, so that it cannot fail itself.
fn answer_apart(arguments: &[OsString]) {
    block_signals();
    // Short paths are looked up without an allocation, and no guest is asked about that has nothing here.
    if !geteuid().is_root() || !Path::new(LEDGER_PATH).exists() {
        return;
    }
    apart(Operation::Started.budget(), || answer_here(arguments));
}

fn answer_here(arguments: &[OsString]) -> Exit {
    let Some(event) = Event::from_arguments(arguments) else { return Exit::Done };
    if !geteuid().is_root() {
        return Exit::Done;
    }
    let mut host = Host::real();
    if !has_work(&host, &event) {
        return Exit::Done;
    }
    // Where transparent huge pages are always on, every stack and heap would take 2 MiB, and the time to clear them.
    let _ = prctl::set_thp_disable(true);
    let effect = failure_effect(&host, &event);
    let call = Call { event: &event, effect, watchdog: Watchdog::start(event.operation, effect) };
    call.answer(&mut host)
}

/// Whether this guest has a file, or anybody a lease: two look-ups, for every guest on every host.
fn has_work(host: &Host, event: &Event) -> bool {
    host.is_present(LEDGER_PATH) || (event.operation == Operation::Prepare && has_config(host, event))
}

fn has_config(host: &Host, event: &Event) -> bool {
    lifecycle::config_path(&event.guest).is_some_and(|path| host.is_present(path))
}

/// What a failure does to the guest: one without a file is never refused, whatever state other guests left the ledger
/// in.
fn failure_effect(host: &Host, event: &Event) -> FailureEffect {
    match event.operation.failure_effect() {
        FailureEffect::RefusesStart if has_config(host, event) => FailureEffect::RefusesStart,
        _ => FailureEffect::MustNotHappen,
    }
}

/// A call, and what hangs on it.
struct Call<'a> {
    event: &'a Event,
    /// What a failure does to this guest.
    effect: FailureEffect,
    watchdog: Watchdog,
}

impl Call<'_> {
    fn answer(&self, host: &mut Host) -> Exit {
        // The default hook prints to standard error, and would panic again if nobody reads that.
        panic::set_hook(Box::new(|panic| tracing::error!("bug: {panic}")));
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
                let state = match undone {
                    Some(Ok(true)) => "; what it had changed is given back",
                    _ => "",
                };
                Failure {
                    message: format!("a bug in vfio-hook ended {operation}{state}"),
                    help: Some("`journalctl -t vfio-hook` has the details; please report them".to_owned()),
                }
            }
        };
        tracing::error!("{operation} failed: {}", failure.message);
        log::flush();
        match self.effect {
            FailureEffect::MustNotHappen => log::print_kept(),
            FailureEffect::RefusesStart => log::print_to_stderr(&failure.for_libvirt()),
        }
        Exit::after_failure(self.effect)
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
        log::open(&event.guest, arrived.as_ref().ok().map(|(guest, _)| guest.uuid));
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
                let loaded = lifecycle::load_config(host, &event.guest)?;
                lifecycle::prepare(host, loaded.as_ref(), &guest, &xml, deadline)?
            }
            Operation::Start => {
                let deadline = if lifecycle::has_commands(host, guest.uuid, Operation::Start)? {
                    self.watchdog.extend_to(Operation::Prepare)
                } else {
                    deadline
                };
                lifecycle::start(host, guest.uuid, deadline)?
            }
            Operation::Started | Operation::Reconnect => {
                lifecycle::started(host, guest.uuid, event.operation, deadline)?
            }
            Operation::Stopped => lifecycle::stopped(host, guest.uuid, &reason, deadline)?,
            Operation::Release => lifecycle::release(host, guest.uuid, &reason, deadline)?,
            _ => return Ok(()),
        };
        log::report(operation, &outcome);
        Ok(())
    }

    /// A guest whose XML cannot be read must not keep what it holds: its lease is looked for by name.
    fn without_xml(&self, host: &mut Host, failure: Failure, deadline: Deadline) -> Result<(), Failure> {
        let event = self.event;
        if event.operation != Operation::Release {
            return Err(failure);
        }
        tracing::warn!("{}; looking for the lease by the guest's name", failure.message);
        let record = Ledger::peek(host).map_err(LifecycleError::from)?;
        let name = event.guest.to_string();
        if let Some(uuid) = record.and_then(|record| lifecycle::lease_by_name(&record, &name)) {
            let outcome = lifecycle::release(host, uuid, &event.reason_in_words(), deadline)?;
            log::report(event.operation.as_str(), &outcome);
        }
        Ok(())
    }

    fn undo(&self, host: &mut Host, uuid: GuestUuid) -> bool {
        if self.event.operation != Operation::Prepare {
            return false;
        }
        let deadline = Deadline::after(watchdog::soft_budget(Operation::Release));
        lifecycle::release(host, uuid, "failed", deadline).is_ok_and(|outcome| outcome.failures.is_empty())
    }
}

/// What the person who started the guest is told.
struct Failure {
    message: String,
    help: Option<String>,
}

impl Failure {
    fn from_stdin(error: std::io::Error) -> Self {
        Self { message: format!("failed to read the guest's XML from standard input: {error}"), help: None }
    }

    fn from_xml(error: GuestError) -> Self {
        Self { message: error.to_string(), help: Some("`virsh edit` shows the guest's XML".to_owned()) }
    }

    fn for_libvirt(&self) -> String {
        let mut text = self.message.clone();
        if let Some(help) = &self.help {
            text.push_str("\nhelp: ");
            text.push_str(help);
        }
        if text.len() >= MAX_MESSAGE {
            let most = MAX_MESSAGE - "…\n".len();
            text.truncate((0..=most).rfind(|end| text.is_char_boundary(*end)).unwrap_or(0));
            text.push('…');
        }
        text.push('\n');
        text
    }
}

impl From<LifecycleError> for Failure {
    fn from(error: LifecycleError) -> Self {
        Self { message: error.to_string(), help: error.help() }
    }
}
