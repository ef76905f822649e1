//! Whether a card can be had: nobody else has it, it is not in quarantine, and its IOMMU group has nothing of the
//! host's.

use super::{Card, DEVICES};
use crate::actions::{Proposal, Situation, Until};
use crate::host::HostError;
use crate::ledger::{PciBindings, Quarantine};
use crate::pci::PciAddress;
use crate::wall_clock::age;

/// Whether nobody else has the card, and it is not known to be wedged. Nothing here asks the card.
pub(super) fn is_free(card: &Card, situation: Situation<'_>, proposal: &mut Proposal) -> bool {
    if let Some(quarantine) = situation.record.quarantine_of(&card.functions) {
        refuse_quarantined(quarantine, situation, proposal);
        return false;
    }
    let others = situation.record.leases.iter().filter(|(uuid, _)| **uuid != situation.guest.uuid);
    for (uuid, lease) in others {
        let mut claims = situation.record.claims_of::<PciBindings>(*uuid);
        let holds = claims.any(|(entry, _)| entry.setting.0.overlap(&card.functions));
        if holds || lease.cards.iter().any(|terms| terms.functions.overlap(&card.functions)) {
            proposal.refuse(
                DEVICES,
                format!("{} belongs to guest {}", card.functions, lease.name),
                format!("shut {} down first", lease.name),
            );
            return false;
        }
    }
    true
}

/// Says what is known of a card in quarantine, and what may help.
pub(super) fn refuse_quarantined(quarantine: &Quarantine, situation: Situation<'_>, proposal: &mut Proposal) {
    let Quarantine { terms, guest, since, evidence } = quarantine;
    let evidence = evidence.first().map_or("it did not answer", String::as_str);
    // Each function leads here, and the time goes on between two of them.
    let what = format!("{} is in quarantine since guest {guest}, ", terms.name);
    if proposal.problems.iter().any(|problem| problem.message.starts_with(&what)) {
        return;
    }
    let slot = terms.functions.slot();
    let help = match terms.stuck_operation(situation.host) {
        Some(stuck) => stuck.help(),
        None => format!(
            "`vfio-hook gpu clear {slot}` looks at it again; a card that stays dead needs the host's power switched \
             off and on; `vfio-hook gpu report {slot}` says more"
        ),
    };
    proposal.refuse(DEVICES, format!("{what}{} ago: {evidence}", age(*since)), help);
}

/// Whether the card has an IOMMU group, and shares it with nothing that the host keeps. All that the guest's XML hands
/// over counts as the guest's: what is not bound here, libvirt binds.
pub(super) fn check_group(
    card: &Card,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let hostdevs = &situation.guest.pci_hostdevs;
    let is_handed_over = |address: PciAddress| hostdevs.iter().any(|hostdev| hostdev.address == address);
    for member in &card.members {
        let Some(group) = member.iommu_group else {
            proposal.refuse(
                DEVICES,
                format!("{} is in no IOMMU group", member.address),
                "switch the IOMMU on in the firmware (AMD-Vi, VT-d), and on Intel with intel_iommu=on on the kernel \
                 command line",
            );
            return Ok(());
        };
        for other in situation.host.iommu_group_members(group)? {
            if is_handed_over(other) {
                continue;
            }
            let function = situation.host.pci_function(other)?;
            let Some(driver) = function.driver.filter(|driver| !driver.is_vfio()) else { continue };
            if function.class.is_bridge() {
                continue;
            }
            proposal.refuse_until(
                Until::CommandsRan,
                DEVICES,
                format!(
                    "{} shares IOMMU group {group} with {other}, which the host uses ({driver})",
                    member.address
                ),
                "put the card into another slot, or hand that device over too",
            );
        }
    }
    Ok(())
}
