//! `install/install.sh`, in folders that stand for `/`: what it makes, what it leaves alone, what it refuses.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/install/install.sh");
const PROGRAM: &str = "/usr/bin/vfio-hook";
const MAIN_HOOK: &str = "etc/libvirt/hooks/qemu";
const SIDE_HOOK: &str = "etc/libvirt/hooks/qemu.d/50-vfio-hook";
const FOREIGN: &str = "#!/bin/sh\nexec /opt/dispatcher \"$@\"\n";

/// What `vfio-hook status --json` says when nobody holds anything.
const NO_LEASE: &str = r#"{ "leases": [], "unsettled": [] }"#;

struct Outcome {
    code: i32,
    stdout: String,
    stderr: String,
}

/// A machine in a folder, with a libvirt of some version and a vfio-hook to be installed.
struct Machine {
    folder: TempDir,
}

impl Machine {
    fn new(libvirt: &str) -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap() };
        machine.write_program("tools/libvirtd", &format!("echo 'libvirtd (libvirt) {libvirt}'"));
        machine.write_program("built/vfio-hook", &format!("echo '{NO_LEASE}'"));
        fs::create_dir(machine.folder.path().join("root")).unwrap();
        machine
    }

    fn path(&self, below_root: &str) -> PathBuf {
        self.folder.path().join("root").join(below_root.trim_start_matches('/'))
    }

    fn write_program(&self, path: &str, line: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("bash");
        command.arg(SCRIPT).arg("--root").arg(self.path("")).args(arguments);
        outcome(command.env("PATH", format!("{}:{path}", self.folder.path().join("tools").display())))
    }

    fn install(&self) -> Outcome {
        self.run(&["--binary", self.folder.path().join("built/vfio-hook").to_str().unwrap()])
    }

    /// Every file, link and folder with what it holds.
    fn listing(&self) -> Vec<String> {
        let mut lines = Vec::new();
        list(&self.path(""), &self.path(""), &mut lines);
        lines.sort();
        lines
    }
}

fn outcome(command: &mut Command) -> Outcome {
    let output = command.output().unwrap();
    Outcome {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn list(root: &Path, folder: &Path, lines: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().display();
        let kind = path.symlink_metadata().unwrap();
        if kind.is_symlink() {
            lines.push(format!("{name} -> {}", fs::read_link(&path).unwrap().display()));
        } else if kind.is_dir() {
            lines.push(format!("{name}/ {:o}", kind.permissions().mode() & 0o777));
            list(root, &path, lines);
        } else {
            lines.push(format!(
                "{name} {:o} {:?}",
                kind.permissions().mode() & 0o777,
                fs::read(&path).unwrap()
            ));
        }
    }
}

fn is_ours(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|target| target == Path::new(PROGRAM))
}

#[test]
fn installs_on_a_machine_without_hooks() {
    let machine = Machine::new("11.3.0");
    let outcome = machine.install();
    assert_eq!(
        (outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()),
        (
            0,
            "installed /usr/bin/vfio-hook\n\
             made /etc/vfio-hook\n\
             made /etc/vfio-hook/hooks.d\n\
             linked /etc/libvirt/hooks/qemu -> /usr/bin/vfio-hook\n",
            ""
        )
    );
    assert!(is_ours(&machine.path(MAIN_HOOK)));
    for (path, mode) in [(PROGRAM, 0o755), ("etc/vfio-hook", 0o755), ("etc/vfio-hook/hooks.d", 0o755)] {
        assert_eq!(machine.path(path).metadata().unwrap().permissions().mode() & 0o777, mode, "{path}");
    }
    let programs = fs::read_dir(machine.path("usr/bin")).unwrap().count();
    assert_eq!(programs, 1, "a temporary file was left behind");
}

#[test]
fn installing_twice_changes_nothing_more() {
    let machine = Machine::new("11.3.0");
    machine.install();
    let before = machine.listing();
    let outcome = machine.install();
    assert_eq!(outcome.code, 0);
    assert_eq!(
        outcome.stdout,
        "/usr/bin/vfio-hook is up to date\n/etc/libvirt/hooks/qemu is there already\n"
    );
    assert_eq!(machine.listing(), before);
}

