//! What a card needs before a guest can have it: nothing on it, and other drivers.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{OrNone, WordList};
use crate::deadline::Deadline;
use crate::host::{Bindings, ConsoleBinding, FirmwareFramebuffer, FramebufferDriver, Host, HostError};
use crate::ledger::rule::{Emptied, OneOwner, SameForAll};
use crate::ledger::setting::{Afterwards, Place, Setting, Traits, Writes};
use crate::pci::PciFunctions;

/// The sessions with a desktop on the host's own seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GraphicalSessions;

/// The programs that use a card.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CardUsers(pub PciFunctions);

/// What has to go for a guest, and does not come back by itself.
const EMPTIED: Traits = Traits { afterwards: Afterwards::Nothing, ..Traits::of_card() };

impl fmt::Display for GraphicalSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("desktops")
    }
}

impl Setting for GraphicalSessions {
    type Value = WordList;
    type Want = WordList;
    type Rule = Emptied;

    fn place(&self) -> Place {
        Place::Desktops
    }

    fn traits(&self) -> Traits {
        EMPTIED
    }

    fn read(&self, host: &Host, deadline: Deadline) -> Result<WordList, HostError> {
        Ok(host.graphical_sessions(deadline)?.iter().collect())
    }

    fn write(&self, host: &mut Host, _none: &WordList, deadline: Deadline) -> Result<(), HostError> {
        host.end_graphical_sessions(deadline)
    }

    fn first_baseline(_now: &WordList) -> WordList {
        WordList::default()
    }
}

impl fmt::Display for CardUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "users of {}", self.0)
    }
}

impl Setting for CardUsers {
    type Value = WordList;
    type Want = WordList;
    type Rule = Emptied;

    fn place(&self) -> Place {
        Place::CardUsers
    }

    fn traits(&self) -> Traits {
        EMPTIED
    }

    fn read(&self, host: &Host, deadline: Deadline) -> Result<WordList, HostError> {
        Ok(host.holders_of(self.0.as_slice(), deadline)?.iter().collect())
    }

    fn write(&self, host: &mut Host, _none: &WordList, deadline: Deadline) -> Result<(), HostError> {
        host.wait_until_unused(self.0.as_slice(), deadline)
    }

    fn first_baseline(_now: &WordList) -> WordList {
        WordList::default()
    }
}

/// Whether a virtual console is shown by a framebuffer, by the number of its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TextConsole(pub u32);

impl fmt::Display for TextConsole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text console vtcon{}", self.0)
    }
}

impl Setting for TextConsole {
    type Value = ConsoleBinding;
    type Want = ConsoleBinding;
    type Rule = SameForAll;

    fn place(&self) -> Place {
        Place::TextConsoles
    }

    fn traits(&self) -> Traits {
        Traits::of_card()
    }

    fn read(&self, host: &Host, _deadline: Deadline) -> Result<ConsoleBinding, HostError> {
        host.vtconsole_bind(self.0)
    }

    fn write(&self, host: &mut Host, binding: &ConsoleBinding, deadline: Deadline) -> Result<(), HostError> {
        host.set_vtconsole_bind(self.0, *binding, deadline)
    }
}

/// The driver of the framebuffer that the firmware set up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FirmwareFramebufferDriver(pub FirmwareFramebuffer);

impl fmt::Display for FirmwareFramebufferDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "driver of {}", self.0)
    }
}

impl Setting for FirmwareFramebufferDriver {
    type Value = OrNone<FramebufferDriver>;
    type Want = OrNone<FramebufferDriver>;
    type Rule = SameForAll;

    fn place(&self) -> Place {
        Place::Framebuffers
    }

    fn traits(&self) -> Traits {
        Traits::of_card()
    }

    fn read(&self, host: &Host, _deadline: Deadline) -> Result<OrNone<FramebufferDriver>, HostError> {
        host.firmware_framebuffer_driver(&self.0).map(OrNone)
    }

    fn write(
        &self,
        host: &mut Host,
        driver: &OrNone<FramebufferDriver>,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        host.set_firmware_framebuffer_driver(&self.0, driver.0.as_ref(), deadline)
    }
}

/// The drivers of functions that are handed over together, and the sizes of their BARs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PciBindings(pub PciFunctions);

impl fmt::Display for PciBindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "driver of {}", self.0)
    }
}

impl Setting for PciBindings {
    type Value = Bindings;
    type Want = Bindings;
    type Rule = OneOwner;

    fn place(&self) -> Place {
        Place::Drivers
    }

    fn traits(&self) -> Traits {
        Traits { writes: Writes::Several, ..Traits::of_card() }
    }

    fn read(&self, host: &Host, _deadline: Deadline) -> Result<Bindings, HostError> {
        let functions = self.0.as_slice();
        host.bindings(functions, &host.resizable_bars(functions))
    }

    fn write(&self, host: &mut Host, bindings: &Bindings, deadline: Deadline) -> Result<(), HostError> {
        // On its way home a card is with VFIO, or not to be asked.
        match bindings.has_host_driver() {
            true => host.set_bindings(bindings, deadline),
            false => host.set_bindings_of_unused(bindings, deadline),
        }
    }

    fn beside(bindings: &Bindings, other: &Bindings) -> String {
        bindings.beside(other).to_string()
    }
}
