//! The built program as libvirt calls it, on a machine where the guest has no file and nobody a lease: it must leave
//! at once, silently, with success, whatever it is given.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_vfio-hook");
const NAMES: [&str; 8] = ["no-such-guest-1b9d6bcd", "--help", "..", "a b", "x$(id)", "one\ntwo", "check", ""];
const OPERATIONS: [(&str, &str); 11] = [
    ("prepare", "begin"),
    ("start", "begin"),
    ("started", "begin"),
    ("stopped", "end"),
    ("release", "end"),
    ("reconnect", "begin"),
    ("migrate", "begin"),
    ("restore", "begin"),
    ("attach", "begin"),
    ("a-later-one", "begin"),
    ("", "end"),
];
/// How many of them libvirt has today. Under its own name the program takes the others for a person's words.
const TODAYS: usize = 9;

/// Far more than a call without work takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(20);

/// The program under the names that libvirt calls it by.
struct Hooks {
    folder: TempDir,
}

impl Hooks {
    fn install() -> Self {
        // As root, a call would act on the leases of this very machine.
        let is_in_use = ["/etc/vfio-hook", "/run/vfio-hook"].iter().any(|path| Path::new(path).exists());
        assert!(
            !(is_in_use && nix::unistd::geteuid().is_root()),
            "vfio-hook is in use on this machine: run its tests as another user than root"
        );
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("qemu.d")).unwrap();
        symlink(BINARY, folder.path().join("qemu")).unwrap();
        symlink(BINARY, folder.path().join("qemu.d/50-vfio-hook")).unwrap();
        Self { folder }
    }

    /// `qemu`, `50-vfio-hook`, and the program under its own name.
    fn all(&self) -> [PathBuf; 3] {
        [self.qemu(), self.folder.path().join("qemu.d/50-vfio-hook"), PathBuf::from(BINARY)]
    }

    fn qemu(&self) -> PathBuf {
        self.folder.path().join("qemu")
    }
}

/// A call in libvirt's surroundings.
fn call<A: AsRef<OsStr>>(hook: &Path, arguments: &[A]) -> Command {
    let mut command = Command::new(hook);
    command
        .args(arguments)
        .current_dir("/")
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn assert_silent_success(output: &Output, what: &dyn std::fmt::Debug) {
    assert_eq!(output.status.code(), Some(0), "{what:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"", "{what:?}");
    assert_eq!(output.stderr, b"", "{what:?}");
}

#[test]
fn every_operation_of_every_guest_under_every_name() {
    let hooks = Hooks::install();
    for (hook, operations) in
        hooks.all().into_iter().zip([&OPERATIONS[..], &OPERATIONS, &OPERATIONS[..TODAYS]])
    {
        for name in NAMES {
            for (operation, sub_operation) in operations {
                let arguments = [name, *operation, *sub_operation, "-"];
                let output = call(&hook, &arguments).output().unwrap();
                assert_silent_success(&output, &(&hook, arguments));
            }
        }
    }
}

#[test]
fn arguments_of_any_number_and_bytes() {
    let hooks = Hooks::install();
    let odd = OsStr::from_bytes(b"\xff\xfe\x1b[2J").to_owned();
    let long: OsString = "x".repeat(100_000).into();
    let word = |text: &str| OsString::from(text);
    for arguments in [
        vec![],
        vec![word("win11")],
        vec![word("--version")],
        vec![word("win11"), word("prepare")],
        vec![word("win11"), word("prepare"), word("begin")],
        vec![word("win11"), word("prepare"), word("begin"), word("-"), word("more")],
        vec![word("win11"), word("release"), word("end"), word("from snapshot")],
        vec![odd.clone(), odd.clone(), odd.clone(), odd.clone()],
        vec![odd, word("prepare"), word("begin"), word("-")],
        vec![long, word("prepare"), word("begin"), word("-")],
    ] {
        for hook in &hooks.all()[..2] {
            let output = call(hook, &arguments).output().unwrap();
            assert_silent_success(&output, &arguments);
        }
    }
}

/// The exit status, if the call ends in time.
fn ends(command: &mut Command, stdin: Stdio) -> std::process::ExitStatus {
    let mut child = command.stdin(stdin).spawn().unwrap();
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_standard_input_that_nobody_closes_is_not_waited_for() {
    let hooks = Hooks::install();
    for (operation, sub_operation) in OPERATIONS {
        let (reader, writer) = io::pipe().unwrap();
        let mut command = call(&hooks.qemu(), &[NAMES[0], operation, sub_operation, "-"]);
        let status = ends(&mut command, reader.into());
        drop(writer);
        assert_eq!(status.code(), Some(0), "{operation}");
    }
}

#[test]
fn standard_streams_that_are_closed_or_broken_harm_nothing() {
    let hooks = Hooks::install();
    for (operation, sub_operation) in OPERATIONS {
        let arguments = [NAMES[0], operation, sub_operation, "-"];
        // Closed, each for itself and all together.
        for closing in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
            let script = format!("exec \"$0\" \"$@\" {closing}");
            let mut command = call(Path::new("/bin/sh"), &["-c", &script]);
            command.arg(hooks.qemu()).args(arguments);
            let status = ends(&mut command, Stdio::null());
            assert_eq!(status.code(), Some(0), "{operation} {closing}: {:?}", status.signal());
        }
        // Nobody reads any more, as after libvirtd gave up on the hook.
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut command = call(&hooks.qemu(), &arguments);
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        let status = ends(&mut command, Stdio::null());
        assert_eq!(status.code(), Some(0), "{operation}: {:?}", status.signal());
    }
}

/// A file system whose server never answers, in the place of the YAML files.
const HUNG: &str = "set -e
mount -t tmpfs none /etc
mount -t tmpfs none /run
mkdir -p /etc/vfio-hook/hooks.d
exec 3<>/dev/fuse
mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 hung /etc/vfio-hook/hooks.d
exec \"$@\"";

/// Which guests have a file cannot be told then: libvirt hears so, and does not wait with it.
#[test]
fn yaml_files_on_a_file_system_that_hangs_are_not_waited_for() {
    assert!(nix::unistd::geteuid().is_root(), "only root can mount one");
    let hooks = Hooks::install();
    for (operation, sub_operation) in OPERATIONS {
        let arguments = [NAMES[0], operation, sub_operation, "-"];
        let mut command = call(Path::new("/usr/bin/unshare"), &["--mount", "/bin/bash", "-c", HUNG, "bash"]);
        command.arg(hooks.qemu()).args(arguments);
        let began = Instant::now();
        let output = command.output().unwrap();
        assert!(began.elapsed() < PATIENCE, "{operation}: {:?}", began.elapsed());
        if operation != "prepare" {
            assert_silent_success(&output, &operation);
            continue;
        }
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{said}");
        assert!(
            said.contains("/etc/vfio-hook/hooks.d does not answer") && said.contains("\nhelp: "),
            "{said}"
        );
    }
}
