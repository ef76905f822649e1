//! Units of a user's own systemd, through `systemctl --user` run as that user.
//!
//! No bus call will do here: a user's bus lets in nobody else, not even root, and systemd's own socket, which does,
//! names itself as the sender in a way that the D-Bus library refuses.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::unit_calls::status_of;
use crate::deadline::Deadline;
use crate::failpoint;
use crate::host::HostError;
use crate::host::command::{CommandEnd, CommandLine, MachinePrograms};
use crate::host::root_path::find_program;
use crate::host::service::{UnitStatus, user_runtime_dir};
use crate::host::user::User;
use crate::unit_file_name::UnitFileName;

/// The program, for the message where this host has it in no usual place.
const SYSTEMCTL: &str = "/usr/bin/systemctl";

/// `systemctl` where there is no such unit (`EXIT_NOTINSTALLED` of the LSB, `systemctl(1)`).
const NOT_INSTALLED: i32 = 5;

/// How long a user's systemd may take for what it does at once. The user can stop it, and systemctl too.
const ASKED: Duration = Duration::from_secs(2);

pub(super) fn unit_status(
    user: &User,
    unit: &UnitFileName,
    properties: &[&str],
    deadline: Deadline,
) -> Result<UnitStatus, HostError> {
    let property = format!("--property={}", properties.join(","));
    let lines = systemctl(user, &["show", &property], unit, Deadline::after(ASKED).earlier(deadline))?;
    let values: HashMap<&str, &str> = lines.iter().filter_map(|line| line.split_once('=')).collect();
    let text = |name: &str| values.get(name).copied().unwrap_or_default().to_owned();
    let list = |name: &str| text(name).split_whitespace().map(str::to_owned).collect();
    Ok(status_of(text, list))
}

/// `systemctl show-environment`.
pub(super) fn environment(user: &User, deadline: Deadline) -> Result<Vec<String>, HostError> {
    let deadline = Deadline::after(ASKED).earlier(deadline);
    run(user, &["show-environment"], &format!("the service manager of {}", user.name), deadline)
}

/// Waits until it has stopped.
pub(super) fn stop_unit(user: &User, unit: &UnitFileName, deadline: Deadline) -> Result<(), HostError> {
    failpoint::reached("setting");
    systemctl(user, &["stop"], unit, deadline)?;
    failpoint::reached("setting");
    Ok(())
}

/// Only asks for the start: what a user's services take is not for the host to wait for.
pub(super) fn start_unit(user: &User, unit: &UnitFileName, deadline: Deadline) -> Result<(), HostError> {
    failpoint::reached("setting");
    let deadline = Deadline::after(ASKED).earlier(deadline);
    // Fails where nothing is to be reset.
    let reset = systemctl(user, &["reset-failed"], unit, deadline);
    if reset.is_err() && deadline.has_passed() {
        return reset.map(drop);
    }
    systemctl(user, &["start", "--no-block"], unit, deadline)?;
    failpoint::reached("setting");
    Ok(())
}

fn systemctl(
    user: &User,
    arguments: &[&str],
    unit: &UnitFileName,
    deadline: Deadline,
) -> Result<Vec<String>, HostError> {
    let words: Vec<&str> = arguments.iter().copied().chain(["--", unit.as_str()]).collect();
    run(user, &words, &format!("{unit} of {}", user.name), deadline)
}

/// Runs `systemctl --user` with these words; the place is what it is about.
fn run(user: &User, words: &[&str], place: &str, deadline: Deadline) -> Result<Vec<String>, HostError> {
    let program = find_program("systemctl").unwrap_or_else(|| PathBuf::from(SYSTEMCTL));
    let words = ["--user"].iter().chain(words).copied();
    let command = CommandLine {
        program,
        arguments: words.map(OsString::from).collect(),
        environment: vec![("XDG_RUNTIME_DIR".into(), user_runtime_dir(user.uid).into())],
        user: Some(user.clone()),
        stdin: None,
    };
    let printed = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&printed);
    let sink = move |line: &str| into.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
    let end = MachinePrograms::default().run(&command, deadline, None, Box::new(sink));
    let printed = std::mem::take(&mut *printed.lock().unwrap_or_else(PoisonError::into_inner));
    match end {
        CommandEnd::Exited(0) => Ok(printed),
        CommandEnd::Exited(NOT_INSTALLED) => Err(HostError::gone(format!("there is no {place} any more"))),
        end => {
            let reason = format!("{end}: {}", printed.join("; "));
            Err(match end {
                CommandEnd::TimedOut => HostError::late_call("systemctl --user", place, reason),
                _ => HostError::call("systemctl --user", place, reason),
            })
        }
    }
}
