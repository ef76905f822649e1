//! A guest's life, event by event: what is planned, taken, verified and given back.

mod cards;
mod load;
mod monitors;
mod prepare;
mod restart;
#[cfg(test)]
pub(crate) mod testing;
mod verify;

use std::time::Duration;

use thiserror::Error;

use crate::actions::{self, DeadCard};
use crate::config::{ConfigErrors, TrustError};
use crate::deadline::Deadline;
use crate::event::Operation;
use crate::guest::{GuestName, GuestUuid};
use crate::host::{Host, HostError, ONE_LOOK, ProcessId, Request, xml_file};
use crate::ledger::{Knob, Lease, Ledger, LedgerError, Note, Outcome, Phase, Record};

pub use cards::{Clearing, clear_quarantine};
pub use load::{
    CONFIG_DIR, HOST_FILE, LoadedConfig, config_path, has_config, host_config, load_config, load_host_config,
};
pub use monitors::{follow_monitors, note_monitors, return_monitors};
pub use prepare::{PreparePlan, plan_prepare, prepare};
pub use restart::{AfterTheEnd, start_again_after_reboot};
pub use verify::{signs_of_trouble, verify_cards, verify_isolation, verify_pages};

/// How often it is looked whether a keeper has given everything back.
const LOOK_AT_KEEPER: Duration = Duration::from_millis(10);

/// The longest wait for a keeper's word on how it stands.
const KEEPER_ANSWERS: Duration = Duration::from_secs(1);

/// Why a guest's commands are run when nobody said why it ended.
const LEFT_OVER: &str = "unknown";

/// Why an event failed.
#[derive(Debug, Error)]
pub enum LifecycleError {
    /// The YAML file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// Cards do not answer.
    #[error("{errors}")]
    DeadCards {
        /// Where the YAML file asks for them, and what else is wrong.
        errors: ConfigErrors,
        /// The cards.
        cards: Vec<DeadCard>,
    },
    /// Somebody other than root could have written the YAML file.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The machine cannot be read.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The ledger could not do what was asked.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The keeper of an earlier life of the guest is still at work.
    #[error("what the guest held before is still being given back")]
    StillGivingBack,
    /// Pages that were there after `prepare` are not any more.
    #[error("{knob}: {set_aside} were set aside for the guest, {available} are left")]
    PagesGone {
        /// The pool, in words.
        knob: String,
        /// What was there after `prepare`.
        set_aside: u64,
        /// What is there.
        available: u64,
    },
    /// A name says nothing: guests that were deleted and made anew have it too.
    #[error("several guests called {0} hold something")]
    SameName(GuestName),
    /// A card that `prepare` handed over is not bound as it was.
    #[error("{card} was bound to {was} for the guest, and is bound to {now} now")]
    CardTaken {
        /// The functions that are not, in words.
        card: String,
        /// What they were bound to after `prepare`.
        was: String,
        /// What they are bound to.
        now: String,
    },
}

impl LifecycleError {
    /// What a person can do about it, where the message does not say so itself.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Config(_) | Self::DeadCards { .. } | Self::Trust(_) => None,
            Self::Host(error) => error.help().map(str::to_owned),
            Self::Ledger(error) => error.help(),
            Self::StillGivingBack => Some(
                "start it again in a while; `vfio-hook status` shows what is left, `journalctl -t vfio-hook` why"
                    .to_owned(),
            ),
            Self::SameName(_) => Some("`vfio-hook undo UUID`; `vfio-hook status` shows the UUIDs".to_owned()),
            Self::PagesGone { .. } => {
                Some("something else on this host takes huge pages; start the guest again".to_owned())
            }
            Self::CardTaken { .. } => Some(
                "is there another hook, driverctl, a udev rule or `virsh nodedev-reattach` that binds it? Then start \
                 the guest again"
                    .to_owned(),
            ),
        }
    }
}

