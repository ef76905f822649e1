//! Reading and writing the knobs: which of the host's doors belongs to which.

use std::fmt;
use std::str::FromStr;

use super::{Knob, LOADED, NONE, RUNS};
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::{AllowedCpus, Host, HostError, I2cDev, KeeperState, Request};
use crate::ledger::value::Value;

impl Knob {
    /// What it holds.
    ///
    /// # Errors
    /// It is gone, or does not answer in time.
    pub fn read(&self, host: &Host, deadline: Deadline) -> Result<Value, HostError> {
        Ok(match self {
            Self::Keeper(guest) => match host.keeper(*guest, deadline) {
                Ok(None) => Value::word(NONE),
                // One that hangs is there too, and can be ended.
                Ok(Some(_)) | Err(_) => Value::word(RUNS),
            },
            Self::SleepLock(guest) => held_by_keeper(host, *guest, deadline, |state| state.sleep_lock)?,
            Self::CpuDmaLatency(guest) => held_by_keeper(host, *guest, deadline, |state| {
                state.cpu_dma_latency.map(|micros| micros.to_string())
            })?,
            Self::LidSwitch => Value::Text(host.handle_lid_switch().to_string()),
            Self::SleepMasks => Value::Text(host.sleep_masks()?.to_string()),
            Self::Service(unit) | Self::Trigger(unit) => {
                Value::Text(host.unit_activity(unit, deadline)?.to_string())
            }
            Self::PagePool(pool) => Value::Pages(host.page_pool(*pool)?.persistent),
            Self::IrqbalanceBan(socket) => Value::Cpus(host.irqbalance_banned_cpus(socket, deadline)?),
            Self::DefaultIrqAffinity => Value::Cpus(host.default_smp_affinity()?),
            Self::IrqAffinity { number, actions } | Self::VfioIrqAffinity { number, actions } => {
                let users = host.irq_actions(*number)?;
                let cpus = host.irq_smp_affinity(*number)?;
                if users != *actions {
                    return Err(HostError::gone(format!(
                        "interrupt {number} is now that of `{users}`, no longer that of `{actions}`"
                    )));
                }
                Value::Cpus(cpus)
            }
            Self::WorkqueueMask(workqueue) => Value::Cpus(host.workqueue_cpumask(workqueue)?),
            Self::AllowedCpus(unit) => {
                let mut values = host.allowed_cpus(std::slice::from_ref(unit), deadline)?;
                let AllowedCpus { cpus, drop_in } = values.remove(0);
                Value::AllowedCpus { cpus, drop_in }
            }
            Self::EnergyPerformancePreference { cpu } => {
                text(host.energy_performance_preference(*cpu)?, cpu)?
            }
            Self::ScalingGovernor { cpu } => text(host.scaling_governor(*cpu)?, cpu)?,
            Self::ResumeLatency { cpu } => Value::Text(host.pm_qos_resume_latency(*cpu)?.to_string()),
            Self::I2cDev => match host.i2c_dev() {
                I2cDev::Absent => Value::word(NONE),
                I2cDev::Loaded | I2cDev::BuiltIn => Value::word(LOADED),
            },
            Self::GraphicalSessions => words(host.graphical_sessions(deadline)?.iter()),
            Self::CardUsers(functions) => words(host.holders_of(functions.as_slice(), deadline)?.iter()),
            Self::VtConsole(number) => Value::Text(host.vtconsole_bind(*number)?.to_string()),
            Self::FirmwareFramebuffer(framebuffer) => {
                let driver = host.firmware_framebuffer_driver(framebuffer)?;
                driver.map_or_else(|| Value::word(NONE), |driver| Value::Text(driver.to_string()))
            }
            Self::PciAttribute { address, attribute } => {
                Value::Text(host.pci_attribute(*address, *attribute)?)
            }
            Self::DriversAutoprobe => Value::Text(host.drivers_autoprobe()?),
            Self::PciBindings(functions) => {
                let functions = functions.as_slice();
                Value::Bindings(host.bindings(functions, &host.resizable_bars(functions))?)
            }
            Self::MonitorFeature(feature) => {
                let mut values = host.vcp_features(std::slice::from_ref(feature), deadline);
                self.value_of_vcp(values.remove(0)?)
            }
        })
    }

