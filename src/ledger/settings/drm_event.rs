//! What udev, and so each desktop that follows it, was told last of a card's display.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::deadline::Deadline;
use crate::host::{DrmEvent, Host, HostError};
use crate::ledger::rule::SameForAll;
use crate::ledger::setting::{Absence, Place, ReadBack, Setting, Traits};
use crate::pci::PciAddress;

/// The last event about the display of a function.
///
/// The kernel keeps no word of it, and udev hears it later: what was last written counts, and one that may have been sent
/// before a process was killed is taken back all the same. An `add` for what is there already changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LastDrmEvent(pub PciAddress);

impl fmt::Display for LastDrmEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "last udev event of the display {}", self.0)
    }
}

impl Setting for LastDrmEvent {
    type Value = DrmEvent;
    type Want = DrmEvent;
    type Rule = SameForAll;

    fn place(&self) -> Place {
        Place::DrmEvents
    }

    /// It is gone with the driver that made the display. The next driver makes another display, of which the kernel tells
    /// by itself: nothing is left to be said.
    fn traits(&self) -> Traits {
        Traits { read_back: ReadBack::Later, absence: Absence::Expected, ..Traits::of_card() }
    }

    fn read(&self, host: &Host, _deadline: Deadline) -> Result<DrmEvent, HostError> {
        host.drm_event(self.0)
    }

    fn write(&self, host: &mut Host, event: &DrmEvent, deadline: Deadline) -> Result<(), HostError> {
        host.send_drm_event(self.0, *event, deadline)
    }
}
