//! A guest's life, event by event: what is planned, taken, verified and given back.

mod basis;
mod cards;
mod guest_runs;
mod hold;
mod load;
mod lost_keepers;
mod monitors;
mod prepare;
mod report;
mod restart;
#[cfg(test)]
pub(crate) mod testing;
mod verify;

use std::time::Duration;

use thiserror::Error;

use crate::actions::{self, ActionError, DeadCard};
use crate::config::{ConfigErrors, TrustError};
use crate::deadline::Deadline;
use crate::event::Operation;
use crate::guest::{Guest, GuestName, GuestUuid};
use crate::host::{Host, HostError, ProcessId, xml_file};
use crate::keeper_protocol::Request;
use crate::ledger::{
    CommandNews, KeeperProcess, Lease, LeaseState, Ledger, LedgerError, MonitorSetting, Note, Occasion,
    Outcome, Record, awaited_devices, remedy,
};
use crate::pci::PciAddress;

use guest_runs::is_over;

pub use basis::{LIBVIRT_DIR, configuration_since};
pub use cards::{Clearing, clear_quarantine};
pub use guest_runs::{guest_may_start, guest_runs, guest_starts};
pub use hold::hold;
pub use load::{
    CONFIG_DIR, GROUPS_FILE, HOST_FILE, LoadedConfig, config_path, host_config, is_in_wrong_group,
    load_config, load_host_config, log_level, why_no_group_has,
};
pub use lost_keepers::replace_lost_keepers;
pub use monitors::{follow_monitors, note_monitors, return_monitors};
pub use prepare::{PreparePlan, plan_prepare, prepare};
pub(crate) use report::report;
pub use restart::{AfterTheEnd, start_again_after_reboot};
pub use verify::{trouble_with_cards, verify_cards, verify_isolation, verify_pages};

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
    /// The host has not what the YAML file asks for, or the guest's XML does not fit it: where the file asks.
    #[error("{0}")]
    Refused(ConfigErrors),
    /// Cards do not answer.
    #[error("{errors}")]
    DeadCards {
        /// Where the YAML file asks for them, and what else is wrong.
        errors: ConfigErrors,
        /// The cards.
        cards: Vec<DeadCard>,
    },
    /// A user other than root could have written the YAML file.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The machine cannot be read.
    #[error(transparent)]
    Host(#[from] HostError),
    /// An action could not look at the machine.
    #[error(transparent)]
    Action(#[from] ActionError),
    /// The ledger could not do what was asked.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// What is asked for is the guest's already.
    #[error("{0} runs, or is being started, and has what its file asks for")]
    HasItAlready(GuestName),
    /// The keeper of an earlier life of the guest is still at work.
    #[error("what the guest held before is still being given back")]
    StillGivingBack,
    /// Pages that were there after `prepare` are not any more.
    #[error("{pool}: {set_aside} were set aside for the guest, {available} are left")]
    PagesGone {
        /// The pool, in words.
        pool: String,
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
            Self::Config(_) | Self::Refused(_) | Self::DeadCards { .. } => None,
            Self::Trust(error) => Some(error.help()),
            Self::Host(error) => remedy(error),
            Self::Action(error) => error.help(),
            Self::Ledger(error) => error.help(),
            Self::StillGivingBack => Some(
                "start it again in a while; `vfio-hook status` shows what is left, `journalctl -t \
                 vfio-hook` why"
                    .to_owned(),
            ),
            Self::HasItAlready(_) => Some("`vfio-hook status` shows it".to_owned()),
            Self::SameName(_) => Some("`vfio-hook undo UUID`; `vfio-hook status` shows the UUIDs".to_owned()),
            Self::PagesGone { .. } => {
                Some("something else on this host takes huge pages; start the guest again".to_owned())
            }
            Self::CardTaken { .. } => Some(
                "is there another hook, driverctl, a udev rule or `virsh nodedev-reattach` that \
                 binds it? Then start the guest again"
                    .to_owned(),
            ),
        }
    }
}

