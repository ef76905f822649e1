//! Monitors follow a guest: switched once it is up, held, and back when it is gone.

use std::fs;
use std::time::Duration;

use vfio_hook::guest::{Guest, GuestUuid};
use vfio_hook::host::simulated::SimulatedMonitor;
use vfio_hook::ledger::{NoteLevel, Outcome, Tried, Try};
use vfio_hook::lifecycle;

use crate::support::{Life, Machine, guest, life, soon};

const INPUT: &str = "/simulated/i2c/i2c-7/features/0x60";
const YAML: &str = "switch_input: {monitor: {model: LG ULTRAGEAR}, guest: hdmi-1, delay: 0s}\n";

/// A host with one LG on `DP-1`, and maybe others.
fn machine(others: &[SimulatedMonitor]) -> Machine {
    let lg = SimulatedMonitor::lg("0000:03:00.0", "DP-1", 7);
    let monitors: String = std::iter::once(&lg).chain(others).map(SimulatedMonitor::manifest).collect();
    Machine::with("two-nodes", &format!("/sys/module/i2c_dev/initstate = live\n{monitors}"))
}

fn one(yaml: &str) -> Life {
    life(guest(1, "2-3", ""), yaml)
}

fn other(yaml: &str) -> Life {
    life(guest(2, "4-5", ""), yaml)
}

fn follow(machine: &Machine, life: &Life, attempt: Try) -> Tried {
    lifecycle::follow_monitors(&mut machine.host(), life.guest.uuid, Duration::ZERO, attempt, soon()).unwrap()
}

fn bring_back(machine: &Machine, life: &Life, attempt: Try) -> Tried {
    lifecycle::return_monitors(&mut machine.host(), life.guest.uuid, attempt, soon()).unwrap()
}

fn start(machine: &Machine, life: &Life) -> Outcome {
    let outcome = machine.prepare(life).unwrap();
    lifecycle::note_monitors(&mut machine.host(), life.guest.uuid, soon()).unwrap();
    machine.qemu_runs(life.guest.uuid);
    machine.started(life).unwrap();
    outcome
}

fn warnings(outcome: &Outcome) -> Vec<&str> {
    let notes = outcome.notes.iter().filter(|note| note.level == NoteLevel::Warning);
    notes.map(|note| note.text.as_str()).collect()
}

/// The module is loaded before the checks, in a part of its own that runs no commands.
#[test]
fn commands_run_though_the_buses_had_no_device_nodes() {
    let lg = SimulatedMonitor::lg("0000:03:00.0", "DP-1", 7);
    let machine = Machine::with("two-nodes", &format!("/bin/sh = \n{}", lg.manifest()));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(machine.path("/bin/sh"), mode).unwrap();
    let yaml = format!("{YAML}run: [{{when: prepare, command: [/bin/sh, -c, on]}}]\n");
    let life = one(&yaml);
    machine.prepare(&life).unwrap();
    let ran = fs::read_to_string(machine.path("/simulated_commands")).unwrap_or_default();
    assert_eq!(ran.matches("prepare: /bin/sh -c on").count(), 1, "{ran}");
}

fn with_card(number: u8) -> Guest {
    let mut guest = guest(number, "2-3", "");
    let xml = "<domain type='kvm'><name>g</name><uuid>00000000-0000-4000-8000-000000000001</uuid>\
        <memory unit='MiB'>512</memory><vcpu>1</vcpu><devices><hostdev mode='subsystem' type='pci' managed='yes'>\
        <source><address domain='0x0000' bus='0x03' slot='0x00' function='0x0'/></source></hostdev></devices></domain>";
    guest.pci_hostdevs = Guest::parse(xml.as_bytes()).unwrap().pci_hostdevs;
    guest
}

