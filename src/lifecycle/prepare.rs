//! `prepare`: all checks, the plan they lead to, and its taking.

use super::{LifecycleError, LoadedConfig, end_earlier_life, load_host_config, monitors};
use crate::actions::{self, Problem, Proposal, Situation};
use crate::config::{ConfigErrors, ConfigSource, Diagnostic, HostConfig, Run};
use crate::deadline::Deadline;
use crate::guest::Guest;
use crate::host::{Host, xml_file};
use crate::ledger::{Commands, Lease, Ledger, Note, Outcome, Plan, Record, Try};

/// What `prepare` would do.
#[derive(Debug)]
pub struct PreparePlan {
    /// The changes.
    pub plan: Plan,
    /// What a person should know.
    pub notes: Vec<Note>,
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
    let host_config = if loaded.config.switch_input.is_some() || loaded.config.gpu.is_some() {
        load_host_config(host)?
    } else {
        HostConfig::default()
    };
    let situation = Situation { guest, host, record, host_config: &host_config, deadline };
    let proposal = actions::propose(&loaded.config, situation)?;
    let Proposal { claims, commands, interrupts, monitors, cards, dead_cards, guest_reboot, notes, problems } =
        proposal;
    if let Some(errors) = refusal(&loaded.source, &problems) {
        return Err(match dead_cards.is_empty() {
            true => errors.into(),
            false => LifecycleError::DeadCards { errors, cards: dead_cards },
        });
    }
    let commands = Commands::new(commands);
    let lease = Lease {
        commands,
        interrupts,
        monitors,
        cards,
        guest_reboot,
        ..Lease::preparing(&guest.name, host.this_process())
    };
    let plan = Plan::take(record, host, guest.uuid, lease, &claims, deadline)?;
    Ok(PreparePlan { plan, notes })
}

fn refusal(source: &ConfigSource, problems: &[Problem]) -> Option<ConfigErrors> {
    let diagnose = |problem: &Problem| -> Diagnostic {
        let path: Vec<&str> = problem.path.iter().map(String::as_str).collect();
        source.diagnose(&path, problem.message.clone(), Some(problem.help.clone()))
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
    xml: &[u8],
    deadline: Deadline,
) -> Result<Outcome, LifecycleError> {
    let mut report = Outcome::default();
    let wants_monitors = loaded.is_some_and(|loaded| loaded.config.switch_input.is_some());
    let heir = wants_monitors.then(|| host.this_process());
    end_earlier_life(host, guest.uuid, heir, deadline, &mut report)?;
    let Some(loaded) = loaded else { return Ok(report) };
    // A card that hangs takes its time to be found out: nobody shall wait for the ledger meanwhile.
    let looked = look_for_dead_cards(host, loaded, guest, deadline);
    let mut ledger = Ledger::open(host, deadline)?;
    report.absorb(ledger.recovered().clone());
    if let Err(error) = looked {
        quarantine_dead_cards(&mut ledger, guest, &error)?;
        return Err(error);
    }
    ledger.adopt_new_interrupts();
    let plan = match plan_to_take(&mut ledger, loaded, guest, xml, deadline, &mut report) {
        Ok(plan) => plan,
        Err(error) => {
            // What the checks needed, and the monitors of the guest's life before.
            if ledger.record().leases.contains_key(&guest.uuid) {
                ledger.give_back(guest.uuid, "failed", None)?;
            }
            quarantine_dead_cards(&mut ledger, guest, &error)?;
            return Err(error);
        }
    };
    let taken = ledger.take(guest.uuid, plan, actions::effort(&loaded.config));
    drop(ledger);
    match taken {
        Ok(outcome) => report.absorb(outcome),
        Err(error) => {
            forget_xml_without_lease(host, guest);
            return Err(error.into());
        }
    }
    Ok(report)
}

/// Where not even the lease could be written down, nothing else removes the XML that was kept for it.
fn forget_xml_without_lease(host: &mut Host, guest: &Guest) {
    let has_lease = |record: Record| record.leases.contains_key(&guest.uuid);
    if Ledger::peek(host).is_ok_and(|record| !record.is_some_and(has_lease)) {
        // The guest is refused for another reason, which is told.
        let _ = host.remove_state_file(&xml_file(guest.uuid));
    }
}

/// The checks of the cards alone. Only one that does not answer is told: for all others the ledger is needed.
fn look_for_dead_cards(
    host: &Host,
    loaded: &LoadedConfig,
    guest: &Guest,
    deadline: Deadline,
) -> Result<(), LifecycleError> {
    let Some(config) = &loaded.config.gpu else { return Ok(()) };
    let record = match Ledger::peek(host)? {
        Some(record) => record,
        None => Record::empty(host.boot_id()?),
    };
    let host_config = load_host_config(host)?;
    let situation = Situation { guest, host, record: &record, host_config: &host_config, deadline };
    let proposal = actions::propose_cards(config, situation)?;
    match refusal(&loaded.source, &proposal.problems) {
        Some(errors) if !proposal.dead_cards.is_empty() => {
            Err(LifecycleError::DeadCards { errors, cards: proposal.dead_cards })
        }
        _ => Ok(()),
    }
}

fn quarantine_dead_cards(
    ledger: &mut Ledger<'_>,
    guest: &Guest,
    error: &LifecycleError,
) -> Result<(), LifecycleError> {
    if let LifecycleError::DeadCards { cards, .. } = error {
        for card in cards {
            ledger.quarantine_untouched(&guest.name, card.terms.clone(), card.evidence.clone())?;
        }
    }
    Ok(())
}

/// As [`plan_prepare`], with what the checks need, and without what only the guest's life before needed.
fn plan_to_take(
    ledger: &mut Ledger<'_>,
    loaded: &LoadedConfig,
    guest: &Guest,
    xml: &[u8],
    deadline: Deadline,
    report: &mut Outcome,
) -> Result<Plan, LifecycleError> {
    report.absorb(monitors::make_reachable(ledger, loaded, guest)?);
    let plan = |ledger: &Ledger<'_>| plan_prepare(ledger.host(), ledger.record(), loaded, guest, deadline);
    let mut prepared = plan(ledger)?;
    let goes_on = prepared.plan.monitors(guest.uuid).iter().map(|wish| wish.feature.clone()).collect();
    if ledger.has_other_monitors(guest.uuid, &goes_on) {
        report.absorb(ledger.return_monitors(guest.uuid, &goes_on, Try::Last)?.outcome);
        prepared = plan(ledger)?;
    }
    if loaded.config.run.as_ref().is_some_and(Run::wants_xml) {
        ledger.keep_xml(guest.uuid, xml)?;
    }
    report.notes.extend(prepared.notes);
    Ok(prepared.plan)
}
