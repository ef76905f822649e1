//! What commands leave behind is adopted and ended. One test in a process of its own: it ends all children there are.

use std::fs;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit};
use vfio_hook::deadline::Deadline;
use vfio_hook::host::{CommandEnd, CommandLine, Host, ProcessId};

const SOON: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(200);

fn exists(pid: &str) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap()
}

#[test]
fn nothing_is_left_running_and_no_zombie_stays() {
    let mut host = Host::real().starting_programs_through(env!("CARGO_BIN_EXE_vfio-hook").into());
    host.adopt_orphans().unwrap();
    let mut leave = |script: &str| {
        let (sender, receiver) = channel();
        let command = CommandLine {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            user: None,
            stdin: None,
        };
        let sink = move |line: &str| sender.send(line.to_owned()).unwrap();
        let end = host.run_command(&command, Deadline::after(SOON), None, sink);
        assert_eq!(end, CommandEnd::Exited(0));
        receiver.recv_timeout(SOON).unwrap()
    };
    let in_background = leave("sleep 1000 & echo $!");
    let daemon = leave("setsid sh -c 'echo $$; exec sleep 1000 </dev/null >/dev/null 2>&1' & sleep 0.1");
    let deaf = leave("setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & sleep 0.1");
    let short = leave("sleep 0.1 & echo $!");
    assert!([&in_background, &daemon, &deaf].iter().all(|pid| exists(pid)));

    let deadline = Instant::now() + SOON;
    while exists(&short) && Instant::now() < deadline {
        host.reap_orphans();
        thread::sleep(Duration::from_millis(10));
    }
    assert!(!exists(&short), "it ended by itself, and is no zombie");

    // Without a descriptor nobody can look: that is no answer, and above all not "nothing runs".
    let process = ProcessId::of(in_background.trim().parse().unwrap()).unwrap();
    let limit = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..limit }).unwrap();
    let started = Instant::now();
    let (left, is_alive) = (host.end_children(Deadline::after(SHORT)), host.is_alive(process));
    let waited = started.elapsed();
    rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
    assert!(left.is_empty() && waited >= SHORT, "{left:?} after {waited:?}");
    assert!(is_alive && exists(&in_background));

    assert_eq!(host.end_children(Deadline::after(SOON)), []);
    assert!(!host.is_alive(process));
    for pid in [&in_background, &daemon, &deaf] {
        assert!(!exists(pid), "{pid}");
    }
}