#[test]
fn a_newer_program_replaces_the_file_and_not_its_content() {
    let machine = Machine::new("11.3.0");
    machine.install();
    let running = fs::File::open(machine.path(PROGRAM)).unwrap();
    machine.write_program("built/vfio-hook", "echo newer");
    machine.install();
    assert!(fs::read_to_string(machine.path(PROGRAM)).unwrap().contains("newer"));
    let old = std::io::read_to_string(running).unwrap();
    assert!(old.contains(NO_LEASE), "{old}");
}

#[test]
fn a_foreign_hook_stays_and_ours_goes_beside_it() {
    for is_link in [false, true] {
        let machine = Machine::new("6.5.0");
        if is_link {
            machine.link(MAIN_HOOK, "/opt/dispatcher");
        } else {
            machine.write(MAIN_HOOK, FOREIGN);
        }
        for _ in 0..2 {
            let outcome = machine.install();
            assert_eq!(outcome.code, 0, "{}", outcome.stderr);
            assert!(outcome.stdout.contains("/etc/libvirt/hooks/qemu.d/50-vfio-hook"), "{}", outcome.stdout);
            assert!(is_ours(&machine.path(SIDE_HOOK)));
            if is_link {
                assert_eq!(fs::read_link(machine.path(MAIN_HOOK)).unwrap(), Path::new("/opt/dispatcher"));
            } else {
                assert_eq!(fs::read_to_string(machine.path(MAIN_HOOK)).unwrap(), FOREIGN);
            }
        }
    }
}

#[test]
fn refuses_beside_a_foreign_hook_where_libvirt_runs_only_one() {
    for version in ["6.4.0", "5.10.0", "of its own making"] {
        let machine = Machine::new(version);
        // Where the version is not to be had from it, the packages of the machine are asked.
        for tool in ["virtqemud", "dpkg-query", "rpm", "pacman"] {
            machine.write_program(&format!("tools/{tool}"), "exit 1");
        }
        machine.write(MAIN_HOOK, FOREIGN);
        let before = machine.listing();
        let outcome = machine.install();
        assert_eq!(outcome.code, 1, "{version}");
        let first = outcome.stderr.lines().next().unwrap();
        assert!(first.contains("/etc/libvirt/hooks/qemu is another hook"), "{first}");
        assert!(first.ends_with("nothing was changed"), "{first}");
        assert!(outcome.stderr.contains("\nhelp: "), "{}", outcome.stderr);
        assert_eq!(machine.listing(), before, "{version}");
    }
}

#[test]
fn refuses_where_both_places_are_taken() {
    let machine = Machine::new("11.3.0");
    machine.write(MAIN_HOOK, FOREIGN);
    machine.write(SIDE_HOOK, FOREIGN);
    let before = machine.listing();
    assert_eq!(machine.install().code, 1);
    assert_eq!(machine.listing(), before);
}

#[test]
fn never_links_the_hook_twice() {
    let machine = Machine::new("11.3.0");
    machine.link(SIDE_HOOK, PROGRAM);
    machine.install();
    assert!(is_ours(&machine.path(SIDE_HOOK)));
    assert!(!machine.path(MAIN_HOOK).exists());

    let machine = Machine::new("11.3.0");
    machine.link(SIDE_HOOK, PROGRAM);
    machine.link(MAIN_HOOK, "../../../usr/bin/vfio-hook");
    machine.install();
    assert!(fs::symlink_metadata(machine.path(SIDE_HOOK)).is_err());
    assert_eq!(fs::read_link(machine.path(MAIN_HOOK)).unwrap(), Path::new("../../../usr/bin/vfio-hook"));
}

