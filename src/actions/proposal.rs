//! What the actions came to: what the guest wants, and why it must not start.

use std::collections::BTreeSet;
use std::mem;
use std::path::Path;

use super::{DeadCard, Situation};
use crate::command::{Command, Program};
use crate::cpuset::CpuSet;
use crate::event::Operation;
use crate::host::ServiceUnit;
use crate::key_path::KeyPath;
use crate::ledger::{
    Claim, ClaimTerms, Lease, LeaseState, Listed, ListedClaim, Note, PlannedRepair, Progress, SettingKey,
    UnitRuns,
};
use crate::pci::PciAddress;

/// What the actions came to.
#[derive(Debug)]
pub struct Proposal {
    /// The guest's lease: its commands, its cards, and what else is kept for it beside its claims.
    pub lease: Lease,
    /// Where the YAML file asks for each of its commands.
    pub command_keys: Vec<KeyPath>,
    /// What the guest wants of the host's settings.
    pub claims: Vec<ListedClaim>,
    /// What is to be done for it that is no setting.
    pub repairs: Vec<PlannedRepair>,
    /// What a person should know.
    pub notes: Vec<Note>,
    /// Why the guest must not start.
    pub problems: Vec<Problem>,
    /// Functions of devices that are not there yet, and are made before the cards are looked at.
    pub makes: BTreeSet<PciAddress>,
    /// What would be a problem now, and is looked for again once a step of the same `prepare` has been made.
    pub put_off: Vec<PutOff>,
}

/// A problem that may pass before it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutOff {
    /// The problem as it is now.
    pub problem: Problem,
    /// What may take it away.
    pub until: Until,
    /// How many problems there were before it: all are told in the order in which they were found.
    position: usize,
}

/// The step of a `prepare` that may take a problem away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Units have stopped, or commands were run: a mount is gone, memory is free.
    UnitsStopped,
    /// What is upon a drive was taken down.
    Unmounted,
    /// The commands of `prepare` were run: a device was made, a program was ended.
    CommandsRan,
    /// This virtual function was made, as another section says.
    FunctionMade(PciAddress),
    /// The same, or the commands of `prepare` were run.
    FunctionThere(PciAddress),
}

/// Why the guest must not start, and where in the YAML file the reason lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where in the YAML file.
    pub at: KeyPath,
    /// What is wrong.
    pub message: String,
    /// How to fix it.
    pub help: String,
    /// The card that does not answer, where that is the reason.
    pub dead_card: Option<Box<DeadCard>>,
}

impl Proposal {
    pub(super) fn new(situation: Situation<'_>) -> Self {
        let lease = Lease::preparing(&situation.guest.name, situation.host.this_process());
        Self {
            lease,
            command_keys: Vec::new(),
            claims: Vec::new(),
            repairs: Vec::new(),
            notes: Vec::new(),
            problems: Vec::new(),
            makes: BTreeSet::new(),
            put_off: Vec::new(),
        }
    }

    /// Whether something stands in the way now, also what may pass.
    pub(super) fn has_problems(&self) -> bool {
        !self.problems.is_empty() || !self.put_off.is_empty()
    }

    /// Whether a unit of the host is stopped for the guest.
    pub(super) fn stops(&self, unit: &ServiceUnit) -> bool {
        let key = UnitRuns(unit.clone()).key();
        self.claims.iter().any(|claim| claim.key() == key)
    }

