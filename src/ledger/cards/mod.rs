//! Cards that are handed over: what was agreed when a guest got one, and what is known of one that does not come back.
//!
//! A card's settings are taken by `prepare` and given back by the guest's keeper, before the rest of the lease: a claim on
//! one stays in the ledger until the card is back or is known to be lost, so that nobody else touches it meanwhile.

mod awake;
mod desktops;
mod examine;
mod health;
mod quarantine;
mod recover;
mod return_cards;
mod take;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::settings::{At, PciBindings, SettingKey};
use crate::gpu::{KeepAwake, KernelLine, RecognisedLine, RecoveryStep, ReturnTo};
use crate::host::{Bindings, Expected, FirmwareFramebuffer, Host, HostError, ProcessId};
use crate::kernel_log::KernelLogPosition;
use crate::pci::{PciAddress, PciFunctions};
use crate::wall_clock::seconds_since_1970;

pub use awake::{KeptAwake, kept_awake_by};
pub use health::CardHealth;
pub use quarantine::{Cleared, Quarantine};

/// What was agreed about a card when a guest got it: all that is needed to take it back, whatever becomes of the YAML
/// file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardTerms {
    /// The functions handed over.
    pub functions: PciFunctions,
    /// What it is, for people.
    pub name: String,
    /// Whether the host drew with it.
    pub kind: CardKind,
    /// What its functions are bound to while the guest has it.
    pub handed_over: Bindings,
    /// The ports above it, nearest first, up to the root port.
    pub ports: Vec<PciAddress>,
    /// The first of them, as far as they are on the card itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub card_ports: Vec<PciAddress>,
    /// The firmware's pictures that lie in its memory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub framebuffers: Vec<FirmwareFramebuffer>,
    /// What each function is, to know it again.
    pub expected: Vec<Expected>,
    /// Where it goes after the guest.
    pub return_to: ReturnTo,
    /// Whether it stays awake where it stays with VFIO.
    #[serde(default = "of_an_older_program")]
    pub keep_awake: KeepAwake,
    /// Whether the guest has had it: after a start that failed it goes back to where it was.
    #[serde(default)]
    pub usage: CardUsage,
    /// What is tried when it does not answer, in this order.
    pub recover: Vec<RecoveryStep>,
    /// What is done to it after its guest, whatever its state, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reset_after: Vec<RecoveryStep>,
    /// How long a driver may take to let go of it, or to take it.
    pub timeout: Duration,
    /// Where the kernel's log was when it was handed over.
    pub log_position: KernelLogPosition,
    /// The function that the module vendor-reset is to reset between two guests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor_reset: Option<PciAddress>,
    /// Kernel-log patterns of the host's configuration, before those that are built in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel_lines: Vec<KernelLine>,
    /// An operation on it that the kernel has not come back from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<StuckOperation>,
}

/// Programs that did not say so gave the power settings back.
const fn of_an_older_program() -> KeepAwake {
    KeepAwake::Never
}

/// Whether a guest has had its card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CardUsage {
    /// It has not run yet.
    #[default]
    NotYet,
    /// The guest has run with it.
    ByGuest,
}

/// What kind of device is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CardKind {
    /// A graphics card of which the host's driver had made a DRM device.
    Drm,
    /// Any other.
    Other,
}

/// Why no process may touch a card: it would hang too, or take the card from one that works on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StuckOperation {
    /// Whose it is.
    pub process: ProcessId,
    /// What kind of operation it is.
    #[serde(default)]
    pub kind: StuckKind,
    /// What it is, for people.
    pub what: String,
    /// Since when, in seconds since 1970.
    pub since: u64,
}

/// Why an operation does not end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StuckKind {
    /// The kernel does not come back from it, and its process cannot be killed.
    #[default]
    InKernel,
    /// The process has the card, and may let go of it yet.
    HasCard,
    /// The kernel failed in it, and keeps the card locked until the next boot: the process stands for the kernel.
    KernelFailed,
}

/// Why a card is not where it belongs.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was tried, and may be tried again.
    Refused(Vec<String>),
    /// The card answers, and the host's driver does not take it, or cannot work with it.
    ByDriver(Vec<String>),
    /// Nothing may be tried any more.
    Stuck(StuckOperation),
}

