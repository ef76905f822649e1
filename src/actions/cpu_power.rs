//! `cpu_power`: how fast CPUs run, and how fast they wake up.

use std::collections::BTreeMap;

use super::action::Action;
use super::{GuestConfig, Proposal, Situation};
use crate::config::{CpuChoice, CpuPower, Key, PowerCpus, Section, Toggle};
use crate::cpuset::CpuSet;
use crate::host::HostError;
use crate::ledger::{Attribute, AttributeValue, CpuDmaLatency, OrNone, Place, PowerProfile, Setting};

const CPUS: &[&str] = &["cpu_power", "cpus"];
const GOVERNOR: &[&str] = &["cpu_power", "governor"];
const EPP: &[&str] = &["cpu_power", "epp"];
const BOOST: &[&str] = &["cpu_power", "boost"];
const PROFILE: &[&str] = &["cpu_power", "profile"];

/// The governor that forces a preference, and that preference.
const PERFORMANCE: &str = "performance";

impl Action for CpuPower {
    const SECTION: &'static str = "cpu_power";
    const KEYS: &'static [Key] = Self::KEYS;

    fn read(file: &mut Section<'_>, before: &GuestConfig) -> Option<Self> {
        let isolated = before.isolate_cpus.as_ref().map(|isolate| &isolate.cpus);
        file.section(Self::SECTION, "cpu_power: {governor: performance}")
            .map(|section| Self::read(section, isolated))
    }

    fn propose(&self, situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
        if let Some(latency) = self.dma_latency {
            let want = OrNone(Some(latency.longest_wait_micros()));
            proposal.claim(CpuDmaLatency(situation.guest.uuid), want, &["cpu_power", "dma_latency"]);
        }
        propose_profile(self, situation, proposal)?;
        let concerns_cpus = self.governor.is_some()
            || self.epp.is_some()
            || self.boost.is_some()
            || self.resume_latency.is_some();
        if !concerns_cpus {
            return Ok(());
        }
        let Some(cpus) = chosen_cpus(self, situation, proposal)? else { return Ok(()) };
        propose_speed(self, situation, &cpus, proposal)?;
        if let Some(boost) = self.boost {
            propose_boost(boost, situation, &cpus, proposal);
        }
        if let Some(latency) = self.resume_latency {
            for cpu in cpus.iter() {
                let setting = Attribute::pm_qos_resume_latency_us(cpu);
                let want = AttributeValue::new(latency.to_string());
                proposal.claim(setting, want, &["cpu_power", "resume_latency"]);
            }
        }
        Ok(())
    }
}

/// The CPUs that are meant; none when they make no sense, which the proposal then says.
fn chosen_cpus(
    config: &CpuPower,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<Option<CpuSet>, HostError> {
    let online = situation.host.online_cpus()?;
    let cpus = match &config.cpus {
        PowerCpus::All => return Ok(Some(online)),
        PowerCpus::List(cpus) | PowerCpus::Isolated(CpuChoice::List(cpus)) => cpus.clone(),
        PowerCpus::Guest | PowerCpus::Isolated(CpuChoice::Auto) => situation.guest.pinned_cpus(),
    };
    if matches!(config.cpus, PowerCpus::Isolated(_)) {
        return Ok((!cpus.is_empty() && cpus.is_subset(&online)).then_some(cpus));
    }
    if cpus.is_empty() {
        proposal.refuse(
            CPUS,
            "concerns no CPU: the guest's XML pins no vCPU",
            "write `cpus: all` or a list, or add <vcpupin> elements to <cputune> (`virsh edit`)",
        );
        return Ok(None);
    }
    let absent = cpus.minus(&situation.host.present_cpus()?);
    let offline = cpus.minus(&online);
    if !absent.is_empty() {
        proposal.refuse(
            CPUS,
            format!("this host has no CPU {absent}"),
            "take it out of this list, or out of <cputune> in the guest's XML",
        );
    } else if !offline.is_empty() {
        let first = offline.iter().next().unwrap_or(0);
        proposal.refuse(
            CPUS,
            format!("CPU {offline} is offline"),
            format!("`echo 1 > /sys/devices/system/cpu/cpu{first}/online` brings it back"),
        );
    } else {
        return Ok(Some(cpus));
    }
    Ok(None)
}

/// One CPU for each frequency policy of these: what is set for one of a policy's CPUs is set for all of them, so that two
/// guests with CPUs of one policy have to claim the same setting.
fn policies(situation: Situation<'_>, cpus: &CpuSet, proposal: &mut Proposal) -> Result<CpuSet, HostError> {
    let (host, online) = (situation.host, situation.host.online_cpus()?);
    let (mut first_ones, mut others) = (CpuSet::new(), CpuSet::new());
    for cpu in cpus.iter() {
        if host.scaling_governor(cpu).is_ok_and(|governor| governor.is_some()) {
            let policy = host.related_cpus(cpu)?.intersection(&online);
            first_ones.insert(policy.iter().next().unwrap_or(cpu));
            others = others.union(&policy.minus(cpus));
        }
    }
    if !others.is_empty() {
        proposal.warn(format!("CPU {others} has its clock in common with CPUs {cpus}, and follows them"));
    }
    Ok(first_ones)
}

fn propose_speed(
    config: &CpuPower,
    situation: Situation<'_>,
    cpus: &CpuSet,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    if config.governor.is_none() && config.epp.is_none() {
        return Ok(());
    }
    let host = situation.host;
    let scaled = policies(situation, cpus, proposal)?;
    if scaled.is_empty() {
        proposal.warn("the host has no frequency scaling: governor and epp have no effect");
    }
    let mut preferences = Preferences::default();
    for cpu in scaled.iter() {
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
            proposal.claim(
                Attribute::scaling_governor(cpu),
                AttributeValue::new(governor.as_str()),
                GOVERNOR,
            );
        }
        if !set_preference(config, situation, cpu, &mut preferences, proposal)? {
            break;
        }
    }
    preferences.explain(proposal);
    Ok(())
}

