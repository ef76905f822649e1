//! The log of a hook call and of a keeper: the journal, or standard error where there is none.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::guest::{GuestName, GuestUuid};
use crate::ledger::{NoteLevel, Outcome};

/// The name under which the journal files every line, whatever the hook is installed as.
pub const IDENTIFIER: &str = "vfio-hook";

/// Lines for standard error, kept until the call ends: the first line there is the reason of a refusal.
static KEPT: Mutex<String> = Mutex::new(String::new());

/// Opens the log; every line carries the guest's name and UUID as fields.
pub(crate) fn open(guest: &GuestName, uuid: Option<GuestUuid>) {
    let level = tracing_subscriber::filter::LevelFilter::INFO;
    match tracing_journald::layer() {
        Ok(journal) => {
            let uuid = uuid.map(|uuid| uuid.to_string()).unwrap_or_default();
            let fields = [("VFIO_HOOK_GUEST", guest.to_string()), ("VFIO_HOOK_GUEST_UUID", uuid)];
            let journal = journal
                .with_syslog_identifier(IDENTIFIER.to_owned())
                .with_field_prefix(None)
                .with_custom_fields(fields);
            let _ = tracing_subscriber::registry().with(journal.with_filter(level)).try_init();
        }
        Err(_) => {
            let _ = tracing_subscriber::registry().with(KeptLines.with_filter(level)).try_init();
        }
    }
}

/// One entry in the journal for all changes of an event.
pub(crate) fn report(event: &str, outcome: &Outcome) {
    for note in &outcome.notes {
        match note.level {
            NoteLevel::Info => tracing::info!("{}", note.text),
            NoteLevel::Warning => tracing::warn!("{}", note.text),
        }
    }
    for failure in &outcome.failures {
        tracing::error!("{failure}");
    }
    if !outcome.changes.is_empty() {
        let changes: String = outcome.changes.iter().map(|change| format!("\n  {change}")).collect();
        tracing::info!("{event}: {} changes{changes}", outcome.changes.len());
    }
}

/// Prints what was logged, where there is no journal. For a call that did not refuse: there libvirt shows nothing of
/// it.
pub(crate) fn print_kept() {
    let kept = std::mem::take(&mut *KEPT.lock().unwrap_or_else(PoisonError::into_inner));
    print_to_stderr(&kept);
}

/// Prints to standard error. Its reader may be gone, as libvirtd gives up on a hook 30 s after it was told to exit:
/// that is no error, and above all no panic.
pub(crate) fn print_to_stderr(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

struct KeptLines;

impl<S: Subscriber> Layer<S> for KeptLines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut line = Line(format!("{IDENTIFIER}: {}: ", event.metadata().level().as_str().to_lowercase()));
        event.record(&mut line);
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_str(&line.0);
        kept.push('\n');
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}
