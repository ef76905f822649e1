//! What can be seen of a card from outside, and the rungs that may wake one up.

use std::time::Duration;

use super::{CardKind, CardTerms, Failure, StuckKind, StuckOperation, Verdict};
use crate::deadline::Deadline;
use crate::gpu::{Rung, Sign, signs_in};
use crate::guest::GuestUuid;
use crate::host::{
    AskedBars, Bindings, BusReset, Host, HostError, KernelLogPosition, ONE_LOOK, PciTrouble, ProcessId,
    QemuSearch,
};
use crate::ledger::error::LedgerError;
use crate::ledger::knob::Knob;
use crate::ledger::open::Ledger;
use crate::ledger::plan::{Claim, Plan};
use crate::ledger::value::Want;
use crate::pci::PciAddress;

/// How long QEMU may take to let go of a card: libvirt kills for up to 40 s, and 2 s more for each device
/// (`qemuProcessKill` in libvirt's `qemu_process.c`).
const LETS_GO: Duration = Duration::from_secs(45);

/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(50);

/// How long a card may take to answer.
const PROBE: Duration = Duration::from_secs(5);

/// How long a card that does not answer has before it is asked once more.
const SETTLE: Duration = Duration::from_secs(5);

/// How long a rung may take: the kernel waits up to 60 s for a device after a reset (`PCIE_RESET_READY_POLL_MS` in its
/// `drivers/pci/pci.c`), and links are trained on top of that.
const RUNG: Duration = Duration::from_secs(75);

/// What is said where a process that hangs hides whether the guest's QEMU runs.
const NOT_KNOWN: &str =
    "the look through all processes took too long, so that it is not known whether QEMU has ended";

/// What `drivers_autoprobe` holds while the kernel binds no driver by itself.
const OFF: &str = "0";

impl Ledger<'_> {
    /// How a card is, once nobody has it any more. One that does not answer is asked once more, after a while. A failure
    /// where somebody may still have it: then nothing may be tried.
    pub(super) fn examine(
        &mut self,
        owner: Option<GuestUuid>,
        terms: &CardTerms,
    ) -> Result<Result<Verdict, Failure>, LedgerError> {
        if let Some(operation) = terms.stuck_operation(self.host) {
            return Ok(Err(Failure::Stuck(operation.clone())));
        }
        let known = owner.and_then(|guest| self.record.leases.get(&guest)?.qemu);
        let was_taken = self.record.entry(&terms.knob()).is_some();
        self.unlocked(|host, deadline| {
            // One that was never taken may be used by the host's programs.
            if was_taken {
                let lets_go = Deadline::after(LETS_GO).earlier(deadline);
                wait_until_free(host, owner, known, terms, lets_go)?;
            }
            Ok(match look_at(host, terms) {
                Verdict::Dead(_) => {
                    host.let_pci_settle(SETTLE, deadline);
                    look_at(host, terms)
                }
                verdict => verdict,
            })
        })
    }

    /// One try to wake a card up.
    pub(super) fn climb(
        &mut self,
        owner: Option<GuestUuid>,
        terms: &CardTerms,
        rung: Rung,
    ) -> Result<Result<(), Failure>, LedgerError> {
        // Those that are just starting, and those of which nothing is known here.
        let has_others = self.record.leases.keys().any(|guest| Some(*guest) != owner);
        let may_run = || self.host.qemu_of_others(owner, Deadline::after(ONE_LOOK)).may_run();
        if rung == Rung::DeepSleep && (has_others || may_run()) {
            return Ok(Err(Failure::Refused(vec!["no deep sleep while other guests run".to_owned()])));
        }
        // Claimed until the lease's cards are back: whoever is killed in the middle is cleaned up after.
        if let Some(guest) = owner.filter(|_| rung.finds_anew()) {
            let claim = Claim { knob: Knob::DriversAutoprobe, want: Want::Text(OFF.to_owned()), now: None };
            let plan = Plan::add(&self.record, self.host, guest, &[claim], self.deadline)?;
            let failures = self.carry_out_upholding(guest, plan)?.failures;
            if !failures.is_empty() {
                return Ok(Err(Failure::Refused(failures)));
            }
        }
        self.unlocked(|host, deadline| {
            let deadline = Deadline::after(RUNG).earlier(deadline);
            climb(host, terms, rung, deadline).map_err(|error| Failure::of(&error))
        })
    }
}