#[test]
fn says_how_it_is_done_where_the_system_makes_the_hooks() {
    let machine = Machine::new("11.3.0");
    fs::create_dir_all(machine.path("var/lib/libvirt/hooks")).unwrap();
    let before = machine.listing();
    let outcome = machine.install();
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("virtualisation.libvirtd.hooks.qemu"), "{}", outcome.stderr);
    assert_eq!(machine.listing(), before);
}

#[test]
fn uninstalling_leaves_nothing_of_ours() {
    let machine = Machine::new("11.3.0");
    fs::create_dir_all(machine.path("etc/libvirt/hooks")).unwrap();
    fs::create_dir_all(machine.path("usr/bin")).unwrap();
    let before = machine.listing();
    machine.install();
    let outcome = machine.run(&["--uninstall"]);
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (
            0,
            "removed /etc/libvirt/hooks/qemu\n\
             removed /usr/bin/vfio-hook\n\
             removed /etc/vfio-hook/hooks.d\n\
             removed /etc/vfio-hook\n"
        ),
        "{}",
        outcome.stderr
    );
    assert_eq!(machine.listing(), before);
    assert_eq!(machine.run(&["--uninstall"]).code, 0, "a second time there is nothing to do");
}

#[test]
fn uninstalling_keeps_other_hooks_and_guests_files() {
    let machine = Machine::new("11.3.0");
    machine.write(MAIN_HOOK, FOREIGN);
    machine.write("etc/libvirt/hooks/qemu.d/10-other", FOREIGN);
    machine.write("etc/vfio-hook/hooks.d/win11.yaml", "hugepages: {}\n");
    fs::create_dir_all(machine.path("usr/bin")).unwrap();
    let before = machine.listing();
    machine.install();
    let outcome = machine.run(&["--uninstall"]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("/etc/libvirt/hooks/qemu is another hook"), "{}", outcome.stdout);
    assert!(outcome.stdout.ends_with("kept:\n  /etc/vfio-hook/hooks.d/win11.yaml\n"), "{}", outcome.stdout);
    assert_eq!(machine.listing(), before);
}

#[test]
fn is_not_uninstalled_while_guests_hold_something() {
    let lease = r#"{ "leases": [ { "guest": "win11" } ], "unsettled": [] }"#;
    let unsettled = r#"{ "leases": [], "unsettled": [ "AllowedCPUs of user.slice" ] }"#;
    for answer in [format!("echo '{lease}'"), format!("echo '{unsettled}'"), "exit 1".to_owned()] {
        let machine = Machine::new("11.3.0");
        machine.install();
        machine.write_program("built/vfio-hook", &answer);
        machine.install();
        let before = machine.listing();
        let outcome = machine.run(&["--uninstall"]);
        assert_eq!(outcome.code, 1, "{answer}");
        assert!(outcome.stderr.contains("\nhelp: "), "{}", outcome.stderr);
        assert_eq!(machine.listing(), before, "{answer}");

        assert_eq!(machine.run(&["--uninstall", "--force"]).code, 0);
        assert!(!machine.path(PROGRAM).exists());
    }
}

#[test]
fn needs_root_for_the_machine_itself() {
    // Run as `nobody` where the tests run as root, from a folder that `nobody` can read.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let script = folder.path().join("install.sh");
    fs::copy(SCRIPT, &script).unwrap();
    let mut command = Command::new("bash");
    command.arg(&script).current_dir("/");
    if nix::unistd::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let outcome = outcome(&mut command);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.starts_with("install.sh: this needs root\nhelp: "), "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "");
}

#[test]
fn wrong_usage_is_told_and_does_nothing() {
    let machine = Machine::new("11.3.0");
    for arguments in [&["--unknown"][..], &["--binary"], &["win11"]] {
        let outcome = machine.run(arguments);
        assert_eq!(outcome.code, 2, "{arguments:?}");
        assert!(outcome.stderr.starts_with("usage: "), "{}", outcome.stderr);
    }
    let missing = machine.run(&["--binary", "/nonexistent/vfio-hook"]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("is not an executable file"), "{}", missing.stderr);
    assert_eq!(machine.listing(), Vec::<String>::new());
}
