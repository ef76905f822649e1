//! Changes for people: what happens alike to many CPUs or interrupts is one line.

use std::collections::BTreeMap;

use crate::cpuset::CpuSet;
use crate::ledger::{Change, Knob};

/// Changes that differ only in a number.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Governor,
    EnergyPreference,
    ResumeLatency,
    Interrupts,
}

/// Lines `what  now -> then`, aligned, in the order of the changes.
pub(super) fn lines(changes: &[Change]) -> Vec<String> {
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut groups = BTreeMap::<(Kind, String), (usize, Vec<&Change>)>::new();
    for change in changes {
        let way = format!("{} -> {}", change.now, change.then);
        match kind(&change.knob) {
            Some((kind, _)) => {
                let (_, alike) = groups.entry((kind, way.clone())).or_insert_with(|| {
                    rows.push((String::new(), way));
                    (rows.len() - 1, Vec::new())
                });
                alike.push(change);
            }
            None => rows.push((change.knob.to_string(), way)),
        }
    }
    for ((kind, _), (row, alike)) in groups {
        rows[row].0 = name(&kind, &alike);
    }
    let width = rows.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
    rows.into_iter().map(|(what, way)| format!("{what:width$}  {way}")).collect()
}

fn kind(knob: &Knob) -> Option<(Kind, u32)> {
    match knob {
        Knob::ScalingGovernor { cpu } => Some((Kind::Governor, *cpu)),
        Knob::EnergyPerformancePreference { cpu } => Some((Kind::EnergyPreference, *cpu)),
        Knob::ResumeLatency { cpu } => Some((Kind::ResumeLatency, *cpu)),
        Knob::IrqAffinity { number, .. } => Some((Kind::Interrupts, *number)),
        _ => None,
    }
}

fn name(kind: &Kind, alike: &[&Change]) -> String {
    if let [change] = alike {
        return change.knob.to_string();
    }
    let numbers: CpuSet = alike.iter().filter_map(|change| kind_number(&change.knob)).collect();
    match kind {
        Kind::Governor => format!("governor of CPUs {numbers}"),
        Kind::EnergyPreference => format!("energy preference of CPUs {numbers}"),
        Kind::ResumeLatency => format!("resume latency of CPUs {numbers}"),
        Kind::Interrupts => format!("CPUs of IRQs {numbers}"),
    }
}

fn kind_number(knob: &Knob) -> Option<u32> {
    kind(knob).map(|(_, number)| number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Value;

    fn change(knob: Knob, now: &str, then: &str) -> Change {
        Change { knob, now: Value::Text(now.to_owned()), then: Value::Text(then.to_owned()) }
    }

    #[test]
    fn what_happens_alike_is_one_line() {
        let changes = [
            change(Knob::DefaultIrqAffinity, "0-7", "0-3"),
            change(Knob::ScalingGovernor { cpu: 4 }, "powersave", "performance"),
            change(Knob::ScalingGovernor { cpu: 5 }, "schedutil", "performance"),
            change(Knob::ScalingGovernor { cpu: 6 }, "powersave", "performance"),
            change(Knob::ScalingGovernor { cpu: 7 }, "powersave", "performance"),
        ];
        assert_eq!(
            lines(&changes),
            [
                "CPUs of new interrupts  0-7 -> 0-3",
                "governor of CPUs 4,6-7  powersave -> performance",
                "governor of CPU 5       schedutil -> performance",
            ]
        );
    }
}
