//! A guest's life, event by event: what is planned, taken, verified and given back.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::actions::{self, Problem, Proposal, Situation};
use crate::config::{ConfigErrors, ConfigSource, Diagnostic, GuestConfig, TrustError, read_trusted};
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::guest::{Guest, GuestName, GuestUuid};
use crate::host::{Host, HostError};
use crate::ledger::{
    Knob, Lease, Ledger, LedgerError, Note, Outcome, Phase, Plan, Record, Want, available_pages,
};

/// Where the guests' YAML files are.
pub const CONFIG_DIR: &str = "/etc/vfio-hook/hooks.d";

/// The longest look at the running programs after a start.
const LOOK_AT_TASKS: Duration = Duration::from_millis(700);

/// Why an event failed.
#[derive(Debug, Error)]
pub enum LifecycleError {
    /// The YAML file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// Somebody other than root could have written the YAML file.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The machine cannot be read.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The ledger could not do what was asked.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
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
}

/// A guest's YAML file, read and understood.
#[derive(Clone, Debug)]
pub struct LoadedConfig {
    /// The file, to point into.
    pub source: ConfigSource,
    /// What it says.
    pub config: GuestConfig,
}

/// What `prepare` would do.
#[derive(Debug)]
pub struct PreparePlan {
    /// The changes.
    pub plan: Plan,
    /// What a person should know.
    pub notes: Vec<Note>,
}

impl LifecycleError {
    /// What a person can do about it, where the message does not say so itself.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Config(_) | Self::Trust(_) => None,
            Self::Host(error) => error.help().map(str::to_owned),
            Self::Ledger(error) => error.help(),
            Self::PagesGone { .. } => {
                Some("something else on this host takes huge pages; start the guest again".to_owned())
            }
        }
    }
}

/// The path of a guest's YAML file; none for a name that is no safe file name.
#[must_use]
pub fn config_path(guest: &GuestName) -> Option<PathBuf> {
    Some(PathBuf::from(CONFIG_DIR).join(guest.config_file_name()?))
}

/// Reads a guest's YAML file; none where there is none.
///
/// # Errors
/// It is wrong, or somebody other than root could have written it.
pub fn load_config(host: &Host, guest: &GuestName) -> Result<Option<LoadedConfig>, LifecycleError> {
    let Some(path) = config_path(guest) else { return Ok(None) };
    let Some(bytes) = read_trusted(&host.root(), &host.locate(&path), host.trusted_owner())? else {
        return Ok(None);
    };
    let source = ConfigSource::from_bytes(path, bytes)?;
    let config = source.parse()?;
    Ok(Some(LoadedConfig { source, config }))
}

/// Builds the plan of `prepare`: all preflight checks of all actions, and the changes they lead to. Nothing is
/// changed.
///
/// # Errors
/// A check failed: the errors point into the YAML file. The host cannot be read.
pub fn plan_prepare(
    host: &Host,
    record: &Record,
    loaded: &LoadedConfig,
    guest: &Guest,
    deadline: Deadline,
) -> Result<PreparePlan, LifecycleError> {
    let situation = Situation { guest, host, record, deadline };
    let Proposal { claims, notes, problems } = actions::propose(&loaded.config, situation)?;
    if let Some(errors) = refusal(&loaded.source, &problems) {
        return Err(errors.into());
    }
    let lease = Lease::preparing(&guest.name, host.this_process());
    let plan = Plan::take(record, host, guest.uuid, lease, &claims, deadline)?;
    Ok(PreparePlan { plan, notes })
}

fn refusal(source: &ConfigSource, problems: &[Problem]) -> Option<ConfigErrors> {
    let diagnose = |problem: &Problem| -> Diagnostic {
        source.diagnose(problem.path, problem.message.clone(), Some(problem.help.clone()))
    };
    ConfigErrors::new(problems.iter().map(diagnose).collect(), 0)
}

/// `prepare begin`: what an earlier life of the guest left is given back, then everything is taken, or nothing.
///
/// # Errors
/// A check failed or the host refused; then the host is as it was.
pub fn prepare(
    host: &mut Host,
    loaded: Option<&LoadedConfig>,
    guest: &Guest,
    deadline: Deadline,
) -> Result<Outcome, LifecycleError> {
    let mut ledger = Ledger::open(host, deadline)?;
    let mut report = ledger.recovered().clone();
    if ledger.record().leases.contains_key(&guest.uuid) {
        report.absorb(ledger.give_back(guest.uuid)?);
        report.notes.push(Note::info("an earlier life of this guest had not been given back"));
    }
    let Some(loaded) = loaded else { return Ok(report) };
    let PreparePlan { plan, notes } = plan_prepare(ledger.host(), ledger.record(), loaded, guest, deadline)?;
    report.notes.extend(notes);
    let effort = actions::page_effort(loaded.config.hugepages.as_ref());
    report.absorb(ledger.take(guest.uuid, plan, effort)?);
    Ok(report)
}

