//! The host's file as a whole: what holds for all guests.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use super::deviation::deviations;
use super::diagnostic::ConfigErrors;
use super::document;
use super::gpu_family::{self, built_in_gpu_families};
use super::kernel_line;
use super::monitor::{monitor_name, selector};
use super::source::ConfigSource;
use super::value::choice;
use crate::gpu::{Family, KernelLine};
use crate::log_level::LogLevel;
use crate::monitor::{
    DeviationName, EdidIdentity, MonitorName, MonitorPlace, MonitorSelector, NamedDeviation,
};
use crate::pci::PciId;

/// A section, for a file that has none.
const EXAMPLE: &str = "monitors: {desk: {model: \"LG ULTRAGEAR\"}}";

/// Monitors and graphics cards of the host, and what its kernel says of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// Names for monitors.
    pub monitors: BTreeMap<MonitorName, MonitorSelector>,
    /// How some monitors differ from the standard; the first one that fits a monitor holds for it.
    pub deviations: Vec<NamedDeviation>,
    /// How some graphics cards behave; the first one that a card belongs to holds for it, before those that are built
    /// in.
    pub gpu_families: Vec<Family>,
    /// How much the journal gets.
    pub log: LogLevel,
    /// What some lines of the kernel's log mean; the first one that fits a line holds for it, before those that are built
    /// in.
    pub kernel_lines: Vec<KernelLine>,
}

impl HostConfig {
    /// Reads the host's file.
    ///
    /// # Errors
    /// All that is wrong with it, as for a guest's file.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigErrors> {
        ConfigSource::new(file, text).parse_host()
    }

    pub(super) fn read(source: &ConfigSource) -> Result<Self, ConfigErrors> {
        document::read(source, EXAMPLE, |sections| {
            let monitors = sections.item("monitors").map(|item| {
                item.pairs("names no monitor", "{desk: {model: \"LG ULTRAGEAR\"}}", monitor_name, selector)
            });
            let deviations = sections.item("deviations").map(deviations);
            let gpu_families = sections.item("gpu_families").map(gpu_family::families);
            let kernel_lines = sections.item("kernel_lines").map(kernel_line::kernel_lines);
            let log = sections.value("log", |node| choice(node, &LogLevel::WORDS));
            Self {
                monitors: monitors.unwrap_or_default().into_iter().collect(),
                deviations: deviations.unwrap_or_default(),
                gpu_families: gpu_families.unwrap_or_default(),
                log: log.unwrap_or_default(),
                kernel_lines: kernel_lines.unwrap_or_default(),
            }
        })
    }

    /// Adds deviations that are known without the file; one of the file's with the same name replaces it.
    #[must_use]
    pub fn with_built_in(mut self, built_in: impl IntoIterator<Item = NamedDeviation>) -> Self {
        for deviation in built_in {
            if self.deviation_named(&deviation.name).is_none() {
                self.deviations.push(deviation);
            }
        }
        self
    }

    /// The deviation with a name.
    #[must_use]
    pub fn deviation_named(&self, name: &DeviationName) -> Option<&NamedDeviation> {
        self.deviations.iter().find(|deviation| deviation.name == *name)
    }

    /// The deviation that is applied to a monitor by itself.
    #[must_use]
    pub fn deviation_for(&self, identity: &EdidIdentity, place: &MonitorPlace) -> Option<&NamedDeviation> {
        self.deviations.iter().find(|deviation| deviation.applies_to(identity, place))
    }

    /// The family of a graphics card. None has no family: what nobody knows has a careful one.
    #[must_use]
    pub fn family_of(&self, id: PciId) -> &Family {
        static UNKNOWN: LazyLock<Family> = LazyLock::new(Family::unknown);
        let mut families = self.gpu_families.iter().chain(built_in_gpu_families());
        families.find(|family| family.contains(id)).unwrap_or(&UNKNOWN)
    }
}
