//! `run`: commands of the host's administrator.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use nix::unistd::Uid;

use super::action::Action;
use super::run_scripts::{self, SCRIPTED};
use super::{GuestConfig, Proposal, Situation};
use crate::command::{Command, CommandMode, OnCommandFailure, Program, Undo};
use crate::config::{
    Key, OnFailure, Owners, Run, RunCommand, RunEntry, RunWhen, Section, TrustError, check_trusted_program,
};
use crate::event::Operation;
use crate::host::{Host, HostError};
use crate::key_path::KeyPath;
use crate::ledger::Peer;

/// How long `prepare` and `start` have in all; README.md, "Promises".
const IN_ALL: Duration = Operation::Prepare.budget();

impl Action for Run {
    const SECTION: &'static str = "run";
    const KEYS: &'static [Key] = Self::KEYS;

    fn read(file: &mut Section<'_>, _before: &GuestConfig) -> Option<Self> {
        file.item(Self::SECTION).map(Self::read)
    }

    /// Users may be those of a directory service, and their folders may hang.
    fn peer(&self) -> Peer {
        let has_user =
            |entry: &RunEntry| matches!(entry, RunEntry::Command(command) if command.user.is_some());
        if self.entries.iter().any(has_user) { Peer::MayHang } else { Peer::Kernel }
    }

    fn propose(&self, situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError> {
        for (number, entry) in self.entries.iter().enumerate() {
            let key = KeyPath::from(&[Self::SECTION]).element(number);
            match entry {
                RunEntry::Command(command) => {
                    check(command, number, situation, proposal)?;
                    proposal.run(of_entry(command, number), key);
                }
                RunEntry::Scripts(scripts) => {
                    run_scripts::check(&scripts.directory, number, situation, proposal)?;
                    for when in SCRIPTED {
                        let command = Command {
                            when,
                            program: Program::Scripts(scripts.directory.clone()),
                            timeout: scripts.timeout,
                            user: None,
                            on_failure: match when {
                                Operation::Prepare | Operation::Start => OnCommandFailure::Refuse,
                                _ => OnCommandFailure::Warn,
                            },
                            env: BTreeMap::new(),
                            mode: CommandMode::Waited,
                            unless_exists: None,
                            undo: None,
                            place: None,
                        };
                        proposal.run(command, key.clone());
                    }
                }
            }
        }
        for when in [RunWhen::Prepare, RunWhen::Start] {
            warn_of_long_timeouts(&self.entries, when, proposal);
        }
        Ok(())
    }
}

/// Commands run one after the other, and libvirt waits for all of them together.
fn warn_of_long_timeouts(entries: &[RunEntry], when: RunWhen, proposal: &mut Proposal) {
    let timeouts = entries.iter().filter_map(|entry| match entry {
        RunEntry::Command(command) if command.when == when && !command.background.is_on() => {
            Some(command.timeout)
        }
        _ => None,
    });
    let all: Duration = timeouts.sum();
    if all > IN_ALL {
        proposal.warn(format!(
            "the commands of `{}` may take {} s one after the other, and `{}` has {} s in all: then the start is refused",
            when.as_str(),
            all.as_secs(),
            when.as_str(),
            IN_ALL.as_secs()
        ));
    }
}

fn of_entry(command: &RunCommand, number: usize) -> Command {
    Command {
        when: operation(command.when),
        program: Program::Arguments(command.command.clone()),
        timeout: command.timeout,
        user: command.user.clone(),
        on_failure: match command.on_failure {
            OnFailure::Warn => OnCommandFailure::Warn,
            OnFailure::Refuse => OnCommandFailure::Refuse,
        },
        env: command.env.clone(),
        mode: if command.background.is_on() { CommandMode::Background } else { CommandMode::Waited },
        unless_exists: command.unless_exists.clone(),
        undo: command.undo.clone().map(|command| Undo { entry: number, command }),
        place: None,
    }
}

/// A program that is not there, or that another user could have written, is found before anything is changed.
fn check(
    command: &RunCommand,
    number: usize,
    situation: Situation<'_>,
    proposal: &mut Proposal,
) -> Result<(), HostError> {
    let place = KeyPath::from(&["run"]).element(number);
    let mut owner = None;
    if let Some(name) = &command.user {
        match situation.host.user(name.as_str())? {
            Some(user) => {
                owner = Some(user.uid);
                let program = command.command.first().map_or("the command", String::as_str);
                match situation.host.is_logged_in(&user) {
                    Ok(false) if user.is_person() => proposal.inform(format!(
                        "{name} is not logged in: {program} would run without a session, thus without a display"
                    )),
                    Ok(_) => {}
                    Err(error) => proposal.warn(format!(
                        "it cannot be told whether {name} is logged in, so {program} may run without a session: {error}"
                    )),
                }
            }
            None => {
                let help = format!("`getent passwd {name}` asks all that this host knows users from");
                proposal.refuse(place, format!("this host has no user {name}"), help);
                return Ok(());
            }
        }
    }
    // What takes a command back has to be there before there is something to take back.
    for (key, words) in [("command", Some(&command.command)), ("undo", command.undo.as_ref())] {
        let Some(program) = words.and_then(|words| words.first()) else { continue };
        if let Err(error) = check_program(situation.host, Path::new(program), owner) {
            let help = match &error {
                TrustError::Missing(path) => found_elsewhere(path, situation).unwrap_or_else(|| error.help()),
                _ => error.help(),
            };
            let place = if key == "undo" { place.key(key) } else { place.clone() };
            proposal.refuse(place, error.to_string(), help);
        }
    }
    Ok(())
}

/// Where this host has a program that is not where the file says: each distribution has its own places.
fn found_elsewhere(path: &Path, situation: Situation<'_>) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let found = situation.host.program_named(name).filter(|found| found != path);
    let found = found.map(|found| format!("this host has it at `{}`", found.display()));
    // The whole command line in one text: the program's name never has a space.
    let line = || {
        let (program, rest) = path.to_str()?.split_once(' ')?;
        let words = rest.split_whitespace().collect::<Vec<_>>().join(", ");
        Some(format!("each argument stands alone: `command: [{program}, {words}]`"))
    };
    found.or_else(line)
}

/// Whether a program is there, and nobody but root, or the user who is to run it, can have written it.
///
/// # Errors
/// It is not, or another user can.
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
        RunWhen::Start => Operation::Start,
        RunWhen::Started => Operation::Started,
        RunWhen::Stopped => Operation::Stopped,
        RunWhen::Release => Operation::Release,
    }
}
