//! The children that do in the program's place what may hang in the kernel, as the program starts them.

use std::fs;
use std::io::{Read, pipe};
use std::os::fd::AsFd;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::unistd::dup;

fn child(arguments: &[&str]) -> Output {
    Command::new(snapbox::cmd::cargo_bin!("vfio-hook")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn lines(output: &Output) -> Vec<serde_json::Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_one_that_writes_ends_with_the_kernels_errno() {
    let folder = tempfile::tempdir().unwrap();
    let present = folder.path().join("present");
    fs::write(&present, "before").unwrap();
    let written = child(&["write-attribute", present.to_str().unwrap(), "-1\n"]);
    assert_eq!((written.status.code(), fs::read(&present).unwrap()), (Some(0), b"-1\nore".to_vec()));
    let absent = folder.path().join("absent");
    let refused = child(&["write-attribute", absent.to_str().unwrap(), "1"]);
    assert_eq!(refused.status.code(), Some(nix::errno::Errno::ENOENT as i32));
    assert!(!absent.exists());
    let refused = child(&["write-attribute", folder.path().to_str().unwrap(), "1"]);
    assert_eq!(refused.status.code(), Some(nix::errno::Errno::EISDIR as i32));
}

#[test]
fn the_one_that_reads_answers_file_by_file() {
    let folder = tempfile::tempdir().unwrap();
    let present = folder.path().join("present");
    fs::write(&present, "(null)\n").unwrap();
    let absent = folder.path().join("absent");
    let read = child(&["read-attributes", absent.to_str().unwrap(), present.to_str().unwrap()]);
    assert_eq!(read.status.code(), Some(0));
    let answers: Vec<Result<String, i32>> =
        lines(&read).into_iter().map(|line| serde_json::from_value(line).unwrap()).collect();
    assert_eq!(answers, [Err(nix::errno::Errno::ENOENT as i32), Ok("(null)".to_owned())]);
}

#[test]
fn the_one_that_probes_says_who_does_not_answer() {
    // No PCI host has 32 domains and a function 7 of a slot 31.
    let order = r#"[{"address":"001f:ff:1f.7","kind":{"function":"1002:73bf"}}]"#;
    let probed = child(&["probe-pci", order]);
    assert_eq!(probed.status.code(), Some(0), "{}", String::from_utf8_lossy(&probed.stderr));
    let answers = lines(&probed);
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0]["address"], "001f:ff:1f.7");
    let evidence = answers[0]["health"]["dead"].as_str().unwrap();
    assert!(evidence.starts_with("001f:ff:1f.7: config space cannot be read: "), "{evidence}");
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
