//! What the ledger's file says of cards, and what a person sees of a plan.

use vfio_hook::ledger::Record;
use vfio_hook::lifecycle;

use super::{CARD, USB, gamer, machine, player};
use crate::support::{Machine, soon};

/// The file, but for what is another in every run.
fn ledger(machine: &Machine) -> serde_json::Value {
    let bytes = machine.record().unwrap().to_bytes();
    let record = Record::parse(&bytes).unwrap();
    assert_eq!(record.to_bytes(), bytes);
    let mut ledger: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    for lease in ledger["leases"].as_object_mut().unwrap().values_mut() {
        lease["since"] = 0.into();
    }
    for quarantine in ledger["quarantines"].as_array_mut().into_iter().flatten() {
        quarantine["since"] = 0.into();
    }
    ledger
}

fn pretty(json: &serde_json::Value) -> String {
    serde_json::to_string_pretty(json).unwrap()
}

#[test]
fn of_a_guest_with_a_card() {
    let machine = machine();
    machine.prepare(&gamer("gpu: {recover: [reset, bus-reset]}")).unwrap();
    insta::assert_snapshot!("lease", pretty(&ledger(&machine)));
}

#[test]
fn of_a_quarantine() {
    let machine = machine();
    let life = gamer("gpu: {}");
    machine.prepare(&life).unwrap();
    machine.breaks(CARD[1], "dead");
    machine.release(&life).unwrap();
    insta::assert_snapshot!("quarantine", pretty(&ledger(&machine)["quarantines"]));
}

#[test]
fn what_would_be_done() {
    let machine = machine();
    let devices: Vec<&str> = CARD.into_iter().chain([USB]).collect();
    let xml = "<memory unit='MiB'>512</memory><on_reboot>destroy</on_reboot>";
    let life = player(1, &devices, xml, "gpu: {bars: {0: 256 MiB}}");
    let host = machine.host();
    let record = Record::empty(host.boot_id().unwrap());
    let prepared = lifecycle::plan_prepare(&host, &record, &life.loaded, &life.guest, soon()).unwrap();
    let notes = prepared.notes.iter().map(|note| format!("note: {}", note.text));
    let changes = prepared.plan.changes.iter().map(ToString::to_string);
    insta::assert_snapshot!("plan", notes.chain(changes).collect::<Vec<_>>().join("\n"));
}
