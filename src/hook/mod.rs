//! A call by libvirt: from its arguments to the exit status.

mod stdin;
mod watchdog;

use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use nix::sys::prctl;
use nix::unistd::geteuid;

use crate::deadline::Deadline;
use crate::event::{Event, FailureEffect, Operation};
use crate::exit::Exit;
use crate::guest::{Guest, GuestError, GuestUuid};
use crate::host::{Host, STATE_DIR};
use crate::ledger::{FILE, Ledger};
use crate::lifecycle::{self, LifecycleError};
use crate::log;

pub use crate::log::IDENTIFIER;

/// The most that is written to standard error: libvirt keeps all of it, and shows it to the person who typed
/// `virsh start`.
const MAX_MESSAGE: usize = 2048;

/// Answers a call by libvirt. The arguments are those after the program's name.
///
/// Whatever happens, standard output stays empty, and only `prepare` and `start` can end with anything but success.
#[must_use]
pub fn run(arguments: &[OsString]) -> Exit {
    let Some(event) = Event::from_arguments(arguments) else { return Exit::Done };
    if !concerns_us(event.operation) || !geteuid().is_root() {
        return Exit::Done;
    }
    let mut host = Host::real();
    if !has_work(&host, &event) {
        return Exit::Done;
    }
    // Where transparent huge pages are always on, every stack and heap would take 2 MiB, and the time to clear them.
    let _ = prctl::set_thp_disable(true);
    watchdog::start(event.operation);
    answer(&mut host, &event)
}

/// `migrate` and `restore` carry passwords and must neither fail nor print: they are not even looked at.
fn concerns_us(operation: Operation) -> bool {
    match operation {
        Operation::Prepare
        | Operation::Start
        | Operation::Started
        | Operation::Stopped
        | Operation::Release
        | Operation::Reconnect => true,
        Operation::Migrate | Operation::Restore | Operation::Attach | Operation::Unknown => false,
    }
}

/// Whether this guest has a file, or anybody a lease: two look-ups, for every guest on every host.
fn has_work(host: &Host, event: &Event) -> bool {
    let has_ledger = || host.is_present(Path::new(STATE_DIR).join(FILE));
    has_ledger() || (event.operation == Operation::Prepare && has_config(host, event))
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

fn answer(host: &mut Host, event: &Event) -> Exit {
    // The default hook prints to standard error, and would panic again if nobody reads that.
    panic::set_hook(Box::new(|panic| tracing::error!("bug: {panic}")));
    let mut uuid = None;
    let answered = panic::catch_unwind(AssertUnwindSafe(|| answer_by_operation(host, event, &mut uuid)));
    let error = match answered {
        Ok(Ok(())) => {
            log::print_kept();
            return Exit::Done;
        }
        Ok(Err(failure)) => failure,
        Err(_) => {
            // The ledger holds what was begun; undoing it is what the next event would do.
            let undone = uuid.map(|uuid| panic::catch_unwind(AssertUnwindSafe(|| undo(host, event, uuid))));
            let state = match undone {
                Some(Ok(true)) => "; what it had changed is given back",
                _ => "",
            };
            Failure {
                message: format!("a bug in vfio-hook ended {}{state}", event.operation.as_str()),
                help: Some("`journalctl -t vfio-hook` has the details; please report them".to_owned()),
            }
        }
    };
    tracing::error!("{} failed: {}", event.operation.as_str(), error.message);
    match failure_effect(host, event) {
        FailureEffect::MustNotHappen => {
            log::print_kept();
            Exit::Done
        }
        FailureEffect::RefusesStart => {
            log::print_to_stderr(&error.for_libvirt());
            Exit::Failed
        }
    }
}

fn answer_by_operation(
    host: &mut Host,
    event: &Event,
    known_uuid: &mut Option<GuestUuid>,
) -> Result<(), Failure> {
    let deadline = Deadline::after(watchdog::soft_budget(event.operation));
    let arrived = stdin::read(deadline)
        .map_err(Failure::from_stdin)
        .and_then(|xml| Ok((Guest::parse(&xml).map_err(Failure::from_xml)?, xml)));
    let (guest, xml) = match arrived {
        Ok(arrived) => arrived,
        Err(failure) => {
            log::open(&event.guest, None);
            return without_xml(host, event, failure, deadline);
        }
    };
    log::open(&event.guest, Some(guest.uuid));
    *known_uuid = Some(guest.uuid);
    let (operation, reason) = (event.operation.as_str(), event.reason_in_words());
    if event.operation != Operation::Prepare {
        lifecycle::refresh_xml(host, guest.uuid, &xml)?;
    }
    match event.operation {
        Operation::Prepare => {
            let loaded = lifecycle::load_config(host, &event.guest)?;
            log::report(operation, &lifecycle::prepare(host, loaded.as_ref(), &guest, &xml, deadline)?);
        }
        Operation::Start => {
            let deadline = if lifecycle::has_commands(host, guest.uuid, Operation::Start)? {
                Deadline::after(watchdog::extend_to(Operation::Prepare))
            } else {
                deadline
            };
            log::report(operation, &lifecycle::start(host, guest.uuid, deadline)?);
        }
        Operation::Started | Operation::Reconnect => {
            log::report(operation, &lifecycle::started(host, guest.uuid, event.operation, deadline)?);
        }
        Operation::Stopped => {
            log::report(operation, &lifecycle::stopped(host, guest.uuid, &reason, deadline)?)
        }
        Operation::Release => {
            log::report(operation, &lifecycle::release(host, guest.uuid, &reason, deadline)?)
        }
        _ => {}
    }
    Ok(())
}

/// A guest whose XML cannot be read must not keep what it holds: its lease is looked for by name.
fn without_xml(host: &mut Host, event: &Event, failure: Failure, deadline: Deadline) -> Result<(), Failure> {
    let operation = event.operation.as_str();
    if event.operation == Operation::Release {
        tracing::warn!("{}; looking for the lease by the guest's name", failure.message);
        let record = Ledger::peek(host).map_err(LifecycleError::from)?;
        let name = event.guest.to_string();
        let lease = record.map(|record| lifecycle::lease_by_name(&record, &name)).transpose()?;
        if let Some(uuid) = lease.flatten() {
            log::report(operation, &lifecycle::release(host, uuid, &event.reason_in_words(), deadline)?);
        }
        return Ok(());
    }
    Err(failure)
}

fn undo(host: &mut Host, event: &Event, uuid: GuestUuid) -> bool {
    if event.operation != Operation::Prepare {
        return false;
    }
    let deadline = Deadline::after(watchdog::soft_budget(Operation::Release));
    lifecycle::release(host, uuid, "failed", deadline).is_ok_and(|outcome| outcome.failures.is_empty())
}

/// What is told to whoever started the guest.
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
