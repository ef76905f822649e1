//! `gpu`: a graphics card for the guest, and every other PCI device that its XML hands over.

mod bars;
mod bindings;
mod choose;
mod compositors;
mod displays;
mod pollers;
mod reboot;
mod reserved_memory;
mod resets;
mod returns;
mod safety;
mod slot;

use std::time::Duration;

use super::action::Action;
use super::{GuestConfig, Proposal, Situation, services};
use crate::config::{Compositors, DisplayManager, Gpu, Key, OtherDevices, Section};
use crate::host::{HostError, PciFunction};
use crate::key_path::KeyPath;
use crate::ledger::{CardTerms, ClaimTerms, Patience, Peer};
use crate::pci::PciFunctions;

const GPU: &[&str] = &["gpu"];
const DEVICES: &[&str] = &["gpu", "devices"];
const DISPLAY_MANAGER: &[&str] = &["gpu", "display_manager"];
const COMPOSITORS: &[&str] = &["gpu", "compositors"];
const CONSOLES: &[&str] = &["gpu", "consoles"];
const HOLDERS_WAIT: &[&str] = &["gpu", "holders", "wait"];

/// A card that does not answer, found before it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadCard {
    /// The card, and what was agreed about it.
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

/// How long what stops for a card may take to let go of it, where the file does not give it more.
const LETS_GO: Duration = Duration::from_secs(15);

/// How long a desktop may take to let go of a card that it was told is removed, where the file does not give it more: it
/// rearranges its windows and waits for frames that are on their way.
const REACTS: Duration = Duration::from_secs(5);

/// How long the units that stop for a card may take, all together.
fn units_patience(config: &Gpu) -> Patience {
    Patience::for_all_together(LETS_GO.max(config.holders.wait), HOLDERS_WAIT)
}

/// How long the programs that use a card may take to let go of it.
fn users_patience(config: &Gpu) -> Patience {
    let stops = config.display_manager == DisplayManager::Stop || !config.holders.stop.is_empty();
    let least = match config.compositors {
        _ if stops => LETS_GO,
        Compositors::UdevRemove => REACTS,
        Compositors::Refuse => Duration::ZERO,
    };
    Patience::for_each_write(config.holders.wait.max(least), HOLDERS_WAIT)
}

/// How a setting of a card is taken that a key asks for: a driver may take its time for it.
fn of_driver(config: &Gpu, key: impl Into<KeyPath>) -> ClaimTerms {
    ClaimTerms::from(key).within(Patience::for_each_write(config.timeout, &["gpu", "timeout"]))
}

impl Action for Gpu {
    const SECTION: &'static str = "gpu";
    const KEYS: &'static [Key] = Self::KEYS;

    fn read(file: &mut Section<'_>, before: &GuestConfig) -> Option<Self> {
        let stopped = before.services.as_ref().map_or(&[][..], |services| &services.stop);
        file.section(Self::SECTION, "gpu: {}").map(|section| Self::read(section, stopped))
    }

    fn peer(&self) -> Peer {
        Peer::MayHang
    }

    fn propose(&self, situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
        let mut cards = choose::graphics_cards(self, situation, proposal)?;
        reserved_memory::propose(situation, proposal)?;
        if self.other_devices == OtherDevices::Bind {
            cards.extend(choose::companions(&cards, situation, proposal)?);
        }
        if !cards.is_empty() {
            let (stop, patience) = (KeyPath::from(&["gpu", "holders", "stop"]), units_patience(self));
            services::claim_stopped(&self.holders.stop, &stop, &patience, situation, proposal)?;
            pollers::propose(self, &cards, situation, proposal)?;
        }
        for card in &cards {
            if !safety::is_free(card, situation, proposal) {
                continue;
            }
            safety::check_group(card, situation, proposal)?;
            displays::propose(self, card, situation, proposal)?;
            bindings::propose(self, card, situation, proposal)?;
            returns::propose(self, card, situation, proposal);
        }
        reboot::propose(self, &cards, situation, proposal)
    }
}
