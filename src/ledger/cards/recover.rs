//! The recovery steps: what may wake up a card that does not answer.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{CardTerms, Failure};
use crate::deadline::Deadline;
use crate::gpu::{RecoveryStep, ReturnTo};
use crate::guest::GuestUuid;
use crate::host::{
    AskedBars, Binding, Bindings, BusReset, Host, HostError, ONE_LOOK, PciTrouble, QemuClues, RescanBinding,
};
use crate::ledger::carry_out::Outcome;
use crate::ledger::claim::{Claim, ClaimTerms};
use crate::ledger::error::LedgerError;
use crate::ledger::executor::RepairKind;
use crate::ledger::open::Ledger;
use crate::ledger::plan::Plan;
use crate::ledger::settings::{Attribute, AttributeValue};
use crate::pci::PciAddress;

/// How long a step may take: the kernel waits up to 60 s for a device after a reset (`PCIE_RESET_READY_POLL_MS` in its
/// `drivers/pci/pci.c`), and links are trained on top of that.
const RECOVERY_STEP: Duration = Duration::from_secs(75);

/// What `drivers_autoprobe` holds while the kernel binds no driver by itself.
const OFF: &str = "0";

impl Ledger<'_> {
    /// One try to wake a card up.
    pub(super) fn take_recovery_step(
        &mut self,
        owner: GuestUuid,
        terms: &CardTerms,
        step: RecoveryStep,
        outcome: &mut Outcome,
    ) -> Result<Result<(), Failure>, LedgerError> {
        // Those that are just starting, and those of which nothing is known here.
        let has_others = self.record.leases.keys().any(|guest| *guest != owner);
        let name = self.record.leases.get(&owner).map_or("", |lease| lease.name.as_str());
        let own = QemuClues { guest: owner, name, known: None };
        let may_run = || self.host.qemu_of_others(own, Deadline::after(ONE_LOOK)).may_run();
        if step == RecoveryStep::DeepSleep && (has_others || may_run()) {
            return Ok(Err(Failure::Refused(vec!["no deep sleep while other guests run".to_owned()])));
        }
        if step.finds_anew()
            && let Err(error) = self.check_rescan_binding(terms)
        {
            return Ok(Err(Failure::of(&error)));
        }
        // What it is bound to in between was made by us, also if this process is killed.
        if let Some(entry) = self.record.entry_mut(&terms.drivers()) {
            entry.announce(terms.handed_over.clone(), None);
        }
        if step.finds_anew()
            && let Err(refused) = self.hold_drivers_autoprobe(owner)?
        {
            return Ok(Err(refused));
        }
        let repair = RepairKind::WakeCard { card: terms.name.clone(), step };
        let done = self.repair(owner, repair, |host, deadline| {
            let deadline = Deadline::after(RECOVERY_STEP).earlier(deadline);
            take_recovery_step(host, terms, step, deadline).map_err(|error| Failure::of(&error))
        })?;
        if step.finds_anew() {
            self.let_go_of_drivers_autoprobe(owner, outcome)?;
        }
        Ok(done)
    }

    /// Some kernels give a function that they find to a driver at once. That does no harm to a card that is to go there
    /// anyway as soon as it answers.
    fn check_rescan_binding(&self, terms: &CardTerms) -> Result<(), HostError> {
        let baseline = self.record.entry(&terms.drivers()).map(|entry| &entry.baseline);
        let came_from_host = baseline.is_some_and(Bindings::has_host_driver);
        if self.host.rescan_binding()? == RescanBinding::WhenAsked
            || (came_from_host && terms.return_to == ReturnTo::Host)
        {
            return Ok(());
        }
        let mut drivers: BTreeSet<String> = BTreeSet::new();
        for function in terms.functions.as_slice() {
            match self.host.loaded_drivers_of(*function) {
                Ok(loaded) => drivers.extend(loaded),
                // It fell off the bus: what it was bound to knew it.
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error),
            }
        }
        let before = baseline.into_iter().flat_map(|baseline| baseline.0.values());
        let before = before.filter_map(|binding| binding.driver.as_ref()).filter(|driver| !driver.is_vfio());
        drivers.extend(before.filter(|driver| self.host.has_pci_driver(driver)).map(ToString::to_string));
        match drivers.is_empty() {
            true => Ok(()),
            false => Err(HostError::pci(PciTrouble::BoundWhenFound(drivers.into_iter().collect()))),
        }
    }

    /// Has the kernel bind no driver by itself. What a killed process leaves of it is given back.
    fn hold_drivers_autoprobe(&mut self, owner: GuestUuid) -> Result<Result<(), Failure>, LedgerError> {
        let (setting, off) = (Attribute::drivers_autoprobe(), AttributeValue::new(OFF));
        let claim = Claim::new(setting, off, ClaimTerms::default());
        let plan = Plan::add(&self.record, &self.host, owner, &[claim.into()], self.deadline)?;
        let failures = self.carry_out_reconciling(owner, plan)?.failures;
        Ok(if failures.is_empty() { Ok(()) } else { Err(Failure::Refused(failures)) })
    }

    /// By now the functions are kept from all drivers. What cannot be put back is tried again with the rest of the
    /// lease.
    fn let_go_of_drivers_autoprobe(
        &mut self,
        owner: GuestUuid,
        outcome: &mut Outcome,
    ) -> Result<(), LedgerError> {
        if let Some(entry) = self.record.entry_mut(&Attribute::drivers_autoprobe()) {
            entry.claims.remove(&owner);
        }
        let Outcome { notes, failures, .. } = self.give_back_what_is_left(&[].into(), None)?;
        outcome.absorb(Outcome { notes, failures, ..Outcome::default() });
        Ok(())
    }
}