/// Gives back what an earlier life of the guest left, all but the monitors if there is an heir to them. Where its
/// keeper is at that, this waits.
fn end_earlier_life(
    host: &mut Host,
    uuid: GuestUuid,
    heir: Option<ProcessId>,
    deadline: Deadline,
    report: &mut Outcome,
) -> Result<(), LifecycleError> {
    let mut is_reminded = false;
    loop {
        match Ledger::peek(host)?.and_then(|record| record.leases.get(&uuid).cloned()) {
            None => return Ok(()),
            Some(Lease { phase: Phase::Preparing(by), .. }) if Some(by) == heir => return Ok(()),
            Some(Lease { phase: Phase::GivingBack(by), .. }) if host.is_alive(by) => {
                if deadline.has_passed() {
                    return Err(LifecycleError::StillGivingBack);
                }
                if !is_reminded {
                    remind_keeper(host, uuid, LEFT_OVER, heir, deadline);
                    is_reminded = true;
                }
                deadline.pause(LOOK_AT_KEEPER);
            }
            Some(_) => {
                let mut ledger = Ledger::open(host, deadline)?;
                report.absorb(ledger.recovered().clone());
                if ledger.record().leases.contains_key(&uuid) {
                    report.absorb(ledger.give_back(uuid, LEFT_OVER, heir)?);
                    report.notes.push(Note::info("an earlier life of this guest had not been given back"));
                }
            }
        }
    }
}

/// Keeps the guest's XML as it is now, for scripts that get it. Only where there are such. That `/run` cannot be
/// written is said, and stops nothing: they get what was kept before, and the event has more to do.
///
/// # Errors
/// The ledger cannot be read.
pub fn refresh_xml(host: &mut Host, uuid: GuestUuid, xml: &[u8]) -> Result<(), LifecycleError> {
    let record = Ledger::peek(host)?;
    if record.and_then(|record| Some(record.leases.get(&uuid)?.commands.want_xml())) == Some(true)
        && let Err(error) = host.replace_state(&xml_file(uuid), xml)
    {
        tracing::warn!("the guest's XML for its scripts stays as it was: {error}");
    }
    Ok(())
}

/// Whether something is to be run for a guest at an event.
///
/// # Errors
/// The ledger cannot be read.
pub fn has_commands(host: &Host, uuid: GuestUuid, event: Operation) -> Result<bool, LifecycleError> {
    let record = Ledger::peek(host)?;
    Ok(record.and_then(|record| Some(record.leases.get(&uuid)?.commands.has(event))) == Some(true))
}

/// `start begin`: are the pages still there, and the cards bound as they were? Then the guest's commands for it are
/// run.
///
/// # Errors
/// They are not; a command failed.
pub fn start(host: &mut Host, uuid: GuestUuid, deadline: Deadline) -> Result<Outcome, LifecycleError> {
    let Some(record) = Ledger::peek(host)? else { return Ok(Outcome::default()) };
    verify_pages(host, &record, uuid)?;
    verify_cards(host, &record, uuid, deadline)?;
    if has_commands(host, uuid, Operation::Start)? {
        return Ok(Ledger::open(host, deadline)?.run_commands_now(uuid, Operation::Start)?);
    }
    Ok(Outcome::default())
}

/// `started begin` and `reconnect begin`: QEMU runs; its keeper is there and is told so; does the isolation hold?
///
/// # Errors
/// The ledger cannot be used.
pub fn started(
    host: &mut Host,
    uuid: GuestUuid,
    event: Operation,
    deadline: Deadline,
) -> Result<Outcome, LifecycleError> {
    let mut ledger = Ledger::open(host, deadline)?;
    let mut report = ledger.recovered().clone();
    ledger.mark_started(uuid)?;
    report.absorb(ledger.uphold(uuid, &[])?);
    if let Err(error) = ledger.run_commands_later(uuid, event, "") {
        report.notes.push(Note::warning(format!("commands of {}: {error}", event.as_str())));
    }
    let record = ledger.record().clone();
    drop(ledger);
    tell_keeper(host, &record, uuid, deadline, &mut report);
    report.notes.extend(verify_isolation(host, &record, uuid, deadline));
    report.notes.extend(signs_of_trouble(host, &record, uuid));
    Ok(report)
}

