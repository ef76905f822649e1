//! Programs of the host that use the card.

use std::fs;

use vfio_hook::host::manifest;

use super::{HOST_DRIVERS, ON_VFIO, gamer, machine_with, process};
use crate::support::Machine;

const OLLAMA: &str = "/system.slice/ollama.service";

fn machine() -> Machine {
    machine_with(&process(901, "ollama", OLLAMA, "/dev/dri/card1"))
}

#[test]
fn who_uses_the_card_is_named_and_nothing_is_touched() {
    let machine = machine_with(&format!(
        "{}{}{}",
        process(901, "ollama", OLLAMA, "/dev/dri/card1"),
        process(902, "firefox", "/user.slice/user-1000.slice/session-2.scope", "/dev/dri/card1"),
        process(903, "cat", OLLAMA, "/dev/null"),
    ));
    let before = machine.files();
    insta::assert_snapshot!("in_use", machine.prepare(&gamer("gpu: {}")).unwrap_err().to_string());
    machine.assert_is(&before, "refused");
    machine.release(&gamer("gpu: {}")).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn units_that_use_the_card_are_stopped_and_started_again() {
    let machine = machine();
    let before = machine.files();
    let life = gamer("gpu: {holders: {stop: [ollama.service]}}");
    machine.prepare(&life).unwrap();
    assert_eq!(machine.get("/simulated/systemd/ollama.service/ActiveState"), "inactive");
    assert_eq!(machine.drivers(), ON_VFIO);
    let outcome = machine.release(&life).unwrap();
    let order: Vec<String> = outcome.changes.iter().map(|change| change.setting.to_string()).collect();
    let at = |name: &str| {
        order.iter().position(|setting| setting == name).unwrap_or_else(|| panic!("{name}: {order:?}"))
    };
    assert!(at("driver of 0000:03:00.{0,1,2,3}") < at("ollama.service"), "{order:?}");
    machine.assert_is(&before, "released");
}

#[test]
fn one_that_lets_go_in_time_is_waited_for() {
    let machine = machine();
    let before = machine.files();
    let life = gamer("gpu: {holders: {wait: 10s}}");
    // It ends once the ledger is written: the guest's plan is made by then.
    let (from, to) = (machine.path("/proc/901"), machine.path("/simulated/901"));
    machine.faults.interrupt(machine.path(&format!("/simulated/keepers/{}", life.guest.uuid)), move || {
        fs::rename(from, to).unwrap();
    });
    let outcome = machine.prepare(&life).unwrap();
    let waited =
        "users of 0000:03:00.{0,1,2,3}: ollama (process 901, ollama.service) has /dev/dri/card1 open -> none";
    assert!(outcome.changes.iter().any(|change| change.to_string() == waited), "{outcome:?}");
    assert_eq!(machine.drivers(), ON_VFIO);
    machine.release(&life).unwrap();
    fs::rename(machine.path("/simulated/901"), machine.path("/proc/901")).unwrap();
    machine.assert_is(&before, "released");
}

#[test]
fn one_that_does_not_let_go_in_time_refuses_the_start() {
    let machine = machine();
    let before = machine.files();
    let refused = machine.prepare(&gamer("gpu: {holders: {wait: 1s}}")).unwrap_err();
    let error = refused.to_string();
    assert!(error.contains("ollama (process 901, ollama.service) has /dev/dri/card1 open"), "{error}");
    assert_eq!(
        refused.help().unwrap(),
        "end these programs, or have their units stopped first; `gpu.holders.wait` gives it more time; `gpu.holders` of the YAML file asks \
         for it"
    );
    assert_eq!(machine.drivers(), HOST_DRIVERS);
    machine.assert_is(&before, "refused");
}

/// logind keeps a card open for a session, and systemd for logind: where nobody ends the session, nobody lets go.
#[test]
fn brokers_are_holders_where_nobody_ends_what_they_broke_for() {
    let machine = machine_with(&format!(
        "{}{}",
        process(1, "systemd", "/init.scope", "/dev/dri/card1"),
        process(700, "systemd-logind", "/system.slice/systemd-logind.service", "/dev/dri/card1"),
    ));
    let before = machine.files();
    let error = machine.prepare(&gamer("gpu: {}")).unwrap_err();
    assert!(matches!(error, vfio_hook::lifecycle::LifecycleError::Refused(_)), "{error}");
    assert!(error.to_string().contains("systemd-logind (process 700, systemd-logind.service)"), "{error}");
    machine.assert_is(&before, "refused");
}

/// Commands of the guest's may take their time, and another user's program does not wait for them.
#[test]
fn one_that_comes_while_the_start_goes_on_refuses_it() {
    let machine = machine_with("");
    let before = machine.files();
    let life = gamer("gpu: {}\nservices: {stop: ollama.service}\n");
    let (blender, root) = (process(905, "blender", "/user.slice", "/dev/dri/card1"), machine.root());
    machine.faults.interrupt("/simulated/systemd/ollama.service/ActiveState", move || {
        manifest::lay_out(&blender, &root).unwrap();
    });
    let error = machine.prepare(&life).unwrap_err().to_string();
    let words = "0000:03:00.0, 0000:03:00.1, 0000:03:00.2, 0000:03:00.3 still in use: blender (process 905)";
    assert!(error.contains(words), "{error}");
    assert_eq!(machine.drivers(), HOST_DRIVERS);
    fs::remove_dir_all(machine.path("/proc/905")).unwrap();
    machine.assert_is(&before, "refused");
}
