//! The program is replaced by a newer version while guests run.

use std::fs;

use serde_json::{Value, json};
use vfio_hook::host::STATE_DIR;
use vfio_hook::ledger::{FILE, Ledger, SECOND};

use crate::support::{Machine, soon};

/// What an earlier version wrote for two guests that run.
const LEDGER: &str = include_str!("../data/ledgers/3-two-guests.json");

const GUESTS: [&str; 2] = ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"];

/// A host with the ledger and the keepers of an earlier version.
fn machine(change: impl FnOnce(&mut Value)) -> Machine {
    let machine = Machine::new("two-nodes");
    let mut ledger: Value = serde_json::from_str(LEDGER).unwrap();
    ledger["boot_id"] = machine.get("/proc/sys/kernel/random/boot_id").into();
    change(&mut ledger);
    fs::create_dir_all(machine.path(STATE_DIR)).unwrap();
    fs::write(machine.path(STATE_DIR).join(FILE), ledger.to_string()).unwrap();
    fs::create_dir_all(machine.path("/simulated/earlier-keepers")).unwrap();
    for guest in GUESTS {
        fs::write(machine.path(&format!("/simulated/earlier-keepers/{guest}")), "{}").unwrap();
    }
    machine
}

fn slot(machine: &Machine, name: &str) -> Option<Value> {
    serde_json::from_slice(&fs::read(machine.path(STATE_DIR).join(name)).ok()?).ok()
}

/// An earlier version reads the first slot alone.
#[test]
fn keepers_of_an_earlier_version_have_successors_before_the_ledger_is_written_anew() {
    let machine = machine(|_| {});
    let mut host = machine.host();
    let mut ledger = Ledger::open(&mut host, soon()).unwrap();
    assert_eq!(slot(&machine, FILE).unwrap()["format"], 3, "nothing is written yet");
    for guest in GUESTS {
        let state = fs::read(machine.path(&format!("/simulated/keepers/{guest}"))).unwrap();
        let state: Value = serde_json::from_slice(&state).unwrap();
        assert_eq!(state["sleep_lock"], "sleep");
    }
    assert!(!machine.path("/simulated/earlier-keepers").exists());
    ledger.give_back(GUESTS[0].parse().unwrap(), "shutdown", None).unwrap();
    for name in [FILE, SECOND] {
        let slot = slot(&machine, name).unwrap();
        assert_eq!(slot["format"], 4, "{name}");
    }
}

#[test]
fn a_keeper_of_an_earlier_version_finishes_what_it_gives_back() {
    let this_process = Machine::new("two-nodes").host().this_process();
    let machine = machine(|ledger| {
        ledger["leases"][GUESTS[1]]["phase"] = json!({ "giving-back": this_process });
    });
    let before = fs::read(machine.path(STATE_DIR).join(FILE)).unwrap();
    let mut host = machine.host();
    let error = Ledger::open(&mut host, soon()).err().unwrap();
    assert!(error.to_string().contains("is giving back the lease of guest guest2"), "{error}");
    assert_eq!(fs::read(machine.path(STATE_DIR).join(FILE)).unwrap(), before);
    assert!(machine.path(&format!("/simulated/earlier-keepers/{}", GUESTS[1])).exists());
}
