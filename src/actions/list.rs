//! The closed list of actions. A new one is a file, its row here, its tests and its page.

use std::path::Path;

use super::action::{Action, ActionError};
use super::free_memory::FreeMemory;
use super::schedule::ScheduleThreads;
use super::tune::Tune;
use super::{Proposal, Situation};
use crate::config::{
    BlockSleep, ConfigErrors, ConfigSource, Conflicts, CpuPower, Disks, Gpu, Hugepages, IsolateCpus,
    Requires, Run, Section, SectionKeys, Services, SharedMemoryFiles, Sriov, SwitchInput, read_sections,
};
use crate::ledger::Peer;

/// A section, for a file that has none.
pub(super) const EXAMPLE: &str = "hugepages: {}";

macro_rules! actions {
    ($($section:ident: $action:ty,)*) => {
        /// What one guest's file asks for; at least one section is there.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct GuestConfig {
            $(
                #[doc = concat!("The section `", stringify!($section), "`.")]
                pub $section: Option<$action>,
            )*
        }

        /// Every section of a guest's file.
        pub const SECTIONS: &[SectionKeys] = &[
            $(SectionKeys { name: stringify!($section), keys: <$action as Action>::KEYS },)*
        ];

        impl GuestConfig {
            /// Reads a guest's file.
            ///
            /// # Errors
            /// All that is wrong with it, in the order of the lines: YAML that is none, unknown or repeated keys, wrong
            /// values, a file without any section.
            pub fn read(source: &ConfigSource) -> Result<Self, ConfigErrors> {
                read_sections(source, EXAMPLE, Self::read_from)
            }

            /// Reads sections that stand in a file or in one of its groups, and notes what is wrong with them.
            pub(super) fn read_from(file: &mut Section<'_>) -> Self {
                file.know_sections(SECTIONS);
                let mut config = Self::default();
                $(config.$section = <$action as Action>::read(file, &config);)*
                config
            }

            /// Takes those sections from another that are missing here; their names.
            pub(super) fn take_missing(&mut self, other: &Self) -> Vec<&'static str> {
                let mut taken = Vec::new();
                $(
                    if self.$section.is_none() && other.$section.is_some() {
                        self.$section = other.$section.clone();
                        taken.push(stringify!($section));
                    }
                )*
                self.look_at_each_other();
                taken
            }

            /// Whether no section is there.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                true $(&& self.$section.is_none())*
            }

            /// The names of the sections that are there.
            #[must_use]
            pub fn sections(&self) -> Vec<&'static str> {
                let mut there = Vec::new();
                $(
                    if self.$section.is_some() {
                        there.push(stringify!($section));
                    }
                )*
                there
            }

            /// What has to answer before it is known what the guest can have.
            #[must_use]
            pub fn peer(&self) -> Peer {
                let peers = [$(self.$section.as_ref().map(Action::peer),)*];
                match peers.contains(&Some(Peer::MayHang)) {
                    true => Peer::MayHang,
                    false => Peer::Kernel,
                }
            }

            /// Has each section of the file propose what it wants, in the order of the list.
            pub(super) fn propose(
                &self,
                situation: Situation<'_>,
                proposal: &mut Proposal,
            ) -> Result<(), ActionError> {
                $(
                    if let Some(action) = &self.$section {
                        Action::propose(action, situation, proposal)
                            .map_err(|cause| ActionError::new(stringify!($section), cause))?;
                    }
                )*
                Ok(())
            }
        }

        #[cfg(test)]
        const NAMES: &[(&str, &str)] = &[$((stringify!($section), <$action as Action>::SECTION),)*];
    };
}

// In the order in which they propose: a section may look at those above it.
actions! {
    requires: Requires,
    conflicts: Conflicts,
    block_sleep: BlockSleep,
    services: Services,
    run: Run,
    tune: Tune,
    shared_memory: SharedMemoryFiles,
    disks: Disks,
    sriov: Sriov,
    gpu: Gpu,
    free_memory: FreeMemory,
    hugepages: Hugepages,
    isolate_cpus: IsolateCpus,
    cpu_power: CpuPower,
    schedule: ScheduleThreads,
    switch_input: SwitchInput,
}

impl GuestConfig {
    /// Has sections that need something of another one know that which is there now: it may be of another file.
    fn look_at_each_other(&mut self) {
        let Self { isolate_cpus, cpu_power, schedule, .. } = self;
        if let Some(schedule) = schedule {
            schedule.look_at(isolate_cpus.as_ref());
        }
        if let Some(cpu_power) = cpu_power {
            cpu_power.look_at(isolate_cpus.as_ref().map(|isolate| &isolate.cpus));
        }
    }

    /// Reads the text of a guest's file.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigErrors> {
        Self::read(&ConfigSource::new(file, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Key;

    const README: &str = include_str!("../../README.md");

    /// The table of a section in the README.
    fn table(section: &SectionKeys) -> String {
        let row = |key: &Key| {
            let Key { name, values, default, about } = key;
            format!("| `{name}` | {values} | {default} | {about} |\n").replace("|  |", "| |")
        };
        let rows: String = section.keys.iter().map(row).collect();
        format!("| key | values | default | what |\n|---|---|---|---|\n{rows}")
    }

    /// The names that the help for an unknown key offers.
    fn keys_read(section: &str) -> Vec<String> {
        const UNKNOWN: &str = "none-such";
        let text = format!("{section}: {{{UNKNOWN}: 1}}\n");
        let errors = GuestConfig::parse(Path::new("x.yaml"), &text).unwrap_err();
        let unknown = errors.diagnostics().iter().find(|error| error.message.contains(UNKNOWN)).unwrap();
        let help = unknown.help.as_ref().unwrap();
        let names = help.split_once("allowed here: ").unwrap().1.split('`').skip(1).step_by(2);
        names.map(str::to_owned).collect()
    }

    #[test]
    fn a_row_has_the_name_that_its_action_reads() {
        for (row, read) in NAMES {
            assert_eq!(row, read);
        }
    }

    #[test]
    fn each_key_that_is_read_is_described_and_no_other() {
        for section in SECTIONS {
            let mut described: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
            let mut read = keys_read(section.name);
            described.sort_unstable();
            read.sort_unstable();
            assert_eq!(described, read, "{}", section.name);
        }
    }

    #[test]
    fn a_description_is_a_cell_of_a_table_and_a_sentence_without_its_full_stop() {
        for section in SECTIONS {
            for key in section.keys {
                let cells = [key.name, key.values, key.default, key.about];
                assert!(cells.iter().all(|cell| !cell.contains(['|', '\n'])), "{key:?}");
                assert!(!key.values.is_empty() && !key.about.is_empty(), "{key:?}");
                assert!(!key.about.ends_with('.'), "{key:?}");
            }
        }
    }

    #[test]
    fn the_readme_has_the_table_of_each_section() {
        for section in SECTIONS {
            let (name, table) = (section.name, table(section));
            let heading = format!("\n### `{name}`\n");
            let below = README
                .split_once(&heading)
                .unwrap_or_else(|| panic!("README.md has no section{heading}that has the table\n{table}"))
                .1;
            let below = below.split("\n##").next().unwrap();
            let missing: String = table.split_inclusive('\n').filter(|line| !below.contains(*line)).collect();
            assert!(missing.is_empty(), "README.md: the table of `{name}` lacks\n{missing}");
            assert!(
                below.contains(&table),
                "README.md: the table of `{name}` is to have this order\n{table}"
            );
        }
    }
}
