//! What is set for disks, screens and processors, one by one.

use super::super::checked_claim::claim_checked;
use super::super::{Proposal, Situation};
use super::named::place;
use crate::config::{Fault, Item, Node, amount, device_name, kernel_text};
use crate::ledger::{Attribute, AttributeValue};
use crate::pages::MemorySize;

const DISKS: &str = "/sys/block";
const LIGHTS: &str = "/sys/class/backlight";
const X3D: &str = "/sys/bus/platform/drivers/amd_x3d_vcache";

const KIB: u64 = 1024;

/// What is set for one disk; at least one of it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskTuning {
    /// Its scheduler; none leaves it alone.
    pub scheduler: Option<String>,
    /// How much is read in advance, in whole KiB; none leaves it alone.
    pub read_ahead: Option<MemorySize>,
}

pub(super) fn read_disks(item: Item<'_>) -> Vec<(String, DiskTuning)> {
    const EXAMPLE: &str = "disks: {nvme0n1: {scheduler: none}}";
    item.pairs("sets nothing", EXAMPLE, device_name, |item| {
        let mut section = item.section("{scheduler: none, read_ahead: 128KiB}")?;
        let tuning = DiskTuning {
            scheduler: section.value("scheduler", kernel_text),
            read_ahead: section.value("read_ahead", read_ahead),
        };
        if section.has_only(&[]) {
            section.refuse_as_empty(Fault::new("sets nothing", "write `scheduler`, `read_ahead` or both"));
        }
        section.finish();
        Some(tuning)
    })
}

fn read_ahead(node: &Node) -> Result<MemorySize, Fault> {
    let size = amount(node, 0, "128KiB")?;
    match size.bytes() % KIB {
        0 => Ok(size),
        _ => Err(Fault::new("the kernel counts in whole KiB", "for example `128KiB`")),
    }
}

pub(super) fn propose_disk(
    disk: &str,
    tuning: &DiskTuning,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) {
    let at = place("disks").key(disk.to_owned());
    if !situation.host.is_present(format!("{DISKS}/{disk}")) {
        let there = situation.host.folder_names(DISKS);
        proposal.refuse(at, format!("the host has no disk {disk}"), known(&there));
        return;
    }
    if let Some(scheduler) = &tuning.scheduler {
        let value = AttributeValue::new(scheduler.as_str());
        claim_checked(Attribute::disk_scheduler(disk), value, &at.key("scheduler"), situation, proposal);
    }
    if let Some(size) = tuning.read_ahead {
        let value = AttributeValue::new((size.bytes() / KIB).to_string());
        claim_checked(Attribute::disk_read_ahead(disk), value, &at.key("read_ahead"), situation, proposal);
    }
}

pub(super) fn propose_backlight(
    device: &str,
    percent: u8,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) {
    let at = place("backlight").key(device.to_owned());
    let most = situation.host.attribute(format!("{LIGHTS}/{device}/max_brightness").as_ref());
    let Some(most) = most.ok().and_then(|most| most.parse::<u64>().ok()) else {
        let there = situation.host.folder_names(LIGHTS);
        proposal.refuse(at, format!("the host has no light {device}"), known(&there));
        return;
    };
    let value = (most.saturating_mul(u64::from(percent)) + 50) / 100;
    claim_checked(
        Attribute::backlight(device),
        AttributeValue::new(value.to_string()),
        &at,
        situation,
        proposal,
    );
}

pub(super) fn propose_x3d_mode(mode: &str, situation: Situation<'_>, proposal: &mut Proposal) {
    let at = place("x3d_mode");
    let names = situation.host.folder_names(X3D);
    let devices =
        names.into_iter().filter(|name| situation.host.is_present(Attribute::x3d_mode(name).path()));
    let devices: Vec<String> = devices.collect();
    if devices.is_empty() {
        proposal.refuse(
            at,
            "the host has no amd_x3d_mode",
            "it is there with Linux 6.13 or newer (module amd_x3d_vcache) on a Ryzen of which half of the \
             cores have 3D V-Cache, if the firmware's setup leaves the choice to the driver",
        );
        return;
    }
    for device in devices {
        claim_checked(Attribute::x3d_mode(device), AttributeValue::new(mode), &at, situation, proposal);
    }
}

/// Those that there are, for a person who named another one.
fn known(names: &[String]) -> String {
    match names {
        [] => "there is none: remove the key".to_owned(),
        names => format!("it has {}", names.join(", ")),
    }
}
