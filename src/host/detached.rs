//! A process of this program that outlives the one that has it made: a service of its own, or a process that is
//! nobody's child where there is no systemd.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::prctl;

use super::children::{OwnedChild, Wake, inherit_nothing, spawn};
use super::keeper_service::this_program;
use super::systemd::{Bus, ServicePurpose, StartFailure, TransientService};
use super::virsh::kill;
use super::{Host, HostError, RUNNING_SYSTEMD, THIS_PROGRAM};
use crate::deadline::Deadline;
use crate::printable::printable;

/// The hidden argument of a process that only makes the one that is meant, where there is no systemd.
pub const APART: &str = "--apart";

/// How long an earlier one of the same unit may take to be gone.
const PREDECESSOR: Duration = Duration::from_secs(5);

/// How often it is looked whether the earlier one is gone.
const LOOK: Duration = Duration::from_millis(250);

/// Such a process.
#[derive(Clone, Copy, Debug)]
pub struct DetachedProcess<'a> {
    /// The unit it runs in, where there is systemd.
    pub unit: &'a str,
    /// What systemd says of that unit.
    pub description: &'a str,
    /// The hidden command that it carries out.
    pub command: &'a str,
    /// The command's arguments. systemd gets them as printable text.
    pub arguments: &'a [&'a OsStr],
}

/// How such processes are started on a host.
pub trait DetachedProcesses: Send + Sync {
    /// Starts one. It does something once: at a shutdown of the host it ends, and it is not started again.
    ///
    /// # Errors
    /// systemd refuses or does not answer in time; no process can be made.
    fn start(&self, process: &DetachedProcess<'_>, deadline: Deadline) -> Result<(), HostError>;
}

/// Those of this machine.
#[derive(Debug)]
pub(super) struct MachineDetachedProcesses(Arc<Bus>);

impl MachineDetachedProcesses {
    pub(super) fn new(bus: Arc<Bus>) -> Self {
        Self(bus)
    }
}

impl DetachedProcesses for MachineDetachedProcesses {
    fn start(&self, process: &DetachedProcess<'_>, deadline: Deadline) -> Result<(), HostError> {
        if Path::new(RUNNING_SYSTEMD).exists() {
            start_service(&self.0, process, deadline)
        } else {
            start_apart(process)
        }
    }
}

impl Host {
    /// Starts a process that outlives this one.
    ///
    /// # Errors
    /// systemd refuses or does not answer in time; no process can be made.
    pub fn start_detached(
        &mut self,
        process: &DetachedProcess<'_>,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        self.detached.start(process, deadline)
    }
}

fn start_service(bus: &Bus, process: &DetachedProcess<'_>, deadline: Deadline) -> Result<(), HostError> {
    let failed = |reason: String| HostError::call("StartTransientUnit", process.unit, reason);
    let program = this_program().map_err(|error| failed(error.to_string()))?;
    let texts: Vec<String> = process.arguments.iter().map(|argument| without_variables(argument)).collect();
    let mut arguments = vec!["vfio-hook", process.command];
    arguments.extend(texts.iter().map(String::as_str));
    let service = TransientService {
        name: process.unit,
        description: process.description,
        program: &program,
        arguments: &arguments,
        purpose: ServicePurpose::DoOnce,
    };
    let deadline = Deadline::after(PREDECESSOR).earlier(deadline);
    loop {
        match service.start(bus, deadline) {
            Ok(()) => return Ok(()),
            Err(StartFailure::NameTaken) if !deadline.has_passed() => deadline.pause(LOOK),
            Err(StartFailure::NameTaken) => return Err(failed("an earlier one is still there".to_owned())),
            Err(StartFailure::Other(reason)) => return Err(failed(reason)),
        }
    }
}

/// An argument as systemd hands it on: it would put variables in (`replace_env_argv` in `src/basic/env-util.c`).
fn without_variables(argument: &OsStr) -> String {
    printable(&argument.to_string_lossy()).replace('$', "$$")
}

/// Where there is no systemd: a process that is nobody's child, since a keeper ends its children with itself.
fn start_apart(process: &DetachedProcess<'_>) -> Result<(), HostError> {
    let failed = |reason: &str| HostError::call("fork", process.unit, reason);
    let adopts = prctl::get_child_subreaper().unwrap_or(false);
    // Else the grandchild would come back to this process.
    if adopts {
        prctl::set_child_subreaper(false).map_err(|errno| failed(&errno.to_string()))?;
    }
    let mut command = this_again(process.command, Some(APART), process.arguments);
    let made = OwnedChild::spawn(&mut command).and_then(|child| {
        match child.wait(Deadline::after(PREDECESSOR), None)? {
            Wake::Ended => child.reap().map(|status| status.success()),
            // It must not make the process after it was said that there is none.
            Wake::Cancelled | Wake::TimedOut => {
                kill(child);
                Ok(false)
            }
        }
    });
    if adopts {
        let _ = prctl::set_child_subreaper(true);
    }
    match made {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed("the process for it was not made")),
        Err(error) => Err(failed(&error.to_string())),
    }
}

fn this_again(word: &str, option: Option<&str>, arguments: &[&OsStr]) -> Command {
    let mut command = Command::new(THIS_PROGRAM);
    command.arg0("vfio-hook").arg(word).args(option).args(arguments);
    inherit_nothing(&mut command).process_group(0);
    command
}

/// What a process with [`APART`] does: it makes the one that is meant, and its own end makes that one nobody's child.
///
/// # Errors
/// No process can be made.
pub(crate) fn make_detached(command: &str, arguments: &[&OsStr]) -> io::Result<()> {
    spawn(&mut this_again(command, None, arguments)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_dollars() {
        assert_eq!(without_variables("a$HOME${x}".as_ref()), "a$$HOME$${x}");
    }
}