/// The policies' own switches, on kernels that have them, else the one for all CPUs: that of cpufreq or of intel_pstate.
/// A policy cannot boost where the one for all is off, and follows when that is switched (`cpufreq_boost_trigger_state` in
/// `drivers/cpufreq/cpufreq.c`); so a guest follows another one that has switched it.
fn propose_boost(boost: Toggle, situation: Situation<'_>, cpus: &CpuSet, proposal: &mut Proposal) {
    let (host, record) = (situation.host, situation.record);
    let is_present = |setting: &Attribute| host.is_present(setting.path());
    let value = |on: &str, off: &str| AttributeValue::new(if boost.is_on() { on } else { off });
    let for_all = |setting: Attribute, want: AttributeValue, proposal: &mut Proposal| {
        if host.online_cpus().is_ok_and(|online| !online.is_subset(cpus)) {
            proposal.inform(format!("{setting}: the host has one switch for all CPUs, not only for {cpus}"));
        }
        proposal.claim(setting, want, BOOST);
    };
    if is_present(&Attribute::no_turbo()) {
        return for_all(Attribute::no_turbo(), value("0", "1"), proposal);
    }
    let all = Attribute::host_boost();
    let is_off = host.attribute(&all.path()).is_ok_and(|now| now == "0");
    let others = |setting: &Attribute| {
        record
            .entry(setting)
            .is_some_and(|entry| entry.claims.keys().any(|uuid| *uuid != situation.guest.uuid))
    };
    let online = host.online_cpus().unwrap_or_default();
    let policy = |cpu: u32| {
        let policy = host.related_cpus(cpu).ok()?.intersection(&online);
        Some(Attribute::policy_boost(policy.iter().next().unwrap_or(cpu)))
    };
    let own: Vec<Attribute> = cpus.iter().filter_map(policy).filter(&is_present).collect();
    let needs_all = others(&all) || (boost.is_on() && is_off);
    if !own.is_empty() && !needs_all {
        for setting in own {
            proposal.claim(setting, value("1", "0"), BOOST);
        }
    } else if is_present(&all) {
        for_all(all, value("1", "0"), proposal);
    } else {
        proposal.refuse(
            BOOST,
            "the host has no switch for boost",
            "remove the key: the processor or its driver has none; the setup of the firmware may",
        );
    }
}

/// The daemon's profile, which sets governors and preferences: two guests do not have both.
fn propose_profile(
    config: &CpuPower,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let others = || situation.record.leases.iter().filter(|(uuid, _)| **uuid != situation.guest.uuid);
    let Some(profile) = config.profile else {
        let key = match (&config.governor, &config.epp) {
            (Some(_), _) => GOVERNOR,
            (None, Some(_)) => EPP,
            (None, None) => return Ok(()),
        };
        for (_, lease) in
            others().filter(|(uuid, _)| situation.record.claims_of::<PowerProfile>(**uuid).next().is_some())
        {
            proposal.refuse(
                key,
                format!("guest {} has the host hold a power profile, which sets this too", lease.name),
                format!("give both guests a `profile`, or shut {} down", lease.name),
            );
        }
        return Ok(());
    };
    for (uuid, lease) in others() {
        let sets_speed =
            |attribute: &Attribute| matches!(attribute.place(), Place::Governor | Place::EnergyPreference);
        if situation.record.claims_of::<Attribute>(*uuid).any(|(entry, _)| sets_speed(&entry.setting)) {
            proposal.refuse(
                PROFILE,
                format!(
                    "guest {} has set governors or energy preferences, which a profile sets too",
                    lease.name
                ),
                format!("give both guests a `profile`, or shut {} down", lease.name),
            );
        }
    }
    let name = profile.as_str();
    match situation.host.power_profiles(situation.deadline)? {
        None => proposal.refuse(
            PROFILE,
            "the host has no daemon for power profiles",
            "install power-profiles-daemon or tuned-ppd, or write `governor: performance`",
        ),
        Some(profiles) if !profiles.iter().any(|known| known == name) => proposal.refuse(
            PROFILE,
            format!("the host has no power profile `{name}`"),
            format!("it has {}", profiles.join(", ")),
        ),
        Some(_) => {
            let want = OrNone(Some(name.to_owned()));
            proposal.claim(PowerProfile(situation.guest.uuid), want, PROFILE);
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
    config: &CpuPower,
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
    let setting = Attribute::energy_performance_preference(cpu);
    let is_fixed = host.scaling_governor(cpu)?.as_deref() == Some(PERFORMANCE);
    if is_fixed && now != wanted && situation.record.entry(&setting).is_none() {
        preferences.fixed.entry(now).or_default().insert(cpu);
        return Ok(true);
    }
    let key = if config.epp.is_some() { EPP } else { GOVERNOR };
    proposal.claim(setting, AttributeValue::new(wanted), key);
    Ok(true)
}
