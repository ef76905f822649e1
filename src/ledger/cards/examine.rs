//! What can be seen of a card from outside.

use std::time::Duration;

use super::{CardHealth, CardKind, CardTerms, CardUsage, Failure, StuckKind, StuckOperation};
use crate::deadline::Deadline;
use crate::gpu::{RecognisedLine, Severity, has_line_of_vendor_reset, lines_of_trouble};
use crate::guest::GuestUuid;
use crate::host::{AskedBars, Bindings, DriverName, Host, HostError, ONE_LOOK, QemuClues, QemuSearch};
use crate::kernel_log::{Beginning, KernelLog, KernelLogPosition};
use crate::ledger::error::LedgerError;
use crate::ledger::open::Ledger;

/// How long QEMU may take to let go of a card: libvirt kills for up to 40 s, and 2 s more for each device
/// (`qemuProcessKill` in libvirt's `qemu_process.c`).
const LETS_GO: Duration = Duration::from_secs(45);

/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(50);

/// How long a card may take to answer.
const PROBE: Duration = Duration::from_secs(5);

/// How long a card is asked again, where this host has no memory or no descriptors to ask it.
const IS_ASKED: Duration = Duration::from_secs(30);

/// How long a card that does not answer has before it is asked once more.
const SETTLE: Duration = Duration::from_secs(5);

/// What is said where it cannot be told whether the guest's QEMU runs.
const NOT_KNOWN: &str = "the processes of this host could not all be looked at in time, so that it is not \
                         known whether QEMU has ended";

