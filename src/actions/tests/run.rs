//! The section `run`.

use super::*;

fn entries(text: &str) -> Vec<RunEntry> {
    parse(&format!("run: {text}")).unwrap().run.unwrap().entries
}

fn command(text: &str) -> RunCommand {
    match entries(text).as_slice() {
        [RunEntry::Command(command)] => command.clone(),
        other => panic!("no single command: {other:?}"),
    }
}

#[test]
fn one_entry_or_a_list_says_what_runs() {
    let scripts = |seconds| {
        let timeout = Duration::from_secs(seconds);
        RunEntry::Scripts(RunScripts { directory: "/etc/libvirt/hooks/qemu.d".into(), timeout })
    };
    assert_eq!(entries("{scripts: /etc/libvirt/hooks/qemu.d}"), [scripts(30)]);
    assert_eq!(entries("[{scripts: /etc/libvirt/hooks/qemu.d, timeout: 50s}]"), [scripts(50)]);
    let short = command("{when: stopped, command: [/bin/true]}");
    assert_eq!(
        short,
        RunCommand {
            when: RunWhen::Stopped,
            command: vec!["/bin/true".to_owned()],
            undo: None,
            timeout: Duration::from_secs(10),
            background: Toggle::Off,
            env: [].into(),
            unless_exists: None,
            user: None,
            on_failure: OnFailure::Warn,
        }
    );
    assert_eq!(command("[{command: [/bin/true], when: stopped}]"), short);
}

#[test]
fn events_are_those_of_libvirt() {
    for word in ["prepare", "start", "started", "stopped", "release"] {
        assert_eq!(command(&format!("{{when: {word}, command: [/bin/true]}}")).when.as_str(), word);
    }
}

#[test]
fn arguments_are_text_as_it_stands() {
    let command = command("{when: started, command: [/x, 5, -1, true, '', \"a  b\", 5$, a~, \"\\n\"]}");
    assert_eq!(command.command, ["/x", "5", "-1", "true", "", "a  b", "5$", "a~", "\n"]);
}

#[test]
fn only_what_the_guest_waits_for_is_short() {
    for (when, timeout, good) in [
        ("prepare", "50s", true),
        ("prepare", "51s", false),
        ("start", "50s", true),
        ("start", "51s", false),
        ("started", "10min", true),
        ("release", "601s", false),
        ("stopped", "999ms", false),
    ] {
        let text = format!("run: {{when: {when}, command: [/bin/true], timeout: {timeout}}}");
        assert_eq!(parse(&text).is_ok(), good, "{text}");
    }
    assert!(parse("run: {scripts: /x, timeout: 51s}").is_err());
}

#[test]
fn says_what_is_wrong_with_a_command_and_where() {
    assert_eq!(
        mistakes(
            "\
run:
  - command: [logger, up]
    when: starting
  - when: started
    command: /usr/bin/logger up
  - when: stopped
    on_failure: refuse
    timeout: 20min
  - {when: prepare, command: []}
  - when: release
    command:
      - /bin/true
      - 1.5
      -
      - [a]
      - \"a\\0b\"
    user: \"0\"
    shell: true
  - logger
  - {}
"
        ),
        [
            "2:15: `run.command`: expected the absolute path of a program, found `logger` (`command -v logger` shows \
             where a program is: for example `/usr/bin/logger`)",
            "3:11: `run.when`: expected `prepare`, `start`, `started`, `stopped` or `release`, found `starting`",
            "5:14: `run.command`: expected a list of a program and its arguments, found `/usr/bin/logger up` (write \
             `[/usr/bin/logger, up]`)",
            "6:5: `run.command` is missing (say what runs: `command: [/usr/bin/logger, \"the guest runs\"]`)",
            "7:17: `run.on_failure`: `refuse` has no effect with `when: stopped`: the guest has started (write \
             `on_failure: warn`, or `when: prepare`)",
            "8:14: `run.timeout`: not between 1s and 10min (what runs for longer is better a service, which the \
             command starts; without a timeout it is 10s)",
            "9:30: `run.command`: runs nothing: the list is empty (fill it, or remove the key)",
            "13:9: `run.command`: expected an argument, found the number 1.5 (put quotes around it if it is a text)",
            "14:8: `run.command`: expected an argument, found nothing (put quotes around it if it is a text)",
            "15:9: `run.command`: expected an argument, found a list (put quotes around it if it is a text)",
            "16:9: `run.command`: `a\\u{0}b` holds a NUL, which no program can be given (remove the `\\0`)",
            "17:11: `run.user`: expected a user's name, found `0` (a name has letters, digits, `_`, `-` and `.`, starts \
             with a letter or `_`, and has at most 32 of them)",
            "18:5: unknown key `shell` in `run` (there is no shell: `command: [/usr/bin/logger, \"the guest runs\"]`, or \
             `command: [/bin/sh, -c, \"...\"]`; a folder of scripts is `scripts`)",
            "19:5: `run`: expected keys and values, found `logger` (for example \
             `{when: started, command: [/usr/bin/logger, hello]}`)",
            "20:5: `run.when` is missing (say when it runs: `prepare`, `start`, `started`, `stopped` or `release`)",
            "20:5: `run.command` is missing (say what runs: `command: [/usr/bin/logger, \"the guest runs\"]`)",
        ]
    );
}

