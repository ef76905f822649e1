//! How many virtual functions a device has.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::deadline::Deadline;
use crate::host::{Host, HostDrivers, HostError, VirtualFunctions};
use crate::ledger::rule::{Conflict, Rule};
use crate::ledger::setting::{Combining, Locking, Phase, Place, Setting, Traits, Writes};
use crate::pci::PciAddress;

/// How many virtual functions a device has, and whether drivers of the host take them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VirtualFunctionsOf(pub PciAddress);

impl fmt::Display for VirtualFunctionsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "virtual functions of {}", self.0)
    }
}

impl Setting for VirtualFunctionsOf {
    type Value = VirtualFunctions;
    type Want = u16;
    type Rule = AtLeast;

    fn place(&self) -> Place {
        Place::VirtualFunctions
    }

    /// The kernel waits a second where functions go (`sriov_disable` in `drivers/pci/iov.c`), and as long as drivers take.
    fn traits(&self) -> Traits {
        Traits {
            locking: Locking::Released,
            writes: Writes::Several,
            ..Traits::of_peer(Phase::WithinCommands)
        }
    }

    fn read(&self, host: &Host, deadline: Deadline) -> Result<VirtualFunctions, HostError> {
        host.virtual_functions(self.0, deadline)
    }

    fn write(&self, host: &mut Host, value: &VirtualFunctions, deadline: Deadline) -> Result<(), HostError> {
        host.set_virtual_functions(self.0, value, deadline)
    }

    fn describe(want: &u16) -> String {
        format!("at least {want}")
    }
}

/// As many as the guest needs that needs most. While there are enough nothing is changed, since any change takes away all
/// that there are.
#[derive(Debug)]
pub enum AtLeast {}

impl Rule<VirtualFunctionsOf> for AtLeast {
    fn combine(of: &Combining<'_, VirtualFunctionsOf>) -> Result<VirtualFunctions, Conflict> {
        Ok(match of.claims.values().max() {
            None => *of.baseline,
            Some(needed) if *needed <= of.now.count => *of.now,
            Some(needed) if *needed <= of.baseline.count => *of.baseline,
            Some(needed) => VirtualFunctions { count: *needed, host_drivers: HostDrivers::KeptAway },
        })
    }

    fn explains(of: &Combining<'_, VirtualFunctionsOf>, value: &VirtualFunctions) -> bool {
        let is_made =
            |needed: &u16| *value == VirtualFunctions { count: *needed, host_drivers: HostDrivers::KeptAway };
        value == of.baseline || of.claims.values().any(is_made)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cpuset::CpuSet;
    use crate::guest::GuestUuid;

    fn of(count: u16) -> VirtualFunctions {
        VirtualFunctions { count, host_drivers: HostDrivers::TakeThem }
    }

    fn made(count: u16) -> VirtualFunctions {
        VirtualFunctions { count, host_drivers: HostDrivers::KeptAway }
    }

    #[test]
    fn the_greatest_claim_counts_and_enough_is_left_as_it_is() {
        let setting = VirtualFunctionsOf("0000:06:00.0".parse().unwrap());
        let online = CpuSet::new();
        let combined = |baseline: VirtualFunctions, now: VirtualFunctions, wants: &[u16]| {
            let guests = (1u8..).map(|number| GuestUuid::from_bytes([number; 16]));
            let claims: BTreeMap<GuestUuid, u16> = guests.zip(wants.iter().copied()).collect();
            let of = Combining {
                setting: &setting,
                baseline: &baseline,
                claims: &claims,
                now: &now,
                online: &online,
            };
            AtLeast::combine(&of).unwrap()
        };
        assert_eq!(combined(of(0), of(0), &[2, 4]), made(4));
        assert_eq!(combined(of(0), made(4), &[2]), made(4));
        assert_eq!(combined(of(0), made(4), &[]), of(0));
        assert_eq!(combined(of(3), of(3), &[2]), of(3));
        assert_eq!(combined(of(3), of(3), &[4]), made(4));
        assert_eq!(combined(of(3), made(4), &[]), of(3));
        // A writer that was killed between the two writes.
        assert_eq!(combined(of(3), of(0), &[2]), of(3));
        assert_eq!(combined(of(0), made(0), &[2]), made(2));
    }
}