impl Ledger<'_> {
    /// How a card is, once nobody has it any more, and what the kernel has said of it since then. One that does not
    /// answer is asked once more, after a while. A failure where a program may still have it: then nothing may be tried.
    pub(super) fn examine(
        &mut self,
        owner: GuestUuid,
        terms: &CardTerms,
        since: KernelLogPosition,
    ) -> Result<Result<CardHealth, Failure>, LedgerError> {
        if let Some(operation) = terms.stuck_operation(&self.host) {
            return Ok(Err(Failure::Stuck(operation.clone())));
        }
        // A quarantine is cleared by no guest of its own.
        let lease = self.record.leases.get(&owner).cloned();
        let was_taken = self.record.entry(&terms.drivers()).is_some();
        self.unlocked(|host, deadline| {
            // One that was never taken, or that the kernel gave to a driver when it found it anew, may be used by the
            // host's programs.
            if was_taken && !is_with_host(host, terms) {
                let lets_go = Deadline::after(LETS_GO).earlier(deadline);
                let clues = lease.as_ref().map(|lease| lease.qemu_clues(owner));
                wait_until_free(host, clues, terms, lets_go)?;
            }
            let asks_until = Deadline::after(IS_ASKED).earlier(deadline);
            match look_at(host, terms, since, asks_until)? {
                CardHealth::Dead(_) => {
                    host.let_pci_settle(SETTLE, deadline);
                    look_at(host, terms, since, asks_until)
                }
                health => Ok(health),
            }
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

/// Asks the card and the kernel's log. A host without memory or descriptors says nothing of the card: it is asked again
/// until the deadline, and is then left alone.
fn look_at(
    host: &Host,
    terms: &CardTerms,
    since: KernelLogPosition,
    deadline: Deadline,
) -> Result<CardHealth, Failure> {
    loop {
        let is_last = deadline.has_passed();
        let Heard { lines, doubt } = hear(host, terms, since);
        match probe(host, terms, &lines) {
            Ok(health) => return Ok(health.but(doubt)),
            Err(error) if is_last => return Err(Failure::Refused(vec![error.to_string()])),
            Err(_) => deadline.pause(LOOK),
        }
    }
}

/// Asks the card, beside what is known of the kernel's log.
///
/// # Errors
/// It could not be asked, which says nothing of it.
pub(super) fn probe(
    host: &Host,
    terms: &CardTerms,
    lines: &[RecognisedLine],
) -> Result<CardHealth, HostError> {
    let report = host.probe_pci(&terms.expected, &terms.ports, Deadline::after(PROBE))?;
    Ok(CardHealth::of(&report, lines))
}

/// What the kernel has said of a card.
pub(super) struct Heard {
    /// What of it is evidence against the card.
    pub(super) lines: Vec<RecognisedLine>,
    /// Why there may be more of it, or what it should have said and did not.
    pub(super) doubt: Option<String>,
}

pub(super) fn hear(host: &Host, terms: &CardTerms, since: KernelLogPosition) -> Heard {
    match host.kernel_log_since(since) {
        Ok(log) => Heard {
            lines: lines_of_trouble(&log, &terms.addresses(), &terms.kernel_lines),
            doubt: match log.beginning {
                Beginning::Lost => Some("the kernel has overwritten what it said in the meantime".to_owned()),
                Beginning::Kept => missing_reset(&log, terms, since),
            },
        },
        Err(error) => Heard { lines: Vec::new(), doubt: Some(error.to_string()) },
    }
}

/// QEMU has a function reset when it takes it and when it lets go of it. Where the module vendor-reset is to do that and
/// said nothing, the kernel took another way, or none: a reset that did not fail may be one that never ran.
fn missing_reset(log: &KernelLog, terms: &CardTerms, since: KernelLogPosition) -> Option<String> {
    let function = terms.vendor_reset?;
    // A recovery step makes resets of its own, after which no card is clean.
    let was_reset_by_qemu = terms.usage == CardUsage::ByGuest && since == terms.log_position;
    (was_reset_by_qemu && !has_line_of_vendor_reset(log, function)).then(|| {
        format!(
            "{function} was to be reset by vendor-reset, which says nothing of a reset in the kernel's log: \
             it did not run (`dmesg | grep vendor_reset` shows whether its hook is installed)"
        )
    })
}

/// Binds the functions, and looks whether a host's driver can work with what it got: its display decides. What else is
/// odd is returned, to be told: another function that its driver refused, errors on the bus during a good bind.
pub(super) fn bind_and_look(
    host: &mut Host,
    terms: &CardTerms,
    then: &Bindings,
    deadline: Deadline,
) -> Result<Vec<String>, Failure> {
    let before = host.kernel_log_position().unwrap_or(terms.log_position);
    let asks_until = Deadline::after(IS_ASKED).earlier(deadline);
    let is_for_host = then.has_host_driver();
    let deciding = terms.deciding(host);
    let refused = loop {
        let within = Deadline::after(terms.timeout).earlier(deadline);
        let bound = match is_for_host {
            true => host.set_bindings_where_some_decide(then, &deciding, within),
            false => host.set_bindings(then, within).map(|()| Vec::new()),
        };
        match bound {
            Ok(refused) => break refused,
            // A signal of an administrator's, or for lack of memory, says nothing of the card.
            Err(error) if (error.is_shortage() || error.is_interrupted()) && !asks_until.has_passed() => {
                asks_until.pause(LOOK);
            }
            Err(error) if is_for_host && (error.is_of_driver() || error.ran_out_of_time()) => {
                let said = hear(host, terms, before).lines;
                let lines = [error.to_string()].into_iter().chain(said.iter().map(RecognisedLine::to_string));
                return Err(Failure::ByDriver(lines.collect()));
            }
            Err(error) => return Err(Failure::of(&error)),
        }
    };
    if !is_for_host {
        return Ok(Vec::new());
    }
    let (wedged, odd): (Vec<RecognisedLine>, Vec<RecognisedLine>) =
        hear(host, terms, before).lines.into_iter().partition(|line| line.severity == Severity::Wedged);
    let mut evidence: Vec<String> = wedged.iter().map(RecognisedLine::to_string).collect();
    // What cannot be looked at is no evidence against the card.
    let has_drm = |function: &_| host.drm_cards_of(*function).map_or(true, |cards| !cards.is_empty());
    if terms.kind == CardKind::Drm && !terms.functions.as_slice().iter().any(has_drm) {
        evidence.push(format!("{}: its driver made no DRM device", terms.name));
    }
    let odd = odd.iter().map(RecognisedLine::to_string);
    if evidence.is_empty() {
        Ok(refused.iter().map(HostError::to_string).chain(odd).collect())
    } else {
        evidence.extend(odd);
        Err(Failure::ByDriver(evidence))
    }
}
