//! `tune`: values of the kernel as a whole, of disks and of screens, for as long as the guest is there.

mod devices;
mod files;
mod named;

use std::path::PathBuf;

use super::action::Action;
use super::{GuestConfig, Proposal, Situation};
use crate::config::{Fault, Key, Section, device_name, percent, word};
use crate::host::HostError;
use crate::ledger::{AttributeRow, AttributeValue, TUNABLES};

pub use devices::DiskTuning;

const EXAMPLE: &str = "tune: {transparent_hugepages: never}";

/// What is set; at least one value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tune {
    /// Values of the table, in its order.
    pub values: Vec<(&'static AttributeRow, AttributeValue)>,
    /// Which of its kinds of cores a processor of AMD's prefers.
    pub x3d_mode: Option<&'static str>,
    /// Disks, by their names.
    pub disks: Vec<(String, DiskTuning)>,
    /// How bright screens are, in percent, by the names of their lights.
    pub backlight: Vec<(String, u8)>,
    /// What has no name: files, and what they are to hold.
    pub files: Vec<(PathBuf, String)>,
}

/// Its keys beside those of the table.
const OTHER_KEYS: [Key; 4] = [
    Key::new(
        "x3d_mode",
        "`frequency`, `cache`",
        "left alone",
        "which of its two kinds of cores a Ryzen with 3D V-Cache gives to programs first (amd_x3d_vcache). \
                Not seen on hardware",
    ),
    Key::new(
        "disks",
        "names, each with `scheduler`, `read_ahead` or both: `{ nvme0n1: { scheduler: none, read_ahead: 128KiB } }`",
        "left alone",
        "how the kernel orders what it asks of a disk, and how much it reads in advance",
    ),
    Key::new(
        "backlight",
        "names as in `/sys/class/backlight`, each with a part: `{ intel_backlight: 30% }`",
        "left alone",
        "how bright a screen is. Not seen on hardware",
    ),
    Key::new(
        "files",
        "paths and values: `{ \"/proc/sys/kernel/sched_autogroup_enabled\": 0 }`",
        "nothing",
        "what has no name here, below `/proc/sys`, `/sys/kernel`, `/sys/module/MODULE/parameters` and \
                `/sys/block/DISK`",
    ),
];

const KEYS: [Key; TUNABLES.len() + OTHER_KEYS.len()] = {
    let mut keys = [OTHER_KEYS[0]; TUNABLES.len() + OTHER_KEYS.len()];
    let mut row = 0;
    while row < TUNABLES.len() {
        let name = TUNABLES[row].name;
        if let Some(tunable) = TUNABLES[row].tunable {
            keys[row] = Key::new(name, tunable.values, "left alone", tunable.about);
        }
        row += 1;
    }
    let mut other = 0;
    while other < OTHER_KEYS.len() {
        keys[row + other] = OTHER_KEYS[other];
        other += 1;
    }
    keys
};

impl Action for Tune {
    const SECTION: &'static str = "tune";
    const KEYS: &'static [Key] = &KEYS;

    fn read(file: &mut Section<'_>, _before: &GuestConfig) -> Option<Self> {
        let mut section = file.section(Self::SECTION, EXAMPLE)?;
        if section.has_only(&[]) {
            section.refuse_as_empty(Fault::new(
                "sets nothing",
                format!("name what is to be set, for example `{EXAMPLE}`, or remove the section"),
            ));
        }
        let config = Self {
            values: named::read(&mut section),
            x3d_mode: section.value("x3d_mode", |node| word(node, &["frequency", "cache"])),
            disks: section.item("disks").map(devices::read_disks).unwrap_or_default(),
            backlight: section
                .item("backlight")
                .map(|item| {
                    let example = "backlight: {intel_backlight: 30%}";
                    item.pairs("sets nothing", example, device_name, |item| item.value(percent))
                })
                .unwrap_or_default(),
            files: section.item("files").map(files::read).unwrap_or_default(),
        };
        section.finish();
        Some(config)
    }

    fn propose(&self, situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
        for (row, value) in &self.values {
            named::propose(row, value, situation, proposal);
        }
        if let Some(mode) = self.x3d_mode {
            devices::propose_x3d_mode(mode, situation, proposal);
        }
        for (disk, tuning) in &self.disks {
            devices::propose_disk(disk, tuning, situation, proposal);
        }
        for (device, percent) in &self.backlight {
            devices::propose_backlight(device, *percent, situation, proposal);
        }
        for (path, value) in &self.files {
            files::propose(path, value, situation, proposal);
        }
        Ok(())
    }
}
