//! Why a guest's QEMU ends, as its monitor says: libvirt tells its hooks `shutdown` for a reboot too.
//!
//! For the keeper alone, never for a hook: libvirt waits for its hooks, and a hook that asks libvirt waits for ever.
//!
//! With `<on_reboot>destroy` QEMU ends instead of resetting the guest, and its event SHUTDOWN has the reason
//! (`ShutdownCause` in QEMU's `qapi/run-state.json`, since 4.0).

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::process::{ChildStdout, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Deserialize;

use super::HostError;
use super::children::OwnedChild;
use super::virsh::{Virsh, kill};
use crate::guest::GuestUuid;

/// The pause before `virsh` is started again: libvirt's daemon may be restarted just then.
const RETRY: Duration = Duration::from_secs(2);

/// The longest line that is read; those of this event have some 100 bytes and the guest's name.
const MAX_LINE: u64 = 16 * 1024;

/// The reader's stack: room for a line.
const STACK: usize = 256 * 1024;

/// How a guest comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestEnd {
    /// It is to be reset: it rebooted itself (`guest-reset`), or a person pressed its button
    /// (`host-qmp-system-reset`, `virsh reset`).
    Reset,
    /// It powered off (`guest-shutdown`).
    PowerOff,
    /// QEMU was told to quit, got a signal or failed, or the guest panicked.
    Killed,
    /// Nobody said why.
    Unknown,
}

/// Takes each end that is told.
pub type EndSink = Box<dyn FnMut(GuestEnd) + Send>;

/// Ends are told as long as it is there.
pub struct GuestEndWatch {
    follower: Option<Arc<Follower>>,
}

/// The part of the event that counts.
#[derive(Deserialize)]
struct Shutdown {
    reason: Option<String>,
    /// QEMU has said this much since 2.10.
    guest: bool,
}

impl GuestEnd {
    /// What QEMU's word for it means.
    fn from_reason(reason: &str) -> Self {
        match reason {
            "guest-reset" | "host-qmp-system-reset" => Self::Reset,
            "guest-shutdown" => Self::PowerOff,
            "host-qmp-quit" | "host-signal" | "host-ui" | "host-error" | "guest-panic" => Self::Killed,
            _ => Self::Unknown,
        }
    }

    /// How it ends, where this was said first and then the other. QEMU says it twice where it waits, after its guest's
    /// end, for libvirt to end it by a signal (`-no-shutdown`); a guest that powered off may be made to go on (`virsh
    /// reboot`).
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        match (self, next) {
            (Self::Reset | Self::PowerOff, Self::Killed) | (_, Self::Unknown) => self,
            (_, next) => next,
        }
    }

    /// What a line of `virsh qemu-monitor-event` says; none for a line without the event:
    /// `event SHUTDOWN at 1763737200.123456 for domain 'win11': {"guest":true,"reason":"guest-reset"}`.
    ///
    /// The guest's name may hold anything, a line break too: what QEMU says of its end comes last, and has no braces
    /// but its own.
    pub(super) fn from_line(line: &str) -> Option<Self> {
        let (_, details) = line.trim_end().rsplit_once(": {")?;
        let shutdown: Shutdown = serde_json::from_str(&format!("{{{details}")).ok()?;
        Some(match shutdown.reason {
            Some(reason) => Self::from_reason(&reason),
            None if shutdown.guest => Self::Unknown,
            None => Self::Killed,
        })
    }
}

impl fmt::Display for GuestEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reset => "reset",
            Self::PowerOff => "powered off",
            Self::Killed => "killed",
            Self::Unknown => "ended for an unknown reason",
        })
    }
}

impl GuestEndWatch {
    /// One for which nothing is told any more.
    pub(super) fn over() -> Self {
        Self { follower: None }
    }
}

impl fmt::Debug for GuestEndWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestEndWatch").field("is_over", &self.follower.is_none()).finish()
    }
}

impl Drop for GuestEndWatch {
    /// Kills `virsh`; the thread that reads it ends by that.
    fn drop(&mut self) {
        if let Some(follower) = &self.follower {
            follower.end();
        }
    }
}

/// Follows a guest's QEMU through `virsh`, in a thread of its own.
pub(super) fn follow(guest: GuestUuid, on_end: EndSink) -> Result<GuestEndWatch, HostError> {
    start(Virsh::find()?, guest, RETRY, on_end)
}

fn start(
    virsh: Virsh,
    guest: GuestUuid,
    retry: Duration,
    mut on_end: EndSink,
) -> Result<GuestEndWatch, HostError> {
    let follower =
        Arc::new(Follower { virsh, guest, retry, state: Mutex::default(), changed: Condvar::new() });
    let reader = Arc::clone(&follower);
    thread::Builder::new()
        .name("qemu-events".to_owned())
        .stack_size(STACK)
        .spawn(move || reader.read(&mut on_end))
        .map_err(|error| HostError::call("clone", &format!("the events of guest {guest}"), error))?;
    Ok(GuestEndWatch { follower: Some(follower) })
}

/// What the thread and its owner share.
struct Follower {
    virsh: Virsh,
    guest: GuestUuid,
    retry: Duration,
    state: Mutex<Following>,
    changed: Condvar,
}

#[derive(Default)]
struct Following {
    is_over: bool,
    virsh: Option<OwnedChild>,
}

impl Follower {
    /// Reads events until it is over.
    fn read(&self, on_end: &mut EndSink) {
        let mut is_told = false;
        while let Some(started) = self.start_virsh() {
            match started {
                Ok(output) => read_events(output, on_end),
                Err(error) => tracing::warn!("failed to run virsh: {error}"),
            }
            let child = self.lock().virsh.take();
            if let Some(child) = child {
                kill(child);
            }
            if !is_told && !self.lock().is_over {
                is_told = true;
                tracing::warn!("libvirt tells nothing of the guest's end now; it is asked again every 2 s");
            }
            self.pause();
        }
    }

    /// None when it is over.
    fn start_virsh(&self) -> Option<std::io::Result<ChildStdout>> {
        let mut state = self.lock();
        if state.is_over {
            return None;
        }
        let guest = self.guest.to_string();
        let mut command =
            self.virsh.command(&["qemu-monitor-event", "--domain", &guest, "--event", "SHUTDOWN", "--loop"]);
        let started = OwnedChild::spawn(command.stdout(Stdio::piped())).and_then(|mut child| {
            let output = child.take_stdout().ok_or(std::io::ErrorKind::BrokenPipe)?;
            state.virsh = Some(child);
            Ok(output)
        });
        Some(started)
    }

    fn pause(&self) {
        let state = self.lock();
        let wait = self.changed.wait_timeout_while(state, self.retry, |state| !state.is_over);
        drop(wait);
    }

    fn end(&self) {
        let mut state = self.lock();
        state.is_over = true;
        if let Some(child) = &state.virsh {
            child.signal_group(Signal::SIGKILL);
        }
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Following> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads until `virsh` ends, which it does when its connection is lost.
fn read_events(output: ChildStdout, on_end: &mut EndSink) {
    let mut output = BufReader::new(output);
    loop {
        let mut line = Vec::new();
        match output.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                if let Some(end) = GuestEnd::from_line(&String::from_utf8_lossy(&line)) {
                    on_end(end);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
