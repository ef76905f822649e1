//! What has a row in the table of attributes.

use super::super::checked_claim::{Claimed, claim_checked};
use super::super::{Proposal, Situation};
use crate::config::{Fault, Node, Section, amount, number, word};
use crate::guest::GuestUuid;
use crate::key_path::KeyPath;
use crate::ledger::{Accepts, Attribute, AttributeRow, AttributeValue, Record, TUNABLES, Tunable};

/// Pairs of which a write to one changes the other: the second is zeroed, or switched with the first.
const PAIRS: [(&str, &str, Together); 3] = [
    ("dirty_bytes", "dirty_ratio", Together::Never),
    ("dirty_background_bytes", "dirty_background_ratio", Together::Never),
    ("watchdog", "nmi_watchdog", Together::InOneFile),
];

/// Whether both of a pair may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Together {
    Never,
    InOneFile,
}

/// Where the section has a key.
pub(super) fn place(key: &'static str) -> KeyPath {
    KeyPath::from(&["tune"]).key(key)
}

/// Reads the keys of the table.
pub(super) fn read(section: &mut Section<'_>) -> Vec<(&'static AttributeRow, AttributeValue)> {
    for (one, other, together) in PAIRS {
        if together == Together::Never && section.has(one) {
            section.unfit(other, one, "each of the two sets the other one to zero: keep one");
        }
    }
    let value = |row: &'static AttributeRow| {
        let Tunable { accepts, .. } = row.tunable?;
        let text = section.value(row.name, |node| {
            refuse_no_real_time(row, node)?;
            Ok(match accepts {
                Accepts::Numbers(min, max) => number(node, min, max)?.to_string(),
                Accepts::Bytes(least) => amount(node, least, "256MiB")?.bytes().to_string(),
                Accepts::Words(words) => word(node, words)?.to_owned(),
            })
        })?;
        Some((row, AttributeValue::new(text)))
    };
    TUNABLES.iter().filter_map(value).collect()
}

/// With 0, no real-time task runs at all: neither the host's own nor those of `schedule`.
fn refuse_no_real_time(row: &AttributeRow, node: &Node) -> Result<(), Fault> {
    if row.name != "sched_rt_runtime_us" || !matches!(node, Node::Integer(digits) if digits == "0") {
        return Ok(());
    }
    let help = "write 950000, the kernel's default, or -1 for no limit";
    Err(Fault::new("with 0 no real-time task runs at all, those of the host neither", help))
}

/// Claims one of them, where the host has it and takes the value.
pub(super) fn propose(
    row: &'static AttributeRow,
    value: &AttributeValue,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) {
    let at = place(row.name);
    let Some(attribute) = Attribute::of_host(row.name) else { return };
    if let Some((guest, other)) = holder_of_partner(row.name, situation.record, situation.guest.uuid) {
        proposal.refuse(
            at,
            format!("guest {guest} has set `{other}`, which this one would change"),
            format!("use `{other}` in both files, or shut {guest} down"),
        );
        return;
    }
    let claimed = claim_checked(attribute, value.clone(), &at, situation, proposal);
    if claimed == Claimed::Yes
        && row.name == "sched_rt_runtime_us"
        && let Some(period) = rt_period(situation)
        && value.as_str().parse::<i64>().is_ok_and(|wanted| wanted > period)
    {
        proposal.refuse(
            at,
            format!("{} is more than the period of {period}", value.as_str()),
            "the kernel refuses that: /proc/sys/kernel/sched_rt_period_us has the period",
        );
    }
}

/// Another guest that has set the partner of this one, and not this one too: what it then reads is no baseline.
fn holder_of_partner(name: &'static str, record: &Record, own: GuestUuid) -> Option<(String, &'static str)> {
    let holds = |name: &str, uuid: GuestUuid| {
        let entry = Attribute::of_host(name).and_then(|attribute| record.entry(&attribute));
        entry.is_some_and(|entry| entry.claims.contains_key(&uuid))
    };
    PAIRS.iter().find_map(|(one, other, _)| {
        let partner = match name {
            name if name == *one => *other,
            name if name == *other => *one,
            _ => return None,
        };
        let mut others = record.leases.iter().filter(|(uuid, _)| **uuid != own);
        let (_, lease) = others.find(|(uuid, _)| holds(partner, **uuid) && !holds(name, **uuid))?;
        Some((lease.name.clone(), partner))
    })
}

fn rt_period(situation: Situation<'_>) -> Option<i64> {
    situation.host.attribute("/proc/sys/kernel/sched_rt_period_us".as_ref()).ok()?.parse().ok()
}
