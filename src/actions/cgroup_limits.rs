//! Whether the control groups that the guest will be in have the CPUs that its threads are pinned to.

use super::{Proposal, Situation};
use crate::cpuset::CpuSet;
use crate::host::HostError;

const CPUS: &[&str] = &["isolate_cpus", "cpus"];

/// libvirt fails with "Invalid argument" when it pins a thread to CPUs of which its group has none; where the group has
/// some of them, the thread runs on those alone, and nothing says so. Every group counts, from the top of the tree to
/// the guest's own: a group never has more than the one above.
pub(super) fn check(situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
    let guest = situation.guest;
    let threads = &guest.qemu_threads;
    let pins = threads.iothread_pins.values().chain(&threads.emulator_pin);
    let pins = pins.fold(guest.pinned_cpus(), |all, pins| all.union(pins));
    let mut path = String::new();
    let mut above: Option<CpuSet> = None;
    for group in guest.cgroup_path() {
        path = if path.is_empty() { group.clone() } else { format!("{path}/{group}") };
        let Some(effective) = situation.host.cpuset_cpus_effective(&path)? else { continue };
        let outside = pins.minus(&effective);
        // What the group above lacks already is not this one's to give.
        let outside = above.as_ref().map_or(outside.clone(), |above| outside.intersection(above));
        if !outside.is_empty() {
            proposal.refuse(
                CPUS,
                format!("{group} may only use CPUs {effective}, but the guest's XML pins to CPU {outside}"),
                format!("`systemctl set-property {group} AllowedCPUs=` takes the limit away"),
            );
        }
        above = Some(effective);
    }
    Ok(())
}
