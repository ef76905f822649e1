//! The section `services`.

use super::*;
use crate::unit_file_name::UnitFileName;

pub(super) fn unit(name: &str) -> StoppedUnit {
    StoppedUnit { unit: UnitFileName::new(name).unwrap(), user: None }
}

pub(super) fn unit_of(user: &str, name: &str) -> StoppedUnit {
    StoppedUnit { user: Some(UserName::new(user).unwrap()), ..unit(name) }
}

fn stop(text: &str) -> Vec<StoppedUnit> {
    parse(&format!("services: {{stop: {text}}}")).unwrap().services.unwrap().stop
}

#[test]
fn one_name_or_a_list_says_what_is_stopped() {
    assert_eq!(stop("ollama.service"), [unit("ollama.service")]);
    assert_eq!(stop("{unit: a.timer, user: anna}"), [unit_of("anna", "a.timer")]);
    assert_eq!(stop("[b.service, a.socket]"), [unit("b.service"), unit("a.socket")]);
    let services = parse("services: {stop: a.service}").unwrap().services.unwrap();
    assert_eq!(services.timeout, Duration::from_secs(20));
}

#[test]
fn users_have_units_of_the_same_name() {
    let text = "[a.service, {unit: a.service, user: anna}, {unit: a.service, user: bert}]";
    assert_eq!(stop(text), [unit("a.service"), unit_of("anna", "a.service"), unit_of("bert", "a.service")]);
    assert_eq!(
        mistakes(
            "services:\n  stop: [a.service, a.service, {user: anna, unit: a.service}, {unit: a.service, user: anna}]"
        ),
        [
            "2:21: `services.stop`: `a.service` stands here for the second time (keep one of the two)",
            "2:70: `services.stop.unit`: `a.service` stands here for the second time (keep one of the two)",
        ]
    );
}

#[test]
fn says_what_is_wrong_and_where() {
    assert_eq!(
        mistakes(
            "\
services:
  stop:
    - ollama
    - 5
    - user.slice
    - getty@.service
    - vm-*
    - /etc/systemd/system/a.service
    - {user: anna}
    - unit: a.servise
      user: 1000
    - {unit: a.service, users: anna}
    - {unit: , user: \"an na\"}
  timeout: 1min
  starts: []
"
        ),
        [
            "3:7: `services.stop`: `ollama` does not end with a unit's type (did you mean `ollama.service`?)",
            "4:7: `services.stop`: expected a unit's name, found the number 5 (for example `ollama.service`)",
            "5:7: `services.stop`: a slice is neither stopped nor started for a guest (name units of the types service, \
             socket, timer, path, target, mount, automount, swap)",
            "6:7: `services.stop`: `getty@.service` is a template, not a unit (name an instance: for example \
             `getty@tty1.service`)",
            "7:7: `services.stop`: a unit's name has no `*` in it (name each unit: patterns are not read)",
            "8:7: `services.stop`: a unit's name has no `/` in it (name the unit, not its file: for example \
             `ollama.service`)",
            "9:7: `services.stop.unit` is missing (name the unit: `unit: pipewire.service`)",
            "10:13: `services.stop.unit`: `a.servise` does not end with a unit's type (did you mean `a.service`?)",
            "11:13: `services.stop.user`: expected a user's name, found the number 1000",
            "12:25: unknown key `users` in `services.stop` (did you mean `user`? allowed here: `unit` or `user`)",
            "13:8: `services.stop.unit` has no value (write one after the colon, or remove the key)",
            "13:22: `services.stop.user`: expected a user's name, found `an na` (a name has letters, digits, `_`, `-` \
             and `.`, starts with a letter or `_`, and has at most 32 of them)",
            "14:12: `services.timeout`: not between 1s and 50s (libvirt waits meanwhile, and `prepare` has 60 s in all; \
             without a timeout it is 20s)",
            "15:3: unknown key `starts` in `services` (did you mean `start`? allowed here: `stop`, `start` or `timeout`)",
        ]
    );
}

#[test]
fn stops_something() {
    for text in ["services:\n", "services: {}\n", "services: {timeout: 5s}\n"] {
        assert_eq!(
            mistakes(text),
            ["1:1: `services`: has no effect: it names nothing to stop or to start (add units, for example \
                 `stop: [ollama.service]`, or remove the section)"]
        );
    }
    assert_eq!(
        mistakes("services: {stop: []}"),
        ["1:18: `services.stop`: stops nothing: the list is empty (fill it, or remove the key)"]
    );
}

#[test]
fn help_never_suggests_another_mistake() {
    for name in ["getty@", ".", "...", "@", "a@.srvice", &"x".repeat(250)] {
        let mistakes = mistakes(&format!("services: {{stop: \"{name}\"}}"));
        assert!(!mistakes[0].contains("did you mean"), "{mistakes:?}");
    }
}

#[test]
fn units_that_run_for_the_guest_are_named_like_those_that_are_stopped() {
    let services = parse("services: {start: [evsieve@win11.service, {unit: a.service, user: anna}]}");
    let services = services.unwrap().services.unwrap();
    let started = |unit: StoppedUnit| StartedUnit::from(unit);
    assert_eq!(services.stop, []);
    assert_eq!(
        services.start,
        [started(unit("evsieve@win11.service")), started(unit_of("anna", "a.service"))]
    );
    assert_eq!(
        mistakes("services: {stop: [a.service], start: [b.service, a.service, b.service, b.slice]}\n"),
        [
            "1:50: `services.start`: `a.service` stands in `services.stop` too (keep one of the two)",
            "1:61: `services.start`: `b.service` stands here for the second time (keep one of the two)",
            "1:72: `services.start`: a slice is neither stopped nor started for a guest (name units of the types \
             service, socket, timer, path, target, mount, automount, swap)",
        ]
    );
    assert_eq!(
        mistakes("services: {start: []}"),
        ["1:19: `services.start`: starts nothing: the list is empty (fill it, or remove the key)"]
    );
}
