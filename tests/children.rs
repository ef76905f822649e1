//! The children that do in the program's place what may hang in the kernel, as the program starts them.

use std::fs;
use std::io::{Read, Write, pipe};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::stat::Mode;
use nix::unistd::{dup, mkfifo};
use serde_json::json;
use vfio_hook::deadline::Deadline;
use vfio_hook::host::Host;

fn start_worker() -> Child {
    Command::new(snapbox::cmd::cargo_bin!("vfio-hook"))
        .arg("worker")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a worker answers to orders, a line each.
fn worker(orders: &[serde_json::Value]) -> Vec<serde_json::Value> {
    let mut child = start_worker();
    let mut stdin = child.stdin.take().unwrap();
    for order in orders {
        writeln!(stdin, "{order}").unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn errno(errno: Errno) -> serde_json::Value {
    json!({ "Err": errno as i32 })
}

#[test]
fn a_worker_carries_out_one_order_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (present, absent) = (path("present"), path("absent"));
    fs::write(&present, "before").unwrap();
    let write = |path: &Path, value: &str| json!({ "write": { "path": path, "value": value } });
    let answers = worker(&[
        write(&present, "-1\n"),
        write(&absent, "1"),
        write(folder.path(), "1"),
        json!({ "read": [absent, present] }),
        write(&present, "after"),
    ]);
    let done = json!({ "Ok": null });
    let text = json!({ "Ok": "-1\nore" });
    assert_eq!(
        answers,
        [done.clone(), errno(Errno::ENOENT), errno(Errno::EISDIR), errno(Errno::ENOENT), text, done]
    );
    assert_eq!(fs::read(&present).unwrap(), b"aftere");
    assert!(!absent.exists());
}

#[test]
fn a_worker_that_probes_answers_for_each_function_in_its_place() {
    // No PCI host has 32 domains and a function 7 of a slot 31.
    let absent = "001f:ff:1f.7";
    let looks = json!([
        {"address": absent, "kind": {"function": "1002:73bf"}},
        {"address": absent, "kind": "port"},
        {"address": absent, "kind": {"function": "1002:73bf"}},
    ]);
    let answers = worker(&[json!({ "probe": looks })]);
    let evidence: Vec<_> =
        answers.iter().map(|answer| answer["Ok"]["health"]["dead"].as_str().unwrap()).collect();
    let [first, port, below] = evidence[..] else { panic!("{answers:?}") };
    assert!(first.starts_with("config space cannot be read: "), "{first}");
    assert_eq!(port, first);
    assert_eq!(below, format!("port {absent} above it does not answer"));
}

/// The one worker talks, and does what else there is to do after it.
#[test]
fn a_worker_talks_with_monitors_too() {
    let talk = |talk: serde_json::Value| json!({ "monitors": { "talk": talk, "milliseconds": 500, "hanging": [4711] } });
    let answers =
        worker(&[talk(json!("find")), talk(json!({ "get": [] })), json!({ "read": ["/proc/self/comm"] })]);
    let [found, got, read] = &answers[..] else { panic!("{answers:?}") };
    // Whether there are monitors is the machine's affair, and so is whether it has a `/sys/class/drm`.
    assert!(found["Ok"]["answer"].is_object(), "{found}");
    // What hangs elsewhere is nothing of this one.
    assert_eq!(found["Ok"]["hanging"], json!([]));
    assert_eq!(*got, json!({ "Ok": { "answer": { "Ok": [] }, "hanging": [] } }));
    assert_eq!(*read, json!({ "Ok": "vfio-hook" }));
}

/// A parent that is killed while it writes an order has not given it.
#[test]
fn half_an_order_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("attribute");
    fs::write(&path, "before").unwrap();
    let mut child = start_worker();
    let order = json!({ "write": { "path": path, "value": "1" } });
    write!(child.stdin.take().unwrap(), "{order}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(0), Vec::new()));
    assert_eq!(fs::read(&path).unwrap(), b"before");
}

/// A file that nobody reads is waited for, by the kernel, for ever.
#[test]
fn a_worker_that_hangs_is_ended_and_the_next_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (attribute, hangs) = (folder.path().join("attribute"), folder.path().join("hangs"));
    fs::write(&attribute, "before\n").unwrap();
    mkfifo(&hangs, Mode::S_IRWXU).unwrap();
    let mut host = Host::real().starting_programs_through(snapbox::cmd::cargo_bin!("vfio-hook").to_owned());
    let soon = || Deadline::after(Duration::from_secs(20));
    for value in ["on", "auto"] {
        host.write_bounded(&attribute, value, soon()).unwrap();
        let read = host.read_bounded(&[folder.path().join("absent"), attribute.clone()], soon()).unwrap();
        assert!(read[0].is_none() && read[1].as_ref().unwrap().starts_with(value), "{read:?}");
        let error = host.write_bounded(&hangs, "1", Deadline::after(Duration::from_millis(300))).unwrap_err();
        assert_eq!(error.kind(), Some(std::io::ErrorKind::TimedOut), "{error}");
        assert!(error.to_string().contains("it took longer than 300 ms"), "{error}");
    }
    let error = host.write_bounded(folder.path(), "1", soon()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::EISDIR as i32), "{error}");
    let error = host.write_bounded(&attribute, "never", Deadline::after(Duration::ZERO)).unwrap_err();
    assert!(error.to_string().ends_with("no time is left"), "{error}");
    assert!(fs::read_to_string(&attribute).unwrap().starts_with("auto"));
    assert_eq!(workers_of_hosts(), 1, "it waits for more");
    drop(host);
    assert_eq!(workers_of_hosts(), 0, "it is left without work");
}

