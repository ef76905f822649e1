//! Interrupts that appear, or move, while the guest runs: those of its own devices come when its drivers load.

use crate::cpuset::CpuSet;
use crate::guest::GuestUuid;
use crate::host::{Host, HostError, Interrupt};
use crate::ledger::{Claim, Knob, Record, Value, Want};

/// What the guest wants of the interrupts that are there now: its own devices' on its CPUs, the host's on others.
///
/// # Errors
/// `/proc/irq` cannot be read.
pub fn propose_late_interrupts(
    host: &Host,
    record: &Record,
    uuid: GuestUuid,
) -> Result<Vec<Claim>, HostError> {
    let Some(wanted) = record.leases.get(&uuid).and_then(|lease| lease.interrupts.as_ref()) else {
        return Ok(Vec::new());
    };
    let mut claims = Vec::new();
    for interrupt in host.movable_interrupts()? {
        let knob = match owner(&interrupt, record) {
            Some(owner) if owner == uuid => {
                Knob::VfioIrqAffinity { number: interrupt.number, actions: interrupt.actions.clone() }
            }
            Some(_) => continue,
            None => Knob::IrqAffinity { number: interrupt.number, actions: interrupt.actions.clone() },
        };
        let is_right = match knob {
            Knob::VfioIrqAffinity { .. } => interrupt.affinity == wanted.cpus,
            _ => !interrupt.affinity.intersects(&wanted.cpus),
        };
        let is_held = record.entry(&knob).is_some_and(|entry| entry.claims.contains_key(&uuid));
        if !is_right && !is_held {
            claims.push(claim(knob, &wanted.cpus, interrupt));
        }
    }
    Ok(claims)
}

fn claim(knob: Knob, cpus: &CpuSet, interrupt: Interrupt) -> Claim {
    Claim { knob, want: Want::Cpus(cpus.clone()), now: Some(Value::Cpus(interrupt.affinity)) }
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
