//! Interrupts that appear, or move, while the guest runs: those of its own devices come when its drivers load.

use crate::cpuset::CpuSet;
use crate::guest::GuestUuid;
use crate::host::{Host, HostError, Interrupt};
use crate::ledger::{Claim, IrqAffinity, Listed, ListedClaim, Record, VfioIrqAffinity};

const IRQS: &[&str] = &["isolate_cpus", "irqs"];
const VFIO_IRQS: &[&str] = &["isolate_cpus", "vfio_irqs"];

/// What the guest wants of the interrupts that are there now: its own devices' on its CPUs, the host's on others.
///
/// # Errors
/// `/proc/irq` cannot be read.
pub fn propose_late_interrupts(
    host: &Host,
    record: &Record,
    uuid: GuestUuid,
) -> Result<Vec<ListedClaim>, HostError> {
    let Some(wanted) = record.leases.get(&uuid).and_then(|lease| lease.interrupts.as_ref()) else {
        return Ok(Vec::new());
    };
    let mut claims = Vec::new();
    for interrupt in host.movable_interrupts()? {
        let Interrupt { number, actions, affinity } = &interrupt;
        let (number, actions) = (*number, actions.clone());
        match owner(&interrupt, record) {
            Some(owner) if owner == uuid => {
                let setting = VfioIrqAffinity { number, actions };
                if *affinity != wanted.cpus && !is_held(record, &setting, uuid) {
                    claims.push(claim(setting, &wanted.cpus, affinity, VFIO_IRQS).into());
                }
            }
            Some(_) => {}
            None => {
                let setting = IrqAffinity { number, actions };
                if affinity.intersects(&wanted.cpus) && !is_held(record, &setting, uuid) {
                    claims.push(claim(setting, &wanted.cpus, affinity, IRQS).into());
                }
            }
        }
    }
    Ok(claims)
}

fn is_held<S: Listed>(record: &Record, setting: &S, uuid: GuestUuid) -> bool {
    record.entry(setting).is_some_and(|entry| entry.claims.contains_key(&uuid))
}

fn claim<S: Listed<Value = CpuSet, Want = CpuSet>>(
    setting: S,
    cpus: &CpuSet,
    now: &CpuSet,
    key: &'static [&'static str],
) -> Claim<S> {
    Claim { setting, want: cpus.clone(), now: Some(now.clone()), terms: key.into() }
}

/// The guest whose device an interrupt belongs to: vfio names it after the device, as in `vfio-msix[0](0000:03:00.0)`
/// (`vfio_msi_set_vector_signal` in `drivers/vfio/pci/vfio_pci_intrs.c`).
fn owner(interrupt: &Interrupt, record: &Record) -> Option<GuestUuid> {
    if !interrupt.actions.starts_with("vfio-") {
        return None;
    }
    let is_of = |devices: &[crate::pci::PciAddress]| {
        devices.iter().any(|device| interrupt.actions.contains(&device.to_string()))
    };
    let mut leases = record.leases.iter();
    leases
        .find(|(_, lease)| lease.interrupts.as_ref().is_some_and(|of| is_of(&of.devices)))
        .map(|(uuid, _)| *uuid)
}
