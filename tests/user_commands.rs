//! A user's commands, with real processes: they end in time, take what they started along, and never block.

use std::ffi::OsString;
use std::fs;
use std::io::{Write, pipe};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::unistd::{Pid, geteuid};
use vfio_hook::deadline::Deadline;
use vfio_hook::host::{CommandEnd, CommandLine, Host, User};

/// Far more than any of them takes, and far less than those sleep that must not be waited for.
const SOON: Duration = Duration::from_secs(30);

fn host() -> Host {
    Host::real().starting_programs_through(env!("CARGO_BIN_EXE_vfio-hook").into())
}

fn command(program: impl AsRef<Path>, arguments: &[&str]) -> CommandLine {
    CommandLine {
        program: program.as_ref().to_owned(),
        arguments: arguments.iter().map(OsString::from).collect(),
        environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
        user: None,
        stdin: None,
    }
}

fn shell(script: &str) -> CommandLine {
    command("/bin/sh", &["-c", script])
}

/// How it ended, and all lines up to the end of its output.
fn run(command: &CommandLine) -> (CommandEnd, Vec<String>) {
    run_for(command, SOON)
}

fn run_for(command: &CommandLine, time: Duration) -> (CommandEnd, Vec<String>) {
    let (sender, receiver) = channel();
    let sink = move |line: &str| sender.send(line.to_owned()).unwrap();
    let end = host().run_command(command, Deadline::after(time), None, sink);
    let mut lines = Vec::new();
    while let Ok(line) = receiver.recv_timeout(SOON) {
        lines.push(line);
    }
    (end, lines)
}

fn is_alive(pid: &str) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn becomes(expected: bool, look: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + SOON;
    while look() != expected && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    look() == expected
}

#[test]
fn gets_exactly_what_is_given() {
    let mut line = command("/usr/bin/env", &[]);
    line.environment = vec![("A".into(), "1 2".into()), ("GUEST".into(), "$(id)".into())];
    assert_eq!(run(&line), (CommandEnd::Exited(0), vec!["A=1 2".to_owned(), "GUEST=$(id)".to_owned()]));

    let line =
        command("/bin/sh", &["-c", "printf '%s|' \"$0\" \"$@\"", "begin", "begin", "-", "--help", "a b", ""]);
    assert_eq!(run(&line), (CommandEnd::Exited(0), vec!["begin|begin|-|--help|a b||".to_owned()]));

    // Two words: with them the command line has the form of a call by libvirt but for one place.
    assert_eq!(run(&command("/bin/echo", &["begin"])).1, ["begin"]);
    assert_eq!(run(&command("/bin/echo", &["prepare", "begin", "-"])).1, ["prepare begin -"]);

    let (_, lines) = run(&shell("pwd; umask; readlink /proc/self/fd/0"));
    assert_eq!(lines, ["/", "0022", "/dev/null"]);
}

#[test]
fn no_descriptor_of_ours_is_left_open() {
    let (ours, _other_end) = pipe().unwrap();
    let ours = fs::read_link(format!("/proc/self/fd/{}", ours.as_raw_fd())).unwrap();
    let (_, lines) = run(&shell("for fd in /proc/$$/fd/*; do readlink $fd; done"));
    assert!(!lines.contains(&ours.display().to_string()), "{lines:?}");
}

#[test]
fn no_signal_is_blocked_sigpipe_is_not_ignored_and_huge_pages_are_back() {
    nix::sys::prctl::set_thp_disable(true).unwrap();
    let mut mask = nix::sys::signal::SigSet::empty();
    mask.add(nix::sys::signal::Signal::SIGTERM);
    mask.thread_block().unwrap();
    let (_, lines) =
        run(&command("/bin/grep", &["-E", "^(SigBlk|SigIgn|THP_enabled):", "/proc/self/status"]));
    mask.thread_unblock().unwrap();
    nix::sys::prctl::set_thp_disable(false).unwrap();
    assert!(lines.contains(&r"SigBlk:\t0000000000000000".to_owned()), "{lines:?}");
    let ignored = lines.iter().find_map(|line| line.strip_prefix(r"SigIgn:\t")).unwrap();
    // Who started this test may ignore signals too; Rust itself ignores SIGPIPE.
    let sigpipe = 1 << (nix::libc::SIGPIPE - 1);
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & sigpipe, 0, "{lines:?}");
    assert!(!lines.contains(&r"THP_enabled:\t0".to_owned()), "{lines:?}");
}

