//! Commands with something that takes them back: in each way a guest ends, and killed in between.

use std::fs;

use vfio_hook::event::Operation;
use vfio_hook::ledger::LeaseState;
use vfio_hook::lifecycle::{self, LifecycleError};

use crate::support::{Life, Machine, guest, life, soon};

const LOG: &str = "/simulated_commands";
const FAILING: &str = "/simulated_failing_command";

/// What ends a guest's life.
type End = fn(&Machine, &Life);

/// Four commands, three of which something takes back.
const COMMANDS: &str = "\
run:
- {when: prepare, command: [/bin/sh, -c, one], undo: [/bin/sh, -c, not one], on_failure: refuse}
- {when: release, command: [/bin/sh, -c, after one]}
- {when: prepare, command: [/bin/sh, -c, two], on_failure: refuse}
- {when: prepare, command: [/bin/sh, -c, three], undo: [/bin/sh, -c, not three], on_failure: refuse}
- {when: start, command: [/bin/sh, -c, four], undo: [/bin/sh, -c, not four], on_failure: refuse}
- {when: release, command: [/bin/sh, -c, after all]}
";

/// What is around them.
const AROUND: &str = "services: {stop: [ollama.service], start: [evsieve@win11.service]}\nisolate_cpus: {}\n";

fn one(yaml: &str) -> Life {
    life(guest(1, "2-3", ""), yaml)
}

fn two(yaml: &str) -> Life {
    life(guest(2, "4-5", ""), yaml)
}

/// The programs of commands are looked at before anything is changed.
fn machine() -> Machine {
    let machine = Machine::new("two-nodes");
    let shell = machine.path("/bin/sh");
    fs::create_dir_all(shell.parent().unwrap()).unwrap();
    fs::write(&shell, "").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&shell, mode).unwrap();
    machine
}

/// What was run, without the program.
fn ran(machine: &Machine) -> Vec<String> {
    let log = fs::read_to_string(machine.path(LOG)).unwrap_or_default();
    log.lines().map(|line| line.split_once("-c ").unwrap().1.to_owned()).collect()
}

fn ran_for(machine: &Machine, life: &Life) -> Vec<String> {
    let log = fs::read_to_string(machine.path(LOG)).unwrap_or_default();
    let uuid = life.guest.uuid.to_string();
    let lines = log.lines().filter(|line| line.starts_with(&uuid));
    lines.map(|line| line.split_once("-c ").unwrap().1.to_owned()).collect()
}

fn forget_log(machine: &Machine) {
    for file in [LOG, FAILING] {
        let _ = fs::remove_file(machine.path(file));
    }
}

#[test]
fn what_takes_commands_back_runs_at_the_end_in_reverse_order() {
    let machine = machine();
    let (before, life) = (machine.files(), one(&format!("{COMMANDS}{AROUND}")));
    machine.prepare(&life).unwrap();
    machine.start(&life).unwrap();
    machine.started(&life).unwrap();
    machine.stopped(&life).unwrap();
    machine.release(&life).unwrap();
    machine.release(&life).unwrap();
    let expected =
        ["one", "two", "three", "four", "after one", "after all", "not four", "not three", "not one"];
    assert_eq!(ran(&machine), expected);
    forget_log(&machine);
    machine.assert_is(&before, "released");
}

