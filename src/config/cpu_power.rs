//! The section `cpu_power`: how fast CPUs run, and how fast they wake up.

use std::num::NonZeroU32;
use std::time::Duration;

use super::isolate_cpus::CpuChoice;
use super::key::Key;
use super::section::Section;
use super::tree::{Node, shortened};
use super::value::{Fault, Toggle, any_of, choice, duration, toggle};
use crate::cpuset::CpuSet;
use crate::resume_latency::ResumeLatency;

/// How fast CPUs run, and how fast they wake up; at least one of it is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuPower {
    /// The CPUs.
    pub cpus: PowerCpus,
    /// Their frequency governor; none leaves it alone.
    pub governor: Option<GovernorName>,
    /// Their energy/performance preference; none leaves it alone.
    pub epp: Option<EppName>,
    /// Whether they may exceed their base clock; none leaves it alone.
    pub boost: Option<Toggle>,
    /// How long they may take to wake from idle; none leaves it alone.
    pub resume_latency: Option<ResumeLatency>,
    /// How long any CPU of the host may take to wake from idle while the guest is there; none leaves it alone.
    pub dma_latency: Option<ResumeLatency>,
    /// The power profile that the host's daemon holds; none leaves it alone.
    pub profile: Option<ProfileName>,
}

/// Which CPUs are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PowerCpus {
    /// Those that the guest's XML pins its vCPUs to.
    Guest,
    /// Those that the guest isolates: what is wrong with them is said there.
    Isolated(CpuChoice),
    /// All of the host that are online.
    All,
    /// These; never none.
    List(CpuSet),
}

/// A name for `cpufreq/scaling_governor`, as the kernel writes such names; whether this host has it is not known here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GovernorName(String);

/// A name for `cpufreq/energy_performance_preference`; whether this host has it is not known here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EppName(String);

/// A power profile that can be held: power-profiles-daemon takes these two and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProfileName {
    /// `performance`.
    Performance,
    /// `power-saver`.
    PowerSaver,
}

const PROFILES: [(&str, ProfileName); 2] =
    [("performance", ProfileName::Performance), ("power-saver", ProfileName::PowerSaver)];

/// What concerns CPUs one by one.
const OF_CPUS: [&str; 4] = ["governor", "epp", "boost", "resume_latency"];

impl CpuPower {
    /// Its keys, for people.
    pub const KEYS: &'static [Key] = &[
        Key::new(
            "cpus",
            "`guest`, `all`, or a list such as `\"4-15,20-31\"`",
            "`guest`",
            "the CPUs; `guest` takes those that `isolate_cpus` lists, else those that the XML pins vCPUs to; \
             `all` takes those that are online",
        ),
        Key::new(
            "governor",
            "a name such as `performance`",
            "left alone",
            "frequency governor of these CPUs",
        ),
        Key::new(
            "epp",
            "a name such as `performance`",
            "left alone",
            "energy performance preference of these CPUs (intel_pstate, amd-pstate)",
        ),
        Key::new(
            "boost",
            "`true`, `false`",
            "left alone",
            "whether these CPUs may exceed their base clock; where the kernel has one switch for all CPUs, \
             that one is set",
        ),
        Key::new(
            "resume_latency",
            "a time below one second, such as `20us`, or `none`",
            "left alone",
            "these CPUs enter only sleep states that they leave this fast; with `none` they do not sleep, \
             which costs power and often boost clock",
        ),
        Key::new(
            "dma_latency",
            "the same",
            "left alone",
            "the same for all CPUs of the host, as a program asks that holds `/dev/cpu_dma_latency`",
        ),
        Key::new(
            "profile",
            "`performance`, `power-saver`",
            "left alone",
            "has power-profiles-daemon (or tuned-ppd) hold this profile; not beside `governor` and `epp`, \
             which it sets. Not seen on hardware",
        ),
    ];

    /// Takes what `isolate_cpus` says of CPUs by now: a group of guests may have that section.
    pub(crate) fn look_at(&mut self, isolated: Option<&CpuChoice>) {
        if let PowerCpus::Guest | PowerCpus::Isolated(_) = self.cpus {
            self.cpus = isolated.cloned().map_or(PowerCpus::Guest, PowerCpus::Isolated);
        }
    }

    /// `isolated` is what `isolate_cpus` of the same file says of CPUs.
    pub(crate) fn read(mut section: Section<'_>, isolated: Option<&CpuChoice>) -> Self {
        if section.has("profile") {
            let help = "the profile sets it: keep one of the two";
            section.unfit("governor", "profile", help);
            section.unfit("epp", "profile", help);
        }
        let config = Self {
            cpus: match (section.value("cpus", read_cpus).unwrap_or(PowerCpus::Guest), isolated) {
                (PowerCpus::Guest, Some(choice)) => PowerCpus::Isolated(choice.clone()),
                (cpus, _) => cpus,
            },
            governor: section
                .value("governor", |node| read_name(node, "a governor's name such as `performance`"))
                .map(GovernorName),
            epp: section
                .value("epp", |node| read_name(node, "a preference's name such as `performance`"))
                .map(EppName),
            boost: section.value("boost", toggle),
            resume_latency: section.value("resume_latency", read_resume_latency),
            dma_latency: section.value("dma_latency", read_resume_latency),
            profile: section.value("profile", |node| choice(node, &PROFILES)),
        };
        if section.has_only(&["cpus"]) {
            section.refuse_whole(Fault::new(
                "sets nothing",
                "say what the CPUs are to do, for example `cpu_power: {governor: performance}`, or remove \
                 the section",
            ));
        } else if section.has("cpus") && section.has_only(&["cpus", "dma_latency", "profile"]) {
            section.refuse(
                "cpus",
                Fault::new(
                    "has no effect: `dma_latency` and `profile` are of the whole host",
                    format!("remove it; it goes with {}", any_of(&OF_CPUS)),
                ),
            );
        }
        section.finish();
        config
    }
}

