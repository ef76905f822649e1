//! `gpu`: a graphics card for the guest, and every other PCI device that its XML hands over.

mod bars;
mod bindings;
mod choose;
mod displays;
mod reboot;
mod resets;
mod returns;
mod safety;

use std::time::Duration;

use super::{Proposal, Situation, services};
use crate::config::{DisplayManager, Gpu, OtherDevices};
use crate::host::{HostError, PciFunction};
use crate::ledger::{CardPatience, CardTerms};
use crate::pci::PciFunctions;

const GPU: &[&str] = &["gpu"];
const DEVICES: &[&str] = &["gpu", "devices"];

/// A card that does not answer, found before it was taken.
#[derive(Clone, Debug)]
pub struct DeadCard {
    /// Which.
    pub terms: CardTerms,
    /// What was seen.
    pub evidence: Vec<String>,
}

/// Functions that are handed over together.
struct Card {
    functions: PciFunctions,
    /// What each is, in the order of the functions.
    members: Vec<PciFunction>,
    role: Role,
}

/// What the guest gets a card for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// To draw with: its driver is the fragile one, and the host may be drawing with it.
    Graphics,
    /// For anything else.
    Companion,
}

/// How long what stops for a card may take to let go of it.
const LETS_GO: Duration = Duration::from_secs(15);

/// How long to wait for units to stop, and for a card.
pub(super) fn effort(config: &Gpu) -> (Duration, CardPatience) {
    let stops = config.display_manager == DisplayManager::Stop || !config.holders.stop.is_empty();
    let units = if stops { LETS_GO } else { Duration::ZERO };
    (units, CardPatience { users: config.holders.wait.max(units), drivers: config.timeout })
}

pub(super) fn propose(
    config: &Gpu,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let mut cards = choose::graphics_cards(config, situation, proposal)?;
    if config.other_devices == OtherDevices::Bind {
        cards.extend(choose::companions(&cards, situation, proposal)?);
    }
    if !cards.is_empty() {
        services::claim_stopped(&config.holders.stop, &["gpu", "holders", "stop"], situation, proposal)?;
    }
    for card in &cards {
        if !safety::is_free(card, situation, proposal) {
            continue;
        }
        safety::check_group(card, situation, proposal)?;
        displays::propose(config, card, situation, proposal)?;
        bindings::propose(config, card, situation, proposal)?;
        returns::propose(config, card, situation, proposal);
    }
    reboot::propose(config, &cards, situation, proposal)
}
