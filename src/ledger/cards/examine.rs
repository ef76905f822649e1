//! What can be seen of a card from outside.

use std::time::Duration;

use super::{CardKind, CardTerms, Failure, StuckKind, StuckOperation, Verdict};
use crate::deadline::Deadline;
use crate::gpu::{Sign, signs_in};
use crate::guest::GuestUuid;
use crate::host::{
    AskedBars, Beginning, Bindings, DriverName, Host, KernelLogPosition, ONE_LOOK, QemuClues, QemuSearch,
};
use crate::ledger::error::LedgerError;
use crate::ledger::open::Ledger;

/// How long QEMU may take to let go of a card: libvirt kills for up to 40 s, and 2 s more for each device
/// (`qemuProcessKill` in libvirt's `qemu_process.c`).
const LETS_GO: Duration = Duration::from_secs(45);

/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(50);

/// How long a card may take to answer.
const PROBE: Duration = Duration::from_secs(5);

/// How long a card that does not answer has before it is asked once more.
const SETTLE: Duration = Duration::from_secs(5);

/// What is said where it cannot be told whether the guest's QEMU runs.
const NOT_KNOWN: &str = "the processes of this host could not all be looked at in time, so that it is not known whether \
                         QEMU has ended";

impl Ledger<'_> {
    /// How a card is, once nobody has it any more, and what the kernel has said of it since then. One that does not
    /// answer is asked once more, after a while. A failure where somebody may still have it: then nothing may be tried.
    pub(super) fn examine(
        &mut self,
        owner: GuestUuid,
        terms: &CardTerms,
        since: KernelLogPosition,
    ) -> Result<Result<Verdict, Failure>, LedgerError> {
        if let Some(operation) = terms.stuck_operation(self.host) {
            return Ok(Err(Failure::Stuck(operation.clone())));
        }
        // A quarantine is cleared by no guest of its own.
        let lease = self.record.leases.get(&owner).cloned();
        let was_taken = self.record.entry(&terms.knob()).is_some();
        self.unlocked(|host, deadline| {
            // One that was never taken, or that the kernel gave to a driver when it found it anew, may be used by the
            // host's programs.
            if was_taken && !is_with_host(host, terms) {
                let lets_go = Deadline::after(LETS_GO).earlier(deadline);
                let clues = lease.as_ref().map(|lease| lease.qemu_clues(owner));
                wait_until_free(host, clues, terms, lets_go)?;
            }
            Ok(match look_at(host, terms, since) {
                Verdict::Dead(_) => {
                    host.let_pci_settle(SETTLE, deadline);
                    look_at(host, terms, since)
                }
                verdict => verdict,
            })
        })
    }
}

/// Whether the host's drivers have it, and none of VFIO's: no guest can have it then.
fn is_with_host(host: &Host, terms: &CardTerms) -> bool {
    let is_vfio = |now: &Bindings| {
        now.0.values().any(|binding| binding.driver.as_ref().is_some_and(DriverName::is_vfio))
    };
    let now = host.bindings(terms.functions.as_slice(), &AskedBars::new());
    now.is_ok_and(|now| now.has_host_driver() && !is_vfio(&now))
}

/// A QEMU that was killed may hang in the kernel and still have the card: then nothing may touch it.
fn wait_until_free(
    host: &Host,
    clues: Option<QemuClues<'_>>,
    terms: &CardTerms,
    deadline: Deadline,
) -> Result<(), Failure> {
    loop {
        let is_last = deadline.has_passed();
        let look = |clues| host.qemu_of(clues, Deadline::after(ONE_LOOK));
        let qemu = clues.map_or(QemuSearch::Gone, look);
        let holder = match qemu {
            QemuSearch::Runs(process) => Ok(Some((
                process,
                format!("QEMU (process {}) does not end, and still has the card", process.pid),
            ))),
            QemuSearch::Unknown => Err(NOT_KNOWN.to_owned()),
            QemuSearch::Gone => host
                .holders_of(terms.functions.as_slice(), Deadline::after(ONE_LOOK))
                .map(|holders| holders.first().map(|holder| (holder.process, holder.to_string())))
                .map_err(|error| error.to_string()),
        };
        match holder {
            Ok(None) => return Ok(()),
            Ok(Some((process, what))) if is_last => {
                return Err(Failure::Stuck(StuckOperation::new(process, StuckKind::HasCard, what)));
            }
            Err(reason) if is_last => return Err(Failure::Refused(vec![reason])),
            _ => deadline.pause(LOOK),
        }
    }
}

/// Asks the card and the kernel's log.
fn look_at(host: &Host, terms: &CardTerms, since: KernelLogPosition) -> Verdict {
    let Heard { signs, gap } = hear(host, terms, since);
    probe(host, terms, &signs).but(gap)
}

/// Asks the card, beside what is known of the kernel's log.
pub(super) fn probe(host: &Host, terms: &CardTerms, signs: &[Sign]) -> Verdict {
    match host.probe_pci(&terms.expected, &terms.ports, Deadline::after(PROBE)) {
        Ok(report) => Verdict::of(&report, signs),
        Err(error) => Verdict::Dead(vec![error.to_string()]),
    }
}

/// What the kernel has said of a card.
pub(super) struct Heard {
    pub(super) signs: Vec<Sign>,
    /// Why there may be more of it.
    pub(super) gap: Option<String>,
}

pub(super) fn hear(host: &Host, terms: &CardTerms, since: KernelLogPosition) -> Heard {
    match host.kernel_log_since(since) {
        Ok(log) => Heard {
            signs: signs_in(&log, &terms.addresses()),
            gap: (log.beginning == Beginning::Lost)
                .then(|| "the kernel has overwritten what it said in the meantime".to_owned()),
        },
        Err(error) => Heard { signs: Vec::new(), gap: Some(error.to_string()) },
    }
}

/// Binds the functions, and looks whether a host's driver is content with what it got.
pub(super) fn bind_and_look(
    host: &mut Host,
    terms: &CardTerms,
    then: &Bindings,
    deadline: Deadline,
) -> Result<(), Failure> {
    let before = host.kernel_log_position().unwrap_or(terms.log_position);
    host.set_bindings(then, Deadline::after(terms.timeout).earlier(deadline))
        .map_err(|error| Failure::of(&error))?;
    if !then.has_host_driver() {
        return Ok(());
    }
    let mut evidence: Vec<String> = hear(host, terms, before).signs.iter().map(Sign::to_string).collect();
    // What cannot be looked at is no evidence against the card.
    let has_drm = |function: &_| host.drm_cards_of(*function).map_or(true, |cards| !cards.is_empty());
    if terms.kind == CardKind::Drm && !terms.functions.as_slice().iter().any(has_drm) {
        evidence.push(format!("{}: its driver made no DRM device", terms.name));
    }
    if evidence.is_empty() { Ok(()) } else { Err(Failure::Refused(evidence)) }
}