fn take_recovery_step(
    host: &mut Host,
    terms: &CardTerms,
    step: RecoveryStep,
    deadline: Deadline,
) -> Result<(), HostError> {
    let functions = terms.functions.as_slice();
    // A driver of the host's would not survive what comes, nor the host the driver.
    set_aside(host, terms, deadline)?;
    let port =
        || terms.ports.first().copied().ok_or_else(|| HostError::pci(PciTrouble::NoPort(functions[0])));
    match step {
        RecoveryStep::Reset => reset(host, functions, deadline),
        RecoveryStep::BusReset => match host.pci_bus_reset(functions)? {
            BusReset::Others(others) => Err(HostError::pci(PciTrouble::Others { port: port()?, others })),
            BusReset::OnlyThem | BusReset::NoPort => host.reset_subordinate(port()?, deadline),
        },
        RecoveryStep::Rescan => {
            let port = port()?;
            host.remove_functions(functions, deadline)?;
            host.rescan(port, functions, deadline)?;
            keep_found(host, terms, deadline)
        }
        RecoveryStep::RescanCard => {
            let no_switch = || HostError::pci(PciTrouble::NoOwnSwitch(functions[0]));
            let upstream = *terms.card_ports.last().ok_or_else(no_switch)?;
            let above = terms.ports.get(terms.card_ports.len()).copied().map_or_else(port, Ok)?;
            has_only(host, upstream, terms)?;
            host.remove_functions(&[upstream], deadline)?;
            host.rescan(above, functions, deadline)?;
            keep_found(host, terms, deadline)
        }
        RecoveryStep::SlotPower => {
            if let Some(above) = terms.ports.get(terms.card_ports.len()) {
                has_only(host, *above, terms)?;
            }
            host.power_cycle_slot(functions[0], functions, deadline)?;
            keep_found(host, terms, deadline)
        }
        // The caller binds what answers.
        RecoveryStep::HostDriver => Ok(()),
        RecoveryStep::DeepSleep => host.deep_sleep(deadline),
    }
}

