//! libvirt's contract: what it calls the hook for, how long it may take, and which failures count.
//!
//! Observed on libvirt 9.0, 11.3 and 12.8: four arguments, missing ones are `-`. Nothing bounds the wait on libvirt's
//! side, and it holds the guest's lock meanwhile.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::guest::GuestName;

/// What libvirt reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The guest.
    pub guest: GuestName,
    /// The step of its life.
    pub operation: Operation,
    /// Why it stopped, with `release` since libvirt 10.5; `-` before that and with every other operation.
    pub reason: OsString,
}

/// A step of a guest's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Before libvirt touches anything. A failure refuses the start; `stopped` and `release` follow all the same.
    Prepare,
    /// Devices are bound, QEMU is not started yet. A failure refuses the start.
    Start,
    /// QEMU runs. A failure kills it.
    Started,
    /// QEMU is gone, its devices are not yet given back. Failures are ignored.
    Stopped,
    /// All is given back. Failures are ignored.
    Release,
    /// libvirt was restarted and found the guest running. A failure kills it.
    Reconnect,
    /// The guest is about to arrive from another host. Standard output would replace its XML.
    Migrate,
    /// The guest is about to be restored. A failure makes libvirt 11.3 delete the saved guest.
    Restore,
    /// Never called any more.
    Attach,
    /// One that a later libvirt may have.
    Unknown,
}

/// What the exit status of the hook does to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureEffect {
    /// The guest does not start.
    RefusesStart,
    /// None that is wanted: it is ignored, or it would kill a running guest or lose a saved one.
    MustNotHappen,
}

impl Operation {
    /// The operation of this name.
    #[must_use]
    pub fn from_bytes(name: &[u8]) -> Self {
        match name {
            b"prepare" => Self::Prepare,
            b"start" => Self::Start,
            b"started" => Self::Started,
            b"stopped" => Self::Stopped,
            b"release" => Self::Release,
            b"reconnect" => Self::Reconnect,
            b"migrate" => Self::Migrate,
            b"restore" => Self::Restore,
            b"attach" => Self::Attach,
            _ => Self::Unknown,
        }
    }

    /// As libvirt writes it in the hook's second argument.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Start => "start",
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Release => "release",
            Self::Reconnect => "reconnect",
            Self::Migrate => "migrate",
            Self::Restore => "restore",
            Self::Attach => "attach",
            Self::Unknown => "unknown",
        }
    }

    /// The sub-operation that comes with it.
    #[must_use]
    pub fn sub_operation(self) -> &'static str {
        match self {
            Self::Stopped | Self::Release => "end",
            _ => "begin",
        }
    }

    /// What a non-zero exit status does to the guest.
    #[must_use]
    pub fn failure_effect(self) -> FailureEffect {
        match self {
            Self::Prepare | Self::Start => FailureEffect::RefusesStart,
            _ => FailureEffect::MustNotHappen,
        }
    }

    /// How long it may take in all. Every `stopped` and `release` of every guest goes through one thread of libvirt's.
    #[must_use]
    pub const fn budget(self) -> Duration {
        Duration::from_secs(match self {
            Self::Prepare => 60,
            Self::Stopped | Self::Release => 5,
            _ => 2,
        })
    }
}