#[test]
fn it_follows_the_guest_and_comes_back() {
    let machine = machine(&[]);
    let (before, life) = (machine.files(), one(YAML));
    start(&machine, &life);
    assert_eq!(machine.get(INPUT), "0x0f", "before its delay is over");
    let tried = follow(&machine, &life, Try::Another);
    assert_eq!(machine.get(INPUT), "0x11");
    assert_eq!(tried.outcome.changes[0].to_string(), "input of LG ULTRAGEAR on DP-1: dp-1 -> hdmi-1");
    assert!(follow(&machine, &life, Try::Last).outcome.changes.is_empty());
    machine.qemu_is_gone();
    assert_eq!(bring_back(&machine, &life, Try::Another).unfinished, 0);
    assert_eq!(machine.get(INPUT), "0x0f");
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn without_a_keeper_giving_back_brings_it_back_too() {
    let machine = machine(&[]);
    let (before, life) = (machine.files(), one(YAML));
    start(&machine, &life);
    follow(&machine, &life, Try::Another);
    machine.qemu_is_gone();
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn a_monitor_that_found_the_guests_picture_by_itself_comes_back_all_the_same() {
    let machine = machine(&[]);
    let (before, life) = (machine.files(), one(YAML));
    start(&machine, &life);
    machine.set(INPUT, "0x11");
    assert!(follow(&machine, &life, Try::Another).outcome.changes.is_empty());
    machine.qemu_is_gone();
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn an_input_that_the_person_chose_stays() {
    let machine = machine(&[]);
    let life = one(YAML);
    start(&machine, &life);
    follow(&machine, &life, Try::Another);
    machine.set(INPUT, "0x12");
    machine.qemu_is_gone();
    let tried = bring_back(&machine, &life, Try::Another);
    assert_eq!((tried.unfinished, machine.get(INPUT).as_str()), (0, "0x12"));
    assert_eq!(
        warnings(&tried.outcome),
        ["input of LG ULTRAGEAR on DP-1 was changed from outside, from hdmi-1 to hdmi-2: left alone"]
    );
    machine.release(&life).unwrap();
    assert!(!machine.has_ledger());
}

#[test]
fn the_input_that_the_file_names_is_shown_afterwards_and_other_features_come_back() {
    let machine = machine(&[]);
    let yaml = YAML.replace("}, guest", "}, host: dp-2, set: {0x10: 40}, guest");
    let brightness = "/simulated/i2c/i2c-7/features/0x10";
    fs::write(machine.path(brightness), "0x4b\n").unwrap();
    let life = one(&yaml);
    start(&machine, &life);
    follow(&machine, &life, Try::Another);
    assert_eq!((machine.get(INPUT).as_str(), machine.get(brightness).as_str()), ("0x11", "0x28"));
    machine.qemu_is_gone();
    machine.release(&life).unwrap();
    assert_eq!((machine.get(INPUT).as_str(), machine.get(brightness).as_str()), ("0x10", "0x4b"));
}

#[test]
fn one_that_goes_back_is_switched_again_and_in_the_end_told_of() {
    let machine = machine(&[]);
    let life = one(YAML);
    start(&machine, &life);
    follow(&machine, &life, Try::Another);
    fs::write(machine.path("/simulated/i2c/i2c-7/bounces_to"), "0x0f\n").unwrap();
    machine.set(INPUT, "0x0f");
    for _ in 0..3 {
        let tried = follow(&machine, &life, Try::Another);
        assert_eq!((tried.unfinished, tried.outcome.changes.len()), (1, 1));
    }
    assert_eq!(
        warnings(&follow(&machine, &life, Try::Last).outcome),
        ["input of LG ULTRAGEAR on DP-1 goes back to dp-1 each time: has the guest a picture there?"]
    );
    fs::remove_file(machine.path("/simulated/i2c/i2c-7/bounces_to")).unwrap();
    assert!(!follow(&machine, &life, Try::Another).outcome.changes.is_empty());
}

#[test]
fn one_that_sleeps_is_told_again_until_it_is_given_up() {
    let machine = machine(&[]);
    let life = one(YAML);
    start(&machine, &life);
    follow(&machine, &life, Try::Another);
    machine.qemu_is_gone();
    fs::write(machine.path("/simulated/i2c/i2c-7/silent"), "100000\n").unwrap();
    assert_eq!(bring_back(&machine, &life, Try::Another).unfinished, 1);
    assert!(machine.has_ledger());
    // Nobody else talks to it meanwhile.
    assert!(machine.open_and_close().changes.is_empty());
    let silent = machine.get("/simulated/i2c/i2c-7/silent");
    machine.open_and_close();
    assert_eq!(machine.get("/simulated/i2c/i2c-7/silent"), silent);
    let tried = bring_back(&machine, &life, Try::Last);
    assert_eq!(tried.unfinished, 0);
    assert!(warnings(&tried.outcome)[0].contains("may not be back at dp-1"), "{:?}", tried.outcome);
    machine.release(&life).unwrap();
    assert!(!machine.has_ledger());
}

#[test]
fn one_that_answers_only_on_its_active_input_is_switched_unseen_and_back() {
    let machine = machine(&[]);
    let (before, life) = (machine.files(), one(YAML));
    let active = machine.path("/simulated/i2c/i2c-7/active_input");
    fs::write(&active, "0x0f\n").unwrap();
    start(&machine, &life);
    follow(&machine, &life, Try::Another);
    assert_eq!(machine.get(INPUT), "0x11");
    let tried = follow(&machine, &life, Try::Last);
    assert!(tried.outcome.notes.iter().any(|note| note.text.contains("cannot be verified")), "{tried:?}");
    // The guest's picture is gone, so the monitor listens to this side again.
    fs::remove_file(&active).unwrap();
    machine.qemu_is_gone();
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn a_guest_that_is_started_again_goes_on_with_the_monitor_and_brings_it_back_in_the_end() {
    let machine = machine(&[]);
    let (before, life) = (machine.files(), one(YAML));
    start(&machine, &life);
    follow(&machine, &life, Try::Another);
    machine.qemu_is_gone();
    start(&machine, &life);
    assert_eq!(machine.get(INPUT), "0x11", "not switched back in between");
    follow(&machine, &life, Try::Another);
    machine.qemu_is_gone();
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");

    // One that does not want it any more gives it back first.
    start(&machine, &life);
    follow(&machine, &life, Try::Another);
    machine.qemu_is_gone();
    let without = one("block_sleep: {}\n");
    machine.prepare(&without).unwrap();
    assert_eq!(machine.get(INPUT), "0x0f");
    machine.release(&without).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn the_second_guest_is_refused_or_has_it_until_it_is_gone() {
    let machine = machine(&[]);
    let before = machine.files();
    let (first, second) = (one(YAML), other(&YAML.replace("hdmi-1", "hdmi-2")));
    start(&machine, &first);
    let error = machine.prepare(&second).unwrap_err().to_string();
    assert!(error.contains("the input of LG ULTRAGEAR on DP-1 belongs to guest guest1"), "{error}");
    follow(&machine, &first, Try::Another);
    assert!(machine.prepare(&second).is_err());

    let second = other(&YAML.replace("hdmi-1", "hdmi-2, shared: last"));
    machine.prepare(&second).unwrap();
    machine.qemu_runs(second.guest.uuid);
    machine.started(&second).unwrap();
    follow(&machine, &second, Try::Another);
    assert_eq!(machine.get(INPUT), "0x12");
    machine.qemu_is_gone();
    bring_back(&machine, &second, Try::Another);
    assert_eq!(machine.get(INPUT), "0x11", "the first guest's again");
    machine.release(&second).unwrap();
    machine.release(&first).unwrap();
    machine.assert_is(&before, "both released");
}

#[test]
fn a_monitor_that_cannot_be_told_from_another_or_reached_is_named() {
    let twin = SimulatedMonitor::lg("0000:03:00.0", "DP-2", 8);
    let machine = machine(&[twin]);
    let before = machine.files();
    let outcome = machine.prepare(&one(YAML)).unwrap();
    assert!(
        warnings(&outcome)[0].contains("several monitors with model LG ULTRAGEAR: DP-1: GSM"),
        "{outcome:?}"
    );
    machine.release(&one(YAML)).unwrap();
    let error = machine.prepare(&one(&YAML.replace("guest:", "on_failure: refuse, guest:"))).unwrap_err();
    assert!(error.to_string().contains("several monitors"), "{error}");
    let outcome = machine.prepare(&one(&YAML.replace("ULTRAGEAR", "OTHER"))).unwrap();
    assert!(
        warnings(&outcome)[0].contains("no monitor with model LG OTHER; there are: DP-1: GSM"),
        "{outcome:?}"
    );
    machine.release(&one(YAML)).unwrap();
    // By its place it is one.
    let by_place = YAML.replace("ULTRAGEAR", "ULTRAGEAR, connector: DP-2");
    assert_eq!(warnings(&machine.prepare(&one(&by_place)).unwrap()), [""; 0]);
    machine.release(&one(&by_place)).unwrap();
    machine.assert_is(&before, "nothing was switched");
}

#[test]
fn a_monitor_on_the_guests_own_card_is_out_of_reach() {
    let on_both = SimulatedMonitor {
        input: "0x0f".parse().unwrap(),
        ..SimulatedMonitor::lg("0000:0b:00.0", "HDMI-A-1", 9)
    };
    let machine = machine(&[on_both]);
    // Connected to both cards: the host's is meant.
    let outcome = machine.prepare(&life(with_card(1), YAML)).unwrap();
    assert_eq!(warnings(&outcome), [""; 0]);
    let record = machine.record().unwrap();
    let uuid: GuestUuid = life(with_card(1), YAML).guest.uuid;
    assert_eq!(record.leases[&uuid].monitors[0].feature.monitor.place.to_string(), "HDMI-A-1");
    machine.release(&life(with_card(1), YAML)).unwrap();
    let by_place = YAML.replace("ULTRAGEAR", "ULTRAGEAR, connector: DP-1");
    let outcome = machine.prepare(&life(with_card(1), &by_place)).unwrap();
    assert!(warnings(&outcome)[0].contains("is connected to a card that the guest gets"), "{outcome:?}");
}

#[test]
fn the_module_for_its_bus_is_loaded_and_unloaded() {
    let lg = SimulatedMonitor::lg("0000:03:00.0", "DP-1", 7);
    let machine = Machine::with("two-nodes", &lg.manifest());
    let (before, life) = (machine.files(), one(YAML));
    let outcome = machine.prepare(&life).unwrap();
    assert!(
        outcome.changes.iter().any(|change| change.to_string() == "kernel module i2c-dev: none -> loaded")
    );
    machine.qemu_runs(life.guest.uuid);
    machine.started(&life).unwrap();
    follow(&machine, &life, Try::Another);
    assert_eq!(machine.get(INPUT), "0x11");
    machine.qemu_is_gone();
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn a_keeper_killed_at_any_write_leaves_nothing_that_the_end_does_not_bring_back() {
    for (what, step) in [("switch", 0), ("return", 1)] {
        for nth in 1.. {
            let machine = machine(&[]);
            let (before, life) = (machine.files(), one(YAML));
            start(&machine, &life);
            if step == 1 {
                follow(&machine, &life, Try::Another);
                machine.qemu_is_gone();
            }
            machine.faults.panic_at_write(nth);
            let outcome = machine.until_killed(|| match step {
                0 => follow(&machine, &life, Try::Another),
                _ => bring_back(&machine, &life, Try::Another),
            });
            machine.faults.clear();
            if step == 0 {
                // Its successor finishes what it began.
                follow(&machine, &life, Try::Another);
                follow(&machine, &life, Try::Another);
                assert_eq!(machine.get(INPUT), "0x11", "{what}, killed at write {nth}");
                machine.qemu_is_gone();
            }
            machine.release(&life).unwrap();
            machine.assert_is(&before, &format!("{what}, killed at write {nth}"));
            if outcome.is_ok() {
                assert!(nth > 2, "{what}: {nth}");
                break;
            }
        }
    }
}

/// What a monitor that says the same of every input really shows.
const SAYS: &str = "/simulated/i2c/i2c-7/says";

#[test]
fn a_monitor_that_always_says_the_hosts_input_is_switched_and_comes_back() {
    let machine = machine(&[]);
    let life = one(YAML);
    fs::write(machine.path(SAYS), "0x0f\n").unwrap();
    let before = machine.files();
    start(&machine, &life);
    follow(&machine, &life, Try::Another);
    assert_eq!(machine.get(INPUT), "0x11");
    let last = follow(&machine, &life, Try::Last);
    assert_eq!(
        warnings(&last.outcome),
        [
            "input of LG ULTRAGEAR on DP-1 reads dp-1 after each write, so it is not verifiable: either it goes back each \
          time (has the guest a picture there?), or it says so of every input"
        ]
    );
    machine.qemu_is_gone();
    let tried = bring_back(&machine, &life, Try::Another);
    assert_eq!((tried.unfinished, machine.get(INPUT).as_str()), (0, "0x0f"), "what it says is no evidence");
    let notes: Vec<&str> = tried.outcome.notes.iter().map(|note| note.text.as_str()).collect();
    assert_eq!(
        notes,
        [
            "input of LG ULTRAGEAR on DP-1 was told to show dp-1, which is not verifiable: its reading never followed what it \
          was told"
        ]
    );
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");

    // Without its keeper too, also when the guest is gone before anybody has looked.
    start(&machine, &life);
    follow(&machine, &life, Try::Another);
    machine.qemu_is_gone();
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released without a look");
}

#[test]
fn a_monitor_that_always_says_the_guests_input_is_switched_too() {
    let machine = machine(&[]);
    let life = one(&YAML.replace("guest:", "host: dp-1, guest:"));
    fs::write(machine.path(SAYS), "0x11\n").unwrap();
    let before = machine.files();
    start(&machine, &life);
    follow(&machine, &life, Try::Another);
    assert_eq!(machine.get(INPUT), "0x11", "before anything was written its word counts for nothing");
    machine.qemu_is_gone();
    let tried = bring_back(&machine, &life, Try::Last);
    assert_eq!(machine.get(INPUT), "0x0f");
    assert!(warnings(&tried.outcome)[0].contains("may not be back at dp-1: it reads hdmi-1"), "{tried:?}");
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

/// One that has once said what it was told is believed: the person's choice stays.
#[test]
fn what_a_reading_is_worth_outlives_the_keeper() {
    let machine = machine(&[]);
    let life = one(YAML);
    start(&machine, &life);
    follow(&machine, &life, Try::Another);
    // From here on it says what the host's input is.
    machine.set(INPUT, "0x0f");
    machine.qemu_is_gone();
    let tried = bring_back(&machine, &life, Try::Another);
    assert!(tried.outcome.changes.is_empty(), "it is back already: {tried:?}");
    machine.release(&life).unwrap();
    assert!(!machine.has_ledger());
}

#[test]
fn a_monitor_that_is_known_to_say_anything_is_switched_unseen_and_back() {
    for yaml in ["", "deviations: {mine: {monitors: {model: LG ULTRAGEAR}, reading: unreliable}}\n"] {
        let mut monitor = SimulatedMonitor::lg("0000:03:00.0", "DP-1", 7);
        if yaml.is_empty() {
            monitor.identity.manufacturer = "HWP".parse().unwrap();
            monitor.identity.model = Some("HP Z27n".to_owned());
        }
        let lines = format!("/sys/module/i2c_dev/initstate = live\n{}{SAYS} = 0x0f\n", monitor.manifest());
        let machine = Machine::with("two-nodes", &lines);
        if !yaml.is_empty() {
            fs::create_dir_all(machine.path("/etc/vfio-hook")).unwrap();
            fs::write(machine.path("/etc/vfio-hook/host.yaml"), yaml).unwrap();
        }
        let life = one("switch_input: {monitor: {connector: DP-1}, guest: hdmi-1, delay: 0s}\n");
        let before = machine.files();
        start(&machine, &life);
        follow(&machine, &life, Try::Another);
        assert_eq!(machine.get(INPUT), "0x11");
        assert_eq!(warnings(&follow(&machine, &life, Try::Last).outcome), [""; 0]);
        machine.qemu_is_gone();
        let tried = bring_back(&machine, &life, Try::Another);
        assert_eq!((tried.unfinished, machine.get(INPUT).as_str()), (0, "0x0f"));
        machine.release(&life).unwrap();
        machine.assert_is(&before, "released");
    }
}
