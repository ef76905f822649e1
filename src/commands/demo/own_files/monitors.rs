//! Monitors that a file selects or names.

use std::collections::{BTreeMap, BTreeSet};

use super::Added;
use crate::actions::GuestConfig;
use crate::config::{HostInput, InputChoice, MonitorChoice, MonitorSwitch};
use crate::guest::Guest;
use crate::host::simulated::SimulatedMonitor;
use crate::lifecycle;
use crate::monitor::{Deviation, MonitorSelector, VcpFeature, VcpValue};

/// Cards of the simulated host that monitors may be on: one that the guest does not get.
const CARDS: [&str; 3] = ["0000:0e:00.0", "0000:03:00.0", "0000:7e:00.0"];

/// The first bus; that of a host's own adapters have lower numbers.
const FIRST_BUS: u32 = 7;

/// The longest model's name in an EDID (VESA E-EDID 1.4, section 3.10.3).
const MODEL: usize = 13;

/// What the other features hold.
const HALF: VcpValue = VcpValue(50);

pub(super) fn of(guest: &Guest, config: &GuestConfig) -> Added {
    let mut added = Added::default();
    let Some(switches) = &config.switch_input else { return added };
    let is_guests = |card: &str| guest.pci_hostdevs.iter().any(|hostdev| hostdev.address.to_string() == card);
    let card = CARDS.into_iter().find(|card| !is_guests(card)).unwrap_or(CARDS[2]);
    let known = lifecycle::host_config(None).unwrap_or_default();
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    let mut deviations: BTreeSet<String> = BTreeSet::new();
    added.line("/sys/module/i2c_dev/initstate = live");
    for (number, switch) in (0..).zip(&switches.monitors) {
        let selector = match &switch.monitor {
            MonitorChoice::Selector(selector) => selector.clone(),
            MonitorChoice::Named(name) => {
                let model: String = name.to_string().to_uppercase().chars().take(MODEL).collect();
                names.insert(name.to_string(), model.clone());
                MonitorSelector { model: Some(model), ..MonitorSelector::default() }
            }
        };
        let deviation = switch.deviation.as_ref().and_then(|name| known.deviation_named(name));
        if let Some(name) = switch.deviation.as_ref().filter(|_| deviation.is_none()) {
            deviations.insert(name.to_string());
        }
        let standard = Deviation::default();
        let deviation = deviation.map_or(&standard, |named| &named.deviation);
        let monitor = monitor(&selector, card, number, shown(switch, deviation));
        let bus = monitor.bus;
        added.line(monitor.manifest());
        if deviation.control.feature != VcpFeature::INPUT_SOURCE {
            let (feature, address) = (deviation.control.feature, deviation.control.source_address.0);
            added.line(format!("/simulated/i2c/{bus}/features/{feature}@{address:#04x} = {}", monitor.input));
        }
        for (feature, _) in &switch.set {
            added.line(format!("/simulated/i2c/{bus}/features/{feature} = {HALF}"));
        }
        let model = monitor.identity.model.unwrap_or_default();
        added.words.push(format!(
            "monitor {model} on {}",
            monitor.connector.map_or_else(String::new, |name| name.to_string())
        ));
    }
    if !names.is_empty() || !deviations.is_empty() {
        added.line(format!("/etc/vfio-hook/host.yaml = {}", host_yaml(&names, &deviations)));
    }
    added
}

fn monitor(selector: &MonitorSelector, card: &str, number: u32, input: VcpValue) -> SimulatedMonitor {
    let connector =
        selector.connector.as_ref().map_or_else(|| format!("DP-{}", number + 1), ToString::to_string);
    let mut monitor = SimulatedMonitor::lg(card, &connector, FIRST_BUS + number);
    let identity = &mut monitor.identity;
    if let Some(manufacturer) = selector.manufacturer {
        identity.manufacturer = manufacturer;
    }
    if let Some(model) = &selector.model {
        identity.model = Some(model.clone());
    }
    identity.serial_number += number;
    identity.serial = selector.serial.clone().or_else(|| Some(format!("DEMO{number}")));
    monitor.input = input;
    monitor
}

/// The input that the monitor shows before the guest: the host's, or one that is not the guest's.
fn shown(switch: &MonitorSwitch, deviation: &Deviation) -> VcpValue {
    let value = |input: &InputChoice| match input {
        InputChoice::Raw(value) => Some(*value),
        InputChoice::Named(name) => deviation.value_of(name),
    };
    let guest = switch.guest.as_ref().and_then(value);
    let host = match &switch.host {
        HostInput::Input(input) => value(input),
        HostInput::Previous => None,
    };
    let others = deviation.inputs.values().copied().chain([VcpValue(0x0f), VcpValue(0x11)]);
    host.or_else(|| others.into_iter().find(|other| Some(*other) != guest)).unwrap_or(VcpValue(0x0f))
}

/// A host's file with these names.
fn host_yaml(names: &BTreeMap<String, String>, deviations: &BTreeSet<String>) -> String {
    let mut text = String::new();
    if !names.is_empty() {
        text.push_str("monitors:");
        names.iter().for_each(|(name, model)| text.push_str(&format!("\\n  {name}: {{model: \"{model}\"}}")));
        text.push_str("\\n");
    }
    if !deviations.is_empty() {
        text.push_str("deviations:");
        let inputs = "{hdmi-1: 0x11, hdmi-2: 0x12, dp-1: 0x0f, dp-2: 0x10, usb-c: 0x1b}";
        deviations.iter().for_each(|name| text.push_str(&format!("\\n  {name}: {{inputs: {inputs}}}")));
    }
    text
}
