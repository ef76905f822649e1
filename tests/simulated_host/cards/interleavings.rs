//! Lives of guests with cards in any order, with everything that may go wrong: in the end all cards are at home.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};

use vfio_hook::host::{AskedBars, Binding, Bindings};
use vfio_hook::ledger::{LeaseState, Ledger, PciBindings};
use vfio_hook::pci::PciAddress;

use super::{CARD, PORTS, USB, machine, player};
use crate::support::{Files, Life, Machine, soon};

/// The processor's own graphics.
const OTHER_CARD: [&str; 2] = ["0000:0e:00.0", "0000:0e:00.1"];

/// One of [`FAULTS`]: the host's driver refuses the card, which then stays with VFIO for the next guest, unrecorded. A bind
/// that fails once is the same.
const DRIVER_REFUSES: usize = 5;

/// What can be the matter with a function or a port.
const FAULTS: [(&str, &str); 9] = [
    (CARD[0], "dead"),
    (CARD[2], "dead"),
    (PORTS[1], "dead"),
    (USB, "dead"),
    (CARD[0], "dead until reset_subordinate"),
    (CARD[0], "probe-fails amdgpu"),
    (CARD[1], "probe-fails vfio-pci"),
    // The process left behind has ended since.
    (CARD[1], "unbind-hangs 2147483647"),
    (CARD[3], "probe-hangs 2147483647"),
];

/// What goes wrong in the program meanwhile.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    None,
    /// It is killed before this write.
    Kill(usize),
    /// This write fails.
    Write(usize),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Prepare(usize, Trouble),
    Release(usize, Trouble),
    PassBy(Trouble),
    Clear(Trouble),
    Break(usize),
    Heal,
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        3 => Just(Trouble::None),
        2 => (1..90usize).prop_map(Trouble::Kill),
        1 => (1..90usize).prop_map(Trouble::Write),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3usize, trouble()).prop_map(|(guest, trouble)| Step::Prepare(guest, trouble)),
        4 => (0..3usize, trouble()).prop_map(|(guest, trouble)| Step::Release(guest, trouble)),
        1 => trouble().prop_map(Step::PassBy),
        1 => trouble().prop_map(Step::Clear),
        2 => (0..FAULTS.len()).prop_map(Step::Break),
        1 => Just(Step::Heal),
    ]
}

struct World {
    machine: Machine,
    guests: [Life; 3],
    before: Files,
    home: Bindings,
    /// Whether the host's driver refuses the card now, and whether a card was left with VFIO for that, unrecorded.
    driver_refuses: Cell<bool>,
    has_refused: Cell<bool>,
}

impl World {
    fn new() -> Self {
        let machine = machine();
        let xml = "<memory unit='MiB'>512</memory><on_reboot>destroy</on_reboot>";
        let all: Vec<&str> = CARD.into_iter().chain([USB]).collect();
        let guests = [
            player(1, &all, xml, "gpu: {recover: [bus-reset]}\nservices: {stop: ollama.service}\n"),
            player(2, &OTHER_CARD, xml, "gpu: {holders: {stop: [ollama.service]}}\n"),
            player(3, &CARD, xml, "gpu: {return_to: host-if-clean}\nisolate_cpus: {}\n"),
        ];
        let before = machine.files();
        let functions: Vec<PciAddress> =
            CARD.iter().chain(&OTHER_CARD).map(|function| function.parse().unwrap()).collect();
        let home = machine.host().bindings(&functions, &AskedBars::default()).unwrap();
        Self {
            machine,
            guests,
            before,
            home,
            driver_refuses: Cell::new(false),
            has_refused: Cell::new(false),
        }
    }

    fn take(&self, step: Step) {
        let machine = &self.machine;
        let with = |trouble: Trouble, what: &dyn Fn()| {
            match trouble {
                Trouble::None => machine.faults.clear(),
                Trouble::Kill(nth) => machine.faults.panic_at_write(nth),
                Trouble::Write(nth) => machine.faults.fail_write(nth),
            }
            let _ = machine.until_killed(what);
            machine.faults.clear();
            // The writer lives on in this test.
            machine.forget_processes();
            let may_refuse = matches!(trouble, Trouble::Write(_)) || self.driver_refuses.get();
            if may_refuse && self.has_left_card() {
                self.has_refused.set(true);
            }
        };
        match step {
            Step::Prepare(guest, trouble) => with(trouble, &|| drop(machine.prepare(&self.guests[guest]))),
            Step::Release(guest, trouble) => with(trouble, &|| drop(machine.release(&self.guests[guest]))),
            Step::PassBy(trouble) => {
                with(trouble, &|| drop(Ledger::open(&mut machine.host(), soon()).map(drop)))
            }
            Step::Clear(trouble) => with(trouble, &|| self.clear()),
            Step::Break(fault) => {
                machine.breaks(FAULTS[fault].0, FAULTS[fault].1);
                self.driver_refuses.set(self.driver_refuses.get() || fault == DRIVER_REFUSES);
            }
            Step::Heal => self.heal(),
        }
    }

