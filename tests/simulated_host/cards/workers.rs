//! What may hang in the kernel is done by few processes, and written down in few steps.

use std::sync::mpsc::{Receiver, channel};

use vfio_hook::host::Host;
use vfio_hook::host::simulated::Faults;
use vfio_hook::ledger::{Ledger, Outcome, SettingKey};

use super::{CARD, ON_VFIO, PORTS, gamer, machine};
use crate::support::Machine;

/// The most workers that an event may need for one card.
const MOST: usize = 8;

fn workers(faults: &Faults, event: impl FnOnce()) -> usize {
    let before = faults.workers();
    event();
    faults.workers() - before
}

#[test]
fn a_card_over_and_back_needs_few_workers() {
    let machine = machine();
    let before = machine.files();
    let life = gamer("gpu: {}");
    let over = workers(&machine.faults, || drop(machine.prepare(&life).unwrap()));
    assert_eq!(machine.drivers(), ON_VFIO);
    assert!((1..=MOST).contains(&over), "{over}");
    let look = workers(&machine.faults, || machine.start(&life).unwrap());
    assert_eq!(look, 1);
    let back = workers(&machine.faults, || drop(machine.release(&life).unwrap()));
    machine.assert_is(&before, "given back");
    assert!((1..=MOST).contains(&back), "{back}");
}

/// How many settings of functions and ports are announced and not confirmed when this file is written.
fn open_at(machine: &Machine, function: &str, name: &str) -> Receiver<usize> {
    let (sender, open) = channel();
    let root = machine.root();
    machine.faults.interrupt(format!("/sys/bus/pci/devices/{function}/{name}"), move || {
        let record = Ledger::peek(&Host::simulated(&root, &Faults::default())).unwrap().unwrap();
        let open = record.entries().filter(|entry| entry.is_pending());
        sender.send(open.filter(|entry| is_attribute(&entry.key())).count()).unwrap();
    });
    open
}

fn is_attribute(setting: &SettingKey) -> bool {
    matches!(setting, SettingKey::Attribute(_))
}

/// They are written one by one, but announced and confirmed in one step of the ledger.
#[test]
fn the_power_settings_of_a_card_are_announced_together() {
    let machine = machine();
    let life = gamer("gpu: {}");
    let settings =
        |outcome: &Outcome| outcome.changes.iter().filter(|change| is_attribute(&change.setting)).count();
    let at_the_last = open_at(&machine, CARD[3], "power/control");
    let taken = machine.prepare(&life).unwrap();
    assert_eq!(at_the_last.recv().unwrap(), settings(&taken));
    let at_the_last = open_at(&machine, PORTS[2], "d3cold_allowed");
    machine.release(&life).unwrap();
    assert_eq!(at_the_last.recv().unwrap(), settings(&taken));
    assert!(settings(&taken) > CARD.len() + PORTS.len(), "{taken:?}");
}