/// `start begin`: are the pages still there?
///
/// # Errors
/// They are not.
pub fn start(host: &Host, uuid: GuestUuid) -> Result<(), LifecycleError> {
    let Some(record) = Ledger::peek(host)? else { return Ok(()) };
    for entry in record.entries_of(uuid) {
        let Knob::PagePool(pool) = entry.knob else { continue };
        let Some(share) = entry.claims.get(&uuid).and_then(Want::pages) else { continue };
        let available = available_pages(&record, host, pool, uuid)?;
        let set_aside = share.set_aside();
        if available < set_aside {
            let knob = entry.knob.to_string();
            return Err(LifecycleError::PagesGone { knob, set_aside, available });
        }
    }
    Ok(())
}

/// `started begin` and `reconnect begin`: QEMU runs; does the isolation hold?
///
/// # Errors
/// The ledger cannot be used.
pub fn started(host: &mut Host, uuid: GuestUuid, deadline: Deadline) -> Result<Vec<Note>, LifecycleError> {
    let mut ledger = Ledger::open(host, deadline)?;
    let mut notes = ledger.recovered().notes.clone();
    ledger.mark_started(uuid)?;
    let record = ledger.record().clone();
    drop(ledger);
    notes.extend(verify_isolation(host, &record, uuid, deadline));
    Ok(notes)
}

/// Whether anything of the host may still run on a guest's CPUs.
#[must_use]
pub fn verify_isolation(host: &Host, record: &Record, uuid: GuestUuid, deadline: Deadline) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut cpus = CpuSet::new();
    for entry in record.entries_of(uuid) {
        let (Knob::AllowedCpus(unit), Some(Want::Cpus(claimed))) = (&entry.knob, entry.claims.get(&uuid))
        else {
            continue;
        };
        cpus = cpus.union(claimed);
        if let Ok(Some(effective)) = host.cpuset_cpus_effective(unit.as_str())
            && effective.intersects(claimed)
        {
            notes.push(Note::warning(format!(
                "{unit} may still use CPU {} of the guest",
                effective.intersection(claimed)
            )));
        }
    }
    if cpus.is_empty() {
        return notes;
    }
    let deadline = Deadline::after(LOOK_AT_TASKS).earlier(deadline);
    let strays = host.stray_tasks(&cpus, &["machine.slice"], deadline);
    notes.push(match strays.count {
        0 => Note::info(format!("no other program may run on CPUs {cpus}")),
        count => Note::warning(format!(
            "{count} threads of other programs may still run on CPUs {cpus}: {}",
            strays.examples.join(", ")
        )),
    });
    notes
}

/// `release end`: gives the lease back; none is no error.
///
/// # Errors
/// The ledger cannot be used.
pub fn release(host: &mut Host, uuid: GuestUuid, deadline: Deadline) -> Result<Outcome, LifecycleError> {
    let mut ledger = Ledger::open(host, deadline)?;
    let mut report = ledger.recovered().clone();
    if ledger.record().leases.contains_key(&uuid) {
        report.absorb(ledger.give_back(uuid)?);
    }
    Ok(report)
}

/// The lease of a guest, by its name: where the XML cannot be read, and for people.
#[must_use]
pub fn lease_by_name(record: &Record, name: &str) -> Option<GuestUuid> {
    let mut named = record.leases.iter().filter(|(_, lease)| lease.name == name);
    match (named.next(), named.next()) {
        (Some((uuid, _)), None) => Some(*uuid),
        _ => None,
    }
}

/// Whether a lease is held by a guest that runs.
#[must_use]
pub fn guest_runs(host: &Host, record: &Record, uuid: GuestUuid) -> bool {
    match record.leases.get(&uuid).map(|lease| lease.phase) {
        Some(Phase::Preparing(by)) if host.is_alive(by) => true,
        Some(_) => host.qemu_of(&uuid.to_string()).is_some(),
        None => false,
    }
}
