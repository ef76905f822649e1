//! What stands around a guest: its keeper, the sleep lock, services that step aside, and commands.

use std::fs;

use vfio_hook::ledger::LeaseState;
use vfio_hook::lifecycle::LifecycleError;

use crate::support::{Life, Machine, guest, life};

const LOCKED: &str = "block_sleep: {strength: mask, lid: ignore}\n";
const STOPPED: &str = "services: {stop: [ollama.service, backup.service]}\n";

fn one(yaml: &str) -> Life {
    life(guest(1, "2-3", ""), yaml)
}

fn other(yaml: &str) -> Life {
    life(guest(2, "4-5", ""), yaml)
}

fn state(machine: &Machine, unit: &str) -> String {
    machine.get(&format!("/simulated/systemd/{unit}/ActiveState"))
}

fn keeper(machine: &Machine, life: &Life) -> Option<serde_json::Value> {
    let text = fs::read(machine.path(&format!("/simulated/keepers/{}", life.guest.uuid))).ok()?;
    Some(serde_json::from_slice(&text).unwrap())
}

fn ran(machine: &Machine) -> Vec<String> {
    let log = fs::read_to_string(machine.path("/simulated_commands")).unwrap_or_default();
    log.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

#[test]
fn a_keeper_holds_the_lock_as_long_as_the_guest_lives() {
    let machine = Machine::new("two-nodes");
    let (before, life) = (machine.files(), one(LOCKED));
    machine.prepare(&life).unwrap();
    assert_eq!(keeper(&machine, &life).unwrap()["sleep_lock"], "sleep");
    let mask = fs::read_link(machine.path("/run/systemd/system/sleep.target")).unwrap();
    assert_eq!(mask.to_str(), Some("/dev/null"));
    assert!(machine.get("/run/systemd/logind.conf.d/50-vfio-hook.conf").contains("HandleLidSwitch=ignore"));
    machine.release(&life).unwrap();
    assert!(keeper(&machine, &life).is_none());
    assert!(fs::symlink_metadata(machine.path("/run/systemd/system/sleep.target")).is_err());
    machine.assert_is(&before, "released");
}

#[test]
fn masks_stay_until_the_last_guest_is_gone_and_those_of_the_administrator_after_it() {
    let machine = Machine::new("two-nodes");
    let folder = machine.path("/run/systemd/system");
    fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink("/dev/null", folder.join("hibernate.target")).unwrap();
    let (one, other) = (one(LOCKED), other(LOCKED));
    machine.prepare(&one).unwrap();
    machine.prepare(&other).unwrap();
    machine.release(&one).unwrap();
    assert!(folder.join("suspend.target").is_symlink());
    machine.release(&other).unwrap();
    assert!(!folder.join("suspend.target").is_symlink());
    assert!(folder.join("hibernate.target").is_symlink());
}

#[test]
fn a_sleep_under_way_refuses_the_start() {
    let machine = Machine::new("two-nodes");
    machine.set("/simulated/logind/PreparingForSleep", "yes");
    let before = machine.files();
    let error = machine.prepare(&one("block_sleep: {}\n")).unwrap_err();
    assert!(error.to_string().contains("the host is just going to sleep"), "{error}");
    machine.assert_is(&before, "refused");
}

#[test]
fn a_host_without_logind_is_only_warned_about() {
    let machine = Machine::new("no-systemd");
    let before = machine.files();
    let life = one(&format!("{LOCKED}{STOPPED}"));
    let notes: Vec<String> =
        machine.prepare(&life).unwrap().notes.into_iter().map(|note| note.text).collect();
    for part in
        ["neither logind nor elogind", "nothing to mask", "no systemd-logind", "no service is stopped"]
    {
        assert!(notes.iter().any(|note| note.contains(part)), "{part}: {notes:?}");
    }
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn a_lost_keeper_comes_back_with_the_next_event_and_holds_the_same() {
    let machine = Machine::new("two-nodes");
    let (before, life) = (machine.files(), one("block_sleep: {what: [sleep, shutdown]}\n"));
    machine.prepare(&life).unwrap();
    fs::remove_file(machine.path(&format!("/simulated/keepers/{}", life.guest.uuid))).unwrap();
    machine.started(&life).unwrap();
    assert_eq!(keeper(&machine, &life).unwrap()["sleep_lock"], "sleep:shutdown");
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn a_service_comes_back_once_with_the_last_guest_and_only_if_it_ran() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let (one, other) = (one(STOPPED), other(STOPPED));
    machine.prepare(&one).unwrap();
    machine.prepare(&other).unwrap();
    assert_eq!(state(&machine, "ollama.service"), "inactive");
    machine.release(&one).unwrap();
    assert_eq!(state(&machine, "ollama.service"), "inactive");
    let started = machine.release(&other).unwrap().changes;
    assert_eq!(started.iter().filter(|change| change.setting.to_string() == "ollama.service").count(), 1);
    assert!(started.iter().all(|change| change.setting.to_string() != "backup.service"));
    machine.assert_is(&before, "released");
}

#[test]
fn what_stops_with_a_service_and_what_would_start_it_steps_aside_too() {
    let machine = Machine::new("two-nodes");
    let (before, life) = (machine.files(), one("services: {stop: docker.service}\n"));
    let stopped: Vec<String> =
        machine.prepare(&life).unwrap().changes.iter().map(|change| change.setting.to_string()).collect();
    // The socket last, or it would not start again while its service runs.
    assert_eq!(stopped, ["keeper", "app.service", "docker.service", "docker.socket"]);
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn units_of_users_are_stopped_where_the_user_is_logged_in() {
    let machine = Machine::new("two-nodes");
    let yaml = "services: {stop: [{unit: player.service, user: alice}, {unit: player.service, user: bob}]}\n";
    let (before, life) = (machine.files(), one(yaml));
    let outcome = machine.prepare(&life).unwrap();
    assert_eq!(machine.get("/simulated/systemd-of-1000/player.service/ActiveState"), "inactive");
    assert!(
        outcome.notes.iter().any(|note| note.text.contains("bob is not logged in")),
        "{:?}",
        outcome.notes
    );
    machine.release(&life).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn a_service_that_a_person_starts_meanwhile_is_left_alone() {
    let machine = Machine::new("two-nodes");
    let (before, life) = (machine.files(), one("services: {stop: [backup.service, ollama.service]}\n"));
    machine.prepare(&life).unwrap();
    machine.set("/simulated/systemd/backup.service/ActiveState", "active");
    machine.release(&life).unwrap();
    assert_eq!(state(&machine, "backup.service"), "active");
    machine.set("/simulated/systemd/backup.service/ActiveState", "inactive");
    machine.assert_is(&before, "released");
}

#[test]
fn what_the_host_or_libvirt_needs_is_never_stopped() {
    let machine = Machine::new("two-nodes");
    let before = machine.files();
    let error = machine.prepare(&one("services:\n  stop:\n  - greeter.service\n")).unwrap_err().to_string();
    assert!(error.contains("libvirtd.service cannot be stopped, it stops with greeter.service"), "{error}");
    assert!(error.contains("yaml:3:"), "no place: {error}");
    machine.assert_is(&before, "refused");
}

/// A mount that is not in fstab, a service of a package that is not installed: there is nothing to stop.
#[test]
fn a_unit_that_is_not_there_is_stopped_already() {
    for (unit, note) in [
        ("games.mount", "this host has no unit games.mount: there is nothing to stop"),
        (
            "olama.service",
            "this host has no unit olama.service, so it is not stopped; did you mean ollama.service, which is there?",
        ),
    ] {
        let machine = Machine::with("two-nodes", "/usr/lib/systemd/system/ollama.service = \n");
        let (before, life) =
            (machine.files(), one(&format!("services: {{stop: [backup.service, {unit}]}}\n")));
        let outcome = machine.prepare(&life).unwrap();
        assert!(outcome.notes.iter().any(|told| told.text == note), "{:?}", outcome.notes);
        machine.release(&life).unwrap();
        machine.assert_is(&before, unit);
    }
}

const COMMANDS: &str = "\
run:
- {when: prepare, command: [/bin/sh, -c, first], on_failure: refuse}
- {when: prepare, command: [/bin/sh, -c, second]}
- {when: started, command: [/bin/sh, -c, up]}
- {when: stopped, command: [/bin/sh, -c, down]}
- {when: release, command: [/bin/sh, -c, last]}
";

#[test]
fn commands_run_once_each_at_their_event() {
    let machine = machine_with_shell();
    let (before, life) = (machine.files(), one(COMMANDS));
    machine.prepare(&life).unwrap();
    machine.started(&life).unwrap();
    machine.started(&life).unwrap();
    machine.stopped(&life).unwrap();
    machine.release(&life).unwrap();
    machine.release(&life).unwrap();
    let expected = [
        "prepare: /bin/sh -c first",
        "prepare: /bin/sh -c second",
        "started: /bin/sh -c up",
        "stopped: /bin/sh -c down",
        "release: /bin/sh -c last",
    ];
    assert_eq!(ran(&machine), expected);
    fs::remove_file(machine.path("/simulated_commands")).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn a_command_that_must_not_fail_refuses_the_start_and_what_was_begun_is_taken_back() {
    let machine = machine_with_shell();
    let (before, life) = (machine.files(), one(&format!("{COMMANDS}{STOPPED}")));
    fs::write(machine.path("/simulated_failing_command"), "-c first").unwrap();
    let error = machine.prepare(&life).unwrap_err();
    assert!(matches!(error, LifecycleError::Ledger(_)), "{error}");
    assert!(error.to_string().contains("/bin/sh -c first"), "{error}");
    // The second one never began, and what stands below it may be meant to take it back.
    assert_eq!(ran(&machine), ["prepare: /bin/sh -c first"]);
    for file in ["/simulated_failing_command", "/simulated_commands"] {
        fs::remove_file(machine.path(file)).unwrap();
    }
    machine.assert_is(&before, "refused");
}

#[test]
fn killed_anywhere_no_command_runs_twice_and_the_host_comes_back() {
    let yaml = format!("{COMMANDS}{STOPPED}{LOCKED}isolate_cpus: {{}}\n");
    let mut write = 1;
    loop {
        let machine = machine_with_shell();
        let (before, life) = (machine.files(), one(&yaml));
        machine.faults.panic_at_write(write);
        let killed = machine
            .until_killed(|| {
                machine.prepare(&life).unwrap();
                machine.started(&life).unwrap();
                machine.stopped(&life).unwrap();
                machine.release(&life).unwrap();
            })
            .is_err();
        machine.open_and_close();
        if let Some(record) = machine.record() {
            assert!(record.leases.values().all(|lease| !matches!(lease.phase, LeaseState::GivingBack(_))));
            machine.release(&life).unwrap();
        }
        let mut once = ran(&machine);
        let all = once.len();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), all, "write {write}: {:?}", ran(&machine));
        let _ = fs::remove_file(machine.path("/simulated_commands"));
        machine.assert_is(&before, &format!("killed at write {write}"));
        if !killed {
            assert!(write > 30, "only {write} writes");
            return;
        }
        write += 1;
    }
}

/// The programs of commands are looked at before anything is changed.
fn machine_with_shell() -> Machine {
    let machine = Machine::new("two-nodes");
    let shell = machine.path("/bin/sh");
    fs::create_dir_all(shell.parent().unwrap()).unwrap();
    fs::write(&shell, "").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&shell, mode).unwrap();
    machine
}