/// How many workers this process has by way of a [`Host`], which gives them a name without a folder.
fn workers_of_hosts() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids: Vec<String> =
        lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
    let lines = pids.iter().filter_map(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok());
    lines.filter(|line| line == b"vfio-hook\0worker\0").count()
}

/// What a hook's caller left open, or had it block, is nothing for the guest's commands.
#[test]
fn a_command_inherits_neither_descriptors_nor_blocked_signals() {
    let (mut reader, writer) = pipe().unwrap();
    // `dup` leaves out the flag that would close it in the child.
    let left_open = dup(&writer).unwrap();
    let (mut blocked, mut before) = (SigSet::empty(), SigSet::empty());
    blocked.add(Signal::SIGTERM);
    blocked.add(Signal::SIGCHLD);
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&blocked), Some(&mut before)).unwrap();
    let mut command = Command::new(snapbox::cmd::cargo_bin!("vfio-hook"))
        .args([
            "run-program",
            "caller",
            "--",
            "/bin/sh",
            "-c",
            "grep SigBlk /proc/self/status; exec sleep 1000",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None).unwrap();
    drop((writer, left_open));
    let waiting = PollFd::new(reader.as_fd(), PollFlags::POLLIN);
    let timeout = PollTimeout::try_from(Duration::from_secs(20)).unwrap();
    assert_eq!(poll(&mut [waiting], timeout), Ok(1), "it is still open");
    assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
    let mut said = [0; "SigBlk:\t0000000000000000\n".len()];
    command.stdout.take().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(String::from_utf8_lossy(&said), "SigBlk:\t0000000000000000\n");
    command.kill().unwrap();
    command.wait().unwrap();
}

/// Nobody else would end what runs in the background.
#[test]
fn a_program_that_ends_with_its_parent_does_so_when_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let program = snapbox::cmd::cargo_bin!("vfio-hook").to_str().unwrap().to_owned();
    // It has the pipe open for as long as it lives. The shell must not become it.
    let script = format!(
        "{program} run-program caller --with-its-parent /bin/sh -c 'echo up; exec sleep 1000' >{}; true",
        fifo.to_str().unwrap()
    );
    let mut parent = Command::new("/bin/sh").args(["-c", &script]).spawn().unwrap();
    let mut reader = fs::File::open(&fifo).unwrap();
    let mut said = [0; 3];
    reader.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"up\n");
    parent.kill().unwrap();
    parent.wait().unwrap();
    let waiting = PollFd::new(reader.as_fd(), PollFlags::POLLIN);
    let timeout = PollTimeout::try_from(Duration::from_secs(20)).unwrap();
    assert_eq!(poll(&mut [waiting], timeout), Ok(1), "it runs on");
    assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
}
