//! `run`: commands of the host's administrator.

use std::path::Path;

use nix::unistd::Uid;

use super::{Proposal, Situation};
use crate::command::{Command, OnCommandFailure, Program};
use crate::config::{
    OnFailure, Owners, Run, RunCommand, RunEntry, RunWhen, TrustError, check_trusted_program,
};
use crate::event::Operation;
use crate::host::{Host, HostError};

/// The events at which a dispatcher finds scripts.
const SCRIPTED: [Operation; 6] = [
    Operation::Prepare,
    Operation::Start,
    Operation::Started,
    Operation::Stopped,
    Operation::Release,
    Operation::Reconnect,
];

pub(super) fn propose(
    config: &Run,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    for (number, entry) in config.entries.iter().enumerate() {
        match entry {
            RunEntry::Command(command) => {
                check(command, number, situation, proposal)?;
                proposal.commands.push(Command {
                    when: operation(command.when),
                    program: Program::Arguments(command.command.clone()),
                    timeout: command.timeout,
                    user: command.user.clone(),
                    on_failure: match command.on_failure {
                        OnFailure::Warn => OnCommandFailure::Warn,
                        OnFailure::Refuse => OnCommandFailure::Refuse,
                    },
                });
            }
            RunEntry::Scripts(scripts) => {
                check_folder(&scripts.directory, number, situation, proposal);
                for when in SCRIPTED {
                    proposal.commands.push(Command {
                        when,
                        program: Program::Scripts(scripts.directory.clone()),
                        timeout: scripts.timeout,
                        user: None,
                        on_failure: match when {
                            Operation::Prepare | Operation::Start => OnCommandFailure::Refuse,
                            _ => OnCommandFailure::Warn,
                        },
                    });
                }
            }
        }
    }
    Ok(())
}

/// A dispatcher's folder need not be there, or not yet; one that is there and cannot be read hides scripts.
fn check_folder(directory: &Path, number: usize, situation: Situation<'_>, proposal: &mut Proposal) {
    match situation.host.has_folder(directory) {
        Ok(true) => {}
        Ok(false) => proposal
            .inform(format!("there is no folder {}: none of its scripts are run", directory.display())),
        Err(error) => {
            let place = ["run".to_owned(), number.to_string(), "scripts".to_owned()];
            let help = format!("`ls -ld {}` shows what is there", directory.display());
            proposal.refuse_at(&place, error.to_string(), help);
        }
    }
}

/// A program that is not there, or that somebody else could have written, is found before anything is changed.
fn check(
    command: &RunCommand,
    number: usize,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let place = ["run".to_owned(), number.to_string()];
    let mut owner = None;
    if let Some(name) = &command.user {
        match situation.host.user(name.as_str())? {
            Some(user) => owner = Some(user.uid),
            None => {
                let help = "it has to be in /etc/passwd";
                proposal.refuse_at(&place, format!("this host has no user {name}"), help);
                return Ok(());
            }
        }
    }
    let Some(program) = command.command.first() else { return Ok(()) };
    if let Err(error) = check_program(situation.host, Path::new(program), owner) {
        let message = error.to_string();
        let (reason, help) = message.split_once('\n').unwrap_or((&message, ""));
        proposal.refuse_at(&place, reason, help.trim_start_matches("help: "));
    }
    Ok(())
}

/// Whether a program is there, and nobody but root, or the user who is to run it, can have written it.
///
/// # Errors
/// It is not, or somebody can.
pub fn check_program(host: &Host, program: &Path, user: Option<u32>) -> Result<(), TrustError> {
    let root = Owners::from(host.trusted_owner());
    let owners = match user {
        Some(uid) => root.or(Uid::from_raw(uid)),
        None => root,
    };
    check_trusted_program(&host.root(), program, &owners)
}

fn operation(when: RunWhen) -> Operation {
    match when {
        RunWhen::Prepare => Operation::Prepare,
        RunWhen::Started => Operation::Started,
        RunWhen::Stopped => Operation::Stopped,
        RunWhen::Release => Operation::Release,
    }
}
