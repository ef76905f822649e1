//! The built program as a person calls it: help, usage errors, what is printed where, exit codes.
//!
//! Nothing here changes the machine, or depends on what is on it. New snapshots: `SNAPSHOTS=overwrite`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::process::Stdio;

use nix::pty::openpty;
use snapbox::cmd::{Command, cargo_bin};
use snapbox::{file, str};
use tempfile::TempDir;

const INVALID: &str = "isolate_cpu:\n  cpus: auto\nhugepages:\n  timeout: 20\n  timeout: 5s\n";
const GUEST_XML: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/guests/everything.xml");

/// A name that no guest of this machine has.
const NOBODY: &str = "no-such-guest-1b9d6bcd";

fn vfio_hook(arguments: &[&str]) -> Command {
    Command::new(cargo_bin!("vfio-hook")).args(arguments).env_remove("NO_COLOR")
}

fn folder_with(name: &str, content: impl AsRef<[u8]>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), content).unwrap();
    folder
}

/// Where vfio-hook is in use, what these commands print depends on its ledger.
fn is_in_use_here() -> bool {
    Path::new("/run/vfio-hook").exists()
}

#[test]
fn help_of_every_command() {
    vfio_hook(&["--help"]).assert().success().stdout_eq(file!["cli/help.txt"]).stderr_eq("");
    vfio_hook(&["test", "--help"]).assert().success().stdout_eq(file!["cli/test.txt"]).stderr_eq("");
    vfio_hook(&["check", "--help"]).assert().success().stdout_eq(file!["cli/check.txt"]).stderr_eq("");
    vfio_hook(&["status", "--help"]).assert().success().stdout_eq(file!["cli/status.txt"]).stderr_eq("");
    vfio_hook(&["undo", "--help"]).assert().success().stdout_eq(file!["cli/undo.txt"]).stderr_eq("");
    vfio_hook(&["monitors", "--help"]).assert().success().stdout_eq(file!["cli/monitors.txt"]).stderr_eq("");
    for command in ["get", "set", "learn"] {
        let expected = format!("tests/cli/monitors-{command}.txt");
        let expected = snapbox::Data::read_from(Path::new(&expected), None);
        vfio_hook(&["monitors", command, "--help"]).assert().success().stdout_eq(expected).stderr_eq("");
    }
    vfio_hook(&["gpu", "--help"]).assert().success().stdout_eq(file!["cli/gpu.txt"]).stderr_eq("");
    for command in ["report", "clear"] {
        let expected = format!("tests/cli/gpu-{command}.txt");
        let expected = snapbox::Data::read_from(Path::new(&expected), None);
        vfio_hook(&["gpu", command, "--help"]).assert().success().stdout_eq(expected).stderr_eq("");
    }
    vfio_hook(&["demo", "--help"]).assert().success().stdout_eq(file!["cli/demo.txt"]).stderr_eq("");
}

#[test]
fn says_its_version() {
    let version = concat!("vfio-hook ", env!("CARGO_PKG_VERSION"), "\n");
    vfio_hook(&["--version"]).assert().success().stdout_eq(version).stderr_eq("");
}

