//! Keepers that were lost for good: systemd starts one that ends again, and gives up after a while.

use super::{KEEPER_ANSWERS, LifecycleError, guest_may_start, guest_runs};
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::Host;
use crate::ledger::{KeeperProcess, LeaseState, Ledger, Occasion, Outcome};

/// Starts the keepers that were lost for good, of guests that run or may just be starting, or that a
/// person holds something for, and has them hold what they
/// are to hold. A lease that another process is taking or giving back is left to it.
///
/// # Errors
/// The ledger cannot be used.
pub fn replace_lost_keepers(host: &mut Host, deadline: Deadline) -> Result<Outcome, LifecycleError> {
    let Some(record) = Ledger::peek(host)? else { return Ok(Outcome::default()) };
    let lost = |uuid: &GuestUuid| {
        matches!(record.leases[uuid].phase, LeaseState::Prepared | LeaseState::Started)
            && (record.leases[uuid].is_held_by_hand()
                || guest_runs(host, &record, *uuid)
                || guest_may_start(host, &record, *uuid))
            && record.entry(&KeeperProcess(*uuid)).is_some()
            && matches!(host.keeper(*uuid, Deadline::after(KEEPER_ANSWERS).earlier(deadline)), Ok(None))
    };
    let lost: Vec<GuestUuid> = record.leases.keys().copied().filter(lost).collect();
    let mut report = Outcome::default();
    for uuid in lost {
        let mut ledger = Ledger::open(host, deadline)?;
        report.absorb(ledger.recovered().clone());
        report.absorb(ledger.reconcile(uuid, &[], Occasion::Usual)?);
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::testing::{GUEST, Machine, soon};

    #[test]
    fn a_guest_that_runs_gets_a_keeper_for_the_one_that_it_lost() {
        let machine = Machine::new();
        let keeper = machine.path(&format!("/simulated/keepers/{GUEST}"));
        let replace = || replace_lost_keepers(&mut machine.host(), soon()).unwrap();
        assert!(replace().changes.is_empty(), "there is no ledger");
        machine
            .prepare_as(
                "block_sleep: {}\nisolate_cpus: { cpus: '2-3' }\ncpu_power: { governor: performance }\n",
            )
            .unwrap();
        let held = std::fs::read(&keeper).unwrap();
        std::fs::remove_file(&keeper).unwrap();
        assert!(replace().changes.is_empty() && !keeper.exists(), "the guest does not run");
        machine.add(&crate::host::simulated::qemu_process(4242, GUEST, "win11"));
        let outcome = replace();
        assert_eq!((outcome.changes.len(), outcome.failures.len()), (2, 0), "{outcome:?}");
        assert_eq!(std::fs::read(&keeper).unwrap(), held, "with its sleep lock");
        assert!(replace().changes.is_empty(), "it is there");
    }
}
