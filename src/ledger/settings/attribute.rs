//! Attributes of the kernel: a file that holds a value. Which there are is a table ([`attributes`]); a new one is a row
//! and a test.

use std::cmp::Ordering;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::attribute_table::{
    AttributeRow, BACKLIGHT, Codec, Contact, D3COLD_ALLOWED, DISK_READ_AHEAD, DISK_SCHEDULER,
    DRIVERS_AUTOPROBE, ENERGY_PREFERENCE, HOST_BOOST, NO_TURBO, POLICY_BOOST, POWER_CONTROL, RESET_METHOD,
    RESUME_LATENCY, SCALING_GOVERNOR, X3D_MODE, attributes,
};
use crate::deadline::Deadline;
use crate::host::{Host, HostError, PciAttribute};
use crate::ledger::rule::SameForAll;
use crate::ledger::setting::{Locking, OnRefusal, Phase, Place, Reconciling, Setting, Traits};
use crate::pci::PciAddress;
use crate::resume_latency::ResumeLatency;
use crate::serde_as_text::serde_as_text;

/// An attribute of one thing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attribute {
    /// The CPU, the PCI function, the device or the host that it belongs to.
    #[serde(default, skip_serializing_if = "At::is_host")]
    pub at: At,
    /// Its row in the table.
    pub name: AttributeName,
}

/// A row of the table.
#[derive(Clone, Copy)]
pub struct AttributeName(&'static AttributeRow);

/// What an attribute is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum At {
    /// The host as a whole.
    #[default]
    Host,
    /// A CPU.
    Cpu(u32),
    /// A PCI function.
    Function(PciAddress),
    /// A disk or another device, by its name in sysfs.
    Named(String),
}

/// What an attribute holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct AttributeValue {
    /// The value.
    text: String,
    /// What the other file of a pair holds, where that one has the value.
    partner: Option<String>,
}

impl Attribute {
    /// A CPU's frequency governor.
    #[must_use]
    pub fn scaling_governor(cpu: u32) -> Self {
        Self { at: At::Cpu(cpu), name: AttributeName(&SCALING_GOVERNOR) }
    }

    /// A CPU's energy performance preference.
    #[must_use]
    pub fn energy_performance_preference(cpu: u32) -> Self {
        Self { at: At::Cpu(cpu), name: AttributeName(&ENERGY_PREFERENCE) }
    }

    /// How long a CPU may take to wake up.
    #[must_use]
    pub fn pm_qos_resume_latency_us(cpu: u32) -> Self {
        Self { at: At::Cpu(cpu), name: AttributeName(&RESUME_LATENCY) }
    }

    /// Whether the CPUs of a frequency policy may exceed their base clock; named after one of them.
    #[must_use]
    pub fn policy_boost(cpu: u32) -> Self {
        Self { at: At::Cpu(cpu), name: AttributeName(&POLICY_BOOST) }
    }

    /// Whether all CPUs may exceed their base clock.
    #[must_use]
    pub fn host_boost() -> Self {
        Self { at: At::Host, name: AttributeName(&HOST_BOOST) }
    }

    /// The same on Intel's processors, the other way round.
    #[must_use]
    pub fn no_turbo() -> Self {
        Self { at: At::Host, name: AttributeName(&NO_TURBO) }
    }

    /// Which of its two kinds of cores a processor of AMD's prefers.
    pub fn x3d_mode(device: impl Into<String>) -> Self {
        Self { at: At::Named(device.into()), name: AttributeName(&X3D_MODE) }
    }

    /// A disk's scheduler.
    pub fn disk_scheduler(disk: impl Into<String>) -> Self {
        Self { at: At::Named(disk.into()), name: AttributeName(&DISK_SCHEDULER) }
    }

    /// How much is read from a disk in advance.
    pub fn disk_read_ahead(disk: impl Into<String>) -> Self {
        Self { at: At::Named(disk.into()), name: AttributeName(&DISK_READ_AHEAD) }
    }

    /// How bright a screen is.
    pub fn backlight(device: impl Into<String>) -> Self {
        Self { at: At::Named(device.into()), name: AttributeName(&BACKLIGHT) }
    }