/// libvirt may fail between `prepare` and `start`; a keeper or a person may end what libvirt does not.
#[test]
fn each_way_a_guest_ends_takes_back_what_began_and_no_more() {
    let ends: [(&str, End); 4] = [
        ("libvirt releases it", |machine, life| drop(machine.release(life).unwrap())),
        ("the keeper finishes", |machine, life| {
            let uuid = life.guest.uuid;
            lifecycle::finish(&mut machine.host(), uuid, "unknown", None, soon()).unwrap();
        }),
        ("it is started again", |machine, life| {
            drop(machine.prepare(&one("block_sleep: {}\n")).unwrap());
            drop(machine.release(life).unwrap());
        }),
        ("its file is gone when it is started again", |machine, life| {
            lifecycle::prepare(&mut machine.host(), None, &life.guest, b"", soon()).unwrap();
        }),
    ];
    for (name, end) in ends {
        let machine = machine();
        let (before, life) = (machine.files(), one(COMMANDS));
        machine.prepare(&life).unwrap();
        end(&machine, &life);
        let expected = ["one", "two", "three", "after one", "after all", "not three", "not one"];
        assert_eq!(ran(&machine), expected, "{name}");
        forget_log(&machine);
        machine.assert_is(&before, name);
    }
}

#[test]
fn a_prepare_that_fails_at_any_command_takes_back_exactly_those_that_began() {
    for (failing, expected) in [
        ("one", &["one", "after one", "not one"][..]),
        ("two", &["one", "two", "after one", "not one"]),
        ("three", &["one", "two", "three", "after one", "after all", "not three", "not one"]),
    ] {
        let machine = machine();
        let (before, life) = (machine.files(), one(&format!("{COMMANDS}{AROUND}")));
        fs::write(machine.path(FAILING), format!("-c {failing}")).unwrap();
        let error = machine.prepare(&life).unwrap_err();
        assert!(matches!(error, LifecycleError::Ledger(_)), "{error}");
        let line = COMMANDS.lines().position(|line| line.contains(&format!("-c, {failing}]"))).unwrap();
        let place = format!("/etc/vfio-hook/hooks.d/guest.yaml:{}:3: /bin/sh -c {failing}", line + 1);
        assert!(error.to_string().starts_with(&place), "{error}");
        assert_eq!(ran(&machine), expected, "{failing}");
        forget_log(&machine);
        machine.assert_is(&before, failing);
    }
}

#[test]
fn a_start_that_fails_takes_back_all() {
    let machine = machine();
    let (before, life) = (machine.files(), one(COMMANDS));
    machine.prepare(&life).unwrap();
    fs::write(machine.path(FAILING), "-c four").unwrap();
    machine.start(&life).unwrap_err();
    machine.release(&life).unwrap();
    let expected =
        ["one", "two", "three", "four", "after one", "after all", "not four", "not three", "not one"];
    assert_eq!(ran(&machine), expected);
    forget_log(&machine);
    machine.assert_is(&before, "released");
}

#[test]
fn a_prepare_that_fails_before_or_after_its_commands() {
    // A unit that cannot be started is there before the commands.
    let failing = machine();
    fs::write(failing.path("/simulated/systemd/evsieve@win11.service/starts_as"), "failed\n").unwrap();
    failing.prepare(&one(&format!("{COMMANDS}{AROUND}"))).unwrap_err();
    assert_eq!(ran(&failing), [""; 0], "none was begun");
    // Pages that are not there come after them.
    let machine = machine();
    let before = machine.files();
    let memory = crate::support::pages(7000);
    let yaml = format!("{COMMANDS}hugepages: {{timeout: 1s}}\n");
    machine.prepare(&life(guest(1, "2-3", &memory), &yaml)).unwrap_err();
    let expected = ["one", "two", "three", "after one", "after all", "not three", "not one"];
    let ran = ran(&machine);
    assert!(ran.is_empty() || ran == expected, "{ran:?}");
    forget_log(&machine);
    machine.assert_is(&before, "no pages");
}

#[test]
fn a_command_that_fails_without_refusing_may_have_begun() {
    let machine = machine();
    let (before, life) = (machine.files(), one(&COMMANDS.replace("refuse", "warn")));
    fs::write(machine.path(FAILING), "-c one").unwrap();
    let outcome = machine.prepare(&life).unwrap();
    let place = "/etc/vfio-hook/hooks.d/guest.yaml:2:3: /bin/sh -c one (prepare) ended with exit status 1";
    assert!(outcome.notes.iter().any(|note| note.text == place), "{:?}", outcome.notes);
    machine.release(&life).unwrap();
    assert_eq!(ran(&machine).last().unwrap(), "not one");
    forget_log(&machine);
    machine.assert_is(&before, "released");
}

