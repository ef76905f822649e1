//! What a guest's configuration asks for, without the guest; and its start, which takes that over.

use super::basis::basis;
use super::prepare::{prepare_for, verify};
use super::{LifecycleError, LoadedConfig, guest_runs, guest_starts, tell_keeper};
use crate::deadline::Deadline;
use crate::guest::{Guest, GuestName, GuestUuid};
use crate::host::Host;
use crate::ledger::{Basis, Lease, Ledger, Note, Occasion, Outcome, Purpose, Record, Sameness};

/// Takes what a guest's configuration asks for, as its start would, and keeps it until a person gives it back or the
/// guest starts.
///
/// # Errors
/// The guest runs, or is being started. A check failed or the host refused; then the host is as it was.
pub fn hold(
    host: &mut Host,
    loaded: &LoadedConfig,
    guest: &Guest,
    xml: &[u8],
    deadline: Deadline,
) -> Result<Outcome, LifecycleError> {
    if let Some(record) = Ledger::peek(host)?
        && let Some(lease) = record.leases.get(&guest.uuid)
    {
        if is_held_for(lease, &basis(loaded, guest)) {
            let notes = vec![Note::info("it is held already")];
            return Ok(Outcome { notes, ..Outcome::default() });
        }
        let is_held = lease.is_held_by_hand();
        if guest_runs(host, &record, guest.uuid) || (!is_held && guest_starts(host, &record, guest.uuid)) {
            return Err(LifecycleError::HasItAlready(GuestName::new(&guest.name)));
        }
    }
    prepare_for(Purpose::Hold, host, Some(loaded), guest, xml, deadline)
}

/// Has a guest that starts take over what a person holds for it, if nothing that it was taken by has changed. None where
/// there is nothing to take over: then it is given back and taken anew.
pub(super) fn adopt(
    host: &mut Host,
    loaded: &LoadedConfig,
    guest: &Guest,
    deadline: Deadline,
) -> Result<Option<Outcome>, LifecycleError> {
    let uuid = guest.uuid;
    let basis = basis(loaded, guest);
    let is_to_be_adopted = |ledger: Option<&Record>| {
        let lease = ledger.and_then(|record| record.leases.get(&uuid));
        lease.is_some_and(|lease| is_held_for(lease, &basis))
    };
    if !is_to_be_adopted(Ledger::peek(host)?.as_ref()) {
        return Ok(None);
    }
    let mut ledger = Ledger::open_for(host, uuid, deadline)?;
    let mut report = ledger.recovered().clone();
    if !is_to_be_adopted(Some(ledger.record())) || verify(&ledger, uuid, deadline).is_err() {
        return Ok(None);
    }
    ledger.begin_adoption(uuid)?;
    report.absorb(ledger.reconcile(uuid, &[], Occasion::Usual)?);
    // The keeper learns which daemon is about to start QEMU while this process lives.
    let record = ledger.record().clone();
    drop(ledger);
    tell_keeper(host, &record, uuid, deadline, &mut report);
    Ledger::open_for(host, uuid, deadline)?.end_adoption(uuid)?;
    report.notes.push(Note::info("what was held for it by hand is its own now"));
    Ok(Some(report))
}

/// Whether a person holds it, and nothing that it was taken by is known to have changed: an upgrade of this program changes
/// nothing.
fn is_held_for(lease: &Lease, now: &Basis) -> bool {
    lease.is_held_by_hand() && lease.basis.is_some_and(|then| now.all_of(&then) != Sameness::Changed)
}

/// Whether a lease is one that no event of libvirt's ends.
pub(super) fn is_held(host: &Host, uuid: GuestUuid) -> Result<bool, LifecycleError> {
    let record = Ledger::peek(host)?;
    Ok(record.is_some_and(|record| record.leases.get(&uuid).is_some_and(Lease::is_held_by_hand)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions::GuestConfig;
    use crate::config::ConfigSource;
    use crate::lifecycle::testing::{Machine, soon};

    /// Whether a start takes over what is held, where the ledger has the fingerprints like this.
    fn is_adopted(change: impl FnOnce(&mut Basis)) -> bool {
        let machine = Machine::new();
        let source = ConfigSource::new("win11.yaml", "block_sleep: {}\n");
        let loaded = LoadedConfig::of_file(source.clone(), GuestConfig::read(&source).unwrap());
        let xml = "<domain type='kvm'><name>win11</name><uuid>00000000-0000-4000-8000-000000000001</uuid>\
                   <memory unit='GiB'>1</memory><vcpu>1</vcpu></domain>";
        let guest = Guest::parse(xml.as_bytes()).unwrap();
        hold(&mut machine.host(), &loaded, &guest, b"", soon()).unwrap();
        let mut record = machine.record();
        change(record.leases.get_mut(&guest.uuid).unwrap().basis.as_mut().unwrap());
        machine.write(record);
        adopt(&mut machine.host(), &loaded, &guest, soon()).unwrap().is_some()
    }

    #[test]
    fn what_a_program_of_another_version_holds_is_taken_over() {
        assert!(is_adopted(|_| {}));
        assert!(!is_adopted(|basis| basis.configuration += 1), "the file has changed");
        assert!(is_adopted(|basis| *basis = Basis { scheme: 0, configuration: 1, guest: 2 }));
    }
}
