//! What `virsh` says, and what is told of it.

use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use super::*;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn reads_what_qemu_says_of_its_end() {
    for (line, end) in [
        // libvirt 9.0 and later.
        (
            "event SHUTDOWN at 1763737200.123456 for domain 'win11': {\"guest\":true,\"reason\":\"guest-reset\"}",
            GuestEnd::Reset,
        ),
        ("event SHUTDOWN for domain 'win11': {\"guest\":true,\"reason\":\"guest-reset\"}\n", GuestEnd::Reset),
        // Before it there were no quotes.
        (
            "event SHUTDOWN for domain win11: {\"reason\":\"guest-shutdown\",\"guest\":true}",
            GuestEnd::PowerOff,
        ),
        ("x: {\"guest\":false,\"reason\":\"host-qmp-system-reset\"}", GuestEnd::Reset),
        ("x: {\"guest\":false,\"reason\":\"host-qmp-quit\"}", GuestEnd::Killed),
        ("x: {\"guest\":false,\"reason\":\"host-signal\"}", GuestEnd::Killed),
        ("x: {\"guest\":true,\"reason\":\"guest-panic\"}", GuestEnd::Killed),
        ("x: {\"guest\":true,\"reason\":\"something-new\"}", GuestEnd::Unknown),
        // Before QEMU 4.0.
        ("x: {\"guest\":true}", GuestEnd::Unknown),
        ("x: {\"guest\":false}", GuestEnd::Killed),
        // A name that looks like the event, and one with a line break in it.
        (
            "event SHUTDOWN for domain 'a': {\"guest\":true,\"reason\":\"guest-reset\"}': {\"guest\":true,\"reason\":\"guest-shutdown\"}",
            GuestEnd::PowerOff,
        ),
        ("second line of its name': {\"guest\":true,\"reason\":\"guest-reset\"}", GuestEnd::Reset),
    ] {
        assert_eq!(GuestEnd::from_line(line), Some(end), "{line}");
    }
    for line in [
        "",
        "events received: 1",
        "event loop interrupted",
        "event SHUTDOWN for domain 'a': (null)",
        "event SHUTDOWN for domain 'a",
        "x: {",
        "x: {\"guest\":\"yes\"}",
        "x: {\"reason\":\"guest-reset\"}",
    ] {
        assert_eq!(GuestEnd::from_line(line), None, "{line}");
    }
}

#[test]
fn the_signal_that_libvirt_ends_qemu_with_is_no_end_of_its_own() {
    use GuestEnd::*;
    for (said, end) in [
        (&[][..], Unknown),
        (&[Reset, Killed], Reset),
        (&[PowerOff, Killed], PowerOff),
        (&[Killed], Killed),
        (&[Unknown, Killed], Killed),
        (&[Reset, Unknown], Reset),
        // `virsh reboot`, and later a reboot of the guest's own.
        (&[PowerOff, Reset, Killed], Reset),
        (&[PowerOff, PowerOff], PowerOff),
    ] {
        assert_eq!(said.iter().fold(Unknown, |end, next| end.then(*next)), end, "{said:?}");
    }
}

/// A script in the place of `virsh`, and what is told of its lines. Each of its starts leaves a line in `starts`.
fn watch(folder: &Path, script: &str) -> (GuestEndWatch, Receiver<GuestEnd>) {
    let script = format!("echo \"$*\" >> {}/starts\n{script}", folder.display());
    let virsh = Virsh::script(folder, &script);
    let (sender, ends) = channel();
    let guest = "c0ffee00-1111-4222-8333-44445555666f".parse().unwrap();
    let sink = Box::new(move |end| {
        let _ = sender.send(end);
    });
    let watch = start(virsh, guest, Duration::from_millis(1), sink).unwrap();
    (watch, ends)
}

const RESET: &str =
    "echo \"event SHUTDOWN for domain 'a': {\\\"guest\\\":true,\\\"reason\\\":\\\"guest-reset\\\"}\"";

#[test]
fn every_end_is_told_until_the_watch_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("{RESET}\necho 'something else'\n{RESET}\nexec sleep 1000");
    let (watch, ends) = watch(folder.path(), &script);
    assert_eq!(ends.recv_timeout(PATIENCE), Ok(GuestEnd::Reset));
    assert_eq!(ends.recv_timeout(PATIENCE), Ok(GuestEnd::Reset));
    drop(watch);
    // The thread ends, and its sink with it.
    assert_eq!(ends.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    let starts = fs::read_to_string(folder.path().join("starts")).unwrap();
    assert_eq!(
        starts,
        "-q -c qemu:///system qemu-monitor-event --domain c0ffee00-1111-4222-8333-44445555666f --event SHUTDOWN --loop\n"
    );
}

#[test]
fn a_lost_connection_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "[ \"$(wc -l < {}/starts)\" -ge 3 ] || exit 1\n{RESET}\nexec sleep 1000",
        folder.path().display()
    );
    let (watch, ends) = watch(folder.path(), &script);
    assert_eq!(ends.recv_timeout(PATIENCE), Ok(GuestEnd::Reset));
    assert_eq!(fs::read_to_string(folder.path().join("starts")).unwrap().lines().count(), 3);
    drop(watch);
    assert_eq!(ends.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
}

#[test]
fn one_that_cannot_be_started_is_tried_again_until_the_watch_is_dropped() {
    let (sender, ends) = channel::<GuestEnd>();
    let sink = Box::new(move |end| sender.send(end).unwrap());
    let guest = "c0ffee00-1111-4222-8333-44445555666f".parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let virsh = Virsh::script(folder.path(), "");
    fs::remove_file(folder.path().join("virsh")).unwrap();
    let watch = start(virsh, guest, Duration::from_millis(1), sink).unwrap();
    drop(watch);
    assert_eq!(ends.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
}
