//! The actions: one section of the YAML file each. They look at the guest and the host and say what is wanted; none of
//! them changes anything.

mod action;
mod block_sleep;
mod cgroup_limits;
mod checked_claim;
mod conflicts;
mod cpu_power;
mod disks;
mod free_memory;
mod gpu;
mod groups;
mod hugepages;
mod isolate_cpus;
mod late_interrupts;
mod late_kernel_threads;
mod late_threads;
mod list;
mod proposal;
mod requires;
mod run;
mod run_scripts;
mod schedule;
mod services;
mod shared_memory;
mod sriov;
mod started_units;
mod switch_input;
mod topology;
mod tune;

#[cfg(test)]
mod tests;

use crate::config::HostConfig;
use crate::deadline::Deadline;
use crate::guest::Guest;
use crate::host::Host;
use crate::ledger::{ClaimTerms, KeeperPresence, KeeperProcess, Record};

pub use crate::config::SectionKeys;
pub use action::ActionError;
pub use free_memory::FreeMemory;
pub use gpu::DeadCard;
pub use groups::{GroupName, Groups, Origin, Origins, origins_in_words};
pub use late_interrupts::propose_late_interrupts;
pub use late_kernel_threads::propose_late_kernel_threads;
pub use late_threads::propose_late_threads;
pub use list::{GuestConfig, SECTIONS};
pub use proposal::{Problem, Proposal, PutOff, Until};
pub use run::check_program;
pub use run_scripts::{scripts_at, trouble_with_folder};
pub use schedule::ScheduleThreads;
pub use switch_input::i2c_dev;
pub use tune::{DiskTuning, Tune};

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

/// All preflight checks of all actions, and what they want.
///
/// # Errors
/// The host cannot be read at all; what merely stands in the way is a [`Problem`].
pub fn propose(config: &GuestConfig, situation: Situation<'_>) -> Result<Proposal, ActionError> {
    let mut proposal = Proposal::new(situation);
    config.propose(situation, &mut proposal)?;
    if config.disks.is_none() {
        disks::warn(situation, &mut proposal);
    }
    proposal.decide_put_off(situation);
    let Proposal { lease, claims, .. } = &proposal;
    let has_more_later = !lease.commands.is_empty() || !lease.monitors.is_empty() || lease.schedule.is_some();
    if !claims.is_empty() || has_more_later {
        let keeper = KeeperProcess(situation.guest.uuid);
        proposal.claim(keeper, KeeperPresence::Runs, ClaimTerms::default());
    }
    Ok(proposal)
}
