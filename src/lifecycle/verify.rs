//! Whether what was taken for a guest is still as it was taken.

use std::time::Duration;

use super::LifecycleError;
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::gpu::Severity;
use crate::guest::GuestUuid;
use crate::host::{Binding, DriverName, Host};
use crate::ledger::{Note, PagePoolSize, PciBindings, Record, Setting, UnitCpus, available_pages};
use crate::pci::PciFunctions;

/// The longest look at the running programs after a start.
const LOOK_AT_TASKS: Duration = Duration::from_millis(700);

/// Whether the pages that were set aside for a guest are still there.
///
/// # Errors
/// They are not.
pub fn verify_pages(host: &Host, record: &Record, uuid: GuestUuid) -> Result<(), LifecycleError> {
    for (entry, share) in record.claims_of::<PagePoolSize>(uuid) {
        let available = available_pages(record, host, entry.setting.0, uuid)?;
        let set_aside = share.set_aside();
        if available < set_aside {
            let pool = entry.setting.to_string();
            return Err(LifecycleError::PagesGone { pool, set_aside, available });
        }
    }
    Ok(())
}

/// Whether the cards that were handed over for a guest are still bound as they were: libvirt resets a card under the
/// driver that it finds, and takes it away from it.
///
/// # Errors
/// They are not; what they are bound to cannot be read.
pub fn verify_cards(
    host: &Host,
    record: &Record,
    uuid: GuestUuid,
    deadline: Deadline,
) -> Result<(), LifecycleError> {
    for (entry, _) in record.claims_of::<PciBindings>(uuid) {
        let (was, now) = (&entry.written, entry.setting.read(host, deadline)?);
        let pairs = was.0.iter().filter_map(|(function, was)| Some((*function, was, now.0.get(function)?)));
        let different: Vec<_> = pairs.filter(|(_, was, now)| was != now).collect();
        if let Some(card) = PciFunctions::new(different.iter().map(|(function, ..)| *function)) {
            return Err(LifecycleError::CardTaken {
                card: card.to_string(),
                was: listed(different.iter().map(|(_, was, now)| difference(was, now))),
                now: listed(different.iter().map(|(_, was, now)| difference(now, was))),
            });
        }
    }
    Ok(())
}

/// What a function is bound to, as far as it differs from the other one.
fn difference(binding: &Binding, other: &Binding) -> String {
    let name = |driver: &Option<DriverName>| driver.as_ref().map_or("none", DriverName::as_str).to_owned();
    if binding.driver != other.driver {
        return name(&binding.driver);
    }
    let mut words = name(&binding.driver);
    if binding.driver_override != other.driver_override {
        words.push_str(&format!(" with driver_override {}", name(&binding.driver_override)));
    }
    for (bar, size) in &binding.bar_sizes {
        if other.bar_sizes.get(bar) != Some(size) {
            words.push_str(&format!(" with BAR {bar} of {size}"));
        }
    }
    words
}

/// One word where all are the same.
fn listed(words: impl Iterator<Item = String>) -> String {
    let mut words: Vec<String> = words.collect();
    if words.iter().all(|word| *word == words[0]) {
        words.truncate(1);
    }
    words.join(", ")
}

/// What the kernel has said of a guest's cards since they were handed over: one that died when QEMU reset it does not
/// keep QEMU from running, without a picture.
#[must_use]
pub fn trouble_with_cards(host: &Host, record: &Record, uuid: GuestUuid) -> Vec<Note> {
    let cards = record.leases.get(&uuid).map_or(&[][..], |lease| &lease.cards);
    let mut notes = Vec::new();
    for terms in cards {
        for line in terms.lines_of_trouble(host) {
            let text = format!("{}: {line}", terms.name);
            notes.push(match line.severity {
                Severity::Wedged => Note::warning(format!("{text}; the guest may not get a picture from it")),
                Severity::Suspicious | Severity::Recovered | Severity::Harmless => Note::info(text),
            });
        }
    }
    notes
}