/// `stopped end`: QEMU is gone; its keeper is told so, and runs what is to be run.
///
/// # Errors
/// The ledger cannot be used.
pub fn stopped(
    host: &mut Host,
    uuid: GuestUuid,
    reason: &str,
    deadline: Deadline,
) -> Result<Outcome, LifecycleError> {
    let mut report = Outcome::default();
    let Some(record) = Ledger::peek(host)? else { return Ok(report) };
    let Some(lease) = record.leases.get(&uuid) else { return Ok(report) };
    if lease.commands.has(Operation::Stopped) {
        let mut ledger = Ledger::open(host, deadline)?;
        report.absorb(ledger.recovered().clone());
        ledger.run_commands_later(uuid, Operation::Stopped, reason)?;
    }
    tell_keeper(host, &record, uuid, deadline, &mut report);
    Ok(report)
}

/// Has a guest's keeper look at the ledger, at QEMU, at the interrupts and the monitors again. One that was killed and
/// has monitors to bring back gets a successor, which looks by itself.
fn tell_keeper(host: &mut Host, record: &Record, uuid: GuestUuid, deadline: Deadline, report: &mut Outcome) {
    if record.entry(&Knob::Keeper(uuid)).is_none() {
        return;
    }
    let asked = host.ask_keeper(uuid, &Request::Look, Deadline::after(KEEPER_ANSWERS).earlier(deadline));
    let has_monitors = record.entries_of(uuid).any(|entry| matches!(entry.knob, Knob::MonitorFeature(_)));
    let told = match asked {
        Err(_) if has_monitors && matches!(host.keeper(uuid, deadline), Ok(None)) => {
            host.start_keeper(uuid, deadline)
        }
        asked => asked.map(drop),
    };
    if let Err(error) = told {
        report.notes.push(Note::warning(error.to_string()));
    }
}

/// `release end`: gives the lease back; none is no error, nor is one that its keeper is giving back already.
///
/// # Errors
/// The ledger cannot be used.
pub fn release(
    host: &mut Host,
    uuid: GuestUuid,
    reason: &str,
    deadline: Deadline,
) -> Result<Outcome, LifecycleError> {
    let mut ledger = Ledger::open(host, deadline)?;
    let mut report = ledger.recovered().clone();
    match ledger.record().leases.get(&uuid).map(|lease| lease.phase) {
        None => {}
        Some(Phase::GivingBack(_)) => {
            drop(ledger);
            remind_keeper(host, uuid, reason, None, deadline);
        }
        Some(_) => report.absorb(ledger.give_back(uuid, reason, None)?),
    }
    Ok(report)
}

/// Asks a keeper once more to give a lease back: whoever was to ask before may have been killed on the way.
fn remind_keeper(
    host: &mut Host,
    uuid: GuestUuid,
    reason: &str,
    heir: Option<ProcessId>,
    deadline: Deadline,
) {
    let deadline = Deadline::after(KEEPER_ANSWERS).earlier(deadline);
    // One that does not answer is found by whoever waits for it.
    let _ = host.ask_keeper(uuid, &Request::GiveBack { reason: reason.to_owned(), heir }, deadline);
}

/// What a keeper does when its guest is gone: gives the lease back, commands and all. A guest that runs keeps it; an
/// heir, the process that starts it again, gets the monitors.
///
/// # Errors
/// The ledger cannot be used.
pub fn finish(
    host: &mut Host,
    uuid: GuestUuid,
    reason: &str,
    heir: Option<ProcessId>,
    deadline: Deadline,
) -> Result<Outcome, LifecycleError> {
    let mut ledger = Ledger::open(host, deadline)?;
    let mut report = ledger.recovered().clone();
    if is_over(ledger.host(), ledger.record(), uuid) {
        report.absorb(ledger.give_back_here(uuid, reason, heir)?);
    }
    Ok(report)
}

