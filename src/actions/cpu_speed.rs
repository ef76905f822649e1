//! The part of `isolate_cpus` that says how fast the CPUs run, and how fast they wake up.

use std::collections::BTreeMap;

use super::{Proposal, Situation};
use crate::config::IsolateCpus;
use crate::cpuset::CpuSet;
use crate::host::HostError;
use crate::ledger::{Knob, Want};

const GOVERNOR: &[&str] = &["isolate_cpus", "governor"];
const EPP: &[&str] = &["isolate_cpus", "epp"];

/// The governor that forces a preference, and that preference.
const PERFORMANCE: &str = "performance";

pub(super) fn propose(
    config: &IsolateCpus,
    situation: Situation<'_>,
    cpus: &CpuSet,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let host = situation.host;
    let has_scaling = |cpu| host.scaling_governor(cpu).is_ok_and(|governor| governor.is_some());
    let scaled: Vec<u32> = cpus.iter().filter(|cpu| has_scaling(*cpu)).collect();
    if scaled.is_empty() && (config.governor.is_some() || config.epp.is_some()) {
        proposal.warn("the host has no frequency scaling: governor and epp have no effect");
    }
    let mut preferences = Preferences::default();
    for cpu in scaled {
        if let Some(governor) = &config.governor {
            let available = host.scaling_available_governors(cpu)?;
            if !available.iter().any(|name| name == governor.as_str()) {
                proposal.refuse(
                    GOVERNOR,
                    format!("CPU {cpu} has no governor `{}`", governor.as_str()),
                    format!("it has {}", available.join(", ")),
                );
                break;
            }
            proposal.claim(Knob::ScalingGovernor { cpu }, Want::Text(governor.as_str().to_owned()));
        }
        if !set_preference(config, situation, cpu, &mut preferences, proposal)? {
            break;
        }
    }
    preferences.explain(proposal);
    if let Some(latency) = config.cpu_dma_latency {
        let micros = latency.longest_wait_micros();
        proposal.claim(Knob::CpuDmaLatency(situation.guest.uuid), Want::Text(micros.to_string()));
    }
    if let Some(latency) = config.resume_latency {
        for cpu in cpus.iter() {
            proposal.claim(Knob::ResumeLatency { cpu }, Want::Text(latency.to_string()));
        }
    }
    Ok(())
}

/// CPUs whose preference cannot be set.
#[derive(Default)]
struct Preferences {
    absent: CpuSet,
    /// By the preference that their governor forces on them.
    fixed: BTreeMap<String, CpuSet>,
}

impl Preferences {
    fn explain(&self, proposal: &mut Proposal) {
        if !self.absent.is_empty() {
            let cpus = &self.absent;
            proposal.warn(format!("CPU {cpus} has no energy performance preference: epp has no effect"));
        }
        for (now, cpus) in &self.fixed {
            proposal.warn(format!(
                "CPU {cpus} runs with the governor `{PERFORMANCE}`, which fixes its preference at `{now}`"
            ));
        }
    }
}

/// The `performance` governor of intel_pstate and amd_pstate forces the preference of the same name, and not all
/// kernels give the old one back: it is claimed beside the governor, so that it is. False when the guest is refused.
fn set_preference(
    config: &IsolateCpus,
    situation: Situation<'_>,
    cpu: u32,
    preferences: &mut Preferences,
    proposal: &mut Proposal,
) -> Result<bool, HostError> {
    let host = situation.host;
    let Some(now) = host.energy_performance_preference(cpu)? else {
        if config.epp.is_some() {
            preferences.absent.insert(cpu);
        }
        return Ok(true);
    };
    let is_forced = config.governor.as_ref().is_some_and(|governor| governor.as_str() == PERFORMANCE);
    let wanted = match &config.epp {
        Some(epp) => epp.as_str(),
        None if is_forced => PERFORMANCE,
        None => return Ok(true),
    };
    let available = host.energy_performance_available_preferences(cpu)?;
    if !available.iter().any(|name| name == wanted) {
        if config.epp.is_none() {
            return Ok(true);
        }
        proposal.refuse(
            EPP,
            format!("CPU {cpu} has no energy performance preference `{wanted}`"),
            format!("it has {}", available.join(", ")),
        );
        return Ok(false);
    }
    let knob = Knob::EnergyPerformancePreference { cpu };
    let is_fixed = host.scaling_governor(cpu)?.as_deref() == Some(PERFORMANCE);
    if is_fixed && now != wanted && situation.record.entry(&knob).is_none() {
        preferences.fixed.entry(now).or_default().insert(cpu);
        return Ok(true);
    }
    proposal.claim(knob, Want::Text(wanted.to_owned()));
    Ok(true)
}
