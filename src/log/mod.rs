//! The log of a hook call and of a keeper: the journal, or standard error where there is none.
//!
//! A line is handed to a thread of its own ([`writer`]) and never waited for: a journald that does not read delays
//! nothing. What the queue cannot hold is counted, and the next line that is written says how many were lost.

mod writer;

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::deadline::Deadline;
use crate::guest::{GuestName, GuestUuid};
use crate::host::write_to_stderr;
use crate::ledger::{NoteLevel, Outcome};
use writer::{Journal, Line, Writer};

/// The name under which the journal files every line, whatever the hook is installed as.
pub const IDENTIFIER: &str = "vfio-hook";

/// How long the end of a process may wait until its last lines are written.
const LAST_LINES: Duration = Duration::from_millis(20);

/// How long a text may take to get into standard error's pipe: libvirt reads it at once, a stopped reader never does.
const STDERR: Duration = Duration::from_millis(20);

/// The thread that writes; none before [`open`].
static WRITER: OnceLock<Writer> = OnceLock::new();

/// Lines for standard error, kept until the call ends: the first line there is the reason of a refusal.
static KEPT: Mutex<String> = Mutex::new(String::new());

/// Opens the log; every line carries the guest's name and UUID as fields. Waits for nothing.
pub(crate) fn open(guest: &GuestName, uuid: Option<GuestUuid>) {
    let fields = vec![
        ("VFIO_HOOK_GUEST", guest.to_string()),
        ("VFIO_HOOK_GUEST_UUID", uuid.map(|uuid| uuid.to_string()).unwrap_or_default()),
    ];
    // Connecting says something to journald: it may hang as any other line may.
    let connect = move || {
        let journal = tracing_journald::layer().ok()?;
        let journal = journal.with_syslog_identifier(IDENTIFIER.to_owned());
        Some(Journal::new(journal.with_field_prefix(None).with_custom_fields(fields)))
    };
    if WRITER.set(Writer::start(connect, keep)).is_ok() {
        let _ = tracing_subscriber::registry().with(ToWriter.with_filter(LevelFilter::INFO)).try_init();
    }
}

/// Has the log say this at that moment, if the process still runs then: what ends it may be unable to.
pub(crate) fn announce_at(moment: Deadline, text: String) {
    if let Some(writer) = WRITER.get() {
        writer.announce_at(moment, text);
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

/// Waits until all lines are written, but for 20 ms at most.
pub(crate) fn flush() {
    flush_until(Deadline::after(LAST_LINES));
}

/// The same with another end, for a process that has nothing else to do.
pub(crate) fn flush_until(deadline: Deadline) {
    if let Some(writer) = WRITER.get() {
        writer.flush(deadline);
    }
}

/// Prints what was logged, where there is no journal. For a call that did not refuse: there libvirt shows nothing of
/// it.
pub(crate) fn print_kept() {
    let kept = std::mem::take(&mut *KEPT.lock().unwrap_or_else(PoisonError::into_inner));
    print_to_stderr(&kept);
}

/// Prints to standard error. Its reader may be gone, as libvirtd gives up on a hook 30 s after it was told to exit, or
/// may not read: neither is an error, and above all no panic and no wait.
pub(crate) fn print_to_stderr(text: &str) {
    if !text.is_empty() {
        write_to_stderr(text.as_bytes(), Deadline::after(STDERR));
    }
}

/// Keeps a line for standard error.
fn keep(line: &Line) {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.push_str(&format!("{IDENTIFIER}: {}: {}\n", line.level(), line.message()));
}

/// Hands every event to the thread that writes.
struct ToWriter;

impl<S: Subscriber> Layer<S> for ToWriter {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let Some(writer) = WRITER.get() else { return };
        writer.write(Line::of(event));
    }
}