#[test]
fn a_file_that_is_there_skips_a_command_and_what_takes_it_back() {
    let yaml = "\
run:
- {when: prepare, command: [/bin/sh, -c, one], undo: [/bin/sh, -c, not one], unless_exists: /.vmdebug}
- {when: prepare, command: [/bin/sh, -c, two], undo: [/bin/sh, -c, not two], unless_exists: /none}
- {when: started, command: [/bin/sh, -c, three], unless_exists: /bin}
- {when: release, command: [/bin/sh, -c, after all]}
";
    let machine = machine();
    fs::write(machine.path("/.vmdebug"), "").unwrap();
    let (before, life) = (machine.files(), one(yaml));
    let notes: Vec<String> =
        machine.prepare(&life).unwrap().notes.into_iter().map(|note| note.text).collect();
    let said = "/etc/vfio-hook/hooks.d/guest.yaml:2:3: /bin/sh -c one (prepare) is skipped: /.vmdebug exists";
    assert!(notes.iter().any(|note| note == said), "{notes:?}");
    assert!(machine.started(&life).unwrap().iter().any(|note| note.text.ends_with("skipped: /bin exists")));
    machine.release(&life).unwrap();
    assert_eq!(ran(&machine), ["two", "after all", "not two"]);
    forget_log(&machine);
    machine.assert_is(&before, "released");
}

/// What the keeper runs by itself is due only once it says that it begins.
#[test]
fn what_the_keeper_never_came_to_is_not_taken_back() {
    use vfio_hook::ledger::CommandNews;
    let yaml = "\
run:
- {when: started, command: [/bin/sh, -c, one], undo: [/bin/sh, -c, not one]}
- {when: started, command: [/bin/sh, -c, two], undo: [/bin/sh, -c, not two]}
- {when: started, command: [/bin/sh, -c, three], undo: [/bin/sh, -c, not three]}
";
    let machine = machine();
    let (before, life) = (machine.files(), one(yaml));
    machine.prepare(&life).unwrap();
    machine.started(&life).unwrap();
    let note = |entry, news| {
        lifecycle::note_command(&mut machine.host(), life.guest.uuid, entry, news, soon()).unwrap()
    };
    assert!(note(0, CommandNews::Begins));
    assert!(note(1, CommandNews::Begins));
    note(1, CommandNews::NeverBegan);
    assert!(!note(7, CommandNews::Begins));
    machine.release(&life).unwrap();
    assert_eq!(ran(&machine), ["one", "two", "three", "not one"]);
    assert!(!note(0, CommandNews::Begins), "the guest is gone");
    forget_log(&machine);
    machine.assert_is(&before, "released");
}

#[test]
fn two_guests_take_back_their_own_commands() {
    let machine = machine();
    let before = machine.files();
    let (one, two) = (one(&format!("{COMMANDS}{AROUND}")), two(&format!("{COMMANDS}{AROUND}")));
    machine.prepare(&one).unwrap();
    machine.prepare(&two).unwrap();
    machine.release(&one).unwrap();
    let expected = ["one", "two", "three", "after one", "after all", "not three", "not one"];
    assert_eq!(ran_for(&machine, &one), expected);
    assert_eq!(ran_for(&machine, &two), expected[..3]);
    machine.release(&two).unwrap();
    assert_eq!(ran_for(&machine, &two), expected);
    forget_log(&machine);
    machine.assert_is(&before, "released");
}