    /// Whether the kernel binds drivers to PCI functions that it finds.
    #[must_use]
    pub fn drivers_autoprobe() -> Self {
        Self { at: At::Host, name: AttributeName(&DRIVERS_AUTOPROBE) }
    }

    /// An attribute of a PCI function or port.
    #[must_use]
    pub fn of_function(address: PciAddress, attribute: PciAttribute) -> Self {
        let found = match attribute {
            PciAttribute::D3coldAllowed => &D3COLD_ALLOWED,
            PciAttribute::PowerControl => &POWER_CONTROL,
            PciAttribute::ResetMethod => &RESET_METHOD,
        };
        Self { at: At::Function(address), name: AttributeName(found) }
    }

    /// One of the kernel as a whole, by its name.
    #[must_use]
    pub fn of_host(name: &str) -> Option<Self> {
        name.parse().ok().map(|name| Self { at: At::Host, name })
    }

    /// The PCI function that it is of.
    #[must_use]
    pub fn function(&self) -> Option<PciAddress> {
        match self.at {
            At::Function(address) => Some(address),
            At::Host | At::Cpu(_) | At::Named(_) => None,
        }
    }

    /// Its row.
    #[must_use]
    pub fn row(&self) -> &'static AttributeRow {
        self.name.0
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(self.filled_in(self.row().path))
    }

    fn filled_in(&self, pattern: &str) -> String {
        pattern.replace("{name}", self.row().name).replace("{}", &self.at.to_string())
    }
}

impl At {
    fn is_host(&self) -> bool {
        *self == Self::Host
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => Ok(()),
            Self::Cpu(cpu) => cpu.fmt(f),
            Self::Function(address) => address.fmt(f),
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.filled_in(self.row().words))
    }
}

impl AttributeName {
    fn position(self) -> usize {
        attributes().position(|row| row.name == self.0.name).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for AttributeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl fmt::Debug for AttributeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl FromStr for AttributeName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = attributes().find(|row| row.name == name);
        found.map(Self).ok_or_else(|| format!("no attribute is called `{name}`"))
    }
}

serde_as_text!(AttributeName);

impl PartialEq for AttributeName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for AttributeName {}

impl PartialOrd for AttributeName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for AttributeName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.position().cmp(&other.position())
    }
}

impl AttributeValue {
    /// A value to be written.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), partner: None }
    }

    /// The value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// `10`, or `0 (the other one is 20)` for a pair of which the other one has the value.
impl fmt::Display for AttributeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.partner.iter().try_for_each(|partner| write!(f, " (the other one is {partner})"))
    }
}

/// As it stands in the ledger.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a string, or the two of a pair")]
enum Written {
    Alone(String),
    Pair(String, String),
}

impl From<Written> for AttributeValue {
    fn from(written: Written) -> Self {
        match written {
            Written::Alone(text) => Self { text, partner: None },
            Written::Pair(text, partner) => Self { text, partner: Some(partner) },
        }
    }
}

impl From<AttributeValue> for Written {
    fn from(AttributeValue { text, partner }: AttributeValue) -> Self {
        match partner {
            Some(partner) => Self::Pair(text, partner),
            None => Self::Alone(text),
        }
    }
}

impl Setting for Attribute {
    type Value = AttributeValue;
    type Want = AttributeValue;
    type Rule = SameForAll;

    fn place(&self) -> Place {
        self.row().place
    }

    fn traits(&self) -> Traits {
        match (self.row().contact, self.row().place) {
            (Contact::Device, Place::Kernel) => {
                Traits { locking: Locking::Released, ..Traits::of_peer(Phase::WithinCommands) }
            }
            (Contact::Device, _) => Traits::of_card(),
            (Contact::Direct, _) => {
                let reconciling = match self.at {
                    At::Cpu(_) => Reconciling::OldValuesOfCpus,
                    At::Host | At::Function(_) | At::Named(_) => Reconciling::Never,
                };
                Traits { reconciling, ..Traits::of(Phase::WithinCommands) }
            }
        }
    }

