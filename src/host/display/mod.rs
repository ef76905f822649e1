//! What shows pictures on a card, and how it lets go: sessions and their display manager, desktops that follow udev, text
//! consoles, the framebuffer of the firmware.

mod drm_card;
mod drm_event;
mod firmware_framebuffer;
mod framebuffers;
mod sessions;
#[cfg(test)]
mod tests;
mod vtconsole;

pub use drm_card::{ConnectorActivity, ConnectorStatus, DrmCard, DrmConnector};
pub use drm_event::DrmEvent;
pub use firmware_framebuffer::{FirmwareFramebuffer, FramebufferDriver};
pub use sessions::{LoginSession, SessionActivity, SessionClass, SessionId, SessionType};
pub use vtconsole::ConsoleBinding;
