//! `prepare`: all checks, the plan they lead to, and its taking.

use super::basis::basis;
use super::{
    LifecycleError, LoadedConfig, end_earlier_life, hold, load_host_config, monitors, verify_cards,
    verify_pages,
};
use crate::actions::{self, DeadCard, Problem, Proposal, Situation};
use crate::config::{ConfigErrors, Diagnostic, HostConfig, Run};
use crate::deadline::Deadline;
use crate::guest::{Guest, GuestUuid};
use crate::host::{Host, xml_file};
use crate::ledger::{
    Lease, LeaseState, Ledger, LedgerError, ListedClaim, Note, Outcome, Peer, Plan, Progress, Purpose,
    Record, SettingKey, SettingPhase, Try,
};

/// What `prepare` would do.
#[derive(Debug)]
pub struct PreparePlan {
    /// The changes.
    pub plan: Plan,
    /// What a person should know.
    pub notes: Vec<Note>,
    /// What has to be done before the rest can be checked; none where everything was.
    first: Option<FirstPart>,
}

/// How often checks are put off in one `prepare`: a command may make a device of which functions are made then.
const MOST_PARTS: usize = 2;

/// The part of a `prepare` after which some checks are made again: units are stopped, commands run, functions made.
#[derive(Debug)]
struct FirstPart {
    lease: Lease,
    claims: Vec<ListedClaim>,
}

impl FirstPart {
    /// What of a proposal comes before the checks that are put off; none where none is. Where functions are made all is
    /// looked at once more: what the XML hands over is there only then.
    fn of(proposal: &Proposal) -> Option<Self> {
        if proposal.put_off.is_empty() && proposal.makes.is_empty() {
            return None;
        }
        let claims = proposal.claims.iter();
        let is_first = |claim: &&ListedClaim| {
            claim.key().traits().phase == SettingPhase::AroundCommands
                || matches!(claim.key(), SettingKey::VirtualFunctions(_))
        };
        // Cards and monitors are chosen once everything was checked.
        let mut lease = proposal.lease.clone();
        lease.cards.clear();
        lease.monitors.clear();
        Some(Self { lease, claims: claims.filter(is_first).cloned().collect() })
    }
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
    let mut proposal = actions::propose(&loaded.config, situation)?;
    if let Some(errors) = refusal(loaded, &proposal.problems) {
        let cards: Vec<DeadCard> = proposal.dead_cards().cloned().collect();
        return Err(match cards.is_empty() {
            true => LifecycleError::Refused(errors),
            false => LifecycleError::DeadCards { errors, cards },
        });
    }
    for (command, key) in proposal.lease.commands.list.iter_mut().zip(&proposal.command_keys) {
        command.place = Some(loaded.place_of(key));
    }
    if let Some(begun) = begun_by_this_process(record, host, guest) {
        proposal.lease.commands = begun.commands.clone();
    }
    let first = FirstPart::of(&proposal);
    let Proposal { lease, claims, repairs, mut notes, .. } = proposal;
    notes.extend(actions::origins_in_words(&loaded.from_groups).into_iter().map(Note::info));
    let plan = Plan::take(record, host, guest.uuid, lease, &claims, deadline)?.with_repairs(repairs);
    Ok(PreparePlan { plan, notes, first })
}

/// The lease whose commands of `prepare` this process has run already: they are not run again.
fn begun_by_this_process<'r>(record: &'r Record, host: &Host, guest: &Guest) -> Option<&'r Lease> {
    let lease = record.leases.get(&guest.uuid)?;
    let is_this_process = lease.phase == LeaseState::Preparing(host.this_process());
    (is_this_process && lease.commands.progress == Progress::Begun).then_some(lease)
}

