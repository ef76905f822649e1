//! `vfio-hook demo`, as a person sees it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn demo(arguments: &[&Path]) -> Output {
    let temp = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_vfio-hook"))
        .arg("demo")
        .args(arguments)
        .env("TMPDIR", temp.path())
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0, "the demo left something behind");
    output
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn shows_a_whole_life_and_brings_the_host_back() {
    let output = demo(&[]);
    assert_eq!(text(&output.stderr), "");
    assert!(output.status.success());
    insta::assert_snapshot!(text(&output.stdout));
}

#[test]
fn tries_a_persons_own_files() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mine.yaml");
    fs::write(
        &config,
        "isolate_cpus: {cpus: \"4-7,20-23\", epp: power, resume_latency: 20us, irqs: false}\n",
    )
    .unwrap();
    let output = demo(&["--config".as_ref(), &config]);
    assert!(output.status.success());
    insta::assert_snapshot!(text(&output.stdout));
}

#[test]
fn a_refusal_leaves_the_host_alone() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mine.yaml");
    fs::write(&config, "isolate_cpus:\n  governor: ondemand\n  cpus: 0-63\n").unwrap();
    let output = demo(&["--config".as_ref(), &config]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).ends_with("the host is as it was: 582 files compared\n"));
    let message = text(&output.stderr).replace(folder.path().to_str().unwrap(), "FOLDER");
    insta::assert_snapshot!(message);
}
