//! Following the guest through its life, as far as the ledger and the process that its life depends on tell.

use std::time::Instant;

use super::ledger_view::{HeldLease, LeaseView};
use super::ledger_work::Job;
use super::subject::{BEFORE_GIVING_BACK, Subject, Subsistence, WHILE_ASKED};
use super::{FIRST_LOOK, GRACE, GRACE_ONCE_TOLD, Keeper, Look, RETRY, notices};
use crate::host::Host;
use crate::ledger::{KernelThreadCpus, Lease, LeaseState};

impl Keeper {
    /// What the ledger says of the guest now.
    pub(super) fn read_ledger(&mut self, host: &Host) -> LeaseView {
        self.read_ledger_at(host, Instant::now())
    }

    fn read_ledger_at(&mut self, host: &Host, now: Instant) -> LeaseView {
        let view = self.ledger.read(host, now);
        if let LeaseView::Held(held) = &view
            && held.lease.name != self.name
        {
            // It could not be read when this keeper was started.
            self.name.clone_from(&held.lease.name);
            self.held.rename(&self.name);
        }
        view
    }

    /// It could not be read for a while. What came meanwhile is made up for as soon as it can.
    pub(super) fn read_ledger_again(&mut self, host: &Host, now: Instant) {
        match self.read_ledger_at(host, now) {
            LeaseView::Unknown => {}
            LeaseView::Nothing => self.leave(host),
            LeaseView::Held(held) if self.give_back_when_free => {
                if self.restarted_by.is_none() {
                    self.monitors.guest_is_gone(&held.record, self.guest);
                }
                self.give_back_if_free(host);
            }
            LeaseView::Held(held) => self.take_over(host, &held),
        }
    }

    /// Sets again what was taken away from the guest; later where the ledger cannot be read.
    pub(super) fn reconcile(&mut self) {
        if self.ledger.is_unknown() {
            return;
        }
        self.work.start(Job::Reconcile(self.cpus_came_back.take_occasion(Instant::now())));
    }

    /// Sets again what the guest is to have, and follows it from where it is.
    pub(super) fn take_over(&mut self, host: &Host, held: &HeldLease) {
        self.look_at_lease(host, &held.lease);
        if matches!(held.lease.phase, LeaseState::Preparing(_)) {
            return;
        }
        self.reconcile();
        self.follow_guest(host, held);
        self.look_for_what_comes(held);
    }

    /// libvirt has said something: the guest has come further, or is gone.
    pub(super) fn told_to_look(&mut self, host: &Host) {
        let held = match self.read_ledger(host) {
            LeaseView::Held(held) => held,
            LeaseView::Nothing => return self.look_at_nothing(),
            LeaseView::Unknown => return,
        };
        self.look_at_lease(host, &held.lease);
        self.follow_guest(host, &held);
        self.look_for_what_comes(&held);
        if self.subject.qemu().is_none() {
            self.give_back_at = Some(Instant::now() + GRACE_ONCE_TOLD);
        }
    }

    /// Looks for interrupts and for threads of the kernel's that come while the guest runs.
    fn look_for_what_comes(&mut self, HeldLease { record, lease }: &HeldLease) {
        let has_threads = || record.claims_of::<KernelThreadCpus>(self.guest).next().is_some();
        if self.subject.qemu().is_none() {
            self.look = None;
        } else if lease.interrupts.is_some() || lease.schedule.is_some() || has_threads() {
            self.look = Some(Look::after(FIRST_LOOK));
        }
    }

    /// Has the monitors follow the guest, as far as it has come, and listens to it once it is up.
    fn follow_guest(&mut self, host: &Host, held: &HeldLease) {
        let HeldLease { record, lease } = held;
        match lease.phase {
            LeaseState::Prepared => {
                if let Some(step) = self.monitors.guest_is_coming(record, self.guest) {
                    self.work.start(Job::Monitors(step));
                }
            }
            LeaseState::Started if self.subject.qemu().is_some() => {
                self.monitors.guest_is_up(record, self.guest);
                self.reboot.guest_is_up(host, lease);
                if lease.schedule.is_some() {
                    self.reconcile();
                }
            }
            LeaseState::Started if self.subject.has_ended() => {
                self.commands.cancel_of_running_guest();
                self.monitors.guest_is_gone(record, self.guest);
            }
            LeaseState::Started
            | LeaseState::Preparing(_)
            | LeaseState::GivingBack(_)
            | LeaseState::Unfinished => {}
        }
    }

    /// The guest holds nothing: unless that changes, nothing is left to do.
    fn look_at_nothing(&mut self) {
        self.subject = Subject::default();
        self.give_back_at = Some(Instant::now() + GRACE);
    }

    /// Watches the process that the guest's life depends on now.
    pub(super) fn look_at_lease(&mut self, host: &Host, lease: &Lease) {
        // Not while a hook waits for this keeper: nothing is lost by then, and it takes time.
        let has_bus = || host.is_real() && host.has_systemd();
        if !self.watches_buses && !matches!(lease.phase, LeaseState::Preparing(_)) && has_bus() {
            self.watches_buses = true;
            notices::watch_buses(self.notices.sender());
        }
        if host.is_real() && !matches!(lease.phase, LeaseState::Preparing(_)) {
            self.cpus_came_back.listen();
        }
        let pause = match self.subject.follow(host, self.guest, lease, WHILE_ASKED) {
            Subsistence::Lives => {
                // A new life of the guest.
                self.retry = RETRY;
                None
            }
            Subsistence::Unwatched => Some(RETRY),
            Subsistence::Ended | Subsistence::Unknown => Some(GRACE),
        };
        self.give_back_at = pause.map(|pause| Instant::now() + pause);
    }

    /// The hook, the daemon or QEMU has ended: whether that ends the guest's life, the ledger says.
    pub(super) fn subject_ended(&mut self, host: &Host) {
        match self.read_ledger(host) {
            LeaseView::Held(held) => {
                self.look_at_lease(host, &held.lease);
                self.follow_guest(host, &held);
            }
            LeaseView::Nothing => self.look_at_nothing(),
            // Looked for again once it can be read.
            LeaseView::Unknown => self.subject.has_gone(),
        }
        if self.subject.qemu().is_none() {
            self.look = None;
        }
    }

    /// libvirt had its time.
    pub(super) fn give_back_if_abandoned(&mut self, host: &Host) {
        let held = match self.read_ledger(host) {
            LeaseView::Held(held) => held,
            LeaseView::Nothing => return self.leave(host),
            LeaseView::Unknown => return,
        };
        match self.subject.follow(host, self.guest, &held.lease, BEFORE_GIVING_BACK) {
            Subsistence::Lives => {}
            Subsistence::Unwatched | Subsistence::Unknown => {
                self.give_back_at = Some(Instant::now() + RETRY);
            }
            Subsistence::Ended if held.lease.phase == LeaseState::Unfinished => {
                self.give_back(host, self.reason.clone(), None);
            }
            Subsistence::Ended if held.record.waits_for_libvirt(self.guest, host) => {
                // Said by those who try it, now and then.
                self.give_back(host, self.reason.clone(), None);
            }
            Subsistence::Ended if self.reason.is_empty() => {
                crate::log::log_warning!(
                    "the guest is gone and libvirt does not say so: giving back what it held"
                );
                self.give_back(host, "unknown".to_owned(), None);
            }
            // Tried again.
            Subsistence::Ended => self.give_back(host, self.reason.clone(), None),
        }
    }
}
