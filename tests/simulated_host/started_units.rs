//! Units that run while a guest does.

use std::fs;

use vfio_hook::ledger::LeaseState;

use crate::support::{Life, Machine, guest, life};

const STARTED: &str = "services: {start: evsieve@win11.service}\n";
const UNIT: &str = "/simulated/systemd/evsieve@win11.service";

fn one(yaml: &str) -> Life {
    life(guest(1, "2-3", ""), yaml)
}

fn two(yaml: &str) -> Life {
    life(guest(2, "4-5", ""), yaml)
}

fn state(machine: &Machine, unit: &str) -> String {
    machine.get(&format!("/simulated/systemd/{unit}/ActiveState"))
}

#[test]
fn a_unit_runs_until_the_last_guest_that_wants_it_is_gone() {
    let machine = Machine::new("two-nodes");
    let (before, one, two) = (machine.files(), one(STARTED), two(STARTED));
    let outcome = machine.prepare(&one).unwrap();
    let lines: Vec<String> = outcome.changes.iter().map(ToString::to_string).collect();
    assert!(lines.contains(&"evsieve@win11.service: stopped -> started".to_owned()), "{lines:?}");
    let note = "evsieve@win11.service starts helper.service too, which is not stopped with it";
    assert!(outcome.notes.iter().any(|other| other.text.starts_with(note)), "{:?}", outcome.notes);
    machine.prepare(&two).unwrap();
    machine.release(&one).unwrap();
    assert_eq!(state(&machine, "evsieve@win11.service"), "active");
    machine.release(&two).unwrap();
    assert_eq!(state(&machine, "evsieve@win11.service"), "inactive");
    machine.assert_is(&before, "released");
}