    fn read(&self, host: &Host, _deadline: Deadline) -> Result<AttributeValue, HostError> {
        let text = host.attribute(&self.path())?;
        Ok(match self.row().codec {
            Codec::Plain | Codec::ResetMethods => AttributeValue::new(text),
            Codec::ResumeLatency => {
                let latency: ResumeLatency =
                    text.parse().map_err(|reason| HostError::content(&self.path(), reason))?;
                AttributeValue::new(latency.to_string())
            }
            Codec::Bracketed => AttributeValue::new(chosen(&text).unwrap_or(&text)),
            Codec::ZeroedBy(other) => {
                let partner = (text == "0").then(|| host.attribute(other.as_ref())).transpose()?;
                AttributeValue { text, partner }
            }
        })
    }

    fn write(&self, host: &mut Host, value: &AttributeValue, deadline: Deadline) -> Result<(), HostError> {
        let text = value.text.as_str();
        match (self.row().codec, &self.at, self.row().contact) {
            (Codec::ResetMethods, At::Function(address), _) => {
                host.set_pci_attribute(*address, PciAttribute::ResetMethod, text, deadline)
            }
            // Writing zero would say no more than that the other one has the value.
            (Codec::ZeroedBy(other), ..) if text == "0" => match &value.partner {
                Some(partner) => host.set_attribute(other.as_ref(), partner),
                None => Ok(()),
            },
            (_, _, Contact::Device) => host.set_device_attribute(&self.path(), text, deadline),
            (_, _, Contact::Direct) => host.set_attribute(&self.path(), text),
        }
    }

    fn on_refusal(&self, error: &HostError) -> OnRefusal {
        match error.stuck_process() {
            None => self.row().on_refusal,
            Some(_) => OnRefusal::Refuse,
        }
    }
}