fn refusal(loaded: &LoadedConfig, problems: &[Problem]) -> Option<ConfigErrors> {
    let diagnose = |problem: &Problem| -> Diagnostic {
        loaded.diagnose(&problem.at, &problem.message, Some(problem.help.clone()))
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
    if let Some(loaded) = loaded
        && let Some(adopted) = hold::adopt(host, loaded, guest, deadline)?
    {
        return Ok(adopted);
    }
    prepare_for(Purpose::Start, host, loaded, guest, xml, deadline)
}

/// The same, for a purpose, and without a look at what is held by hand.
pub(super) fn prepare_for(
    purpose: Purpose,
    host: &mut Host,
    loaded: Option<&LoadedConfig>,
    guest: &Guest,
    xml: &[u8],
    deadline: Deadline,
) -> Result<Outcome, LifecycleError> {
    let mut report = Outcome::default();
    let wants_monitors = loaded.is_some_and(|loaded| loaded.config.switch_input.is_some());
    let restarted_by = wants_monitors.then(|| host.this_process());
    end_earlier_life(host, guest.uuid, restarted_by, deadline, &mut report)?;
    let Some(loaded) = loaded else { return Ok(report) };
    let mut ledger = Ledger::open_for(host, guest.uuid, deadline)?;
    report.absorb(ledger.recovered().clone());
    ledger.adopt_new_interrupts();
    let plan = match plan_to_take(&mut ledger, loaded, guest, xml, deadline, &mut report) {
        Ok(mut plan) => {
            plan.set_purpose(guest.uuid, purpose, basis(loaded, guest));
            plan
        }
        Err(error) => {
            // What the checks needed, and the monitors of the guest's life before.
            if ledger.record().leases.contains_key(&guest.uuid) {
                ledger.give_back(guest.uuid, "failed", None)?;
            }
            quarantine_dead_cards(&mut ledger, guest, &error)?;
            return Err(error);
        }
    };
    let taken = ledger.take(guest.uuid, plan);
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

/// Whether the host still has what a guest holds, as at its start.
///
/// # Errors
/// It has not.
pub(super) fn verify(ledger: &Ledger<'_>, uuid: GuestUuid, deadline: Deadline) -> Result<(), LifecycleError> {
    verify_pages(ledger.host(), ledger.record(), uuid)?;
    verify_cards(ledger.host(), ledger.record(), uuid, deadline)
}

/// Where not even the lease could be written down, nothing else removes the XML that was kept for it.
fn forget_xml_without_lease(host: &mut Host, guest: &Guest) {
    let has_lease = |record: Record| record.leases.contains_key(&guest.uuid);
    if Ledger::peek(host).is_ok_and(|record| !record.is_some_and(has_lease)) {
        // The guest is refused for another reason, which is told.
        let _ = host.remove_state_file(&xml_file(guest.uuid));
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

/// As [`plan_prepare`], with what the checks need, and without what only the guest's life before needed. What has to be
/// done before the last of the checks is done here.
fn plan_to_take(
    ledger: &mut Ledger<'_>,
    loaded: &LoadedConfig,
    guest: &Guest,
    xml: &[u8],
    deadline: Deadline,
    report: &mut Outcome,
) -> Result<Plan, LifecycleError> {
    report.absorb(monitors::make_reachable(ledger, loaded, guest)?);
    let plan = |ledger: &mut Ledger<'_>| {
        let plan =
            |ledger: &Ledger<'_>| plan_prepare(ledger.host(), ledger.record(), loaded, guest, deadline);
        let had_lease = ledger.record().leases.contains_key(&guest.uuid);
        let planned = match loaded.config.peer() {
            Peer::Kernel => plan(ledger),
            Peer::MayHang => ledger.plan_on_early_answers(plan),
        };
        match had_lease && !ledger.record().leases.contains_key(&guest.uuid) {
            true => Err(LedgerError::GivenBack.into()),
            false => planned,
        }
    };
    let mut prepared = plan(ledger)?;
    let goes_on = prepared.plan.monitors(guest.uuid).iter().map(|wish| wish.feature.clone()).collect();
    if ledger.has_other_monitors(guest.uuid, &goes_on) {
        report.absorb(ledger.return_monitors(guest.uuid, &goes_on, Try::Last)?.outcome);
        prepared = plan(ledger)?;
    }
    if loaded.config.run.as_ref().is_some_and(Run::wants_xml) {
        ledger.keep_xml(guest.uuid, xml)?;
    }
    for _ in 0..MOST_PARTS {
        let Some(FirstPart { lease, claims }) = prepared.first.take() else { break };
        report.absorb(ledger.take_with_commands(guest.uuid, lease, &claims)?);
        prepared = plan(ledger)?;
    }
    report.notes.extend(prepared.notes);
    Ok(prepared.plan)
}
