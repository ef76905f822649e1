//! Reads what is known of graphics cards.

use std::path::Path;
use std::sync::LazyLock;

use super::host::HostConfig;
use super::item::Item;
use super::tree::Node;
use super::value::{Fault, choice, given_name, toggle};
use super::words::words;
use crate::gpu::{Family, FamilyName, IdRange, Integration, ParseIdRangeError, Robustness, VendorReset};
use crate::pci::PciId;

/// A family on one line.
const EXAMPLE: &str = "{ids: [\"1002:7550\"], reboot: fine}";

const ROBUSTNESS: [(&str, Robustness); 2] = [("fine", Robustness::Fine), ("fragile", Robustness::Fragile)];

const VENDOR_RESET: [(&str, VendorReset); 2] =
    [("supported", VendorReset::Supported), ("unsupported", VendorReset::Unsupported)];

/// What is known without the host's file, in its form.
const BUILT_IN: &str = include_str!("../gpu/families.yaml");

/// The families that are known without the host's file.
#[must_use]
pub fn built_in_gpu_families() -> &'static [Family] {
    static FAMILIES: LazyLock<Vec<Family>> = LazyLock::new(|| {
        // A test reads it.
        HostConfig::parse(Path::new("families.yaml"), BUILT_IN).unwrap_or_default().gpu_families
    });
    &FAMILIES
}

/// Families by their names, in the order of the file.
pub(super) fn families(item: Item<'_>) -> Vec<Family> {
    let example = format!("{{my-card: {EXAMPLE}}}");
    let mut known: Vec<IdRange> = Vec::new();
    let read = item.pairs("names no family", &example, family_name, |item| family(item, &mut known));
    read.into_iter().map(|(name, family)| Family { name, ..family }).collect()
}

fn family_name(node: &Node) -> Result<FamilyName, Fault> {
    given_name(node, "a family's name")
}

/// `known` are the models of families that come before it.
fn family(item: Item<'_>, known: &mut Vec<IdRange>) -> Option<Family> {
    let name = item.name().to_owned();
    let mut section = item.section(EXAMPLE)?;
    let missing = |key: &str, help: &str| Fault::new(format!("`{name}.{key}` is missing"), help);
    let ids = section
        .required("ids", missing("ids", "name the models: `ids: [\"1002:7550\"]`; `lspci -nn` shows them"))
        .map_or_else(Vec::new, |item| {
            item.elements("is applied to no card", |element| element.value(|node| id_range(node, known)))
        });
    let help = "say what a reboot of the guest does to a card: `reboot: fine` or `reboot: fragile`";
    let reboot = section
        .required("reboot", missing("reboot", help))
        .and_then(|item| item.value(|node| choice(node, &ROBUSTNESS)));
    let family = Family {
        ids,
        reboot: reboot.unwrap_or_default(),
        vendor_reset: section.value("vendor_reset", |node| choice(node, &VENDOR_RESET)).unwrap_or_default(),
        host_driver: section.value("host_driver", |node| choice(node, &ROBUSTNESS)).unwrap_or_default(),
        integration: match section.value("integrated", toggle) {
            Some(toggle) if toggle.is_on() => Integration::Integrated,
            _ => Integration::Discrete,
        },
        resets: section.value("resets", words),
        driver_reset: section.value("driver_reset", words),
        fails: section.value("fails", words),
        note: section.value("note", words),
        sources: section
            .item("source")
            .map_or_else(Vec::new, |item| item.elements("names no source", |element| element.value(words))),
        ..Family::unknown()
    };
    section.finish();
    Some(family)
}

fn id_range(node: &Node, known: &mut Vec<IdRange>) -> Result<IdRange, Fault> {
    const WHAT: &str = "models such as \"1002:7550\", \"1002:73a0-73bf\" or \"1002:*\"";
    const HELP: &str = "`lspci -nn` shows them in brackets";
    let Node::Text(text) = node else {
        return Err(Fault::expected_like(WHAT, node, format!("{HELP}; put quotes around them")));
    };
    let range: IdRange = text.parse().map_err(|error| match error {
        ParseIdRangeError::Form(_) if is_device(text) => {
            let help = match text.to_lowercase().as_str() {
                vendor @ ("1002" | "10de" | "8086") => {
                    format!("all models of that vendor are \"{vendor}:*\"")
                }
                _ => format!("with the vendor: \"{:04x}:{text}\"", PciId::AMD),
            };
            Fault::expected_like(WHAT, node, help)
        }
        ParseIdRangeError::Form(_) if !text.contains(':') => {
            let help = format!("{HELP}: a model has its vendor, a colon and its own number");
            Fault::expected_like(WHAT, node, help)
        }
        ParseIdRangeError::Form(_) => Fault::expected_like(WHAT, node, HELP),
        ParseIdRangeError::Backwards(_) => Fault::new(error.to_string(), "the lower number comes first"),
    })?;
    if let Some(earlier) = known.iter().find(|earlier| earlier.covers(range)) {
        let message = format!("`{range}` has no effect: `{earlier}` stands before it");
        return Err(Fault::new(message, "the first one holds: remove this one, or change the order"));
    }
    known.push(range);
    Ok(range)
}

/// Whether it is the second half of a model.
fn is_device(text: &str) -> bool {
    text.len() == 4 && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}