fn set_aside(host: &mut Host, terms: &CardTerms, deadline: Deadline) -> Result<(), HostError> {
    let now = match host.bindings(terms.functions.as_slice(), &AskedBars::new()) {
        // What has fallen off the bus has no driver.
        Err(error) if error.is_absent() => return Ok(()),
        now => now?,
    };
    host.set_bindings(&now.without_host_drivers(), Deadline::after(terms.timeout).earlier(deadline))
}

/// Keeps all drivers from functions that were found anew and lost their override. One that the kernel gave to a driver
/// when it found it stays there.
fn keep_found(host: &mut Host, terms: &CardTerms, deadline: Deadline) -> Result<(), HostError> {
    let mut now = host.bindings(terms.functions.as_slice(), &AskedBars::new())?;
    for binding in now.0.values_mut().filter(|binding| binding.driver.is_none()) {
        *binding = Binding::quarantined();
    }
    host.set_bindings(&now, Deadline::after(terms.timeout).earlier(deadline))
}

/// Whether nothing but the card is below a port: all of it goes away for a while.
fn has_only(host: &Host, port: PciAddress, terms: &CardTerms) -> Result<(), HostError> {
    let mut others = host.pci_functions_behind(port)?;
    others.retain(|function| !terms.functions.contains(*function) && !terms.card_ports.contains(function));
    // Further ports of the card's own switch lead nowhere.
    let mut used = Vec::new();
    for function in others {
        if !host.pci_function(function)?.class.is_bridge() {
            used.push(function);
        }
    }
    match used.is_empty() {
        true => Ok(()),
        false => Err(HostError::pci(PciTrouble::Others { port, others: used })),
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

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::errno::Errno;

    use super::*;
    use crate::gpu::KeepAwake;
    use crate::host::simulated::Faults;
    use crate::kernel_log::KernelLogPosition;
    use crate::ledger::cards::{CardKind, CardUsage};
    use crate::ledger::testing::{Machine, soon};
    use crate::pci::PciFunctions;

    /// What was agreed about the desktop's RX 6800.
    fn terms() -> CardTerms {
        let functions = ["0000:03:00.0", "0000:03:00.1", "0000:03:00.2", "0000:03:00.3"];
        CardTerms {
            functions: PciFunctions::new(functions.map(|address| address.parse().unwrap())).unwrap(),
            name: "RX 6800".to_owned(),
            kind: CardKind::Drm,
            handed_over: Bindings::default(),
            ports: Vec::new(),
            card_ports: Vec::new(),
            framebuffers: Vec::new(),
            expected: Vec::new(),
            return_to: ReturnTo::Host,
            keep_awake: KeepAwake::Auto,
            usage: CardUsage::ByGuest,
            recover: Vec::new(),
            reset_after: Vec::new(),
            timeout: Duration::from_secs(10),
            log_position: KernelLogPosition(0),
            vendor_reset: None,
            kernel_lines: Vec::new(),
            stuck: None,
        }
    }

    /// A reset under a driver that cannot be seen may end the host.
    #[test]
    fn a_card_whose_drivers_cannot_be_seen_is_not_reset() {
        let machine = Machine::new();
        let (faults, terms) = (Faults::default(), terms());
        let mut host = Host::simulated(machine.0.path(), &faults);
        let function = terms.functions.as_slice()[0];
        let driver = format!("/sys/bus/pci/devices/{function}/driver");
        faults.refuse_read(&driver, Errno::EIO);
        let error =
            take_recovery_step(&mut host, &terms, RecoveryStep::Reset, soon()).unwrap_err().to_string();
        assert!(error.contains(&driver), "{error}");
        faults.clear();
        set_aside(&mut host, &terms, soon()).unwrap();
        // What has fallen off the bus has no driver.
        for function in terms.functions.as_slice() {
            fs::remove_file(machine.path(&format!("/sys/bus/pci/devices/{function}"))).unwrap();
        }
        set_aside(&mut host, &terms, soon()).unwrap();
    }
}
