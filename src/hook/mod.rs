//! A call by libvirt: from its arguments to the exit status.

mod log;
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
use crate::ledger::{FILE, Ledger, Note, NoteLevel, Outcome};
use crate::lifecycle::{self, LifecycleError};

pub use log::IDENTIFIER;

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
        | Operation::Release
        | Operation::Reconnect => true,
        // At `stopped` the guest's devices are still libvirt's, and pages and CPUs come back with `release`.
        Operation::Stopped => false,
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

/// What a failure does to the guest: one without a file is never refused, whatever state other guests left the ledger in.
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
    let guest = match stdin::read(deadline)
        .map_err(Failure::from_stdin)
        .and_then(|xml| Guest::parse(&xml).map_err(Failure::from_xml))
    {
        Ok(guest) => guest,
        Err(failure) => {
            log::open(&event.guest, None);
            return without_xml(host, event, failure, deadline);
        }
    };
    log::open(&event.guest, Some(guest.uuid));
    *known_uuid = Some(guest.uuid);
    match event.operation {
        Operation::Prepare => {
            let loaded = lifecycle::load_config(host, &event.guest)?;
            let outcome = lifecycle::prepare(host, loaded.as_ref(), &guest, deadline)?;
            report(event, &outcome);
        }
        Operation::Start => lifecycle::start(host, guest.uuid)?,
        Operation::Started | Operation::Reconnect => {
            report_notes(&lifecycle::started(host, guest.uuid, deadline)?);
        }
        Operation::Release => report(event, &lifecycle::release(host, guest.uuid, deadline)?),
        _ => {}
    }
    Ok(())
}

/// A guest whose XML cannot be read must not keep what it holds: its lease is looked for by name.
fn without_xml(host: &mut Host, event: &Event, failure: Failure, deadline: Deadline) -> Result<(), Failure> {
    if event.operation == Operation::Release {
        tracing::warn!("{}; looking for the lease by the guest's name", failure.message);
        let record = Ledger::peek(host).map_err(LifecycleError::from)?;
        let name = event.guest.to_string();
        if let Some(uuid) = record.and_then(|record| lifecycle::lease_by_name(&record, &name)) {
            report(event, &lifecycle::release(host, uuid, deadline)?);
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
    lifecycle::release(host, uuid, deadline).is_ok_and(|outcome| outcome.failures.is_empty())
}

/// One entry in the journal for all changes of an event.
fn report(event: &Event, outcome: &Outcome) {
    report_notes(&outcome.notes);
    for failure in &outcome.failures {
        tracing::error!("{failure}");
    }
    if !outcome.changes.is_empty() {
        let operation = event.operation.as_str();
        let changes: String = outcome.changes.iter().map(|change| format!("\n  {change}")).collect();
        tracing::info!("{operation}: {} changes{changes}", outcome.changes.len());
    }
}

fn report_notes(notes: &[Note]) {
    for note in notes {
        match note.level {
            NoteLevel::Info => tracing::info!("{}", note.text),
            NoteLevel::Warning => tracing::warn!("{}", note.text),
        }
    }
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
