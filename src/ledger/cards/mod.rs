//! Cards that are handed over: what was agreed when a guest got one, and what is known of one that does not come back.
//!
//! A card's knobs are taken by `prepare` and given back by the guest's keeper, before the rest of the lease: a claim on
//! one stays in the ledger until the card is back or is known to be lost, so that nobody else touches it meanwhile.

mod examine;
mod quarantine;
mod recover;
mod return_cards;
mod take;
mod verdict;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::knob::Knob;
use crate::gpu::{ReturnTo, Rung, Sign};
use crate::host::{Bindings, Expected, FirmwareFramebuffer, Host, HostError, KernelLogPosition, ProcessId};
use crate::pci::{PciAddress, PciFunctions};
use crate::wall_clock::seconds_since_1970;

pub use quarantine::{Cleared, Quarantine};
pub use verdict::Verdict;

/// What was agreed about a card when a guest got it: all that is needed to take it back, whatever becomes of the YAML
/// file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// Whether the guest has had it: after a start that failed it goes back to where it was.
    #[serde(default)]
    pub usage: CardUsage,
    /// What is tried when it does not answer, in this order.
    pub recover: Vec<Rung>,
    /// How long a driver may take to let go of it, or to take it.
    pub timeout: Duration,
    /// Where the kernel's log was when it was handed over.
    pub log_position: KernelLogPosition,
    /// An operation on it that the kernel has not come back from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<StuckOperation>,
}

/// Whether a guest has had its card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CardUsage {
    /// It has not run yet.
    #[default]
    NotYet,
    /// It has.
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

/// What keeps everybody from a card: whoever touches it would hang too, or take it from under somebody's feet.
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
}

/// Why a card is not where it belongs.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was tried, and may be tried again.
    Refused(Vec<String>),
    /// Nothing may be tried any more.
    Stuck(StuckOperation),
}

impl CardTerms {
    /// The knob of its drivers.
    #[must_use]
    pub fn knob(&self) -> Knob {
        Knob::PciBindings(self.functions.clone())
    }

    /// Whether a knob is of the card itself: who writes it reaches the card.
    #[must_use]
    pub fn has(&self, knob: &Knob) -> bool {
        match knob {
            Knob::PciBindings(functions) => *functions == self.functions,
            Knob::PciAttribute { address, .. } => self.addresses().contains(address),
            Knob::FirmwareFramebuffer(framebuffer) => self.framebuffers.contains(framebuffer),
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
    pub fn signs(&self, host: &Host) -> Vec<Sign> {
        examine::hear(host, self, self.log_position).signs
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
        Some(Self::new(error.stuck_process()?, StuckKind::InKernel, error.to_string()))
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
                    "process {pid} hangs in the kernel and cannot be ended: only restarting the host frees the card"
                )
            }
            StuckKind::HasCard => format!(
                "once process {pid} has ended, `vfio-hook gpu clear` brings the card back; if it cannot be ended, only \
                 restarting the host frees the card"
            ),
        }
    }
}

impl Failure {
    fn of(error: &HostError) -> Self {
        StuckOperation::in_error(error).map_or_else(|| Self::Refused(vec![error.to_string()]), Self::Stuck)
    }
}