/// Gives back what an earlier life of the guest left, all but the monitors if a process that starts it again wants them.
/// Where its keeper is at that, this waits.
fn end_earlier_life(
    host: &mut Host,
    uuid: GuestUuid,
    restarted_by: Option<ProcessId>,
    deadline: Deadline,
    report: &mut Outcome,
) -> Result<(), LifecycleError> {
    let mut is_reminded = false;
    loop {
        match Ledger::peek(host)?.and_then(|record| record.leases.get(&uuid).cloned()) {
            None => return Ok(()),
            Some(Lease { phase: LeaseState::Preparing(by), .. }) if Some(by) == restarted_by => return Ok(()),
            Some(Lease { phase: LeaseState::GivingBack(by), .. }) if host.is_alive(by) => {
                if deadline.has_passed() {
                    return Err(LifecycleError::StillGivingBack);
                }
                if !is_reminded {
                    remind_keeper(host, uuid, LEFT_OVER, restarted_by, deadline);
                    is_reminded = true;
                }
                deadline.pause(LOOK_AT_KEEPER);
            }
            Some(_) => {
                let mut ledger = Ledger::open_for(host, uuid, deadline)?;
                report.absorb(ledger.recovered().clone());
                if ledger.record().leases.contains_key(&uuid) {
                    report.absorb(ledger.give_back(uuid, LEFT_OVER, restarted_by)?);
                    report.notes.push(Note::info("an earlier life of this guest had not been given back"));
                    // What the host refuses again is given back with the life that begins.
                    if ledger.is_unfinished(uuid) {
                        return Ok(());
                    }
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
        crate::log::log_warning!("the guest's XML for its scripts stays as it was: {error}");
    }
    Ok(())
}

/// Whether a guest holds something.
///
/// # Errors
/// The ledger cannot be read.
pub fn has_lease(host: &Host, uuid: GuestUuid) -> Result<bool, LifecycleError> {
    Ok(Ledger::peek(host)?.is_some_and(|record| record.leases.contains_key(&uuid)))
}

/// Notes the devices that libvirt chose for a guest after its `prepare`, so that their interrupts count as the guest's.
///
/// # Errors
/// The ledger cannot be used.
pub fn note_network_devices(
    host: &mut Host,
    guest: &Guest,
    deadline: Deadline,
) -> Result<(), LifecycleError> {
    let Some(record) = Ledger::peek(host)? else { return Ok(()) };
    let devices: Vec<PciAddress> = guest.pci_hostdevs.iter().map(|device| device.address).collect();
    if !awaited_devices(&record, guest.uuid, &devices).is_empty() {
        Ledger::open_for(host, guest.uuid, deadline)?.add_network_devices(guest.uuid, &devices)?;
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
        return Ok(Ledger::open_for(host, uuid, deadline)?.run_commands_now(uuid, Operation::Start)?);
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
    let mut ledger = Ledger::open_for(host, uuid, deadline)?;
    let mut report = ledger.recovered().clone();
    ledger.mark_started(uuid)?;
    report.absorb(ledger.reconcile(uuid, &[], Occasion::Usual)?);
    match ledger.run_commands_later(uuid, event, "") {
        Ok(outcome) => report.absorb(outcome),
        Err(error) => {
            report.notes.push(Note::warning(format!("commands of {}: {error}", event.as_str())));
        }
    }
    let record = ledger.record().clone();
    drop(ledger);
    tell_keeper(host, &record, uuid, deadline, &mut report);
    report.notes.extend(verify_isolation(host, &record, uuid, deadline));
    report.notes.extend(trouble_with_cards(host, &record, uuid));
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
    if lease.is_held_by_hand() {
        return Ok(held_by_hand());
    }
    if lease.commands.has(Operation::Stopped) {
        let mut ledger = Ledger::open_for(host, uuid, deadline)?;
        report.absorb(ledger.recovered().clone());
        report.absorb(ledger.run_commands_later(uuid, Operation::Stopped, reason)?);
    }
    tell_keeper(host, &record, uuid, deadline, &mut report);
    Ok(report)
}

/// Has a guest's keeper look at the ledger, at QEMU, at the interrupts and the monitors again. One that was killed and
/// has monitors to bring back gets a successor, which looks by itself.
fn tell_keeper(host: &mut Host, record: &Record, uuid: GuestUuid, deadline: Deadline, report: &mut Outcome) {
    if record.entry(&KeeperProcess(uuid)).is_none() {
        return;
    }
    let asked = host.ask_keeper(uuid, &Request::Look, Deadline::after(KEEPER_ANSWERS).earlier(deadline));
    let has_monitors = record.claims_of::<MonitorSetting>(uuid).next().is_some();
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
    if hold::is_held(host, uuid)? {
        return Ok(held_by_hand());
    }
    let mut ledger = Ledger::open_for(host, uuid, deadline)?;
    let mut report = ledger.recovered().clone();
    match ledger.record().leases.get(&uuid).map(|lease| lease.phase) {
        None => {}
        Some(LeaseState::GivingBack(_)) => {
            drop(ledger);
            remind_keeper(host, uuid, reason, None, deadline);
        }
        Some(_) => report.absorb(ledger.give_back(uuid, reason, None)?),
    }
    Ok(report)
}

/// No event of the guest's ends what a person holds for it.
fn held_by_hand() -> Outcome {
    let note = Note::info("held by hand: left as it is until `vfio-hook undo`, or the guest's start");
    Outcome { notes: vec![note], ..Outcome::default() }
}

/// Asks a keeper once more to give a lease back: the process that was to ask may have been killed on the way.
fn remind_keeper(
    host: &mut Host,
    uuid: GuestUuid,
    reason: &str,
    restarted_by: Option<ProcessId>,
    deadline: Deadline,
) {
    let deadline = Deadline::after(KEEPER_ANSWERS).earlier(deadline);
    // One that does not answer is found by the process that waits for it.
    let _ = host.ask_keeper(uuid, &Request::GiveBack { reason: reason.to_owned(), restarted_by }, deadline);
}

/// What a keeper does when its guest is gone: gives the lease back, commands and all. A guest that runs keeps it; the
/// process that starts it again gets the monitors.
///
/// # Errors
/// The ledger cannot be used.
pub fn finish(
    host: &mut Host,
    uuid: GuestUuid,
    reason: &str,
    restarted_by: Option<ProcessId>,
    deadline: Deadline,
) -> Result<Outcome, LifecycleError> {
    let mut ledger = Ledger::open(host, deadline)?;
    let mut report = ledger.recovered().clone();
    if is_over(ledger.host(), ledger.record(), uuid) {
        report.absorb(ledger.give_back_here(uuid, reason, restarted_by)?);
    }
    Ok(report)
}

/// What a keeper writes down about a command that it runs while nobody waits for it, and that something takes back.
/// False where the guest has no such command any more.
///
/// # Errors
/// The ledger cannot be used.
pub fn note_command(
    host: &mut Host,
    uuid: GuestUuid,
    entry: usize,
    news: CommandNews,
    deadline: Deadline,
) -> Result<bool, LifecycleError> {
    Ok(Ledger::open_for(host, uuid, deadline)?.note_command(uuid, entry, news)?)
}

/// What a keeper does from time to time, when systemd has read its files again, and when CPUs came back: what the guest
/// holds is set again where it was taken away, interrupts that came meanwhile go where they belong, and threads that came
/// are scheduled as the guest's file says.
///
/// # Errors
/// The ledger cannot be used.
pub fn reconcile(
    host: &mut Host,
    uuid: GuestUuid,
    occasion: Occasion,
    deadline: Deadline,
) -> Result<Outcome, LifecycleError> {
    let mut ledger = Ledger::open_for(host, uuid, deadline)?;
    let mut report = ledger.recovered().clone();
    let (looked_at, record) = (ledger.host(), ledger.record());
    let mut claims = actions::propose_late_interrupts(looked_at, record, uuid)?;
    claims.extend(actions::propose_late_kernel_threads(looked_at, record, uuid)?);
    claims.extend(actions::propose_late_threads(looked_at, record, uuid, deadline)?);
    report.absorb(ledger.reconcile(uuid, &claims, occasion)?);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nix::errno::Errno;

    use super::testing::{GUEST, Machine};
    use super::*;
    use crate::command::{Command, CommandMode, OnCommandFailure, Program};
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
            env: BTreeMap::new(),
            mode: CommandMode::Waited,
            unless_exists: None,
            undo: None,
            place: None,
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
