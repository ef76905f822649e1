//! What closing the lid does: logind ignores sleep locks there unless it is told otherwise.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::{Host, HostError};
use crate::deadline::Deadline;

/// Read by logind after those of `/etc`, gone after a boot (`logind.conf(5)`).
const DROP_IN: &str = "/run/systemd/logind.conf.d/50-vfio-hook.conf";

const IGNORE: &[u8] = b"[Login]
HandleLidSwitch=ignore
HandleLidSwitchExternalPower=ignore
HandleLidSwitchDocked=ignore
";

/// What closing the lid does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LidSwitchHandling {
    /// What the administrator configured.
    AsConfigured,
    /// The lid does nothing.
    Ignored,
}

impl fmt::Display for LidSwitchHandling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AsConfigured => "as configured",
            Self::Ignored => "ignored",
        })
    }
}

impl FromStr for LidSwitchHandling {
    type Err = String;

    fn from_str(words: &str) -> Result<Self, Self::Err> {
        match words {
            "as configured" => Ok(Self::AsConfigured),
            "ignored" => Ok(Self::Ignored),
            other => Err(format!("`{other}` is no way to handle the lid switch")),
        }
    }
}

crate::serde_as_text::serde_as_text!(LidSwitchHandling);

impl Host {
    /// Whether the program's drop-in is there.
    #[must_use]
    pub fn handle_lid_switch(&self) -> LidSwitchHandling {
        if self.is_present(DROP_IN) { LidSwitchHandling::Ignored } else { LidSwitchHandling::AsConfigured }
    }

    /// Writes or removes the drop-in, and has logind read its configuration again.
    ///
    /// # Errors
    /// The file cannot be written, systemd does not answer.
    pub fn set_handle_lid_switch(
        &mut self,
        handling: LidSwitchHandling,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        let path = Path::new(DROP_IN);
        match handling {
            LidSwitchHandling::Ignored => self.make_file(path, IGNORE)?,
            LidSwitchHandling::AsConfigured => {
                self.remove_if_present(path)?;
                self.remove_empty_folder_of(path);
            }
        }
        self.logind.reload(deadline)
    }
}
