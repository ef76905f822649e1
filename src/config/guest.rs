//! One guest's file as a whole.

use std::path::Path;

use super::block_sleep::BlockSleep;
use super::diagnostic::ConfigErrors;
use super::document;
use super::gpu::Gpu;
use super::hugepages::Hugepages;
use super::isolate_cpus::IsolateCpus;
use super::run::Run;
use super::services::Services;
use super::source::ConfigSource;
use super::switch_input::SwitchInput;

/// A section, for a file that has none.
const EXAMPLE: &str = "hugepages: {}";

/// What is done for one guest; at least one section is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestConfig {
    /// CPUs of its own.
    pub isolate_cpus: Option<IsolateCpus>,
    /// Memory in huge pages.
    pub hugepages: Option<Hugepages>,
    /// The host does not sleep.
    pub block_sleep: Option<BlockSleep>,
    /// Monitors that show the guest.
    pub switch_input: Option<SwitchInput>,
    /// Units of the host that do not run meanwhile.
    pub services: Option<Services>,
    /// The graphics card.
    pub gpu: Option<Gpu>,
    /// Commands of the host's administrator.
    pub run: Option<Run>,
}

impl GuestConfig {
    /// Reads a guest's file.
    ///
    /// # Errors
    /// All that is wrong with it, in the order of the lines: YAML that is none, unknown or repeated keys, wrong values,
    /// a file without any section.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigErrors> {
        ConfigSource::new(file, text).parse()
    }

    pub(super) fn read(source: &ConfigSource) -> Result<Self, ConfigErrors> {
        document::read(source, EXAMPLE, |sections| {
            let isolate_cpus = sections.section("isolate_cpus", "isolate_cpus: {}").map(IsolateCpus::read);
            let hugepages = sections.section("hugepages", "hugepages: {}").map(Hugepages::read);
            let block_sleep = sections.section("block_sleep", "block_sleep: {}").map(BlockSleep::read);
            let switch_input = sections.item("switch_input").map(SwitchInput::read);
            let services =
                sections.section("services", "services: {stop: [ollama.service]}").map(Services::read);
            let stopped = services.as_ref().map_or(&[][..], |services| &services.stop);
            let gpu = sections.section("gpu", "gpu: {}").map(|section| Gpu::read(section, stopped));
            let run = sections.item("run").map(Run::read);
            Self { isolate_cpus, hugepages, block_sleep, switch_input, services, gpu, run }
        })
    }
}
