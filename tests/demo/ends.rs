//! However a demo ends, its folder is gone.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_vfio-hook");

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().count() == 0
}

#[test]
fn with_few_descriptors_and_without_room_for_files() {
    for limit in ["-n 4", "-n 5", "-n 6", "-n 7", "-n 9", "-f 0"] {
        let temp = tempfile::tempdir().unwrap();
        let output = Command::new("sh")
            .args(["-c", &format!("ulimit {limit} && exec \"$0\" demo"), PROGRAM])
            .env("TMPDIR", temp.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(is_empty(temp.path()), "{limit}: {said}");
        assert!(output.status.code().is_some(), "{limit}: {:?}", output.status);
    }
}

#[test]
fn at_a_signal() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGKILL] {
        let temp = tempfile::tempdir().unwrap();
        let mut child = Command::new(PROGRAM)
            .arg("demo")
            .env("TMPDIR", temp.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Until it is at work there.
        wait_until(|| fs::read_dir(temp.path()).unwrap().any(|entry| !is_empty(&entry.unwrap().path())));
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        let status = child.wait().unwrap();
        assert!(status.signal() == Some(signal as i32), "{signal}: {status:?}");
        wait_until(|| is_empty(temp.path()));
        assert!(is_empty(temp.path()), "{signal}");
    }
}

fn wait_until(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() && start.elapsed() < Duration::from_secs(10) {
        sleep(Duration::from_millis(1));
    }
}