    /// What it holds right after a write: whose interrupt it is was looked at before.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(in crate::ledger) fn read_back(&self, host: &Host, deadline: Deadline) -> Result<Value, HostError> {
        match self {
            Self::IrqAffinity { number, .. } | Self::VfioIrqAffinity { number, .. } => {
                Ok(Value::Cpus(host.irq_smp_affinity(*number)?))
            }
            _ => self.read(host, deadline),
        }
    }

    /// Makes it hold a value.
    ///
    /// # Errors
    /// The host refuses, or does not answer in time.
    pub(in crate::ledger) fn write(
        &self,
        host: &mut Host,
        value: &Value,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        match (self, value) {
            (Self::Keeper(guest), Value::Text(word)) => match word.as_str() {
                RUNS => host.start_keeper(*guest, deadline),
                _ => host.stop_keeper(*guest, deadline),
            },
            (Self::SleepLock(guest), Value::Text(what)) => {
                ask_to_hold(host, *guest, Request::SleepLock(something(what)), deadline)
            }
            (Self::CpuDmaLatency(guest), Value::Text(micros)) => {
                let micros = something(micros)
                    .map(|micros| micros.parse())
                    .transpose()
                    .map_err(|reason| HostError::content("/dev/cpu_dma_latency".as_ref(), reason))?;
                ask_to_hold(host, *guest, Request::CpuDmaLatency(micros), deadline)
            }
            (Self::LidSwitch, Value::Text(word)) => host.set_handle_lid_switch(parsed(word)?, deadline),
            (Self::SleepMasks, Value::Text(word)) => host.set_sleep_masks(&parsed(word)?, deadline),
            (Self::Service(unit) | Self::Trigger(unit), Value::Text(word)) => {
                host.set_unit_activity(unit, parsed(word)?, deadline)
            }
            (Self::PagePool(pool), Value::Pages(pages)) => host.set_nr_hugepages(*pool, *pages),
            (Self::IrqbalanceBan(socket), Value::Cpus(cpus)) => {
                host.set_irqbalance_banned_cpus(socket, cpus, deadline)
            }
            (Self::DefaultIrqAffinity, Value::Cpus(cpus)) => host.set_default_smp_affinity(cpus),
            (Self::IrqAffinity { number, .. } | Self::VfioIrqAffinity { number, .. }, Value::Cpus(cpus)) => {
                host.set_irq_smp_affinity(*number, cpus)
            }
            (Self::WorkqueueMask(workqueue), Value::Cpus(cpus)) => {
                host.set_workqueue_cpumask(workqueue, cpus)
            }
            (Self::AllowedCpus(unit), Value::AllowedCpus { cpus, drop_in }) => {
                let value = AllowedCpus { cpus: cpus.clone(), drop_in: *drop_in };
                host.set_allowed_cpus(unit, &value, deadline)
            }
            (Self::EnergyPerformancePreference { cpu }, Value::Text(text)) => {
                host.set_energy_performance_preference(*cpu, text)
            }
            (Self::ScalingGovernor { cpu }, Value::Text(text)) => host.set_scaling_governor(*cpu, text),
            (Self::ResumeLatency { cpu }, Value::Text(text)) => {
                let latency = text
                    .parse()
                    .map_err(|reason| HostError::content("pm_qos_resume_latency_us".as_ref(), reason))?;
                host.set_pm_qos_resume_latency(*cpu, latency)
            }
            (Self::I2cDev, Value::Text(word)) => match word.as_str() {
                LOADED => host.load_i2c_dev(deadline),
                _ => host.unload_i2c_dev().map(drop),
            },
            (Self::GraphicalSessions, Value::Text(_)) => host.end_graphical_sessions(deadline),
            (Self::CardUsers(functions), Value::Text(_)) => {
                host.wait_until_unused(functions.as_slice(), deadline)
            }
            (Self::VtConsole(number), Value::Text(word)) => {
                host.set_vtconsole_bind(*number, parsed(word)?, deadline)
            }
            (Self::FirmwareFramebuffer(framebuffer), Value::Text(word)) => {
                let driver = something(word).map(|word| parsed(&word)).transpose()?;
                host.set_firmware_framebuffer_driver(framebuffer, driver.as_ref(), deadline)
            }
            (Self::PciAttribute { address, attribute }, Value::Text(text)) => {
                host.set_pci_attribute(*address, *attribute, text, deadline)
            }
            (Self::DriversAutoprobe, Value::Text(text)) => host.set_drivers_autoprobe(text, deadline),
            (Self::PciBindings(_), Value::Bindings(bindings)) => host.set_bindings(bindings, deadline),
            (Self::MonitorFeature(feature), Value::Input(value) | Value::Vcp(value)) => {
                host.set_vcp_features(&[(feature.clone(), *value)], deadline).remove(0)
            }
            (knob, value) => Err(HostError::content(
                "the ledger".as_ref(),
                format!("{knob} cannot hold `{value}`; the ledger is damaged"),
            )),
        }
    }
}

/// What a keeper holds; nothing where there is no keeper. What one that hangs holds goes when that is ended.
fn held_by_keeper(
    host: &Host,
    guest: GuestUuid,
    deadline: Deadline,
    what: impl Fn(KeeperState) -> Option<String>,
) -> Result<Value, HostError> {
    let keeper = host.keeper(guest, deadline).map_err(|error| HostError::gone(error.to_string()))?;
    let held = keeper.and_then(what);
    Ok(held.map_or_else(|| Value::word(NONE), Value::Text))
}

/// Asks a keeper to hold something, or nothing: that is what a keeper that is gone does anyway.
fn ask_to_hold(
    host: &mut Host,
    guest: GuestUuid,
    request: Request,
    deadline: Deadline,
) -> Result<(), HostError> {
    let is_nothing = matches!(request, Request::SleepLock(None) | Request::CpuDmaLatency(None));
    if is_nothing && host.keeper(guest, deadline)?.is_none() {
        return Ok(());
    }
    host.ask_keeper(guest, &request, deadline).map(drop)
}

/// Several things in one line.
fn words(things: impl Iterator<Item = impl fmt::Display>) -> Value {
    let words: Vec<String> = things.map(|thing| thing.to_string()).collect();
    if words.is_empty() { Value::word(NONE) } else { Value::Text(words.join("; ")) }
}

fn something(word: &str) -> Option<String> {
    (word != NONE).then(|| word.to_owned())
}

fn parsed<T: FromStr<Err: fmt::Display>>(word: &str) -> Result<T, HostError> {
    word.parse().map_err(|reason| HostError::content("the ledger".as_ref(), reason))
}

fn text(value: Option<String>, cpu: &u32) -> Result<Value, HostError> {
    value
        .map(Value::Text)
        .ok_or_else(|| HostError::gone(format!("CPU {cpu} has no frequency scaling any more")))
}
