//! Reads how a monitor differs from the standard.

use std::collections::BTreeMap;

use super::item::Item;
use super::monitor;
use super::tree::Node;
use super::value::{Fault, choice, toggle};
use super::vcp::{input_name, input_value, number, refuse_decimal_input};
use crate::monitor::{
    Deviation, ExtraStep, FeatureControl, InputName, MonitorSelector, NamedDeviation, Reading, VcpValue,
};

/// A deviation on one line.
const EXAMPLE: &str = "{inputs: {hdmi-1: 0x90}}";

const READINGS: [(&str, Reading); 3] = [
    ("reliable", Reading::Reliable),
    ("unreliable", Reading::Unreliable),
    ("write-only", Reading::WriteOnly),
];

/// Deviations by their names, in the order of the file.
pub(super) fn deviations(item: Item<'_>) -> Vec<NamedDeviation> {
    let example = format!("{{my-lg: {EXAMPLE}}}");
    let read = item.pairs("names no deviation", &example, monitor::deviation_name, deviation);
    read.into_iter()
        .map(|(name, (monitors, deviation))| NamedDeviation { name, monitors, deviation })
        .collect()
}

fn deviation(item: Item<'_>) -> Option<(Vec<MonitorSelector>, Deviation)> {
    let mut section = item.section(EXAMPLE)?;
    let standard = FeatureControl::default();
    let monitors = section
        .item("monitors")
        .map_or_else(Vec::new, |item| item.elements("is applied to no monitor", monitor::selector));
    let control = FeatureControl {
        feature: section
            .value("feature", |node| number(node, "a feature's number from 0 to 0xff"))
            .unwrap_or(standard.feature),
        source_address: section
            .value("source_address", |node| number(node, "an address from 0 to 0xff"))
            .unwrap_or(standard.source_address),
        read_first: section.value("read_first", extra_step).unwrap_or_default(),
        save_settings: section.value("save_settings", extra_step).unwrap_or_default(),
        reading: section.value("reading", |node| choice(node, &READINGS)).unwrap_or_default(),
    };
    let inputs = section.item("inputs").map_or_else(BTreeMap::new, inputs);
    if section.has_only(&["monitors"]) {
        section.refuse_whole(Fault::new(
            "has no effect: nothing in it differs from the standard",
            format!("for example `{EXAMPLE}`"),
        ));
    }
    section.finish();
    Some((monitors, Deviation { control, inputs, ..Deviation::default() }))
}

fn inputs(item: Item<'_>) -> BTreeMap<InputName, VcpValue> {
    let value = |item: Item<'_>| {
        let value = input_value(item.node());
        match value {
            Ok(value) => {
                refuse_decimal_input(item);
                Some(value)
            }
            Err(fault) => {
                item.refuse(fault);
                None
            }
        }
    };
    item.pairs("names no input", "{hdmi-1: 0x90}", input_name, value).into_iter().collect()
}

fn extra_step(node: &Node) -> Result<ExtraStep, Fault> {
    Ok(if toggle(node)?.is_on() { ExtraStep::Make } else { ExtraStep::Skip })
}