#[test]
fn wrong_usage_exits_with_2_and_says_so_on_standard_error() {
    for arguments in [
        &[][..],
        &["explode"],
        &["--explode"],
        &["check", "--explode"],
        &["test"],
        &["test", NOBODY, "explode"],
        &["test", NOBODY, "prepare", "begin"],
        &["status", NOBODY, NOBODY],
        &["monitors", "explode"],
        &["monitors", "set", "DP-1"],
        &["gpu", "explode"],
        &["gpu", "clear", "03:00", "0e:00"],
        &["gpu", "03:00", "report"],
        // Only four arguments, the second of them an operation and the third `begin` or `end`, are libvirt's.
        &[NOBODY, "prepare", "begin"],
        &[NOBODY, "a-later-one", "begin", "-"],
        &[NOBODY, "", "end", "-"],
        &[NOBODY, "prepare", "middle", "-"],
        &[NOBODY, "prepare", "begin", "-", "-"],
    ] {
        let assert = vfio_hook(arguments).assert().code(2).stdout_eq("");
        assert!(!assert.get_output().stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn says_which_operations_there_are() {
    vfio_hook(&["test", NOBODY, "explode"]).assert().code(2).stderr_eq(str![[r#"
error: invalid value 'explode' for '[OPERATION]'
  [possible values: prepare, start, started, stopped, release]

For more information, try '--help'.

"#]]);
}

#[test]
fn valid_files_are_said_to_be() {
    for example in
        ["minimal", "gaming", "second-gpu", "single-gpu", "services-and-commands", "host", "guests"]
    {
        let file = format!("hooks.d-examples/{example}.yaml");
        vfio_hook(&["check", &file])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .assert()
            .success()
            .stdout_eq(format!("{file}: valid\n"))
            .stderr_eq("");
    }
}

#[test]
fn the_readme_is_true_to_the_files() {
    let readme = include_str!("../README.md");
    let blocks = readme.split("```").skip(1).step_by(2);
    for block in blocks.filter(|block| block.starts_with("yaml")) {
        // Those of the host's file say so.
        let of_all_guests = ["host.yaml", "guests.yaml"];
        let named = |name: &&&str| block.contains(&format!("/etc/vfio-hook/{name}"));
        let file = of_all_guests.iter().find(named).unwrap_or(&"readme.yaml");
        let folder = folder_with(file, dedented(block));
        vfio_hook(&["check", file]).current_dir(folder.path()).assert().success();
    }

    // An unknown key is told all that there are. Those of guests' files: `src/actions/list.rs`.
    for text in [
        "none-such: 1\n",
        "deviations: {x: {none-such: 1}}\n",
        "gpu_families: {x: {none-such: 1}}\n",
        "kernel_lines: {x: {none-such: 1}}\n",
    ] {
        has_rows(readme, "## The file of the host", &allowed_keys("host.yaml", text));
    }
}

/// The keys that the help for an unknown one tells.
fn allowed_keys(file: &str, text: &str) -> Vec<String> {
    let folder = folder_with(file, text);
    let assert = vfio_hook(&["check", file]).current_dir(folder.path()).assert().code(2);
    let stdout = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    let allowed = stdout.split_once("allowed here: ").unwrap().1.lines().next().unwrap();
    allowed.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether the tables below a heading have a row for each key.
fn has_rows(readme: &str, heading: &str, keys: &[String]) {
    let below = readme.split_once(&format!("\n{heading}\n")).unwrap().1.split("\n##").next().unwrap();
    for key in keys {
        assert!(below.contains(&format!("\n| `{key}` |")), "{heading}: {key} is not in README.md");
    }
}

/// The lines of a block, without what all of them are indented by.
fn dedented(block: &str) -> String {
    let lines: Vec<&str> = block.lines().skip(1).collect();
    let indentation = |line: &&str| line.len() - line.trim_start().len();
    let common = lines.iter().filter(|line| !line.trim().is_empty()).map(indentation).min().unwrap_or(0);
    lines.iter().map(|line| line.get(common..).unwrap_or("")).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_mistake_of_a_file_is_shown_with_its_place() {
    let folder = folder_with("win11.yaml", INVALID);
    vfio_hook(&["check", "win11.yaml"])
        .current_dir(folder.path())
        .assert()
        .code(2)
        .stderr_eq("")
        .stdout_eq(file!["cli/invalid.txt"]);
    vfio_hook(&["check", "--json", "./win11.yaml"])
        .current_dir(folder.path())
        .assert()
        .code(2)
        .stderr_eq("")
        .stdout_eq(file!["cli/invalid.json"]);
}

#[test]
fn one_invalid_file_among_valid_ones_decides() {
    let folder = folder_with("bad.yaml", "hugepages: 3\n");
    fs::write(folder.path().join("good.yaml"), "hugepages: {}\n").unwrap();
    let assert = vfio_hook(&["check", "--json", "good.yaml", "bad.yaml"])
        .current_dir(folder.path())
        .assert()
        .code(2)
        .stderr_eq("");
    let files: serde_json::Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
    assert_eq!(files[0]["file"], "good.yaml");
    assert_eq!(files[0]["valid"], true);
    assert_eq!(files[1]["valid"], false);
    assert_eq!(files[1]["diagnostics"][0]["line"], 1);
}

#[test]
fn guests_files_are_held_against_the_hosts() {
    let folder = folder_with("host.yaml", "monitors: {desk: {model: X}}\n");
    let guest = "switch_input: {monitor: dsk, guest: hdmi-1}\n";
    fs::write(folder.path().join("win11.yaml"), guest).unwrap();
    let check = || vfio_hook(&["check", "win11.yaml", "host.yaml"]).current_dir(folder.path()).assert();
    check().code(2).stderr_eq("").stdout_eq(file!["cli/unknown_monitor.txt"]);

    fs::write(folder.path().join("host.yaml"), "monitors: {dsk: {model: X}}\n").unwrap();
    check().success().stdout_eq("host.yaml: valid\nwin11.yaml: valid\n");

    // Nothing can be held against a file that is wrong.
    fs::write(folder.path().join("host.yaml"), "monitors: {}\n").unwrap();
    let stdout = String::from_utf8(check().code(2).get_output().stdout.clone()).unwrap();
    assert!(stdout.starts_with("error: `monitors`: names no monitor\n"), "{stdout}");
    assert!(stdout.ends_with("\nwin11.yaml: valid\n"), "{stdout}");
}

#[test]
fn files_of_any_bytes_are_invalid_and_no_more() {
    for bytes in [&b"hugepages: \xff{}\n"[..], b"", b"\0\0\0", b"&a [*a]", b"- {", &[b'['; 20_000]] {
        let folder = folder_with("x.yaml", bytes);
        vfio_hook(&["check", "x.yaml"]).current_dir(folder.path()).assert().code(2).stderr_eq("");
    }
    let huge = folder_with("x.yaml", vec![b'#'; 8 * 1024 * 1024]);
    vfio_hook(&["check", "x.yaml"]).current_dir(huge.path()).assert().code(2).stderr_eq("");
}

#[test]
fn what_cannot_be_read_fails_with_1() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, message) in [
        (
            &["check", "./missing.yaml"][..],
            "error: failed to read ./missing.yaml: No such file or directory[..]\n",
        ),
        (&["check", "./"], "error: failed to read ./: Is a directory[..]\n"),
        (&["check", ".."], "error: a guest called `..` can have no file\n"),
        (
            &["test", "a/b"],
            "error: no guest can be called `a/b`: a name has no slash\nhelp: a file is given with --xml\n",
        ),
        (
            &["test", NOBODY],
            "error: failed to read the guest's XML from /etc/libvirt/qemu/no-such-guest[..]\n\
             help: `virsh list --all` shows the guests; the XML of one that is not defined yet is given with --xml\n",
        ),
        (
            &["test", NOBODY, "--xml", "missing.xml"],
            "error: failed to read the guest's XML from missing.xml[..]\n",
        ),
        (
            &["test", NOBODY, "--xml", "/dev/zero"],
            "error: failed to read the guest's XML from /dev/zero: it is a device, not a file or a pipe\n",
        ),
        (
            &["demo", "--xml", "/dev/zero"],
            "error: failed to read the guest's XML from /dev/zero: it is a device, not a file or a pipe\n",
        ),
        (
            &["demo", "--config", "/dev/zero"],
            "error: failed to read /dev/zero: it is a device, not a file or a pipe\n",
        ),
        (&["check", "/dev/zero"], "error: failed to read /dev/zero: it is a device, not a file or a pipe\n"),
    ] {
        vfio_hook(arguments).current_dir(folder.path()).assert().code(1).stdout_eq("").stderr_eq(message);
    }
}

/// The lease would be another guest's, with the file of this one.
#[test]
fn xml_of_another_guest_is_told_and_not_held() {
    let assert = vfio_hook(&["test", NOBODY, "--xml", GUEST_XML]).assert().success();
    let stdout = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    assert!(stdout.contains("  warning: the XML is of guest "), "{stdout}");
    if nix::unistd::geteuid().is_root() {
        let assert = vfio_hook(&["hold", NOBODY, "--xml", GUEST_XML]).assert().code(1).stdout_eq("");
        let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
        assert!(stderr.starts_with("error: the XML is of guest ") && stderr.contains("\nhelp: "), "{stderr}");
    }
}

/// A pipe that nobody writes to.
#[test]
fn a_named_pipe_is_not_waited_for_without_an_end() {
    let folder = tempfile::tempdir().unwrap();
    nix::unistd::mkfifo(&folder.path().join("x.yaml"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    vfio_hook(&["check", "x.yaml"])
        .current_dir(folder.path())
        .timeout(std::time::Duration::from_secs(40))
        .assert()
        .code(1)
        .stdout_eq("")
        .stderr_eq("error: failed to read x.yaml: nothing arrived within 10 s\n");
}

/// What a command says on standard error, but for whether libvirt of the machine that runs the tests reaches the hook.
fn said_of_files(assert: &snapbox::cmd::OutputAssert) -> String {
    let stderr = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    let (mut said, mut is_hint) = (String::new(), false);
    for line in stderr.lines() {
        let is_warning = line.starts_with("warning: ");
        if !(is_warning || is_hint && line.starts_with("help: ")) {
            said.push_str(line);
            said.push('\n');
        }
        is_hint = is_warning;
    }
    said
}

#[test]
fn a_file_called_begin_does_not_make_a_hook_call() {
    let folder = folder_with("begin", "");
    let assert = vfio_hook(&["check", "./a", "begin", "./b"])
        .current_dir(folder.path())
        .assert()
        .code(1)
        .stdout_eq("");
    let said = said_of_files(&assert);
    assert_eq!(
        said,
        "error: failed to read ./a: No such file or directory (os error 2)\n\
         error: there is no /etc/vfio-hook/hooks.d/begin.yaml\n\
         error: failed to read ./b: No such file or directory (os error 2)\n"
    );
}

#[test]
fn files_may_come_through_pipes_and_have_an_end() {
    let xml = include_str!("../src/commands/demo/win11.xml");
    vfio_hook(&["demo", "--xml", "/dev/stdin"]).stdin(xml).assert().success().stderr_eq("");
    vfio_hook(&["check", "/dev/stdin"]).stdin("hugepages: {}\n").assert().success();
    let endless = vec![b' '; 17 * 1024 * 1024];
    vfio_hook(&["test", NOBODY, "--xml", "/dev/stdin"]).stdin(endless.clone()).assert().code(1).stderr_eq(
        "error: /dev/stdin: the guest's XML is larger than 16 MiB\n\
             help: no guest has that much: is it the right file?\n",
    );
    let folder = folder_with("large.yaml", &endless[..2 * 1024 * 1024]);
    let message = "error: the file is larger than 1048576 bytes\n--> large.yaml\n";
    vfio_hook(&["demo", "--config", "large.yaml"])
        .current_dir(folder.path())
        .assert()
        .code(2)
        .stderr_eq(message);
}

#[test]
fn xml_that_is_no_guest_is_refused_with_its_place() {
    for (xml, message) in [
        ("<domain><name>x</name></domain>", "has no memory"),
        ("<domain>", "cut off"),
        ("<network><name>x</name></network>", "domain"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><domain>&a;</domain>", "DOCTYPE"),
    ] {
        let folder = folder_with("x.xml", xml);
        let assert =
            vfio_hook(&["test", NOBODY, "--xml", "x.xml"]).current_dir(folder.path()).assert().code(1);
        let stderr = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
        assert!(stderr.contains(message), "{xml}: {stderr}");
    }
}

#[test]
fn a_guest_without_a_file_would_change_nothing() {
    if is_in_use_here() {
        return;
    }
    let assert = vfio_hook(&["test", NOBODY, "--xml", GUEST_XML]).assert().success().stdout_eq(str![[r#"
no-such-guest-1b9d6bcd as its XML is read:
  vCPUs    2 of 8 run, on CPUs 4,20
...
no-such-guest-1b9d6bcd, prepare: nothing would be changed
  note: there is no /etc/vfio-hook/hooks.d/no-such-guest-1b9d6bcd.yaml: the hook does nothing for this guest

"#]]);
    assert_eq!(said_of_files(&assert), "");
    for operation in ["start", "started", "stopped", "release"] {
        vfio_hook(&["test", NOBODY, operation, "--xml", GUEST_XML, "--json"])
            .assert()
            .success()
            .stderr_eq("");
    }
}

#[test]
fn a_host_that_nobody_holds_anything_of() {
    if is_in_use_here() {
        return;
    }
    let assert = vfio_hook(&["status"]).assert().success().stdout_eq("no guest holds anything\n");
    assert_eq!(said_of_files(&assert), "");
    let json = "{\n  \"leases\": [],\n  \"unsettled\": [],\n  \"quarantines\": [],\n  \"stuck\": []\n}\n";
    vfio_hook(&["status", "--json"]).assert().success().stdout_eq(json).stderr_eq("");
    let note = format!("note: {NOBODY} holds nothing; no guest holds anything\n");
    vfio_hook(&["undo", NOBODY]).assert().success().stdout_eq("nothing to give back\n").stderr_eq(note);
    vfio_hook(&["undo", "--stale"]).assert().success().stdout_eq("nothing to give back\n").stderr_eq("");
    vfio_hook(&["gpu", "clear"]).assert().success().stdout_eq("no card is in quarantine\n").stderr_eq("");
    vfio_hook(&["gpu", "clear", "--json"]).assert().success().stdout_eq("[]\n").stderr_eq("");
    assert!(!is_in_use_here(), "looking has made a folder on the host");
}

#[test]
fn a_card_that_is_none_is_told_by_its_form_and_by_the_host() {
    vfio_hook(&["gpu", "3"]).assert().code(2).stdout_eq("").stderr_eq(str![[r#"
error: invalid value '3' for '[ADDRESS]': `3` is no PCI address (expected something like 0000:0b:00.1)

For more information, try '--help'.

"#]]);
    // No machine has so many domains.
    let message = "error: this host has no device ffffffff:1f:00\nhelp: [..]\n";
    for command in [&["gpu"][..], &["gpu", "report"]] {
        let arguments = [command, &["ffffffff:1f:00.0"]].concat();
        vfio_hook(&arguments).assert().code(1).stdout_eq("").stderr_eq(message);
    }
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let folder = folder_with("win11.yaml", INVALID);
    for (arguments, code) in [
        (&["check", "win11.yaml"][..], 2),
        (&["check", "./missing.yaml"], 1),
        (&["--help"], 0),
        (&["explode"], 2),
    ] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let status = std::process::Command::new(cargo_bin!("vfio-hook"))
            .args(arguments)
            .current_dir(folder.path())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let folder = folder_with("bad.yaml", INVALID);
    fs::write(folder.path().join("good.yaml"), "hugepages: {}\n").unwrap();
    for arguments in [
        &["check", "good.yaml"][..],
        &["check", "bad.yaml"],
        &["check", "--json", "good.yaml"],
        &["status"],
        &["status", "--json"],
        &["undo", NOBODY],
        &["test", NOBODY, "--xml", GUEST_XML],
        &["demo"],
        &["gpu", "clear"],
        &["--help"],
        &["--version"],
        &["help", "check"],
        &["check", "--help"],
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = std::process::Command::new(cargo_bin!("vfio-hook"))
            .args(arguments)
            .current_dir(folder.path())
            .stdout(full)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        let said = "error: failed to write to standard output: No space left on device (os error 28)\n";
        assert!(stderr.ends_with(said), "{arguments:?}: {stderr}");
    }
}

/// What `check` of an invalid file prints on a terminal.
fn checked_on_a_terminal(no_color: Option<&str>) -> String {
    let folder = folder_with("win11.yaml", INVALID);
    let terminal = openpty(None, None).unwrap();
    let mut command = std::process::Command::new(cargo_bin!("vfio-hook"));
    command.args(["check", "win11.yaml"]).current_dir(folder.path()).env_remove("NO_COLOR");
    if let Some(value) = no_color {
        command.env("NO_COLOR", value);
    }
    let mut child = command.stdout(Stdio::from(terminal.slave)).spawn().unwrap();
    // It holds the terminal's other end, which would keep the reader waiting.
    drop(command);
    let mut text = Vec::new();
    let mut master = File::from(terminal.master);
    let mut chunk = [0; 4096];
    // Linux reports the end of a terminal as an error.
    while let Ok(count @ 1..) = master.read(&mut chunk) {
        text.extend_from_slice(&chunk[..count]);
    }
    assert_eq!(child.wait().unwrap().code(), Some(2));
    String::from_utf8(text).unwrap()
}

#[test]
fn colours_are_for_terminals_and_can_be_refused() {
    let escape = '\x1b';
    assert!(checked_on_a_terminal(None).contains(escape));
    assert!(checked_on_a_terminal(Some("")).contains(escape));
    let plain = checked_on_a_terminal(Some("1"));
    assert!(plain.contains("unknown section") && !plain.contains(escape), "{plain}");
}