#[test]
fn exit_codes_and_signals_come_through() {
    assert_eq!(run(&shell("exit 3")).0, CommandEnd::Exited(3));
    assert_eq!(run(&shell("exit 127")).0, CommandEnd::Exited(127));
    assert_eq!(run(&shell("kill -9 $$")).0, CommandEnd::Killed(9));
    let (end, lines) = run(&shell("echo out; echo err >&2; printf last"));
    assert_eq!(end, CommandEnd::Exited(0));
    assert_eq!(lines, ["out", "err", "last"]);
}

#[test]
fn what_cannot_be_run_is_said_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str, text: &str, mode| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    for (path, reason) in [
        (folder.path().join("none"), "No such file or directory"),
        (place("plain", "#!/bin/sh\n", 0o644), "`chmod +x`"),
        (place("no-interpreter", "#!/no/such/shell\n", 0o755), "after `#!` is not there"),
        (folder.path().to_owned(), "Permission denied"),
        ("sh".into(), "does not start with `/`"),
    ] {
        let (end, lines) = run(&command(&path, &["begin"]));
        let CommandEnd::NotStarted(text) = end else { panic!("{}: {end}", path.display()) };
        assert!(text.starts_with(&format!("failed to run {}: ", path.display())), "{text}");
        assert!(text.contains(reason), "{text}");
        assert!(lines.is_empty(), "{lines:?}");
    }
    // execvp gives a script without a first line to /bin/sh, as a shell does.
    let plain = place("no-first-line", "echo $1\n", 0o755);
    assert_eq!(run(&command(plain, &["begin"])), (CommandEnd::Exited(0), vec!["begin".to_owned()]));
}

#[test]
fn what_never_ends_is_ended_with_its_group() {
    let began = Instant::now();
    let script = "sleep 1000 & echo $!; echo $$; sleep 1000";
    let (end, pids) = run_for(&shell(script), Duration::from_secs(2));
    assert_eq!(end, CommandEnd::TimedOut);
    assert!(began.elapsed() < SOON);
    assert_eq!(pids.len(), 2, "{pids:?}");
    assert!(pids.iter().all(|pid| !is_alive(pid)), "{pids:?}");
    assert!(!Path::new("/proc").join(&pids[1]).exists(), "it is no zombie either");
}

#[test]
fn what_does_not_listen_is_killed() {
    let script = "trap '' TERM; echo $$; (trap '' TERM; while :; do sleep 1; done) & echo $!; while :; do sleep 1; done";
    let (end, pids) = run_for(&shell(script), Duration::from_secs(2));
    assert_eq!(end, CommandEnd::TimedOut);
    assert_eq!(pids.len(), 2, "{pids:?}");
    assert!(pids.iter().all(|pid| !is_alive(pid)), "{pids:?}");
}

#[test]
fn cancelling_ends_it() {
    for by_hanging_up in [false, true] {
        let (cancel, mut canceller) = pipe().unwrap();
        let (sender, started) = channel();
        let waiting = thread::spawn(move || {
            started.recv_timeout(SOON).unwrap();
            if !by_hanging_up {
                canceller.write_all(b"x").unwrap();
            }
            drop(canceller);
        });
        let sink = move |line: &str| sender.send(line.to_owned()).unwrap();
        let command = shell("echo started; sleep 1000");
        let end = host().run_command(&command, Deadline::after(SOON), Some(cancel.as_fd()), sink);
        waiting.join().unwrap();
        assert_eq!(end, CommandEnd::Cancelled);
    }
}