/// The word in brackets.
fn chosen(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ledger::testing::{Machine, soon};
    use crate::ledger::{Accepts, Entry, TUNABLES, Tunable};

    #[test]
    fn each_row_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = attributes().map(|row| row.name).collect();
        assert_eq!(names.len(), attributes().count());
        let paths: BTreeSet<&str> = TUNABLES.iter().map(|row| row.path).collect();
        assert_eq!(paths.len(), TUNABLES.len());
    }

    /// Writes a value as the executor does; what the files hold then.
    fn set(machine: &Machine, attribute: &Attribute, value: &AttributeValue) {
        let mut entry = Entry::new(attribute.clone(), attribute.read(&machine.host(), soon()).unwrap());
        entry.announce(value.clone(), None);
        entry.write_pending(&mut machine.host(), soon(), soon()).unwrap();
        assert_eq!(entry.written, *value);
    }

    /// Takes a value on a host that has these files, and gives it back. `accepted` is what the files hold in between, each
    /// as the kernel shows it.
    fn comes_back(name: &str, files: &[(&str, &str)], wanted: &str, accepted: &[&str]) {
        let lines: Vec<String> = files.iter().map(|(path, text)| format!("{path} = {text}")).collect();
        let machine = Machine::with(&lines.join("\n"));
        let hold = || {
            let text = |path: &str| std::fs::read_to_string(machine.path(path)).unwrap().trim().to_owned();
            files.iter().map(|(path, _)| text(path)).collect::<Vec<_>>()
        };
        let attribute = Attribute::of_host(name).unwrap();
        let before = attribute.read(&machine.host(), soon()).unwrap();
        set(&machine, &attribute, &AttributeValue::new(wanted));
        assert_eq!(hold(), accepted);
        set(&machine, &attribute, &before);
        assert_eq!(hold(), files.iter().map(|(_, text)| *text).collect::<Vec<_>>());
    }

    /// Each row of those that a person may ask for, on a host that has what kernels have.
    #[test]
    fn each_one_is_set_and_comes_back() {
        let mut tried = BTreeSet::new();
        let mut number = |name: &'static str, path: &str, before: &str, value: &str| {
            comes_back(name, &[(path, before)], value, &[value]);
            tried.insert(name);
        };
        number("stat_interval", "/proc/sys/vm/stat_interval", "1", "120");
        number("swappiness", "/proc/sys/vm/swappiness", "60", "10");
        number("compaction_proactiveness", "/proc/sys/vm/compaction_proactiveness", "20", "0");
        number("sched_rt_runtime_us", "/proc/sys/kernel/sched_rt_runtime_us", "950000", "-1");
        number("numa_balancing", "/proc/sys/kernel/numa_balancing", "1", "0");
        number("nmi_watchdog", "/proc/sys/kernel/nmi_watchdog", "1", "0");
        number("watchdog", "/proc/sys/kernel/watchdog", "1", "0");
        number("ksm", "/sys/kernel/mm/ksm/run", "1", "0");
        number("halt_poll_ns", "/sys/module/kvm/parameters/halt_poll_ns", "200000", "0");
        number("writeback_numa", "/sys/devices/virtual/workqueue/writeback/numa", "1", "0");
        let mut word = |name: &'static str, path: &str, before: &str, value: &str, then: &str| {
            comes_back(name, &[(path, before)], value, &[then]);
            tried.insert(name);
        };
        let huge = "/sys/kernel/mm/transparent_hugepage";
        let (enabled, defrag) = (format!("{huge}/enabled"), format!("{huge}/defrag"));
        word("transparent_hugepages", &enabled, "always [madvise] never", "never", "always madvise [never]");
        word(
            "transparent_hugepages_defrag",
            &defrag,
            "always defer defer+madvise [madvise] never",
            "defer+madvise",
            "always defer [defer+madvise] madvise never",
        );
        for (bytes, ratio) in
            [("dirty_bytes", "dirty_ratio"), ("dirty_background_bytes", "dirty_background_ratio")]
        {
            let paths = [bytes, ratio].map(|name| format!("/proc/sys/vm/{name}"));
            let files = |values: [&'static str; 2]| [(&*paths[0], values[0]), (&*paths[1], values[1])];
            comes_back(bytes, &files(["0", "20"]), "1048576", &["1048576", "0"]);
            comes_back(bytes, &files(["4096", "0"]), "1048576", &["1048576", "0"]);
            comes_back(ratio, &files(["0", "20"]), "5", &["0", "5"]);
            comes_back(ratio, &files(["4096", "0"]), "5", &["0", "5"]);
            tried.extend([bytes, ratio]);
        }
        let missing: Vec<&str> =
            TUNABLES.iter().map(|row| row.name).filter(|name| !tried.contains(name)).collect();
        assert_eq!(missing, [""; 0], "each of these needs a line above");
    }

    /// What is said of the values is what is taken.
    #[test]
    fn a_description_names_the_values_that_are_taken() {
        for row in TUNABLES {
            let Tunable { accepts, values, .. } = row.tunable.unwrap();
            let expected = match accepts {
                Accepts::Numbers(min, max) => format!("`{min}` to `{max}`"),
                Accepts::Bytes(_) => "an amount such as `256MiB`".to_owned(),
                Accepts::Words(words) => {
                    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
                }
            };
            assert_eq!(values, expected, "{}", row.name);
        }
    }

    #[test]
    fn one_of_a_device_is_named_after_it() {
        let x3d = Attribute::x3d_mode("AMDI0101:00");
        assert_eq!(x3d.to_string(), "amd_x3d_mode of AMDI0101:00");
        assert_eq!(
            x3d.path().to_str().unwrap(),
            "/sys/bus/platform/drivers/amd_x3d_vcache/AMDI0101:00/amd_x3d_mode"
        );
        let json = serde_json::to_string(&x3d).unwrap();
        assert_eq!(serde_json::from_str::<Attribute>(&json).unwrap(), x3d, "{json}");
    }

    #[test]
    fn values_of_pairs_survive_the_ledger() {
        for value in [
            AttributeValue::new("0"),
            AttributeValue::new("|/usr/lib/dump %P | 7"),
            AttributeValue { text: "0".to_owned(), partner: Some("20".to_owned()) },
        ] {
            let json = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<AttributeValue>(&json).unwrap(), value, "{json}");
        }
    }
}
