//! Sizes of the card's BARs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::actions::{Proposal, Situation};
use crate::config::Gpu;
use crate::deadline::Deadline;
use crate::host::HostError;
use crate::key_path::KeyPath;
use crate::pci::BarSize;
use crate::pci::PciAddress;

/// How long the function may take to say which sizes it offers.
const ASK: Duration = Duration::from_secs(5);

/// Puts the sizes of the file in the place of those that the BARs have, or refuses one that cannot be had. The function
/// is asked for it, so it has to be known to answer.
pub(super) fn propose(
    config: &Gpu,
    function: PciAddress,
    sizes: &mut BTreeMap<u8, BarSize>,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let asked: BTreeSet<u8> = config.bars.keys().copied().filter(|bar| sizes.contains_key(bar)).collect();
    let deadline = Deadline::after(ASK).earlier(situation.deadline);
    let offered = situation.host.pci_bar_sizes_offered(function, &asked, deadline)?;
    for (bar, wanted) in &config.bars {
        let now = sizes.insert(*bar, *wanted);
        let place = KeyPath::from(&["gpu", "bars"]).key(bar.to_string());
        match offered.get(bar) {
            None => proposal.refuse(
                place,
                format!("BAR {bar} of {function} cannot be resized"),
                "switch on Resizable BAR (and Above 4G Decoding) in the firmware, or leave the BAR out",
            ),
            // What it has already need not be among them: nothing is written then.
            Some(offered) if now != Some(*wanted) && !offered.contains(wanted) => {
                let words: Vec<String> = offered.iter().map(BarSize::to_string).collect();
                proposal.refuse(
                    place,
                    format!("BAR {bar} of {function} cannot be {wanted}: it offers {}", words.join(", ")),
                    "take one of these sizes, or leave the BAR out",
                );
            }
            Some(_) => {}
        }
    }
    Ok(())
}