#[test]
fn a_program_in_the_background_is_neither_waited_for_nor_ended() {
    let (sender, receiver) = channel();
    let began = Instant::now();
    let sink = move |line: &str| sender.send(line.to_owned()).unwrap();
    let command = shell("sleep 1000 & echo $!");
    let end = host().run_command(&command, Deadline::after(Duration::from_secs(900)), None, sink);
    assert_eq!(end, CommandEnd::Exited(0));
    assert!(began.elapsed() < SOON);
    let pid = receiver.recv_timeout(SOON).unwrap();
    assert!(is_alive(&pid));
    kill(Pid::from_raw(pid.parse().unwrap()), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(becomes(false, || is_alive(&pid)));
}

/// Starts it in the background, waits for its first line, and has it end.
fn in_background(script: &str, ends_within: Duration) -> (CommandEnd, Vec<String>, Duration) {
    let (cancel, canceller) = pipe().unwrap();
    let (sender, receiver) = channel();
    let sink = move |line: &str| sender.send(line.to_owned()).unwrap();
    let command = shell(script);
    let waiting =
        thread::spawn(move || host().run_in_background(&command, cancel.as_fd(), ends_within, sink));
    let mut lines = vec![receiver.recv_timeout(SOON).unwrap()];
    assert!(!waiting.is_finished(), "nothing else ends it");
    let began = Instant::now();
    drop(canceller);
    let end = waiting.join().unwrap();
    let took = began.elapsed();
    while let Ok(line) = receiver.recv_timeout(SOON) {
        lines.push(line);
    }
    (end, lines, took)
}

#[test]
fn what_runs_in_the_background_has_its_time_to_end_and_takes_its_group_along() {
    let script = "trap 'sleep 3; echo saved; exit 0' TERM; sleep 1000 & echo $!; wait";
    let (end, lines, took) = in_background(script, SOON);
    assert_eq!(end, CommandEnd::Cancelled);
    assert_eq!(lines[1..], ["saved"], "it is not killed after the 2 s of others");
    assert!(took >= Duration::from_secs(3), "{took:?}");
    assert!(becomes(false, || is_alive(&lines[0])));
}

#[test]
fn what_does_not_end_in_its_time_is_killed() {
    let script =
        "trap '' TERM; (trap '' TERM; while :; do sleep 1; done) & echo $!; while :; do sleep 1; done";
    let (end, lines, took) = in_background(script, Duration::from_secs(1));
    assert_eq!(end, CommandEnd::Cancelled);
    assert!(took >= Duration::from_secs(1) && took < SOON, "{took:?}");
    assert!(becomes(false, || is_alive(&lines[0])));
}

#[test]
fn what_ends_by_itself_in_the_background_says_how() {
    let (cancel, _canceller) = pipe().unwrap();
    for (script, expected) in [("exit 0", CommandEnd::Exited(0)), ("exit 3", CommandEnd::Exited(3))] {
        let end = host().run_in_background(&shell(script), cancel.as_fd(), SOON, |_| {});
        assert_eq!(end, expected);
    }
    let end = host().run_in_background(&command("/none", &[]), cancel.as_fd(), SOON, |_| {});
    assert!(matches!(end, CommandEnd::NotStarted(_)), "{end}");
}

#[test]
fn a_flood_neither_blocks_nor_fills_the_log() {
    let (end, lines) = run(&shell("head -c 100000000 /dev/zero | tr '\\0' x"));
    assert_eq!(end, CommandEnd::Exited(0));
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0].len(), 2048 + "…".len());
    assert_eq!(lines[1], format!("… {} more bytes not logged", 100_000_000 - 2048));

    let (end, lines) = run(&shell("yes | head -c 10000000"));
    assert_eq!(end, CommandEnd::Exited(0));
    assert_eq!(lines.len(), 501);
}

#[test]
fn standard_input_is_there_to_be_read_or_not() {
    let mut line = shell("cat | wc -c; cat /dev/stdin | wc -c");
    line.stdin = Some(vec![b'x'; 1 << 20]);
    assert_eq!(run(&line), (CommandEnd::Exited(0), vec!["1048576".to_owned(), "1048576".to_owned()]));
    line.arguments = vec!["-c".into(), "exit 4".into()];
    assert_eq!(run(&line).0, CommandEnd::Exited(4));
    line.stdin = Some(Vec::new());
    line.arguments = vec!["-c".into(), "wc -c".into()];
    assert_eq!(run(&line).1, ["0"]);
}

#[test]
fn becomes_the_user_with_all_groups() {
    let mut line = shell("id -u; id -g; id -G; kill -0 $PPID && echo may signal its parent");
    let groups = vec![65533, 44, 29];
    line.user = Some(User { name: "ann".into(), uid: 65532, gid: 65533, groups, home: "/".into() });
    let (end, lines) = run(&line);
    if geteuid().is_root() {
        assert_eq!(lines[..2], ["65532", "65533"]);
        let mut found: Vec<&str> = lines[2].split(' ').collect();
        found.sort_unstable();
        assert_eq!(found, ["29", "44", "65533"]);
        assert!(!lines.iter().any(|line| line.contains("may signal")), "{lines:?}");
        assert!(matches!(end, CommandEnd::Exited(_)));
    } else {
        let CommandEnd::NotStarted(reason) = end else { panic!("{end}") };
        assert!(reason.contains("only root can do that"), "{reason}");
    }
}
