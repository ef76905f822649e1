//! The log of a hook call and of a keeper: the journal, or standard error where there is none.
//!
//! A line is handed to a thread of its own ([`writer`]) and never waited for: a journald that does not read delays
//! nothing. What the queue cannot hold is counted, and the next line that is written says how many were lost.

pub(crate) mod message_id;
pub(crate) mod say;
mod writer;

pub(crate) use say::{log_error, log_info, log_warning};

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tracing::{Event, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::deadline::Deadline;
use crate::event::Operation;
use crate::guest::{GuestName, GuestUuid};
use crate::host::{IDENTIFIER, write_to_stderr};
use crate::log_level::LogLevel;
use writer::{Journal, Line, Writer};

/// How long the end of a process may wait until its last lines are written.
const LAST_LINES: Duration = Duration::from_millis(20);

/// How long a text may take to get into standard error's pipe: libvirt reads it at once, a stopped reader never does.
const STDERR: Duration = Duration::from_millis(20);

/// The thread that writes; none before [`open`].
static WRITER: OnceLock<Writer> = OnceLock::new();

/// The least important lines that it gets; none before [`open`].
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Lines for standard error, kept until the call ends: the first line there is the reason of a refusal.
static KEPT: Mutex<String> = Mutex::new(String::new());

/// Opens the log; every line carries the guest's name and UUID, and libvirt's event, as fields of the names that commands
/// have them under in their environment. Waits for nothing.
pub(crate) fn open(guest: &GuestName, uuid: Option<GuestUuid>, event: Option<Operation>) {
    let subject = guest.to_string();
    let mut fields = vec![("VFIO_HOOK_GUEST", guest.to_string())];
    fields.extend(uuid.map(|uuid| ("VFIO_HOOK_UUID", uuid.to_string())));
    fields.extend(event.map(|event| ("VFIO_HOOK_EVENT", event.as_str().to_owned())));
    // Connecting says something to journald: it may hang as any other line may.
    let connect = move || {
        let journal = tracing_journald::layer().ok()?;
        let journal = journal.with_syslog_identifier(IDENTIFIER.to_owned());
        // As `journalctl -p` names them; the crate's own are one higher for `info` and `debug`.
        let journal = journal.with_priority_mappings(PriorityMappings {
            info: Priority::Informational,
            debug: Priority::Debug,
            ..PriorityMappings::new()
        });
        Some(Journal::new(journal.with_field_prefix(None).with_custom_fields(fields), subject))
    };
    if WRITER.set(Writer::start(connect, keep)).is_ok() {
        let (level, handle) = reload::Layer::new(LevelFilter::INFO);
        let _ = LEVEL.set(handle);
        let _ = tracing_subscriber::registry().with(ToWriter.with_filter(level)).try_init();
    }
}

/// Has the log take more lines, or fewer.
pub(crate) fn set_level(level: LogLevel) {
    let filter = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    if let Some(handle) = LEVEL.get() {
        // Only a subscriber that is gone refuses.
        let _ = handle.reload(filter);
    }
}

/// Has a person's command say on standard error what it does, details too.
pub(crate) fn open_for_a_person() {
    let _ = tracing_subscriber::registry().with(ToStderr.with_filter(LevelFilter::DEBUG)).try_init();
}

/// Has the log say this at that moment, if the process still runs then: what ends it may be unable to.
pub(crate) fn announce_at(moment: Deadline, text: String) {
    if let Some(writer) = WRITER.get() {
        writer.announce_at(moment, text);
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

/// Prints every event of this program's on standard error at once.
struct ToStderr;

impl<S: Subscriber> Layer<S> for ToStderr {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let is_own = event.metadata().target().starts_with(env!("CARGO_CRATE_NAME"));
        if is_own {
            let line = Line::of(event);
            print_to_stderr(&format!("{}: {}\n", line.level(), line.message()));
        }
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
        let is_own = event.metadata().target().starts_with(env!("CARGO_CRATE_NAME"));
        if !is_own {
            return;
        }
        let Some(writer) = WRITER.get() else { return };
        writer.write(Line::of(event));
    }
}