/// A QEMU that was killed may hang in the kernel and still have the card: then nothing may touch it.
fn wait_until_free(
    host: &Host,
    owner: Option<GuestUuid>,
    known: Option<ProcessId>,
    terms: &CardTerms,
    deadline: Deadline,
) -> Result<(), Failure> {
    loop {
        let is_last = deadline.has_passed();
        let qemu =
            owner.map_or(QemuSearch::Gone, |guest| host.qemu_of(guest, known, Deadline::after(ONE_LOOK)));
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
pub(super) fn look_at(host: &Host, terms: &CardTerms) -> Verdict {
    let signs = signs_since(host, terms, terms.log_position);
    match host.probe_pci(&terms.expected, &terms.ports, Deadline::after(PROBE)) {
        Ok(report) => Verdict::of(&report, &signs),
        Err(error) => Verdict::Dead(vec![error.to_string()]),
    }
}

pub(super) fn signs_since(host: &Host, terms: &CardTerms, position: KernelLogPosition) -> Vec<Sign> {
    // Without the log there are only no signs.
    host.kernel_log_since(position).map(|log| signs_in(&log, &terms.addresses())).unwrap_or_default()
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
    let mut evidence: Vec<String> = signs_since(host, terms, before).iter().map(Sign::to_string).collect();
    let has_drm = |function: &_| host.drm_cards_of(*function).is_ok_and(|cards| !cards.is_empty());
    if terms.kind == CardKind::Drm && !terms.functions.as_slice().iter().any(has_drm) {
        evidence.push(format!("{}: its driver made no DRM device", terms.name));
    }
    if evidence.is_empty() { Ok(()) } else { Err(Failure::Refused(evidence)) }
}

fn climb(host: &mut Host, terms: &CardTerms, rung: Rung, deadline: Deadline) -> Result<(), HostError> {
    let functions = terms.functions.as_slice();
    // A driver of the host's would not survive what comes, nor the host the driver.
    let aside = host.bindings(functions, &AskedBars::new()).map(|now| now.without_host_drivers());
    if let Ok(aside) = aside {
        host.set_bindings(&aside, Deadline::after(terms.timeout).earlier(deadline))?;
    }
    let Some(port) = terms.ports.first().copied() else { return reset(host, functions, deadline) };
    match rung {
        Rung::Reset => reset(host, functions, deadline),
        Rung::BusReset => match host.pci_bus_reset(functions)? {
            BusReset::Others(others) => Err(HostError::pci(PciTrouble::OthersOnBus { port, others })),
            BusReset::OnlyThem | BusReset::NoPort => host.reset_subordinate(port, deadline),
        },
        Rung::Rescan => {
            host.remove_functions(functions, deadline)?;
            host.rescan(port, functions, deadline)
        }
        Rung::RescanCard => match terms.card_ports.last() {
            Some(upstream) => {
                host.remove_functions(&[*upstream], deadline)?;
                let above = terms.ports.get(terms.card_ports.len()).copied().unwrap_or(port);
                host.rescan(above, functions, deadline)
            }
            None => Err(HostError::pci(PciTrouble::NoOwnSwitch(functions[0]))),
        },
        Rung::SlotPower => host.power_cycle_slot(functions[0], functions, deadline),
        // Whoever climbs binds what answers.
        Rung::HostDriver => Ok(()),
        Rung::DeepSleep => host.deep_sleep(deadline),
    }
}

/// Those that can be reset by themselves are; it is enough if one can.
fn reset(host: &mut Host, functions: &[PciAddress], deadline: Deadline) -> Result<(), HostError> {
    let mut last = Ok(());
    let mut is_one_reset = false;
    for function in functions {
        match host.reset_function(*function, deadline) {
            Ok(()) => is_one_reset = true,
            Err(error) if error.stuck_process().is_some() => return Err(error),
            Err(error) => last = Err(error),
        }
    }
    if is_one_reset { Ok(()) } else { last }
}
