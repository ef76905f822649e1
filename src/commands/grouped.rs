//! Settings for people: what is alike for many CPUs, interrupts or PCI functions is one line.

use std::collections::BTreeMap;

use crate::cpuset::CpuSet;
use crate::ledger::{At, Change, IrqAffinity, KernelThreadCpus, SettingKey};
use crate::pci::{PciAddress, PciFunctions};

/// Settings that differ only in a number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// An attribute of CPUs, by its words with a place for their numbers.
    OfCpus(&'static str),
    /// An attribute of PCI functions, by its name.
    OfFunctions(&'static str),
    Interrupts,
    KernelThreads,
}

/// What settings of one kind differ in.
enum Number {
    Cpu(u32),
    Interrupt(u32),
    Thread,
    Function(PciAddress),
}

/// Lines `setting  now -> then`, aligned, in the order of the changes.
pub(super) fn changes(changes: &[Change]) -> Vec<String> {
    lines(changes.iter().map(|change| (&change.setting, format!("{} -> {}", change.now, change.then))))
}

/// Lines `setting  text`, aligned, in the order of the settings; those of one kind with the same text are one line.
pub(super) fn lines<'a>(settings: impl IntoIterator<Item = (&'a SettingKey, String)>) -> Vec<String> {
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut groups = BTreeMap::<(Kind, String), (usize, Vec<&SettingKey>)>::new();
    for (setting, text) in settings {
        match kind(setting) {
            Some((kind, _)) => {
                let (_, alike) = groups.entry((kind, text.clone())).or_insert_with(|| {
                    rows.push((String::new(), text));
                    (rows.len() - 1, Vec::new())
                });
                alike.push(setting);
            }
            None => rows.push((setting.to_string(), text)),
        }
    }
    for ((kind, _), (row, alike)) in groups {
        rows[row].0 = name(&kind, &alike);
    }
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    rows.into_iter().map(|(name, text)| format!("{name:width$}  {text}")).collect()
}

fn kind(setting: &SettingKey) -> Option<(Kind, Number)> {
    match setting {
        SettingKey::Attribute(attribute) => match &attribute.at {
            At::Cpu(cpu) => Some((Kind::OfCpus(attribute.row().words), Number::Cpu(*cpu))),
            At::Function(address) => {
                Some((Kind::OfFunctions(attribute.row().name), Number::Function(*address)))
            }
            At::Host | At::Named(_) => None,
        },
        SettingKey::IrqAffinity(IrqAffinity { number, .. }) => {
            Some((Kind::Interrupts, Number::Interrupt(*number)))
        }
        SettingKey::KernelThreadCpus(KernelThreadCpus { .. }) => Some((Kind::KernelThreads, Number::Thread)),
        _ => None,
    }
}

fn name(kind_of_all: &Kind, alike: &[&SettingKey]) -> String {
    if let [setting] = alike {
        return setting.to_string();
    }
    let (mut numbers, mut functions) = (CpuSet::new(), Vec::new());
    for (_, number) in alike.iter().filter_map(|setting| kind(setting)) {
        match number {
            Number::Cpu(number) | Number::Interrupt(number) => numbers.insert(number),
            Number::Function(address) => functions.push(address),
            Number::Thread => {}
        }
    }
    match kind_of_all {
        Kind::OfCpus(words) => words.replace("CPU {}", &format!("CPUs {numbers}")),
        Kind::OfFunctions(name) => format!("{name} of {}", card_or_count(functions)),
        Kind::Interrupts => format!("CPUs of IRQs {numbers}"),
        Kind::KernelThreads => format!("CPUs of {} kernel threads", alike.len()),
    }
}

/// The functions of one card, or how many there are: addresses of several would fill the line.
fn card_or_count(functions: Vec<PciAddress>) -> String {
    let slot = functions[0].slot();
    if functions.iter().all(|function| function.slot() == slot) {
        return PciFunctions::new(functions).map_or_else(|| slot.to_string(), |card| card.to_string());
    }
    format!("{} PCI functions", functions.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::PciAttribute;
    use crate::ledger::{Attribute, DefaultIrqAffinity, Listed};

    fn change(setting: impl Listed, now: &str, then: &str) -> Change {
        Change { setting: setting.key(), now: now.to_owned(), then: then.to_owned() }
    }

    fn function(address: &str) -> Attribute {
        Attribute::of_function(address.parse().unwrap(), PciAttribute::D3coldAllowed)
    }

    #[test]
    fn what_happens_alike_is_one_line() {
        let changes = [
            change(DefaultIrqAffinity, "0-7", "0-3"),
            change(Attribute::scaling_governor(4), "powersave", "performance"),
            change(Attribute::scaling_governor(5), "schedutil", "performance"),
            change(Attribute::scaling_governor(6), "powersave", "performance"),
            change(Attribute::scaling_governor(7), "powersave", "performance"),
            change(function("0000:03:00.1"), "1", "0"),
            change(function("0000:03:00.0"), "1", "0"),
        ];
        assert_eq!(
            super::changes(&changes),
            [
                "CPUs of new interrupts              0-7 -> 0-3",
                "governor of CPUs 4,6-7              powersave -> performance",
                "governor of CPU 5                   schedutil -> performance",
                "d3cold_allowed of 0000:03:00.{0,1}  1 -> 0",
            ]
        );
        let changes =
            [change(function("0000:00:01.0"), "1", "0"), change(function("0000:03:00.0"), "1", "0")];
        assert_eq!(super::changes(&changes), ["d3cold_allowed of 2 PCI functions  1 -> 0"]);
    }
}
