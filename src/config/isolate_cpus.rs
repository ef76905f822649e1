//! The section `isolate_cpus`: CPUs that nothing but the guest runs on.

use super::cpu_list::{AutoOrCpus, auto_or_cpus};
use super::item::Item;
use super::key::Key;
use super::section::Section;
use super::tree::Node;
use super::value::{Fault, Toggle, choice, toggle};
use crate::cpuset::CpuSet;

/// Which CPUs are kept for the guest and what is kept off them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsolateCpus {
    /// The CPUs.
    pub cpus: CpuChoice,
    /// Whether another guest may isolate them too.
    pub shared: CpuSharing,
    /// Whether the host's programs are kept off them.
    pub units: Toggle,
    /// Whether interrupts are moved off them.
    pub irqs: Toggle,
    /// Where the interrupts of the guest's own devices are served.
    pub vfio_irqs: VfioIrqs,
    /// Whether the kernel's unbound workqueues are kept off them.
    pub workqueues: Toggle,
    /// Whether the kernel's own threads are moved off them.
    pub kernel_threads: Toggle,
}

impl IsolateCpus {
    /// Its keys, for people.
    pub const KEYS: &'static [Key] = &[
        Key::new(
            "cpus",
            "`auto`, or a list such as `\"4-15,20-31\"`",
            "`auto`",
            "the CPUs; `auto` takes those that the XML pins vCPUs to",
        ),
        Key::new(
            "shared",
            "`true`, `false`",
            "`false`",
            "whether another guest may isolate some of these CPUs too; if not, the second one does \
                    not start",
        ),
        Key::new("units", "`true`, `false`", "`true`", "keep the host's programs on the other CPUs"),
        Key::new(
            "irqs",
            "`true`, `false`",
            "`true`",
            "move interrupts to the other CPUs, and tell irqbalance",
        ),
        Key::new(
            "vfio_irqs",
            "`guest`, `host`",
            "`guest`",
            "where the interrupts of the guest's own devices are served: on its CPUs, or on those of \
                    the host",
        ),
        Key::new(
            "workqueues",
            "`true`, `false`",
            "`true`",
            "keep the kernel's own background work on the other CPUs",
        ),
        Key::new(
            "kernel_threads",
            "`true`, `false`",
            "`true`",
            "keep the kernel's own threads on the other CPUs, but those that are bound to theirs, and \
                    those of interrupts, vhost and KVM",
        ),
    ];
}

/// Where the CPUs come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CpuChoice {
    /// The CPUs that the guest's XML pins its vCPUs to.
    Auto,
    /// These; never none.
    List(CpuSet),
}

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

/// Keys that this section had before 1.0, and what they are now.
const MOVED: [(&str, &str); 4] = [
    ("governor", "cpu_power.governor"),
    ("epp", "cpu_power.epp"),
    ("resume_latency", "cpu_power.resume_latency"),
    ("cpu_dma_latency", "cpu_power.dma_latency"),
];

impl Default for IsolateCpus {
    fn default() -> Self {
        Self {
            cpus: CpuChoice::Auto,
            shared: CpuSharing::Refused,
            units: Toggle::On,
            irqs: Toggle::On,
            vfio_irqs: VfioIrqs::Guest,
            workqueues: Toggle::On,
            kernel_threads: Toggle::On,
        }
    }
}

impl IsolateCpus {
    pub(crate) fn read(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let config = Self {
            cpus: section.item("cpus").and_then(read_cpus).unwrap_or(default.cpus),
            shared: section.value("shared", read_sharing).unwrap_or(default.shared),
            units: section.value("units", toggle).unwrap_or(default.units),
            irqs: section.value("irqs", toggle).unwrap_or(default.irqs),
            vfio_irqs: section
                .value("vfio_irqs", |node| choice(node, &VFIO_IRQS))
                .unwrap_or(default.vfio_irqs),
            workqueues: section.value("workqueues", toggle).unwrap_or(default.workqueues),
            kernel_threads: section.value("kernel_threads", toggle).unwrap_or(default.kernel_threads),
        };
        for (key, now) in MOVED {
            section.moved(key, now);
        }
        let nothing = [config.units, config.irqs, config.workqueues, config.kernel_threads];
        if nothing.iter().all(|toggle| !toggle.is_on()) {
            section.refuse_whole(Fault::new(
                "keeps nothing off the CPUs: all four are turned off",
                "turn one of `units`, `irqs`, `workqueues` and `kernel_threads` on, or remove the section",
            ));
        }
        section.finish();
        config
    }
}

fn read_sharing(node: &Node) -> Result<CpuSharing, Fault> {
    Ok(if toggle(node)?.is_on() { CpuSharing::Allowed } else { CpuSharing::Refused })
}

fn read_cpus(item: Item<'_>) -> Option<CpuChoice> {
    auto_or_cpus(item).map(|cpus| match cpus {
        AutoOrCpus::Auto => CpuChoice::Auto,
        AutoOrCpus::Cpus(cpus) => CpuChoice::List(cpus),
    })
}
