//! Whether what was taken for a guest is still as it was taken.

use std::time::Duration;

use super::LifecycleError;
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::host::{Bindings, DriverName, Host};
use crate::ledger::{Knob, Note, Record, Value, Want, available_pages};

/// The longest look at the running programs after a start.
const LOOK_AT_TASKS: Duration = Duration::from_millis(700);

/// Whether the pages that were set aside for a guest are still there.
///
/// # Errors
/// They are not.
pub fn verify_pages(host: &Host, record: &Record, uuid: GuestUuid) -> Result<(), LifecycleError> {
    for entry in record.entries_of(uuid) {
        let Knob::PagePool(pool) = entry.knob else { continue };
        let Some(share) = entry.claims.get(&uuid).and_then(Want::pages) else { continue };
        let available = available_pages(record, host, pool, uuid)?;
        let set_aside = share.set_aside();
        if available < set_aside {
            let knob = entry.knob.to_string();
            return Err(LifecycleError::PagesGone { knob, set_aside, available });
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
    for entry in record.entries_of(uuid) {
        let (Knob::PciBindings(functions), Value::Bindings(was)) = (&entry.knob, &entry.written) else {
            continue;
        };
        let Value::Bindings(now) = entry.knob.read(host, deadline)? else { continue };
        if now != *was {
            let (was, now) = (in_words(was, &now), in_words(&now, was));
            return Err(LifecycleError::CardTaken { card: functions.to_string(), was, now });
        }
    }
    Ok(())
}

/// What functions are bound to; their overrides too, where the rest is the same.
fn in_words(bindings: &Bindings, other: &Bindings) -> String {
    let words = bindings.to_string();
    if words != other.to_string() {
        return words;
    }
    let overrides: Vec<&str> = bindings
        .0
        .values()
        .map(|binding| binding.driver_override.as_ref().map_or("none", DriverName::as_str))
        .collect();
    format!("{words} (driver_override {})", overrides.join(", "))
}

/// Whether anything of the host may still run on a guest's CPUs.
#[must_use]
pub fn verify_isolation(host: &Host, record: &Record, uuid: GuestUuid, deadline: Deadline) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut cpus = CpuSet::new();
    for entry in record.entries_of(uuid) {
        let (Knob::AllowedCpus(unit), Some(Want::Cpus(claimed))) = (&entry.knob, entry.claims.get(&uuid))
        else {
            continue;
        };
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
