//! Desktops that have their picture on another card, and this one open: they are told that it is removed.

use super::displays::has_other_picture;
use super::{COMPOSITORS, Card, of_driver};
use crate::actions::{Proposal, Situation};
use crate::config::{Compositors, Gpu};
use crate::gpu::compositor_of;
use crate::host::{DrmEvent, Holder, HostError, NodeKind};
use crate::ledger::LastDrmEvent;

/// Claims that they are told, and takes them out of those that stand in the way: whether they let go is seen before the
/// card is taken. Without such a desktop nobody is told anything.
pub(super) fn propose(
    config: &Gpu,
    card: &Card,
    holders: &mut Vec<Holder>,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    if config.compositors == Compositors::Refuse || !holders.iter().any(is_desktop) {
        return Ok(());
    }
    if !has_other_picture(situation)? {
        proposal.warn(format!(
            "`compositors: udev-remove` is for a second card: no other one of the host has a picture, so that a desktop that \
             lets go of {} would end; it is told nothing",
            card.functions
        ));
        return Ok(());
    }
    let mut is_told = false;
    for function in card.functions.as_slice() {
        if !situation.host.drm_cards_of(*function)?.is_empty() {
            proposal.claim(LastDrmEvent(*function), DrmEvent::Remove, of_driver(config, COMPOSITORS));
            is_told = true;
        }
    }
    if !is_told {
        return Ok(());
    }
    for holder in holders.extract_if(.., |holder| is_desktop(holder)) {
        proposal.inform(format!(
            "{holder}: udev tells it that {} is removed; whether it lets go of a real card was not seen",
            card.functions
        ));
    }
    Ok(())
}

/// Whether it has the card by a node that its driver made for displays: what else it may have open no such event is about.
fn is_desktop(holder: &Holder) -> bool {
    let is_drm = |kind| matches!(kind, NodeKind::Drm | NodeKind::Render);
    compositor_of(&holder.name).is_some() && holder.nodes.iter().any(|node| is_drm(node.kind))
}
