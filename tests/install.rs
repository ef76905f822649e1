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
const UNIT: &str = "usr/lib/systemd/system/vfio-hook-recover.service";
const UNIT_LINK: &str = "etc/systemd/system/multi-user.target.wants/vfio-hook-recover.service";
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

    /// What a machine has before anything is installed on it.
    fn make_folders_of_programs(&self) {
        for folder in ["usr/bin", "usr/lib/systemd/system"] {
            fs::create_dir_all(self.path(folder)).unwrap();
        }
    }

    /// Runs the script as on the machine itself: the folder is its root, with the programs of the one that the tests
    /// run on. None where mounts of one's own are not allowed.
    fn run_as_root(&self, arguments: &[&str]) -> Option<Outcome> {
        // Loader, shell and devices are found where programs expect them.
        for link in ["bin", "lib", "lib64", "dev"] {
            if !self.path(link).exists() && !self.path(link).is_symlink() {
                self.link(link, &format!("system/{link}"));
            }
        }
        for folder in ["system", "tools", "built", "source"] {
            fs::create_dir_all(self.path(folder)).unwrap();
        }
        let mounts = "cd \"$1\"; mount --rbind / root/system; mount --bind tools root/tools;
            mount --bind built root/built; mount --bind \"$2\" root/source; shift 2
            PATH=$PATH:/usr/sbin:/sbin
            exec chroot root /bin/env PATH=/tools:/bin bash /source/install.sh \"$@\"";
        let unshare = || {
            let mut unshare = Command::new("unshare");
            unshare.args(["--map-root-user", "--mount"]);
            unshare
        };
        if !unshare().arg("true").output().is_ok_and(|done| done.status.success()) {
            return None;
        }
        let mut command = unshare();
        command
            .args(["sh", "-ec", mounts, "sh"])
            .arg(self.folder.path())
            .arg(Path::new(SCRIPT).parent().unwrap());
        Some(outcome(command.args(arguments)))
    }

    /// A `systemctl` that keeps links and notes what it was asked for.
    fn boot_systemd(&self) {
        fs::create_dir_all(self.path("run/systemd/system")).unwrap();
        let link = format!("/{UNIT_LINK}");
        let script = format!(
            "echo \"$*\" >>/calls
            case $* in
                '--quiet enable '*) mkdir -p \"${{link%/*}}\" && ln -sf \"/usr/lib/systemd/system/$3\" {link} ;;
                '--quiet disable '*) rm -f {link} ;;
                *is-active*) exit 3 ;;
            esac"
        );
        self.write_program("tools/systemctl", &format!("link={link}\n{script}"));
    }

    /// What systemd was asked for since the last look.
    fn calls_of_systemctl(&self) -> String {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.path("calls"));
        calls
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
             linked /etc/libvirt/hooks/qemu -> /usr/bin/vfio-hook\n\
             installed /usr/lib/systemd/system/vfio-hook-recover.service\n",
            ""
        )
    );
    assert!(is_ours(&machine.path(MAIN_HOOK)));
    for (path, mode) in
        [(PROGRAM, 0o755), ("etc/vfio-hook", 0o755), ("etc/vfio-hook/hooks.d", 0o755), (UNIT, 0o644)]
    {
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
        "/usr/bin/vfio-hook is up to date\n\
         /etc/libvirt/hooks/qemu is there already\n\
         vfio-hook-recover.service is up to date\n"
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
    machine.make_folders_of_programs();
    let before = machine.listing();
    machine.install();
    let outcome = machine.run(&["--uninstall"]);
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (
            0,
            "removed /etc/libvirt/hooks/qemu\n\
             removed /usr/lib/systemd/system/vfio-hook-recover.service\n\
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
    machine.make_folders_of_programs();
    let before = machine.listing();
    machine.install();
    let outcome = machine.run(&["--uninstall"]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("/etc/libvirt/hooks/qemu is another hook"), "{}", outcome.stdout);
    assert!(outcome.stdout.ends_with("kept:\n  /etc/vfio-hook/hooks.d/win11.yaml\n"), "{}", outcome.stdout);
    assert_eq!(machine.listing(), before);
}

#[test]
fn the_unit_of_a_package_starts_what_it_installs() {
    let machine = Machine::new("11.3.0");
    machine.install();
    let unit = fs::read_to_string(machine.path(UNIT)).unwrap();
    assert!(unit.contains(&format!("\nExecStart={PROGRAM} undo --stale --unattended\n")), "{unit}");
    assert!(!machine.path(UNIT_LINK).is_symlink(), "to enable it is for the package");
    machine.write(UNIT, "[Unit]\nDescription=older\n");
    assert!(
        machine.install().stdout.contains("installed /usr/lib/systemd/system/vfio-hook-recover.service\n")
    );
    assert_eq!(fs::read_to_string(machine.path(UNIT)).unwrap(), unit);
}

#[test]
fn where_systemd_runs_the_unit_is_enabled_and_leaves_nothing() {
    let machine = Machine::new("11.3.0");
    machine.make_folders_of_programs();
    fs::create_dir_all(machine.path("etc/libvirt/hooks")).unwrap();
    machine.boot_systemd();
    if machine.run_as_root(&["--help"]).is_none() {
        return;
    }
    let before = machine.listing();
    for is_first in [true, false] {
        let outcome = machine.run_as_root(&["--binary", "/built/vfio-hook"]).unwrap();
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{}", outcome.stdout);
        let said = if is_first { "installed /usr/lib/systemd/system/" } else { "" };
        assert!(outcome.stdout.contains(&format!("{said}vfio-hook-recover.service")), "{}", outcome.stdout);
        let calls = machine.calls_of_systemctl();
        assert!(calls.starts_with("--quiet enable vfio-hook-recover.service\n"), "{calls}");
        assert!(machine.path(UNIT_LINK).is_symlink());
    }
    let outcome = machine.run_as_root(&["--uninstall"]).unwrap();
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{}", outcome.stdout);
    let calls = machine.calls_of_systemctl();
    assert_eq!(calls, "--quiet disable vfio-hook-recover.service\ndaemon-reload\n");
    // The folders of the link are systemd's own.
    fs::remove_dir_all(machine.path("etc/systemd")).unwrap();
    assert_eq!(machine.listing(), before);
}

#[test]
fn where_systemd_refuses_all_else_is_installed() {
    let machine = Machine::new("11.3.0");
    machine.boot_systemd();
    machine
        .write_program("tools/systemctl", "case $* in *is-active*) exit 3;; esac; echo masked >&2; exit 1");
    let Some(outcome) = machine.run_as_root(&["--binary", "/built/vfio-hook"]) else { return };
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("vfio-hook-recover.service cannot be enabled"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("\nhelp: systemctl enable"), "{}", outcome.stderr);
    assert!(is_ours(&machine.path(MAIN_HOOK)));
}

#[test]
fn where_no_systemd_runs_there_is_no_unit() {
    let machine = Machine::new("11.3.0");
    // As in a container that has the package but not the process.
    machine.write_program("tools/systemctl", "echo \"$*\" >>/calls; exit 1");
    let Some(outcome) = machine.run_as_root(&["--binary", "/built/vfio-hook"]) else { return };
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("/usr/bin/vfio-hook undo --stale gives back"), "{}", outcome.stdout);
    assert_eq!(machine.calls_of_systemctl(), "");
    assert!(!machine.path(UNIT).exists() && !machine.path(UNIT_LINK).is_symlink());
    assert_eq!(machine.run_as_root(&["--uninstall"]).unwrap().code, 0);
}

#[test]
fn systemd_understands_the_unit() {
    let machine = Machine::new("11.3.0");
    machine.install();
    let mut command = Command::new("systemd-analyze");
    command.arg("verify").arg(machine.path(UNIT)).env("SYSTEMD_LOG_LEVEL", "warning");
    // Where there is none, the virtual machine's has to do.
    let Ok(output) = command.output() else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    // The program is not where it will be.
    let faults: Vec<&str> = said.lines().filter(|line| !line.contains("is not executable")).collect();
    assert_eq!(faults, Vec::<&str>::new());
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
