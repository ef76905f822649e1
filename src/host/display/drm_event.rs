//! Uevents about a card's display that say what did not happen: desktops that follow udev let go of a card that it reports
//! removed, and open it again when it is added.

use std::fmt;
use std::str::FromStr;

use crate::deadline::Deadline;
use crate::host::{Host, HostError};
use crate::pci::PciAddress;
use crate::serde_as_text::serde_as_text;

/// The action of a uevent, as a node's `uevent` takes it (`Documentation/ABI/testing/sysfs-uevent`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrmEvent {
    /// The card is there.
    Add,
    /// It is gone.
    Remove,
}

impl DrmEvent {
    /// The kernel's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Remove => "remove",
        }
    }
}

impl fmt::Display for DrmEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DrmEvent {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "add" => Ok(Self::Add),
            "remove" => Ok(Self::Remove),
            other => Err(format!("`{other}` is neither add nor remove")),
        }
    }
}

serde_as_text!(DrmEvent);

impl Host {
    /// What the kernel itself said last of a function's display: `add`, when its driver made the node. It keeps no word
    /// of what others had it say.
    ///
    /// # Errors
    /// The function has no display of a driver's ([`HostError::is_absent`]); sysfs cannot be read.
    pub fn drm_event(&self, function: PciAddress) -> Result<DrmEvent, HostError> {
        match self.drm_cards_of(function)?.is_empty() {
            true => Err(HostError::gone(format!("no driver of the host has a display on {function}"))),
            false => Ok(DrmEvent::Add),
        }
    }

    /// Has the kernel tell udev that a function's display is there, or gone; nothing happens to it. Where there is none,
    /// there is nothing to tell: the driver that makes one says so itself.
    ///
    /// Only `/dev/dri/cardN` is told of: desktops look at these, and find the node to render with by them.
    ///
    /// # Errors
    /// The kernel refuses it; it takes too long.
    pub fn send_drm_event(
        &mut self,
        function: PciAddress,
        event: DrmEvent,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        let Some(folder) = self.pci_folder(function)? else { return Ok(()) };
        for card in self.drm_cards_of(function)? {
            let path = folder.join(format!("drm/{card}/uevent"));
            self.write_bounded(&path, event.as_str(), deadline)?;
        }
        Ok(())
    }
}
