//! Formats 1 to 3 of the ledger, to read: those of programs that may still have running guests.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::Error as _;

use super::cards::Quarantine;
use super::entry::{Entry, Pending};
use super::record::{Lease, Record};
use super::settings::{
    Attribute, AttributeValue, CardUsers, CpuDmaLatency, DefaultIrqAffinity, FirmwareFramebufferDriver,
    GraphicalSessions, I2cDevModule, IrqAffinity, IrqbalanceBan, KeeperPresence, KeeperProcess, LidSwitch,
    Listed, ListedEntry, MaskedSleep, ModulePresence, MonitorClaim, MonitorSetting, OrNone, PagePoolSize,
    PageShare, PciBindings, Shown, SleepLock, TextConsole, UnitCpus, UnitRuns, VfioIrqAffinity, WordList,
    WorkqueueMask,
};
use crate::cpuset::CpuSet;
use crate::guest::GuestUuid;
use crate::host::{
    AllowedCpus, Bindings, DropIn, FirmwareFramebuffer, IrqbalanceSocket, PagePool, PciAttribute, ProcessId,
    ServiceUnit, UnitName, Workqueue,
};
use crate::monitor::{MonitorFeature, VcpValue};
use crate::pci::{PciAddress, PciFunctions};

#[derive(Deserialize)]
struct File {
    boot_id: String,
    leases: BTreeMap<GuestUuid, Lease>,
    entries: Vec<OldEntry>,
    #[serde(default)]
    quarantines: Vec<Quarantine>,
}

