//! The displays of a card, as its driver sees them.

use std::fmt;

use crate::host::{Host, HostError};
use crate::monitor::ConnectorName;
use crate::pci::PciAddress;

/// A card of the kernel's display drivers (`/dev/dri/cardN`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrmCard {
    /// Its number; another one after every bind.
    pub number: u32,
    /// Its connectors, sorted by name.
    pub connectors: Vec<DrmConnector>,
}

/// A connector of a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrmConnector {
    /// Its name: `DP-1`.
    pub name: ConnectorName,
    /// Whether a monitor is there.
    pub status: ConnectorStatus,
    /// Whether something is shown on it.
    pub activity: ConnectorActivity,
}

/// `status` of a connector (`drm_get_connector_status_name`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectorStatus {
    /// The driver sees a monitor.
    Connected,
    /// It sees none.
    Disconnected,
    /// It cannot tell.
    Unknown,
}

/// `enabled` of a connector: whether an encoder feeds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectorActivity {
    /// A picture is sent.
    Enabled,
    /// None is.
    Disabled,
}

impl fmt::Display for DrmCard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "card{}", self.number)
    }
}

impl Host {
    /// The cards that a function's driver has made; none while it is bound to no display driver. One driver may make
    /// several.
    ///
    /// # Errors
    /// sysfs cannot be read.
    pub fn drm_cards_of(&self, function: PciAddress) -> Result<Vec<DrmCard>, HostError> {
        let Some(folder) = self.pci_folder(function)? else { return Ok(Vec::new()) };
        let drm = folder.join("drm");
        let numbers = match self.numbered(drm.to_str().unwrap_or_default(), "card") {
            Err(error) if error.is_absent() => return Ok(Vec::new()),
            numbers => numbers?,
        };
        let mut cards = Vec::new();
        for number in numbers {
            let prefix = format!("card{number}-");
            let card = drm.join(format!("card{number}"));
            let mut connectors = Vec::new();
            for name in self.names_if_present(&card)? {
                let Some(Ok(connector)) = name.strip_prefix(&prefix).map(str::parse) else { continue };
                let text = |file| self.text_if_present(card.join(&name).join(file));
                connectors.push(DrmConnector {
                    name: connector,
                    status: match text("status")?.as_deref() {
                        Some("connected") => ConnectorStatus::Connected,
                        Some("disconnected") => ConnectorStatus::Disconnected,
                        _ => ConnectorStatus::Unknown,
                    },
                    activity: match text("enabled")?.as_deref() {
                        Some("enabled") => ConnectorActivity::Enabled,
                        _ => ConnectorActivity::Disabled,
                    },
                });
            }
            cards.push(DrmCard { number, connectors });
        }
        Ok(cards)
    }

    /// Whether the firmware showed its picture on this function: the kernel says so (`boot_vga`), or a framebuffer of
    /// the firmware is on it.
    ///
    /// # Errors
    /// sysfs or `/proc/iomem` cannot be read.
    pub fn is_boot_display(&self, function: PciAddress) -> Result<bool, HostError> {
        Ok(self.is_boot_vga(function) || !self.firmware_framebuffers_on(&[function])?.is_empty())
    }
}