/// Whether a program of this name was called by libvirt: its link is `hooks/qemu`, or `hooks/qemu.d/NN-vfio-hook`.
#[must_use]
pub fn is_hooks_name(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let is_numbered = |name: &str| {
        name.strip_suffix("-vfio-hook")
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    name == "qemu" || is_numbered(name)
}

impl Event {
    /// Takes the hook's arguments, without the program's name, by their position: a guest may be called `--help`. None
    /// where fewer than three were given.
    #[must_use]
    pub fn from_arguments(arguments: &[OsString]) -> Option<Self> {
        let [guest, operation, _sub_operation, rest @ ..] = arguments else { return None };
        Some(Self {
            guest: GuestName::new(guest.clone()),
            operation: Operation::from_bytes(operation.as_bytes()),
            reason: rest.first().cloned().unwrap_or_else(|| OsStr::new("-").to_owned()),
        })
    }

    /// Why the guest stopped; empty where libvirt does not say.
    #[must_use]
    pub fn reason_in_words(&self) -> String {
        match self.reason.to_string_lossy().as_ref() {
            "-" => String::new(),
            reason => reason.to_owned(),
        }
    }

    /// Whether these arguments, without the program's name, are libvirt's whatever the program is called: exactly four,
    /// the second of which is an operation that libvirt has, and the third `begin` or `end`. The first says nothing: a
    /// guest may be called like a command.
    #[must_use]
    pub fn is_libvirts(arguments: &[OsString]) -> bool {
        let [_, operation, sub_operation, _] = arguments else { return false };
        Operation::from_bytes(operation.as_bytes()) != Operation::Unknown
            && (sub_operation == "begin" || sub_operation == "end")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn libvirts_links_are_told_from_a_renamed_program() {
        for name in
            ["qemu", "/etc/libvirt/hooks/qemu", "/etc/libvirt/hooks/qemu.d/50-vfio-hook", "0-vfio-hook"]
        {
            assert!(is_hooks_name(name.as_ref()), "{name}");
        }
        for name in
            ["", "vfio-hook", "/usr/bin/vfio-hook", "vfio-hook-1.0", "-vfio-hook", "x-vfio-hook", "qemu-"]
        {
            assert!(!is_hooks_name(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn takes_arguments_by_position_whatever_the_guest_is_called() {
        for name in ["win11", "--help", "..", "a b", "x$(id)", "one\ntwo", "check"] {
            let words = arguments(&[name, "release", "end", "from snapshot"]);
            assert!(Event::is_libvirts(&words), "{name}");
            let event = Event::from_arguments(&words).unwrap();
            assert_eq!(event.guest, GuestName::new(name));
            assert_eq!(event.operation, Operation::Release);
            assert_eq!(event.reason, "from snapshot");
        }
    }

    #[test]
    fn every_operation_of_libvirts_makes_an_event_even_of_a_guest_called_like_a_command() {
        let operations = [
            "prepare",
            "start",
            "started",
            "stopped",
            "release",
            "reconnect",
            "migrate",
            "restore",
            "attach",
        ];
        for operation in operations {
            for sub_operation in ["begin", "end"] {
                let words = arguments(&["check", operation, sub_operation, "-"]);
                assert!(Event::is_libvirts(&words), "{words:?}");
            }
        }
    }

    #[test]
    fn a_persons_arguments_are_no_event() {
        for words in [
            &["test", "win11", "prepare"][..],
            &["--help"],
            &["check", "a", "b", "c"],
            // Four files, one of them called `begin`.
            &["check", "a", "begin", "b"],
            &["check", "unknown", "end", "b"],
            &["monitors", "set", "begin", "hdmi-1"],
            &["check", "", "begin", "b"],
            &["check", "prepare", "begin"],
            &["check", "prepare", "begin", "b", "c"],
            &["check", "prepare", "middle", "b"],
            &["check", "Prepare", "begin", "b"],
            &[],
        ] {
            assert!(!Event::is_libvirts(&arguments(words)), "{words:?}");
        }
    }

    #[test]
    fn only_prepare_and_start_may_refuse() {
        use Operation::*;
        for operation in
            [Prepare, Start, Started, Stopped, Release, Reconnect, Migrate, Restore, Attach, Unknown]
        {
            let may_refuse = operation.failure_effect() == FailureEffect::RefusesStart;
            assert_eq!(may_refuse, matches!(operation, Prepare | Start), "{operation:?}");
            assert_eq!(Operation::from_bytes(operation.as_str().as_bytes()), operation);
        }
    }
}