#[derive(Deserialize)]
struct OldEntry {
    knob: Knob,
    baseline: Value,
    written: Value,
    pending: Option<Pending<Value>>,
    stuck: Option<ProcessId>,
    claims: BTreeMap<GuestUuid, Want>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Knob {
    Keeper(GuestUuid),
    SleepLock(GuestUuid),
    CpuDmaLatency(GuestUuid),
    I2cDev,
    LidSwitch,
    SleepMasks,
    Service(ServiceUnit),
    Trigger(ServiceUnit),
    GraphicalSessions,
    CardUsers(PciFunctions),
    VtConsole(u32),
    FirmwareFramebuffer(FirmwareFramebuffer),
    PciAttribute { address: PciAddress, attribute: PciAttribute },
    DriversAutoprobe,
    PciBindings(PciFunctions),
    PagePool(PagePool),
    IrqbalanceBan(IrqbalanceSocket),
    DefaultIrqAffinity,
    IrqAffinity { number: u32, actions: String },
    WorkqueueMask(Workqueue),
    AllowedCpus(UnitName),
    EnergyPerformancePreference { cpu: u32 },
    ScalingGovernor { cpu: u32 },
    ResumeLatency { cpu: u32 },
    VfioIrqAffinity { number: u32, actions: String },
    MonitorFeature(MonitorFeature),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Value {
    Cpus(CpuSet),
    AllowedCpus { cpus: CpuSet, drop_in: DropIn },
    Text(String),
    Pages(u64),
    Input(VcpValue),
    Vcp(VcpValue),
    Bindings(Bindings),
    Unknown,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Want {
    Cpus(CpuSet),
    Text(String),
    Pages(PageShare),
    Monitor(MonitorClaim),
    Bindings(Bindings),
}

/// Reads the file's bytes.
///
/// # Errors
/// They are damaged.
pub(super) fn parse(bytes: &[u8]) -> Result<Record, serde_json::Error> {
    let File { boot_id, leases, entries, quarantines } = serde_json::from_slice(bytes)?;
    let mut record = Record::empty(boot_id);
    record.leases = leases;
    record.quarantines = quarantines;
    for entry in entries {
        record.put_listed(entry.listed()?);
    }
    Ok(record)
}

type Converted<T> = Result<T, serde_json::Error>;

fn wrong<T>(what: &str) -> Converted<T> {
    Err(serde_json::Error::custom(format!("a setting holds a value that it cannot hold: {what}")))
}

impl OldEntry {
    fn listed(self) -> Converted<ListedEntry> {
        let Self { knob, baseline, written, pending, stuck, claims } = self;
        let rest = Rest { baseline, written, pending, stuck, claims };
        match knob {
            Knob::Keeper(guest) => rest.of(KeeperProcess(guest), keeper, |want| keeper(text_of(want)?)),
            Knob::SleepLock(guest) => rest.of(SleepLock(guest), or_none, |want| or_none(text_of(want)?)),
            Knob::CpuDmaLatency(guest) => {
                rest.of(CpuDmaLatency(guest), micros, |want| micros(text_of(want)?))
            }
            Knob::I2cDev => rest.of(I2cDevModule, module, |want| module(text_of(want)?)),
            Knob::LidSwitch => rest.of(LidSwitch, parsed, |want| parsed(text_of(want)?)),
            Knob::SleepMasks => rest.of(MaskedSleep, parsed, |want| parsed(text_of(want)?)),
            Knob::Service(unit) | Knob::Trigger(unit) => {
                rest.of(UnitRuns(unit), parsed, |want| parsed(text_of(want)?))
            }
            Knob::GraphicalSessions => rest.of(GraphicalSessions, words, |want| words(text_of(want)?)),
            Knob::CardUsers(functions) => rest.of(CardUsers(functions), words, |want| words(text_of(want)?)),
            Knob::VtConsole(number) => rest.of(TextConsole(number), parsed, |want| parsed(text_of(want)?)),
            Knob::FirmwareFramebuffer(framebuffer) => {
                let driver = |value| match or_none(value)?.0 {
                    Some(name) => parsed(Value::Text(name)).map(|driver| OrNone(Some(driver))),
                    None => Ok(OrNone(None)),
                };
                rest.of(FirmwareFramebufferDriver(framebuffer), driver, |want| driver(text_of(want)?))
            }
            Knob::PciAttribute { address, attribute } => {
                rest.attribute(Attribute::of_function(address, attribute))
            }
            Knob::DriversAutoprobe => rest.attribute(Attribute::drivers_autoprobe()),
            Knob::EnergyPerformancePreference { cpu } => {
                rest.attribute(Attribute::energy_performance_preference(cpu))
            }
            Knob::ScalingGovernor { cpu } => rest.attribute(Attribute::scaling_governor(cpu)),
            Knob::ResumeLatency { cpu } => rest.attribute(Attribute::pm_qos_resume_latency_us(cpu)),
            Knob::PciBindings(functions) => rest.of(PciBindings(functions), bindings, |want| match want {
                Want::Bindings(bindings) => Ok(bindings),
                _ => wrong("the driver of a card"),
            }),
            Knob::PagePool(pool) => rest.of(
                PagePoolSize(pool),
                |value| match value {
                    Value::Pages(pages) => Ok(pages),
                    _ => wrong("a pool of pages"),
                },
                |want| match want {
                    Want::Pages(share) => Ok(share),
                    _ => wrong("a pool of pages"),
                },
            ),
            Knob::IrqbalanceBan(socket) => rest.of(IrqbalanceBan(socket), cpus, wanted_cpus),
            Knob::DefaultIrqAffinity => rest.of(DefaultIrqAffinity, cpus, wanted_cpus),
            Knob::IrqAffinity { number, actions } => {
                rest.of(IrqAffinity { number, actions }, cpus, wanted_cpus)
            }
            Knob::VfioIrqAffinity { number, actions } => {
                rest.of(VfioIrqAffinity { number, actions }, cpus, wanted_cpus)
            }
            Knob::WorkqueueMask(workqueue) => rest.of(WorkqueueMask(workqueue), cpus, wanted_cpus),
            Knob::AllowedCpus(unit) => rest.of(
                UnitCpus(unit),
                |value| match value {
                    Value::AllowedCpus { cpus, drop_in } => Ok(AllowedCpus { cpus, drop_in }),
                    _ => wrong("the CPUs of a unit"),
                },
                wanted_cpus,
            ),
            Knob::MonitorFeature(feature) => rest.of(
                MonitorSetting(feature),
                |value| match value {
                    Value::Input(value) => Ok(Shown::Input(value)),
                    Value::Vcp(value) => Ok(Shown::Vcp(value)),
                    Value::Unknown => Ok(Shown::Unknown),
                    _ => wrong("a monitor"),
                },
                |want| match want {
                    Want::Monitor(claim) => Ok(claim),
                    _ => wrong("a monitor"),
                },
            ),
        }
    }
}

/// An entry without its setting.
struct Rest {
    baseline: Value,
    written: Value,
    pending: Option<Pending<Value>>,
    stuck: Option<ProcessId>,
    claims: BTreeMap<GuestUuid, Want>,
}

impl Rest {
    fn of<S: Listed>(
        self,
        setting: S,
        value: impl Fn(Value) -> Converted<S::Value>,
        want: impl Fn(Want) -> Converted<S::Want>,
    ) -> Converted<ListedEntry> {
        let pending = match self.pending {
            Some(Pending { value: next, beneficiary }) => Some(Pending { value: value(next)?, beneficiary }),
            None => None,
        };
        let claims = self.claims.into_iter().map(|(guest, wanted)| Ok((guest, want(wanted)?)));
        let claims = claims.collect::<Converted<_>>()?;
        let mut entry = Entry::new(setting, value(self.written)?).with_pending(pending);
        entry.baseline = value(self.baseline)?;
        entry.stuck = self.stuck;
        entry.claims = claims;
        Ok(S::listed(entry))
    }

    fn attribute(self, attribute: Attribute) -> Converted<ListedEntry> {
        let value = |value| text(value).map(AttributeValue::new);
        self.of(attribute, value, |want| value(text_of(want)?))
    }
}

fn text(value: Value) -> Converted<String> {
    match value {
        Value::Text(text) => Ok(text),
        _ => wrong("a word"),
    }
}

/// A wanted word as the setting would hold it.
fn text_of(want: Want) -> Converted<Value> {
    match want {
        Want::Text(text) => Ok(Value::Text(text)),
        _ => wrong("a wanted word"),
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(value: Value) -> Converted<T> {
    text(value)?.parse().map_err(serde_json::Error::custom)
}

fn or_none(value: Value) -> Converted<OrNone<String>> {
    Ok(OrNone(Some(text(value)?).filter(|text| text != "none")))
}

fn micros(value: Value) -> Converted<OrNone<u32>> {
    let micros = or_none(value)?.0.map(|text| text.parse());
    Ok(OrNone(micros.transpose().map_err(serde_json::Error::custom)?))
}

fn words(value: Value) -> Converted<WordList> {
    Ok(WordList(or_none(value)?.0.into_iter().collect()))
}

fn keeper(value: Value) -> Converted<KeeperPresence> {
    Ok(if text(value)? == "runs" { KeeperPresence::Runs } else { KeeperPresence::None })
}

fn module(value: Value) -> Converted<ModulePresence> {
    Ok(if text(value)? == "loaded" { ModulePresence::Loaded } else { ModulePresence::None })
}

fn bindings(value: Value) -> Converted<Bindings> {
    match value {
        Value::Bindings(bindings) => Ok(bindings),
        _ => wrong("the driver of a card"),
    }
}

fn cpus(value: Value) -> Converted<CpuSet> {
    match value {
        Value::Cpus(cpus) => Ok(cpus),
        _ => wrong("CPUs"),
    }
}

fn wanted_cpus(want: Want) -> Converted<CpuSet> {
    match want {
        Want::Cpus(cpus) => Ok(cpus),
        _ => wrong("wanted CPUs"),
    }
}