/// What a keeper does from time to time, and when systemd has read its files again: what the guest holds is set again
/// where it was taken away, and interrupts that came meanwhile go where they belong.
///
/// # Errors
/// The ledger cannot be used.
pub fn uphold(host: &mut Host, uuid: GuestUuid, deadline: Deadline) -> Result<Outcome, LifecycleError> {
    let mut ledger = Ledger::open(host, deadline)?;
    let mut report = ledger.recovered().clone();
    let claims = actions::propose_late_interrupts(ledger.host(), ledger.record(), uuid)?;
    report.absorb(ledger.uphold(uuid, &claims)?);
    Ok(report)
}

/// The lease of a guest, by its name: where the XML cannot be read, and for people. None where it holds nothing.
///
/// # Errors
/// Several guests of that name hold something.
pub fn lease_by_name(record: &Record, name: &str) -> Result<Option<GuestUuid>, LifecycleError> {
    let named = record.leases.iter().filter(|(_, lease)| lease.name == name);
    match named.map(|(uuid, _)| *uuid).collect::<Vec<_>>()[..] {
        [] => Ok(None),
        [uuid] => Ok(Some(uuid)),
        [_, _, ..] => Err(LifecycleError::SameName(GuestName::new(name))),
    }
}

/// Whether a lease is held by a guest that runs, for all that is known.
#[must_use]
pub fn guest_runs(host: &Host, record: &Record, uuid: GuestUuid) -> bool {
    let Some(lease) = record.leases.get(&uuid) else { return false };
    match lease.phase {
        Phase::Preparing(by) if host.is_alive(by) => true,
        _ => host.qemu_of(lease.qemu_clues(uuid), Deadline::after(ONE_LOOK)).may_run(),
    }
}

/// Whether a lease is to be given back: somebody decided so (even of a running guest, with `undo --force`), or its
/// guest is gone.
fn is_over(host: &Host, record: &Record, uuid: GuestUuid) -> bool {
    match record.leases.get(&uuid).map(|lease| lease.phase) {
        Some(Phase::GivingBack(_)) => true,
        Some(_) => !guest_runs(host, record, uuid),
        None => false,
    }
}

/// Whether somebody is taking what a guest needs, or libvirt is about to start it: between `prepare` and QEMU nothing
/// but its keeper knows.
#[must_use]
pub fn guest_starts(host: &Host, record: &Record, uuid: GuestUuid) -> bool {
    let deadline = Deadline::after(KEEPER_ANSWERS);
    match record.leases.get(&uuid).map(|lease| lease.phase) {
        Some(Phase::Preparing(by)) => host.is_alive(by),
        Some(Phase::Prepared) => match host.keeper(uuid, deadline) {
            Ok(keeper) => keeper.is_some_and(|keeper| keeper.daemon.is_some()),
            // It may be about to see the guest start.
            Err(_) => true,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::testing::{GUEST, Machine};
    use super::*;
    use crate::command::{Command, OnCommandFailure, Program};
    use crate::host::simulated::Faults;
    use crate::ledger::Commands;

    #[test]
    fn a_full_run_keeps_no_event_from_its_work() {
        let machine = Machine::new();
        machine.prepare().unwrap();
        let mut record = machine.record();
        let scripts = Command {
            when: Operation::Release,
            program: Program::Scripts("/etc/scripts".into()),
            timeout: Duration::from_secs(1),
            user: None,
            on_failure: OnCommandFailure::Warn,
        };
        record.leases.get_mut(&GUEST).unwrap().commands = Commands::new(vec![scripts]);
        machine.write(record);
        let faults = Faults::default();
        let mut host = Host::simulated(machine.0.path(), &faults);
        refresh_xml(&mut host, GUEST, b"<domain/>").unwrap();
        assert_eq!(host.read_state(&xml_file(GUEST)).unwrap().as_deref(), Some(&b"<domain/>"[..]));
        faults.refuse(format!("/run/vfio-hook/{GUEST}.xml"), Errno::ENOSPC);
        refresh_xml(&mut host, GUEST, b"<domain></domain>").unwrap();
        assert_eq!(host.read_state(&xml_file(GUEST)).unwrap().as_deref(), Some(&b"<domain/>"[..]));
    }
}