impl CardTerms {
    /// The setting of its drivers.
    #[must_use]
    pub fn drivers(&self) -> PciBindings {
        PciBindings(self.functions.clone())
    }

    /// Whether a setting is of the card itself: a write to it reaches the card.
    #[must_use]
    pub fn has(&self, setting: &SettingKey) -> bool {
        match setting {
            SettingKey::PciBindings(drivers) => drivers.0 == self.functions,
            SettingKey::Attribute(attribute) => match &attribute.at {
                At::Function(address) => self.addresses().contains(address),
                At::Host | At::Cpu(_) | At::Named(_) => false,
            },
            // A desktop that hears of a card that hangs would open it.
            SettingKey::DrmEvent(event) => self.functions.contains(event.0),
            SettingKey::FirmwareFramebuffer(driver) => self.framebuffers.contains(&driver.0),
            _ => false,
        }
    }

    /// The operation on it that the kernel has still not come back from.
    #[must_use]
    pub fn stuck_operation(&self, host: &Host) -> Option<&StuckOperation> {
        self.stuck.as_ref().filter(|stuck| host.is_alive(stuck.process))
    }

    /// What the kernel has said of it since it was handed over that speaks of trouble.
    #[must_use]
    pub fn lines_of_trouble(&self, host: &Host) -> Vec<RecognisedLine> {
        examine::hear(host, self, self.log_position).lines
    }

    /// The functions that decide whether the host can work with the card again: its displays. Of a card without one, and
    /// where that cannot be told, all of them.
    fn deciding(&self, host: &Host) -> Vec<PciAddress> {
        let is_display =
            |function: &PciAddress| host.pci_function(*function).map(|function| function.class.is_display());
        let mut displays = Vec::new();
        for function in self.functions.as_slice() {
            match is_display(function) {
                Ok(true) => displays.push(*function),
                Ok(false) => {}
                Err(_) => return self.functions.as_slice().to_vec(),
            }
        }
        if displays.is_empty() { self.functions.as_slice().to_vec() } else { displays }
    }

    /// All addresses whose lines in the kernel's log are about it.
    #[must_use]
    pub fn addresses(&self) -> Vec<PciAddress> {
        self.functions.as_slice().iter().chain(&self.ports).copied().collect()
    }
}

impl StuckOperation {
    /// What an error says about one.
    #[must_use]
    pub fn in_error(error: &HostError) -> Option<Self> {
        let kind = if error.is_kernel_failure() { StuckKind::KernelFailed } else { StuckKind::InKernel };
        Some(Self::new(error.stuck_process()?, kind, error.to_string()))
    }

    pub(super) fn new(process: ProcessId, kind: StuckKind, what: String) -> Self {
        Self { process, kind, what, since: seconds_since_1970() }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn help(&self) -> String {
        let pid = self.process.pid;
        match self.kind {
            StuckKind::InKernel => {
                format!(
                    "process {pid} hangs in the kernel and cannot be ended: only restarting the host frees \
                     the card"
                )
            }
            StuckKind::HasCard => format!(
                "once process {pid} has ended, `vfio-hook gpu clear` brings the card back; if it cannot be \
                 ended, only restarting the host frees the card"
            ),
            StuckKind::KernelFailed => "reboot the host: the kernel failed and keeps the card locked. After \
                                        that, `return_to: vfio` keeps the host's driver away from the card \
                                        after a guest"
                .to_owned(),
        }
    }

    /// What a person can do about an error, where the kernel failed in what was done to a card.
    pub(super) fn help_for(error: &HostError) -> Option<String> {
        Self::in_error(error)
            .filter(|operation| operation.kind == StuckKind::KernelFailed)
            .map(|it| it.help())
    }

    /// What is said of its card: what to do next.
    pub(super) fn advice(&self, functions: &PciFunctions) -> String {
        match self.kind {
            StuckKind::KernelFailed => self.help(),
            StuckKind::InKernel | StuckKind::HasCard => looks_again(functions),
        }
    }
}

/// What a card in quarantine can be looked at with.
pub(super) fn looks_again(functions: &PciFunctions) -> String {
    format!("`vfio-hook gpu clear {}` looks again", functions.slot())
}

impl Failure {
    fn of(error: &HostError) -> Self {
        StuckOperation::in_error(error).map_or_else(|| Self::Refused(vec![error.to_string()]), Self::Stuck)
    }
}
