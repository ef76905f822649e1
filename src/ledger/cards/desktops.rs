//! Desktops that were told that a card is gone.

use std::time::Duration;

use crate::deadline::Deadline;
use crate::gpu::compositor_of;
use crate::guest::GuestUuid;
use crate::ledger::error::LedgerError;
use crate::ledger::open::Ledger;
use crate::ledger::settings::{LastDrmEvent, Listed};
use crate::pci::{PciAddress, PciFunctions};

/// How long the look through all processes may take for the name of a desktop.
const LOOK: Duration = Duration::from_secs(3);

impl Ledger<'_> {
    /// An error that says which desktop has a card open although it was told that the card is gone, where one does. Any
    /// other program is named by the error already.
    pub(super) fn name_deaf_desktop(&mut self, uuid: GuestUuid, error: LedgerError) -> LedgerError {
        if !error.of_host().is_some_and(crate::host::HostError::is_in_use) {
            return error;
        }
        let told: Vec<PciAddress> =
            self.record.claims_of::<LastDrmEvent>(uuid).map(|(entry, _)| entry.setting.0).collect();
        if told.is_empty() {
            return error;
        }
        let holders = self.unlocked(|host, end| host.holders_of(&told, Deadline::after(LOOK).earlier(end)));
        let Ok(Ok(holders)) = holders else { return error };
        let deaf = holders.iter().find_map(|holder| Some((holder, compositor_of(&holder.name)?)));
        match deaf {
            Some((holder, compositor)) => LedgerError::DeafDesktop {
                desktop: holder.name.clone(),
                setting: compositor.setting,
                cause: Box::new(error),
            },
            None => error,
        }
    }

    /// The driver has let go of the functions, and the node of their display is gone with it: nothing that was said of it
    /// is to be taken back. The next driver makes another node, and the kernel says `add` by itself (`device_add` in
    /// `drivers/base/core.c`).
    pub(super) fn forget_drm_events(&mut self, functions: &PciFunctions) {
        for function in functions.as_slice() {
            self.record.remove(&LastDrmEvent(*function).key());
        }
    }
}
