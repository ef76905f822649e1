//! What shows pictures on a card, and how it lets go: sessions and their display manager, text consoles, the
//! framebuffer of the firmware.

mod drm_card;
mod firmware_framebuffer;
mod framebuffers;
mod sessions;
#[cfg(test)]
mod tests;
mod vtconsole;

use std::io;
use std::path::Path;

pub use drm_card::{ConnectorActivity, ConnectorStatus, DrmCard, DrmConnector};
pub use firmware_framebuffer::{FirmwareFramebuffer, FramebufferDriver};
pub use sessions::{LoginSession, SessionActivity, SessionClass, SessionId, SessionType};
pub use vtconsole::ConsoleBinding;

use super::bounded::Bounded;
use super::{Host, HostError};
use crate::deadline::Deadline;

impl Host {
    /// Writes to a driver, which may take long or never come back.
    fn write_in_time(&mut self, path: &Path, value: &str, deadline: Deadline) -> Result<(), HostError> {
        let failed = |kind, reason: &str| Err(HostError::write(path, value, io::Error::new(kind, reason)));
        match self.write_bounded(path, value, deadline)? {
            Bounded::Done => Ok(()),
            Bounded::Refused if !self.is_present(path) => failed(io::ErrorKind::NotFound, "it is not there"),
            Bounded::Refused => failed(io::ErrorKind::Other, "the kernel refuses"),
            Bounded::TimedOut => failed(io::ErrorKind::TimedOut, "the kernel has not come back in time"),
        }
    }
}