#[test]
fn says_what_is_wrong_with_scripts_and_where() {
    assert_eq!(
        mistakes("run:\n  scripts: qemu.d\n  when: started\n  timeout: 30\n  users: anna\n"),
        [
            "2:12: `run.scripts`: expected the absolute path of a folder, found `qemu.d` (for example \
             `/etc/libvirt/hooks/qemu.d`)",
            "3:3: `run.when` does not go with `scripts` (give the command an entry of its own)",
            "4:12: `run.timeout`: 30 has no unit (add a unit: for example `30s`)",
            "5:3: unknown key `users` in `run` (allowed here: `scripts` or `timeout`)",
        ]
    );
    assert_eq!(
        mistakes("run: {scripts: }"),
        ["1:7: `run.scripts` has no value (write one after the colon, or remove the key)"]
    );
}

#[test]
fn runs_something() {
    assert_eq!(
        mistakes("run: []"),
        ["1:6: `run`: runs nothing: the list is empty (fill it, or remove the key)"]
    );
    assert_eq!(
        mistakes("run:\n"),
        ["1:1: `run` has no value (write one after the colon, or remove the key)"]
    );
    assert!(mistakes("run: {}")[0].starts_with("1:6: `run.when` is missing"));
}

#[test]
fn a_command_has_what_takes_it_back_variables_and_a_place_in_the_background() {
    let text = "{when: start, command: [/bin/a], undo: [/bin/b, 1], env: {A_1: \"5\", _B: \"\"}, background: true, \
                timeout: 10min, unless_exists: /.vmdebug}";
    let command = command(text);
    assert_eq!(command.when, RunWhen::Start);
    assert_eq!(command.undo, Some(vec!["/bin/b".to_owned(), "1".to_owned()]));
    assert_eq!(command.env, [("A_1".to_owned(), "5".to_owned()), ("_B".to_owned(), String::new())].into());
    assert!(command.background.is_on());
    assert_eq!(command.timeout, Duration::from_secs(600), "the guest does not wait for it");
    assert_eq!(command.unless_exists, Some("/.vmdebug".into()));
}

#[test]
fn says_what_is_wrong_with_variables_and_with_what_has_no_effect() {
    assert_eq!(
        mistakes(
            "\
run:
  - when: release
    command: [/bin/true]
    undo: [/bin/true]
    background: true
  - when: prepare
    command: [/bin/true]
    undo: []
    on_failure: refuse
    background: true
    unless_exists: vmdebug
    env:
      VFIO_HOOK_GUEST: \"x\"
      LD_PRELOAD: /tmp/x.so
      a-b: \"1\"
      1A: \"1\"
      COUNT: 1
      ON: true
      NUL: \"a\\0b\"
  - {when: started, command: [/bin/true], env: {}, undo: /bin/true}
"
        ),
        [
            "4:11: `run.undo`: has no effect with `when: release`: the guest has ended (remove it, or run the command \
             earlier)",
            "5:17: `run.background`: has no effect with `when: release`: the guest has ended (remove it, or run the \
             command earlier)",
            "8:11: `run.undo`: runs nothing: the list is empty (fill it, or remove the key)",
            "9:17: `run.on_failure`: `refuse` has no effect with `background: true`: nothing waits for its end (write \
             `on_failure: warn`, or remove `background`)",
            "11:20: `run.unless_exists`: expected the absolute path of a file, found `vmdebug` (for example \
             `/.no-hooks`)",
            "13:7: `run.env`: `VFIO_HOOK_GUEST` cannot be set (remove it: vfio-hook sets those itself)",
            "14:7: `run.env`: `LD_PRELOAD` cannot be set (remove it: the loader would run what it names, as root)",
            "15:7: `run.env`: expected a variable's name, found `a-b` (a name has letters, digits and `_`, no digit \
             first, and at most 100 of them)",
            "16:7: `run.env`: expected a variable's name, found `1A` (a name has letters, digits and `_`, no digit \
             first, and at most 100 of them)",
            "17:14: `run.env.COUNT`: expected a text, found the number 1 (put quotes around it)",
            "18:11: `run.env.ON`: expected a text, found `true` (put quotes around it)",
            "19:12: `run.env.NUL`: `a\\u{0}b` holds a NUL, which no program can be given (remove the `\\0`)",
            "20:48: `run.env`: sets nothing (fill it, for example `env: {DISPLAY: \":0\"}`, or remove the key)",
            "20:58: `run.undo`: expected a list of a program and its arguments, found `/bin/true` (write `[/bin/true]`)",
        ]
    );
    assert_eq!(
        mistakes("run: {scripts: /x, undo: [/bin/true], background: true}"),
        [
            "1:20: `run.undo` does not go with `scripts` (give the command an entry of its own)",
            "1:39: `run.background` does not go with `scripts` (give the command an entry of its own)",
        ]
    );
}