    /// Makes problems of what no step of this `prepare` can take away, or not any more.
    pub(super) fn decide_put_off(&mut self, situation: Situation<'_>) {
        let is_over = situation.record.leases.get(&situation.guest.uuid).is_some_and(|lease| {
            lease.phase == LeaseState::Preparing(situation.host.this_process())
                && lease.commands.progress == Progress::Begun
        });
        let has = |is: fn(&SettingKey) -> bool| self.claims.iter().any(|claim| is(&claim.key()));
        let unmounts = has(|key| matches!(key, SettingKey::Storage(_)));
        let stops_units = has(|key| matches!(key, SettingKey::Unit(_)));
        let runs_commands =
            self.lease.commands.at(Operation::Prepare).any(|command| match &command.program {
                Program::Arguments(_) => true,
                Program::Scripts(folder) => has_scripts(folder, situation),
            });
        let is_wrong = !self.problems.is_empty();
        let (put_off, problems): (Vec<_>, Vec<_>) =
            mem::take(&mut self.put_off).into_iter().partition(|each| {
                let ran = runs_commands && !is_over;
                let may_pass = match each.until {
                    Until::UnitsStopped => ran || (stops_units && !is_over),
                    Until::Unmounted => ran || (unmounts && !is_over),
                    Until::CommandsRan => ran,
                    Until::FunctionMade(function) => self.makes.contains(&function),
                    Until::FunctionThere(function) => ran || self.makes.contains(&function),
                };
                may_pass && !is_wrong
            });
        // Some can pass and others not: all are told at once.
        let (put_off, also) = if problems.is_empty() { (put_off, Vec::new()) } else { (Vec::new(), put_off) };
        self.put_off = put_off;
        let mut problems: Vec<PutOff> = problems.into_iter().chain(also).collect();
        problems.sort_by_key(|each| each.position);
        for (inserted, PutOff { problem, position, .. }) in problems.into_iter().enumerate() {
            self.problems.insert((position + inserted).min(self.problems.len()), problem);
        }
        let after = |until: Until| match until {
            Until::FunctionMade(function) | Until::FunctionThere(function)
                if self.makes.contains(&function) =>
            {
                "`sriov`"
            }
            _ if runs_commands => "`run: prepare`",
            _ if unmounts => "`disks.unmount`",
            _ => "`services.stop`",
        };
        for PutOff { problem, until, .. } in &self.put_off {
            self.notes.push(Note::info(format!("checked after {}: {}", after(*until), problem.message)));
        }
    }

    /// Refuses, unless a step of the same `prepare` takes the reason away.
    pub(super) fn refuse_until(
        &mut self,
        until: Until,
        at: impl Into<KeyPath>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let (at, message, help) = (at.into(), message.into(), help.into());
        let problem = Problem { at, message, help, dead_card: None };
        if self.put_off.iter().all(|other| other.problem != problem) {
            self.put_off.push(PutOff { problem, until, position: self.problems.len() });
        }
    }

    /// The cards that the guest would get if they answered.
    pub fn dead_cards(&self) -> impl Iterator<Item = &DeadCard> {
        self.problems.iter().filter_map(|problem| problem.dead_card.as_deref())
    }

    /// Has a command run; the key is where the file asks for it.
    pub(super) fn run(&mut self, command: Command, key: KeyPath) {
        self.lease.commands.list.push(command);
        self.command_keys.push(key);
    }

    /// Claims a setting, once: two cards may have a port or a desktop in common.
    pub(super) fn claim<S: Listed>(&mut self, setting: S, want: S::Want, terms: impl Into<ClaimTerms>)
    where
        ListedClaim: From<Claim<S>>,
    {
        let claim: ListedClaim = Claim::new(setting, want, terms.into()).into();
        if !self.claims.iter().any(|other| other.wants_the_same(&claim)) {
            self.claims.push(claim);
        }
    }

    /// Claims CPUs of a mask that holds some of them, or will again when another guest is gone.
    pub(super) fn claim_mask<S: Listed<Value = CpuSet, Want = CpuSet>>(
        &mut self,
        situation: Situation<'_>,
        setting: S,
        mask: CpuSet,
        cpus: &CpuSet,
        terms: impl Into<ClaimTerms>,
    ) where
        ListedClaim: From<Claim<S>>,
    {
        if mask.intersects(cpus) || situation.record.entry(&setting).is_some() {
            let claim = Claim { setting, want: cpus.clone(), now: Some(mask), terms: terms.into() };
            self.claims.push(claim.into());
        }
    }

    pub(super) fn refuse(
        &mut self,
        at: impl Into<KeyPath>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let (at, message, help) = (at.into(), message.into(), help.into());
        self.add_problem(Problem { at, message, help, dead_card: None });
    }

    pub(super) fn add_problem(&mut self, problem: Problem) {
        // Several functions of one card may have the same to say.
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    pub(super) fn warn(&mut self, text: impl Into<String>) {
        self.notes.push(Note::warning(text));
    }

    pub(super) fn inform(&mut self, text: impl Into<String>) {
        self.notes.push(Note::info(text));
    }
}

/// Whether a dispatcher's folder has scripts of the guest for `prepare`. One that cannot be read is a problem of its own.
fn has_scripts(folder: &Path, situation: Situation<'_>) -> bool {
    let scripts = situation.host.hook_scripts(folder, situation.guest.name.as_ref(), "prepare", "begin");
    scripts.is_ok_and(|scripts| !scripts.is_empty())
}
