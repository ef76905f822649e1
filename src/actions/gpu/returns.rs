//! What is known of the way back to the host's drivers.

use super::{Card, Role};
use crate::actions::{Proposal, Situation};
use crate::config::Gpu;
use crate::gpu::{KeepAwake, ReturnTo, Robustness};
use crate::host::DriverName;

/// Warns of a card that the host's driver is known to leave in disorder after a guest. Where the host has it with VFIO,
/// or with no driver at all, it goes back there.
pub(super) fn propose(config: &Gpu, card: &Card, situation: Situation<'_>, proposal: &mut Proposal) {
    if card.role == Role::Graphics {
        tell(config, card, proposal);
    }
    if config.return_to != ReturnTo::Host {
        return;
    }
    let is_hosts = |driver: &DriverName| !driver.is_vfio();
    for display in card.members.iter().filter(|member| member.class.is_display()) {
        let family = situation.host_config.family_of(display.id);
        if family.host_driver == Robustness::Fragile
            && let Some(driver) = display.driver.as_ref().filter(|driver| is_hosts(driver))
        {
            proposal.warn(format!(
                "{}: {driver} may leave a card of the family {} in disorder when it gets it back after a guest; \
                 `return_to: vfio` avoids that",
                display.address, family.name
            ));
        }
    }
}

/// Says what is done to the card after the guest beside going back.
fn tell(config: &Gpu, card: &Card, proposal: &mut Proposal) {
    if !config.reset_after.is_empty() {
        let steps: Vec<String> = config.reset_after.iter().map(|step| format!("`{step}`")).collect();
        proposal.inform(format!("{}: after the guest {} is done", card.functions, steps.join(", then ")));
    }
    if config.return_to == ReturnTo::Vfio && config.keep_awake == KeepAwake::Auto {
        proposal.inform(format!("{}: stays awake after the guest, as long as VFIO has it", card.functions));
    }
}
