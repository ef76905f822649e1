//! The actions: one section of the YAML file each. They look at the guest and the host and say what is wanted; none of
//! them changes anything.

mod block_sleep;
mod cpu_speed;
mod gpu;
mod hugepages;
mod isolate_cpus;
mod late_interrupts;
mod run;
mod services;
mod switch_input;
mod topology;

use std::time::Duration;

use crate::command::Command;
use crate::config::{Gpu, GuestConfig, HostConfig};
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::gpu::GuestReboot;
use crate::guest::Guest;
use crate::host::{Host, HostError};
use crate::ledger::{
    CardTerms, Claim, Effort, GuestInterrupts, Knob, MonitorWish, Note, OnRefusal, RUNS, Record, Value, Want,
};

pub use gpu::DeadCard;
pub use late_interrupts::propose_late_interrupts;
pub use run::check_program;
pub use switch_input::i2c_dev;

/// What an action may look at.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// The guest.
    pub guest: &'a Guest,
    /// The machine; to read.
    pub host: &'a Host,
    /// What this and other guests hold.
    pub record: &'a Record,
    /// What the host's file says.
    pub host_config: &'a HostConfig,
    /// By when the event has to be over.
    pub deadline: Deadline,
}

/// What an action came to.
#[derive(Debug, Default)]
pub struct Proposal {
    /// What the guest wants.
    pub claims: Vec<Claim>,
    /// What is to be run for it.
    pub commands: Vec<Command>,
    /// Where the interrupts of its own devices are served, and the host's are not.
    pub interrupts: Option<GuestInterrupts>,
    /// The monitors that it is to have once it is up.
    pub monitors: Vec<MonitorWish>,
    /// The cards that it gets.
    pub cards: Vec<CardTerms>,
    /// Cards that it would get if they answered.
    pub dead_cards: Vec<DeadCard>,
    /// What happens when it reboots itself.
    pub guest_reboot: Option<GuestReboot>,
    /// What a person should know.
    pub notes: Vec<Note>,
    /// Why the guest must not start.
    pub problems: Vec<Problem>,
}

/// Why the guest must not start, and where in the YAML file the reason lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The keys down to the value; an element of a list by its number, from 0.
    pub path: Vec<String>,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: String,
}

impl Proposal {
    /// Claims a knob, once: two cards may have a port or a desktop in common.
    fn claim(&mut self, knob: Knob, want: Want) {
        let claim = Claim { knob, want, now: None };
        if !self.claims.contains(&claim) {
            self.claims.push(claim);
        }
    }

    /// Claims CPUs of a mask that holds some of them, or will again when another guest is gone.
    fn claim_mask(&mut self, situation: Situation<'_>, knob: Knob, mask: CpuSet, cpus: &CpuSet) {
        if mask.intersects(cpus) || situation.record.entry(&knob).is_some() {
            let want = Want::Cpus(cpus.clone());
            self.claims.push(Claim { knob, want, now: Some(Value::Cpus(mask)) });
        }
    }

    fn refuse(&mut self, path: &'static [&'static str], message: impl Into<String>, help: impl Into<String>) {
        let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
        self.refuse_at(&path, message, help);
    }

    /// As [`Self::refuse`], in an element of a list.
    fn refuse_at(&mut self, path: &[String], message: impl Into<String>, help: impl Into<String>) {
        let problem = Problem { path: path.to_vec(), message: message.into(), help: help.into() };
        // Several functions of one card may have the same to say.
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn warn(&mut self, text: impl Into<String>) {
        self.notes.push(Note::warning(text));
    }

    fn inform(&mut self, text: impl Into<String>) {
        self.notes.push(Note::info(text));
    }
}

/// All preflight checks of all actions, and what they want.
///
/// # Errors
/// The host cannot be read at all; what merely stands in the way is a [`Problem`].
pub fn propose(config: &GuestConfig, situation: Situation<'_>) -> Result<Proposal, HostError> {
    let mut proposal = Proposal::default();
    if let Some(config) = &config.block_sleep {
        block_sleep::propose(config, situation, &mut proposal)?;
    }
    if let Some(config) = &config.services {
        services::propose(config, situation, &mut proposal)?;
    }
    if let Some(config) = &config.run {
        run::propose(config, situation, &mut proposal)?;
    }
    if let Some(config) = &config.gpu {
        gpu::propose(config, situation, &mut proposal)?;
    }
    if let Some(config) = &config.hugepages {
        hugepages::propose(config, situation, &mut proposal)?;
    }
    if let Some(config) = &config.isolate_cpus {
        isolate_cpus::propose(config, situation, &mut proposal)?;
    }
    if let Some(config) = &config.switch_input {
        switch_input::propose(config, situation, &mut proposal)?;
    }
    if !proposal.claims.is_empty() || !proposal.commands.is_empty() || !proposal.monitors.is_empty() {
        proposal.claim(Knob::Keeper(situation.guest.uuid), Want::Text(RUNS.to_owned()));
    }
    Ok(proposal)
}

/// The preflight checks of the cards alone, and what they want.
///
/// # Errors
/// As [`propose`].
pub fn propose_cards(config: &Gpu, situation: Situation<'_>) -> Result<Proposal, HostError> {
    let mut proposal = Proposal::default();
    gpu::propose(config, situation, &mut proposal)?;
    Ok(proposal)
}

/// How hard to try for what may take time.
#[must_use]
pub fn effort(config: &GuestConfig) -> Effort {
    let (pages, on_shortage) = match &config.hugepages {
        Some(config) => hugepages::effort(config),
        None => (Duration::ZERO, OnRefusal::Refuse),
    };
    let units = config.services.as_ref().map_or(Duration::ZERO, |services| services.timeout);
    let (gpu_units, cards) = config.gpu.as_ref().map_or_else(Default::default, gpu::effort);
    Effort { pages, on_shortage, units: units.max(gpu_units), cards }
}
