//! The section `isolate_cpus`: CPUs that nothing but the guest runs on.

use std::num::NonZeroU32;
use std::time::Duration;

use super::section::Section;
use super::tree::{Node, shortened};
use super::value::{Fault, Toggle, choice, duration, toggle};
use crate::cpuset::CpuSet;
use crate::host::ResumeLatency;

/// Which CPUs are kept for the guest and what is kept off them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsolateCpus {
    /// The CPUs.
    pub cpus: CpuChoice,
    /// Whether another guest may isolate them too.
    pub shared: CpuSharing,
    /// Whether interrupts are moved off them.
    pub irqs: Toggle,
    /// Where the interrupts of the guest's own devices are served.
    pub vfio_irqs: VfioIrqs,
    /// Whether the kernel's unbound workqueues are kept off them.
    pub workqueues: Toggle,
    /// The frequency governor they run with; none leaves it alone.
    pub governor: Option<GovernorName>,
    /// Their energy/performance preference; none leaves it alone.
    pub epp: Option<EppName>,
    /// How long they may take to wake from idle; none leaves it alone.
    pub resume_latency: Option<ResumeLatency>,
    /// How long any CPU of the host may take to wake from idle while the guest is there; none leaves it alone.
    pub cpu_dma_latency: Option<ResumeLatency>,
}

/// Where the CPUs come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CpuChoice {
    /// The CPUs that the guest's XML pins its vCPUs to.
    Auto,
    /// These; never none.
    List(CpuSet),
}

/// A name for `cpufreq/scaling_governor`, as the kernel writes such names; whether this host has it is not known here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GovernorName(String);

/// A name for `cpufreq/energy_performance_preference`; whether this host has it is not known here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EppName(String);

/// What happens to a CPU that another guest isolates already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuSharing {
    /// The start is refused.
    Refused,
    /// Both have it.
    Allowed,
}

/// The CPUs that serve the interrupts of devices that the guest was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VfioIrqs {
    /// The guest's.
    Guest,
    /// Those left to the host.
    Host,
}

const VFIO_IRQS: [(&str, VfioIrqs); 2] = [("guest", VfioIrqs::Guest), ("host", VfioIrqs::Host)];

impl Default for IsolateCpus {
    fn default() -> Self {
        Self {
            cpus: CpuChoice::Auto,
            shared: CpuSharing::Refused,
            irqs: Toggle::On,
            vfio_irqs: VfioIrqs::Guest,
            workqueues: Toggle::On,
            governor: None,
            epp: None,
            resume_latency: None,
            cpu_dma_latency: None,
        }
    }
}

impl IsolateCpus {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let config = Self {
            cpus: section.value("cpus", read_cpus).unwrap_or(default.cpus),
            shared: section.value("shared", read_sharing).unwrap_or(default.shared),
            irqs: section.value("irqs", toggle).unwrap_or(default.irqs),
            vfio_irqs: section
                .value("vfio_irqs", |node| choice(node, &VFIO_IRQS))
                .unwrap_or(default.vfio_irqs),
            workqueues: section.value("workqueues", toggle).unwrap_or(default.workqueues),
            governor: section
                .value("governor", |node| read_name(node, "a governor's name such as `performance`"))
                .map(GovernorName),
            epp: section
                .value("epp", |node| read_name(node, "a preference's name such as `performance`"))
                .map(EppName),
            resume_latency: section.value("resume_latency", read_resume_latency),
            cpu_dma_latency: section.value("cpu_dma_latency", read_resume_latency),
        };
        section.finish();
        config
    }
}

impl GovernorName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl EppName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn read_sharing(node: &Node) -> Result<CpuSharing, Fault> {
    Ok(if toggle(node)?.is_on() { CpuSharing::Allowed } else { CpuSharing::Refused })
}

fn read_cpus(node: &Node) -> Result<CpuChoice, Fault> {
    const WHAT: &str = "`auto` or a list of CPUs";
    const HELP: &str =
        "`auto` takes the CPUs that the guest's XML pins its vCPUs to; a list looks like \"4-15,20-31\"";
    let text = match node {
        Node::Text(text) | Node::Integer(text) => text,
        other => return Err(Fault::expected_like(WHAT, other, HELP)),
    };
    if text == "auto" {
        return Ok(CpuChoice::Auto);
    }
    if super::did_you_mean(text, &["auto"]).is_some() {
        return Err(Fault::expected_like(WHAT, node, "did you mean `auto`?"));
    }
    match text.parse::<CpuSet>() {
        Ok(cpus) if cpus.is_empty() => Err(Fault::new("isolates none: the list of CPUs is empty", HELP)),
        Ok(cpus) => Ok(CpuChoice::List(cpus)),
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
