//! What happens when the guest reboots itself: QEMU would go on with a card that nobody has reset.

use super::{Card, Role};
use crate::actions::{Proposal, Situation};
use crate::config::Gpu;
use crate::gpu::GuestReboot;
use crate::guest::LifecycleAction;
use crate::host::HostError;

const GUEST_REBOOT: &[&str] = &["gpu", "guest_reboot"];

/// Refuses a guest whose reboot would not do what was asked for, or would spoil the card.
pub(super) fn propose(
    config: &Gpu,
    cards: &[Card],
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let models = cards.iter().filter(|card| card.role == Role::Graphics).flat_map(|card| &card.members);
    let families = models
        .filter(|member| member.class.is_display())
        .map(|member| situation.host_config.family_of(member.id));
    let mut by_family = None;
    for family in families {
        if family.guest_reboot() != GuestReboot::Allow {
            by_family = Some(family);
        }
    }
    let asked = config.guest_reboot.or_else(|| by_family.map(|family| family.guest_reboot()));
    let Some(reboot) = asked.filter(|reboot| *reboot != GuestReboot::Allow) else { return Ok(()) };
    proposal.lease.guest_reboot = Some(reboot);
    if situation.guest.on_reboot == LifecycleAction::Destroy {
        return Ok(());
    }
    let uuid = situation.guest.uuid;
    let fix = format!("`virsh set-lifecycle-action {uuid} reboot destroy --config`");
    let on_reboot = &situation.guest.on_reboot;
    match (config.guest_reboot, by_family) {
        (None, Some(family)) => proposal.refuse(
            &["gpu"],
            format!(
                "after a reboot inside the guest a card of the family {} may be unusable, and the guest's XML says \
                 <on_reboot>{on_reboot}</on_reboot>",
                family.name
            ),
            format!(
                "{fix} has it stopped instead, and started again with a card that was reset; or write \
                 `guest_reboot: allow`"
            ),
        ),
        _ => proposal.refuse(
            GUEST_REBOOT,
            format!("`{reboot}` has no effect while the guest's XML says <on_reboot>{on_reboot}</on_reboot>"),
            fix,
        ),
    }
    Ok(())
}
