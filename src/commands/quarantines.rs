//! Cards in quarantine and operations that hang in the kernel, as commands show them.

use serde::Serialize;

use crate::guest::GuestName;
use crate::host::Host;
use crate::ledger::{CardTerms, Quarantine, StuckKind, StuckOperation};
use crate::pci::{PciAddress, PciSlot};
use crate::wall_clock::age;

/// A card in quarantine.
#[derive(Debug, Serialize)]
pub(super) struct QuarantineView {
    /// What it is, for people.
    pub(super) card: String,
    pub(super) functions: Vec<PciAddress>,
    /// The guest that had it, or was to have it.
    pub(super) guest: String,
    /// Seconds since 1970.
    pub(super) since: u64,
    /// What was seen.
    pub(super) evidence: Vec<String>,
    #[serde(skip)]
    pub(super) slot: PciSlot,
}

/// An operation that the kernel has not come back from.
#[derive(Debug, Serialize)]
pub(super) struct StuckView {
    /// What the card is, for people.
    card: String,
    /// The number of the process that hangs.
    pub(super) process: i32,
    /// The operation that has not ended.
    what: String,
    /// Seconds since 1970.
    since: u64,
    /// Why it does not end.
    kind: StuckKind,
    /// What a person can do about it.
    pub(super) help: String,
}

impl From<&Quarantine> for QuarantineView {
    fn from(quarantine: &Quarantine) -> Self {
        let Quarantine { terms, guest, since, evidence } = quarantine;
        Self {
            card: terms.name.clone(),
            functions: terms.functions.as_slice().to_vec(),
            guest: GuestName::new(guest).to_string(),
            since: *since,
            evidence: evidence.clone(),
            slot: terms.functions.slot(),
        }
    }
}

impl StuckView {
    /// One that still hangs.
    fn of(host: &Host, card: &str, stuck: Option<&StuckOperation>) -> Option<Self> {
        let stuck = stuck.filter(|stuck| host.is_alive(stuck.process))?;
        Some(Self {
            card: card.to_owned(),
            process: stuck.process.pid,
            what: stuck.what.clone(),
            since: stuck.since,
            kind: stuck.kind,
            help: stuck.help(),
        })
    }

    /// `process 4711 since 5 min: failed to write ...`.
    pub(super) fn line(&self) -> String {
        match self.kind {
            StuckKind::KernelFailed => format!("since {}: {}", age(self.since), self.what),
            StuckKind::InKernel | StuckKind::HasCard => {
                format!("process {} since {}: {}", self.process, age(self.since), self.what)
            }
        }
    }
}

/// The operations that hang on cards, each process once.
pub(super) fn stuck<'a>(host: &Host, cards: impl Iterator<Item = &'a CardTerms>) -> Vec<StuckView> {
    let mut stuck: Vec<StuckView> =
        cards.filter_map(|terms| StuckView::of(host, &terms.name, terms.stuck.as_ref())).collect();
    stuck.sort_by_key(|stuck| stuck.process);
    // One process may hang at several cards; each card that the kernel failed with is named.
    stuck.dedup_by(|one, other| one.process == other.process && one.kind != StuckKind::KernelFailed);
    stuck
}

/// What `status` says of them.
pub(super) fn lines(quarantines: &[QuarantineView], stuck: &[StuckView]) -> Vec<String> {
    let mut lines = Vec::new();
    for QuarantineView { card, guest, since, evidence, slot, .. } in quarantines {
        lines.push(format!("{card}: in quarantine since {}, guest {guest}", age(*since)));
        lines.extend(evidence.first().map(|first| format!("  {first}")));
        lines.push(format!(
            "  `vfio-hook gpu {slot}` shows it, `vfio-hook gpu clear {slot}` looks at it again"
        ));
    }
    for stuck in stuck {
        let what = match stuck.kind {
            StuckKind::KernelFailed => "the kernel failed in an operation on it",
            StuckKind::InKernel | StuckKind::HasCard => "an operation on it has not ended",
        };
        lines.push(format!("{}: {what}", stuck.card));
        lines.push(format!("  {}", stuck.line()));
        lines.push(format!("  {}", stuck.help));
    }
    lines
}
