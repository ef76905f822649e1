//! The log of a hook call: the journal, or standard error where there is none.

use std::io::{self, Write};

use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::guest::{GuestName, GuestUuid};

/// The name under which the journal files every line, whatever the hook is installed as.
pub const IDENTIFIER: &str = "vfio-hook";

/// Opens the log; every line carries the guest's name and UUID as fields.
pub(super) fn open(guest: &GuestName, uuid: Option<GuestUuid>) {
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
            let stderr = tracing_subscriber::fmt::layer()
                .with_writer(|| Unbroken)
                .with_ansi(false)
                .without_time()
                .with_target(false)
                .log_internal_errors(false);
            let _ = tracing_subscriber::registry().with(stderr.with_filter(level)).try_init();
        }
    }
}

/// Standard error whose reader may be gone: libvirtd gives up on a hook 30 s after it was told to exit.
pub(super) struct Unbroken;

impl Write for Unbroken {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