/// Killed at every write, and between a command and the ledger: each command runs once at most; what takes one back
/// runs if the command ran, perhaps twice, and in reverse order.
#[test]
fn killed_anywhere_what_began_is_taken_back() {
    // What else is taken and given back has tests of its own.
    let yaml = format!("{COMMANDS}services: {{start: [evsieve@win11.service]}}\n");
    let mut write = 1;
    loop {
        let machine = machine();
        let (before, life, other) = (machine.files(), one(&yaml), two(&yaml));
        machine.faults.panic_at_write(write);
        let killed = machine
            .until_killed(|| {
                machine.prepare(&other).unwrap();
                machine.prepare(&life).unwrap();
                machine.start(&life).unwrap();
                machine.started(&life).unwrap();
                machine.stopped(&life).unwrap();
                machine.release(&life).unwrap();
                machine.release(&other).unwrap();
            })
            .is_err();
        machine.open_and_close();
        for life in [&life, &other] {
            machine.keeper_finishes(life);
            if let Some(record) = machine.record() {
                assert!(record.leases.values().all(|lease| !matches!(lease.phase, LeaseState::Preparing(_))));
                machine.release(life).unwrap();
            }
            assert_taken_back(&ran_for(&machine, life), write);
        }
        forget_log(&machine);
        machine.assert_is(&before, &format!("killed at write {write}"));
        if !killed {
            assert!(write > 30, "only {write} writes");
            return;
        }
        write += 1;
    }
}

#[track_caller]
fn assert_taken_back(ran: &[String], write: usize) {
    let (undos, commands): (Vec<&String>, Vec<&String>) =
        ran.iter().partition(|word| word.starts_with("not "));
    let mut once = commands.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), commands.len(), "write {write}: {ran:?}");
    let number = |undo: &&String| commands.iter().position(|command| undo[4..] == ***command);
    for (word, command) in [("not one", "one"), ("not three", "three"), ("not four", "four")] {
        let began = commands.iter().any(|other| *other == command);
        let is_undone = undos.iter().any(|undo| *undo == word);
        // A kill between the ledger and the command leaves one that may have begun.
        assert!(is_undone || !began, "write {write}: {word} is missing: {ran:?}");
    }
    let order: Vec<usize> = undos.iter().filter_map(number).collect();
    assert!(order.is_sorted_by(|left, right| left >= right), "write {write}: {ran:?}");
}

/// Without a keeper nothing can be run: what is due stays, is said, and is run when there is one.
#[test]
fn what_cannot_be_taken_back_now_is_taken_back_later() {
    let machine = machine();
    let (before, life) = (machine.files(), one(COMMANDS));
    machine.prepare(&life).unwrap();
    let keeper = format!("/simulated/keepers/{}", life.guest.uuid);
    fs::remove_file(machine.path(&keeper)).unwrap();
    machine.faults.refuse(machine.path(&keeper), nix::errno::Errno::EAGAIN);
    let outcome = machine.release(&life).unwrap();
    assert!(outcome.failures.iter().any(|failure| failure.contains("was not run")), "{:?}", outcome.failures);
    assert_eq!(machine.record().unwrap().leases[&life.guest.uuid].phase, LeaseState::Unfinished);
    machine.faults.clear();
    machine.release(&life).unwrap();
    assert_eq!(ran(&machine)[3..], ["not three", "not one"]);
    forget_log(&machine);
    machine.assert_is(&before, "released later");
}

#[test]
fn what_is_shown_before_a_start_has_all_of_it() {
    let machine = machine();
    let life = one(COMMANDS);
    let record = vfio_hook::ledger::Record::empty("boot".to_owned());
    let plan =
        lifecycle::plan_prepare(&machine.host(), &record, &life.loaded, &life.guest, soon()).unwrap().plan;
    let commands = plan.commands(life.guest.uuid).unwrap();
    let lines: Vec<String> = commands.at(Operation::Prepare).map(|command| command.describe()).collect();
    assert_eq!(lines[0], "/bin/sh -c one; undo: /bin/sh -c not one");
    assert_eq!(lines[1], "/bin/sh -c two");
}