/// Whether anything of the host may still run on a guest's CPUs.
#[must_use]
pub fn verify_isolation(host: &Host, record: &Record, uuid: GuestUuid, deadline: Deadline) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut cpus = CpuSet::new();
    for (entry, claimed) in record.claims_of::<UnitCpus>(uuid) {
        let unit = &entry.setting.0;
        cpus = cpus.union(claimed);
        if let Ok(Some(effective)) = host.cpuset_cpus_effective(unit.as_str())
            && effective.intersects(claimed)
        {
            notes.push(Note::warning(format!(
                "{unit} may still use CPU {} of the guest",
                effective.intersection(claimed)
            )));
        }
    }
    if cpus.is_empty() {
        return notes;
    }
    let deadline = Deadline::after(LOOK_AT_TASKS).earlier(deadline);
    let strays = host.stray_tasks(&cpus, &["machine.slice"], deadline);
    notes.push(match strays.count {
        0 => Note::info(format!("no other program may run on CPUs {cpus}")),
        count => Note::warning(format!(
            "{count} threads of other programs may still run on CPUs {cpus}: {}",
            strays.examples.join(", ")
        )),
    });
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Bindings;
    use crate::lifecycle::start;
    use crate::lifecycle::testing::{GUEST, Machine, soon};

    /// What `start` says after something was done to the card.
    fn refused(change: impl FnOnce(&Machine, &mut Host)) -> String {
        let machine = Machine::new();
        machine.prepare().unwrap();
        start(&mut machine.host(), GUEST, soon()).unwrap();
        change(&machine, &mut machine.host());
        let error = start(&mut machine.host(), GUEST, soon()).unwrap_err();
        match error.help() {
            Some(help) => format!("{error}\nhelp: {help}"),
            None => error.to_string(),
        }
    }

    #[test]
    fn a_card_that_somebody_took_is_missed_at_start() {
        let text = refused(|_, host| {
            let function = |number: u8| format!("0000:03:00.{number}").parse().unwrap();
            let to_host = |driver: &str| Binding::to_host(driver.parse().unwrap());
            let taken = [(function(0), to_host("amdgpu")), (function(1), to_host("snd_hda_intel"))];
            host.set_bindings(&Bindings(taken.into()), soon()).unwrap();
        });
        insta::assert_snapshot!(text, @"
        0000:03:00.{0,1} was bound to vfio-pci for the guest, and is bound to amdgpu, snd_hda_intel now
        help: is there another hook, driverctl, a udev rule or `virsh nodedev-reattach` that binds it? Then start the guest again
        ");
    }

    #[test]
    fn an_override_that_somebody_took_away_too() {
        let text = refused(|machine, _| {
            machine.add("/sys/bus/pci/devices/0000:03:00.0/driver_override = (null)");
        });
        let first = text.lines().next().unwrap();
        insta::assert_snapshot!(first, @"0000:03:00.0 was bound to vfio-pci with driver_override vfio-pci for the guest, and is bound to vfio-pci with driver_override none now");
    }

    #[test]
    fn a_bar_of_another_size_too() {
        let text = refused(|machine, _| {
            let path = machine.path("/sys/bus/pci/devices/0000:03:00.0/resource");
            let resource = std::fs::read_to_string(&path).unwrap();
            let smaller = resource.replacen("0x0000007bffffffff", "0x000000780fffffff", 1);
            assert_ne!(smaller, resource);
            std::fs::write(&path, smaller).unwrap();
        });
        let first = text.lines().next().unwrap();
        insta::assert_snapshot!(first, @"0000:03:00.0 was bound to vfio-pci with BAR 0 of 16 GiB for the guest, and is bound to vfio-pci with BAR 0 of 256 MiB now");
    }

    #[test]
    fn a_function_that_is_gone_is_named() {
        let text = refused(|_, host| {
            host.remove_functions(&["0000:03:00.3".parse().unwrap()], soon()).unwrap();
        });
        insta::assert_snapshot!(text, @"there is no PCI function 0000:03:00.3");
    }
}