#[test]
fn a_unit_that_ran_before_is_left_alone_and_stays() {
    let machine = Machine::new("two-nodes");
    machine.set(&format!("{UNIT}/ActiveState"), "active");
    let (before, life) = (machine.files(), one(STARTED));
    let outcome = machine.prepare(&life).unwrap();
    assert!(outcome.changes.iter().all(|change| !change.starts_unit()), "{:?}", outcome.changes);
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn a_unit_that_a_person_stops_or_that_fails_meanwhile_is_left_alone() {
    for word in ["inactive", "failed"] {
        let machine = Machine::new("two-nodes");
        let (before, life) = (machine.files(), one(STARTED));
        machine.prepare(&life).unwrap();
        machine.set(&format!("{UNIT}/ActiveState"), word);
        machine.release(&life).unwrap();
        machine.set(&format!("{UNIT}/ActiveState"), "inactive");
        machine.assert_is(&before, word);
    }
}

#[test]
fn one_that_does_not_come_up_refuses_the_start() {
    for (word, part, after) in [
        ("failed", "it failed", "failed"),
        ("inactive", "it has ended again", "inactive"),
        ("activating", "it is still activating", "inactive"),
    ] {
        let machine = Machine::new("two-nodes");
        fs::write(machine.path(&format!("{UNIT}/starts_as")), format!("{word}\n")).unwrap();
        let before = machine.files();
        let yaml = "services: {stop: ollama.service, start: evsieve@win11.service, timeout: 1s}\n";
        let error = machine.prepare(&one(yaml)).unwrap_err();
        assert!(error.to_string().contains(part), "{word}: {error}");
        let help = error.help().unwrap();
        assert!(help.contains("`services.start` of the YAML file asks for it"), "{word}: {help}");
        assert_eq!(state(&machine, "evsieve@win11.service"), after);
        machine.set(&format!("{UNIT}/ActiveState"), "inactive");
        machine.assert_is(&before, word);
    }
}

#[test]
fn two_guests_that_want_different_things_of_a_unit_are_a_conflict_by_name() {
    for (first, second, words) in [
        ("{start: evsieve@win11.service}", "{stop: evsieve@win11.service}", ("started", "stopped")),
        ("{stop: ollama.service}", "{start: ollama.service}", ("stopped", "started")),
    ] {
        let machine = Machine::new("two-nodes");
        let before = machine.files();
        let (one, two) = (one(&format!("services: {first}\n")), two(&format!("services: {second}\n")));
        machine.prepare(&one).unwrap();
        let text = machine.prepare(&two).unwrap_err().to_string();
        for part in ["guest1", words.0, words.1] {
            assert!(text.contains(part), "{part}: {text}");
        }
        machine.release(&one).unwrap();
        machine.assert_is(&before, first);
    }
}

#[test]
fn what_runs_for_the_guest_starts_after_what_steps_aside_and_stops_before_that_comes_back() {
    let machine = Machine::new("two-nodes");
    let yaml = "services: {start: [evsieve@win11.service], stop: [ollama.service, docker.service]}\n";
    let (before, life) = (machine.files(), one(yaml));
    let names = |changes: &[vfio_hook::ledger::Change]| -> Vec<String> {
        changes.iter().map(|change| change.setting.to_string()).filter(|name| name != "keeper").collect()
    };
    let taken = names(&machine.prepare(&life).unwrap().changes);
    assert_eq!(taken.last().unwrap(), "evsieve@win11.service", "{taken:?}");
    let given_back = names(&machine.release(&life).unwrap().changes);
    assert_eq!(given_back[0], "evsieve@win11.service", "{given_back:?}");
    machine.assert_is(&before, "released");
}

/// It waits for something: the guest's other things come back all the same, and it is tried again.
#[test]
fn one_that_does_not_stop_stays_owed_and_keeps_nothing_else() {
    let machine = Machine::new("two-nodes");
    let yaml = "services: {start: [evsieve@win11.service], stop: [ollama.service]}\nisolate_cpus: {}\n";
    let (before, life, other) = (machine.files(), one(yaml), two("isolate_cpus: {}\n"));
    machine.prepare(&life).unwrap();
    let stops = machine.path(&format!("{UNIT}/stops"));
    fs::write(&stops, "").unwrap();
    let outcome = machine.release(&life).unwrap();
    let failure = "evsieve@win11.service not given back: ";
    assert!(outcome.failures.iter().any(|text| text.starts_with(failure)), "{:?}", outcome.failures);
    assert_eq!(state(&machine, "ollama.service"), "active");
    assert_eq!(machine.record().unwrap().leases[&life.guest.uuid].phase, LeaseState::Unfinished);
    machine.prepare(&other).unwrap();
    machine.release(&other).unwrap();
    fs::remove_file(stops).unwrap();
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released later");
}

#[test]
fn what_cannot_or_must_not_be_started_is_said_before_anything_is_changed() {
    for (unit, part) in [
        ("nothing.service", "this host has no unit nothing.service"),
        ("{unit: client.service, user: bob}", "bob is not logged in"),
    ] {
        let machine = Machine::new("two-nodes");
        let before = machine.files();
        let error = machine.prepare(&one(&format!("services:\n  start:\n  - {unit}\n"))).unwrap_err();
        assert!(error.to_string().contains(part), "{unit}: {error}");
        assert!(error.to_string().contains("yaml:3:"), "no place: {error}");
        machine.assert_is(&before, unit);
    }
    let machine = Machine::new("no-systemd");
    let error = machine.prepare(&one(STARTED)).unwrap_err().to_string();
    assert!(error.contains("no systemd that could start evsieve@win11.service"), "{error}");
}

#[test]
fn units_of_a_user_who_is_logged_in_are_started_too() {
    let machine = Machine::new("two-nodes");
    let (before, life) = (machine.files(), one("services: {start: {unit: client.service, user: alice}}\n"));
    machine.prepare(&life).unwrap();
    assert_eq!(machine.get("/simulated/systemd-of-1000/client.service/ActiveState"), "active");
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn killed_anywhere_the_unit_is_stopped_with_the_last_guest() {
    let yaml = "services: {start: [evsieve@win11.service], stop: [ollama.service]}\n";
    let mut write = 1;
    loop {
        let machine = Machine::new("two-nodes");
        let (before, one, two) = (machine.files(), one(yaml), two(STARTED));
        machine.faults.panic_at_write(write);
        let killed = machine
            .until_killed(|| {
                machine.prepare(&one).unwrap();
                machine.prepare(&two).unwrap();
                machine.release(&one).unwrap();
                assert_eq!(state(&machine, "evsieve@win11.service"), "active");
                machine.release(&two).unwrap();
            })
            .is_err();
        machine.open_and_close();
        for life in [&one, &two] {
            machine.keeper_finishes(life);
            if machine.record().is_some() {
                machine.release(life).unwrap();
            }
        }
        machine.assert_is(&before, &format!("killed at write {write}"));
        if !killed {
            assert!(write > 20, "only {write} writes");
            return;
        }
        write += 1;
    }
}