impl GovernorName {
    /// As the kernel writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl EppName {
    /// As the kernel writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ProfileName {
    /// The daemon's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Performance => "performance",
            Self::PowerSaver => "power-saver",
        }
    }
}

fn read_cpus(node: &Node) -> Result<PowerCpus, Fault> {
    const WHAT: &str = "`guest`, `all` or a list of CPUs";
    const HELP: &str =
        "`guest` takes the guest's CPUs, `all` those of the host; a list looks like \"4-15,20-31\"";
    let text = match node {
        Node::Text(text) | Node::Integer(text) => text,
        other => return Err(Fault::expected_like(WHAT, other, HELP)),
    };
    match text.as_str() {
        "guest" => return Ok(PowerCpus::Guest),
        "all" => return Ok(PowerCpus::All),
        word => {
            if let Some(meant) = super::did_you_mean(word, &["guest", "all"]) {
                return Err(Fault::expected_like(WHAT, node, format!("did you mean `{meant}`?")));
            }
        }
    }
    match text.parse::<CpuSet>() {
        Ok(cpus) if cpus.is_empty() => Err(Fault::new("the list of CPUs is empty", HELP)),
        Ok(cpus) => Ok(PowerCpus::List(cpus)),
        Err(error) => Err(Fault::new(format!("no list of CPUs: {}", shortened(&error.to_string())), HELP)),
    }
}

/// The kernel's names: `CPUFREQ_NAME_LEN` is 16 with the final zero, preferences are at most 19 letters.
fn read_name(node: &Node, what: &str) -> Result<String, Fault> {
    const MAX: usize = 31;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    match node {
        Node::Text(name) if !name.is_empty() && name.len() <= MAX && name.bytes().all(allowed) => {
            Ok(name.clone())
        }
        other => Err(Fault::expected(what, other)),
    }
}

fn read_resume_latency(node: &Node) -> Result<ResumeLatency, Fault> {
    const EXAMPLE: &str = "20us";
    if matches!(node, Node::Text(text) if text == "none") {
        return Ok(ResumeLatency::None);
    }
    let limit = duration(node, EXAMPLE)?;
    if limit.is_zero() {
        return Err(Fault::new(
            "a limit of zero has no effect: the kernel reads it as no limit",
            format!("`none` tolerates no wake-up time at all; `{EXAMPLE}` leaves the light sleep states"),
        ));
    }
    match u32::try_from(limit.as_micros()).ok().and_then(NonZeroU32::new) {
        Some(micros) if limit < Duration::from_secs(1) => Ok(ResumeLatency::AtMost(micros)),
        _ => Err(Fault::new(
            "a limit of a second or more has no effect: no CPU takes that long to wake up",
            format!("give it in us or ms: for example `{EXAMPLE}`"),
        )),
    }
}
