//! No thread can be started: what was to be done is tried again after the pauses of what fails.

use std::io;

use super::*;
use crate::ledger::Try;

/// Has each start of a thread fail.
fn no_threads(guest: &mut Guest) {
    guest.keeper.work.spawn = |_| Err(io::Error::from(Errno::EAGAIN));
}

/// Has threads start again.
fn threads(guest: &mut Guest) {
    let notices = guest.keeper.notices.sender();
    let hosts = host_source(&guest.machine, &guest.faults);
    guest.keeper.work.spawn = LedgerWork::new(GUEST, hosts, notices).spawn;
}

#[test]
fn a_lease_is_given_back_later() {
    let mut guest = Guest::runs();
    no_threads(&mut guest);
    guest.qemu_ends();
    guest.keeper.give_back(&guest.host, "shutdown".to_owned(), None);
    guest.settle();
    assert_eq!(driver(&guest.machine), "vfio-pci");
    assert!(guest.keeper.give_back_at.is_some() && !guest.keeper.is_leaving);
    threads(&mut guest);
    guest.much_later();
    guest.assert_gives_everything_back("threads start again");
    assert_eq!(guest.keeper.reason, "shutdown");
}

#[test]
fn what_waits_is_not_lost() {
    let mut guest = Guest::runs();
    // The first is at hand, the others wait behind it.
    guest.keeper.work.start(Job::Reconcile(Occasion::Usual));
    guest.keeper.work.start(Job::Monitors(MonitorStep::Return(Try::Another)));
    guest.keeper.work.start(Job::Reconcile(Occasion::CpusCameBack));
    guest.keeper.reconcile_at = None;
    no_threads(&mut guest);
    guest.settle();
    assert!(guest.keeper.cpus_came_back.due().is_some(), "the last of them is tried again");
}

#[test]
fn monitors_go_back_later() {
    let mut guest = Guest::runs();
    let now = Instant::now();
    guest.keeper.monitors = MonitorSteps::on_their_way_back(now);
    no_threads(&mut guest);
    guest.keeper.timers(&guest.host, now);
    guest.settle();
    assert!(guest.keeper.monitors.is_going_back() && guest.keeper.monitors.next().is_some());
    threads(&mut guest);
    guest.much_later();
    guest.settle();
    assert!(!guest.keeper.monitors.is_going_back(), "the guest has none");
}