    /// Whether a function is with VFIO or has no driver, and the ledger does not say that it came from a driver of the host's.
    fn has_left_card(&self) -> bool {
        let record = self.machine.record();
        let comes_back = |function: PciAddress| {
            record.as_ref().is_some_and(|record| {
                let is_quarantined =
                    record.quarantines.iter().any(|each| each.terms.functions.contains(function));
                let is_held = record
                    .each::<PciBindings>()
                    .any(|entry| entry.baseline.0.get(&function).is_some_and(Binding::has_host_driver));
                is_quarantined || is_held
            })
        };
        CARD.into_iter().chain(OTHER_CARD).any(|function| {
            // A function that does not decide is left without a driver where its own refuses it.
            let is_left = ["vfio-pci", ""].contains(&self.machine.driver(function).as_str());
            is_left && !comes_back(function.parse().unwrap())
        })
    }

    fn heal(&self) {
        self.driver_refuses.set(false);
        for (address, _) in FAULTS {
            let _ = std::fs::remove_file(self.machine.path(&format!("/simulated/pci/{address}/fault")));
        }
    }

    fn clear(&self) {
        let mut host = self.machine.host();
        let Ok(mut ledger) = Ledger::open(&mut host, soon()) else { return };
        for quarantine in ledger.record().quarantines.clone() {
            let _ = ledger.clear_quarantine(&quarantine.terms.functions);
        }
    }

    /// Who has a card has it with VFIO.
    fn check(&self) {
        let Some(record) = self.machine.record() else { return };
        for (uuid, lease) in record.leases.iter().filter(|(_, lease)| lease.phase == LeaseState::Prepared) {
            for function in lease.cards.iter().flat_map(|card| card.functions.as_slice()) {
                assert_eq!(self.machine.driver(&function.to_string()), "vfio-pci", "{function} of {uuid}");
            }
        }
    }

    fn end(&self) {
        self.heal();
        self.machine.open_and_close();
        for guest in &self.guests {
            self.machine.release(guest).unwrap();
        }
        self.machine.open_and_close();
        self.clear();
        if self.has_refused.get() && !self.machine.has_ledger() {
            // A person has the host's driver take it again.
            self.machine.host().set_bindings(&self.home, soon()).unwrap();
            // VFIO's driver forbids to sleep as it lets go (`vfio_pci_core_unregister_device`).
            for function in CARD.into_iter().chain(OTHER_CARD) {
                let control = format!("/sys/bus/pci/devices/{function}/power/control");
                let real = self.machine.path(&control).canonicalize().unwrap();
                let known = format!("/{}", real.strip_prefix(self.machine.root()).unwrap().display());
                self.machine.set(&control, self.before[&known].trim());
            }
        }
        let autoprobe = self.machine.path("/sys/bus/pci/drivers_autoprobe");
        assert_eq!(std::fs::read_to_string(autoprobe).unwrap(), "1\n");
        self.machine.useless_keepers_leave();
        self.machine.assert_is(&self.before, "all are gone");
    }
}

fn config() -> Config {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    Config {
        // More of both by hand, to look for what nobody thought of.
        cases: number("SIMULATED_HOST_CASES").map_or(24, |cases| cases as u32),
        rng_seed: RngSeed::Fixed(number("SIMULATED_HOST_SEED").unwrap_or(6800)),
        failure_persistence: None,
        max_shrink_iters: 500,
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn all_cards_come_home(steps in prop::collection::vec(step(), 1..12)) {
        live_through(steps);
    }
}

fn live_through(steps: Vec<Step>) {
    let world = World::new();
    for step in steps {
        world.take(step);
        world.check();
    }
    world.end();
}

/// What chance found once.
#[test]
fn found_before() {
    let cases = [
        vec![
            Step::Break(DRIVER_REFUSES),
            Step::Prepare(2, Trouble::Kill(30)),
            Step::Release(2, Trouble::None),
        ],
        vec![Step::Prepare(1, Trouble::None), Step::Prepare(1, Trouble::Write(21))],
        vec![Step::Prepare(1, Trouble::None), Step::Release(1, Trouble::Write(26))],
        vec![Step::Prepare(2, Trouble::None), Step::Prepare(2, Trouble::Write(37))],
    ];
    for steps in cases {
        live_through(steps);
    }
}
