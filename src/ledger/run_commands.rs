//! Having a guest's commands run by its keeper: one after the other, each written down as begun before it begins.

use std::path::Path;
use std::time::Duration;

use super::carry_out::Outcome;
use super::commands::{Progress, Taken};
use super::entry::Entry;
use super::error::{FailedProgram, LedgerError};
use super::executor::BatchEnd;
use super::open::Ledger;
use super::plan::Note;
use super::record::Record;
use super::settings::{KeeperPresence, KeeperProcess};
use crate::command::{Command, OnCommandFailure, Program};
use crate::deadline::Deadline;
use crate::event::Operation;
use crate::guest::GuestUuid;
use crate::keeper_protocol::{AnswerAt, Beginning, CommandBatch, CommandFailure};

/// How long it may take to look whether a file exists: a file system whose server is away never says.
const LOOK_FOR_FILE: Duration = Duration::from_secs(2);

/// Whether a file keeps a command from being run.
enum Skipped {
    No,
    Exists,
    /// It cannot be told.
    Unknown(String),
}

/// What becomes of a command that the guest's keeper was about to run by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandNews {
    /// It is about to begin.
    Begins,
    /// It could not be started.
    NeverBegan,
}

impl Record {
    /// Whether something is left to be run that takes a guest's commands back.
    #[must_use]
    pub fn has_due_undos(&self, uuid: GuestUuid) -> bool {
        self.leases.get(&uuid).is_some_and(|lease| lease.commands.due_undos().next().is_some())
    }
}

impl Ledger<'_> {
    /// Has the guest's keeper run what belongs to an event, and waits for it. Each command is written down as begun
    /// before it begins.
    pub(super) fn run_commands(
        &mut self,
        uuid: GuestUuid,
        event: Operation,
        reason: &str,
        outcome: &mut Outcome,
    ) -> Result<(), LedgerError> {
        if let Some(lease) = self.record.leases.get_mut(&uuid) {
            lease.commands.begin(event);
        }
        while let Some(command) = self.next_command(uuid, event, Progress::Begun, outcome)? {
            let entry = command.undo.as_ref().map(|undo| undo.entry);
            let batch = self.batch(uuid, vec![command.clone()], event, reason, AnswerAt::End);
            let (beginning, failure) = match self.run_batch(uuid, batch)? {
                BatchEnd::Ran(failures) => match failures.into_iter().next() {
                    None => continue,
                    Some(failure) => (failure.beginning, command_failure(&command, failure)),
                },
                BatchEnd::NotBegun(error) => (Beginning::Never, error.into()),
                BatchEnd::Lost(error) => (Beginning::Perhaps, error.into()),
            };
            if let (Beginning::Never, Some(entry)) = (beginning, entry) {
                self.forget_undo(uuid, entry);
            }
            let may_refuse = matches!(event, Operation::Prepare | Operation::Start);
            let must_not_fail = command.on_failure == OnCommandFailure::Refuse
                || (event == Operation::Prepare && !matches!(failure, LedgerError::Command { .. }));
            if may_refuse && must_not_fail {
                return Err(failure);
            }
            outcome.notes.push(Note::warning(match &failure {
                LedgerError::Command { words, .. } => words.clone(),
                other => command.say(format_args!("{command} ({}): {other}", event.as_str())),
            }));
        }
        Ok(())
    }

    /// Has the guest's keeper run what belongs to an event, and waits for it.
    ///
    /// # Errors
    /// The ledger cannot be written; a command failed that must not.
    pub fn run_commands_now(&mut self, uuid: GuestUuid, event: Operation) -> Result<Outcome, LedgerError> {
        let mut outcome = Outcome::default();
        self.run_commands(uuid, event, "", &mut outcome)?;
        Ok(outcome)
    }

    /// Has the guest's keeper run what belongs to an event, and does not wait for it. The keeper writes down which of
    /// them begin ([`Self::note_command`]).
    ///
    /// # Errors
    /// The ledger cannot be written, there is no keeper.
    pub fn run_commands_later(
        &mut self,
        uuid: GuestUuid,
        event: Operation,
        reason: &str,
    ) -> Result<Outcome, LedgerError> {
        let mut outcome = Outcome::default();
        let mut commands = Vec::new();
        while let Some(command) = self.next_command(uuid, event, Progress::NotBegun, &mut outcome)? {
            commands.push(command);
        }
        if commands.is_empty() {
            return Ok(outcome);
        }
        if let (Operation::Reconnect, Some(lease)) = (event, self.record.leases.get_mut(&uuid)) {
            lease.commands.keep_for_next_time(&commands);
        }
        let batch = self.batch(uuid, commands, event, reason, AnswerAt::Once);
        self.store()?;
        self.start_batch(uuid, batch)?;
        Ok(outcome)
    }

    /// Has the guest's keeper run what takes back the commands that may have begun, the last one first. Each is
    /// forgotten when it has run: after a kill in between it runs again. Where there is no keeper, the rest stays with the
    /// lease.
    pub(super) fn run_undos(
        &mut self,
        uuid: GuestUuid,
        reason: &str,
        outcome: &mut Outcome,
    ) -> Result<(), LedgerError> {
        let next = |ledger: &Self| {
            ledger.record.leases.get(&uuid).and_then(|lease| lease.commands.due_undos().next().cloned())
        };
        while let Some(undo) = next(self) {
            self.claim_keeper(uuid);
            let batch =
                self.batch(uuid, vec![undo.command.clone()], Operation::Release, reason, AnswerAt::End);
            match self.run_batch(uuid, batch)? {
                BatchEnd::Ran(failures) => {
                    outcome.notes.extend(failures.into_iter().map(|failure| Note::warning(failure.words)));
                    self.forget_undo(uuid, undo.entry);
                }
                BatchEnd::NotBegun(error) | BatchEnd::Lost(error) => {
                    let failure =
                        format_args!("{} was not run, which takes a command back: {error}", undo.command);
                    outcome.failures.push(undo.command.say(failure));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Writes down what becomes of a command with something that takes it back: the guest's keeper runs it, and nobody
    /// waits for it. False where the guest has no such command any more.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn note_command(
        &mut self,
        uuid: GuestUuid,
        entry: usize,
        news: CommandNews,
    ) -> Result<bool, LedgerError> {
        let Some(lease) = self.record.leases.get_mut(&uuid) else { return Ok(false) };
        let is_known = match news {
            CommandNews::Begins => lease.commands.begins(entry),
            CommandNews::NeverBegan => {
                lease.commands.forget_undo(entry);
                true
            }
        };
        self.store()?;
        Ok(is_known)
    }

    /// A try before may have ended without a keeper: the one that is started for the next is the guest's as well.
    fn claim_keeper(&mut self, uuid: GuestUuid) {
        if self.record.entry(&KeeperProcess(uuid)).is_none() {
            let mut entry = Entry::new(KeeperProcess(uuid), KeeperPresence::None);
            entry.claims.insert(uuid, KeeperPresence::Runs);
            entry.confirm(KeeperPresence::Runs);
            self.record.put(entry);
        }
    }

    fn forget_undo(&mut self, uuid: GuestUuid, entry: usize) {
        if let Some(lease) = self.record.leases.get_mut(&uuid) {
            lease.commands.forget_undo(entry);
        }
    }

    /// Takes out the next command of an event that is to be run. What is not to be run is said.
    fn next_command(
        &mut self,
        uuid: GuestUuid,
        event: Operation,
        progress: Progress,
        outcome: &mut Outcome,
    ) -> Result<Option<Command>, LedgerError> {
        loop {
            let next = self.record.leases.get(&uuid).and_then(|lease| lease.commands.next(event));
            let Some(next) = next else { return Ok(None) };
            let skipped = match next.unless_exists.clone() {
                None => Skipped::No,
                Some(path) => self.is_skipped(&path)?,
            };
            let Some(lease) = self.record.leases.get_mut(&uuid) else { return Ok(None) };
            let (command, reason) = match (lease.commands.take_next(event, progress), skipped) {
                (None, _) => return Ok(None),
                (Some(Taken::Run(command)), Skipped::No) => return Ok(Some(command)),
                (Some(Taken::Run(command)), Skipped::Exists) => {
                    let path = command.unless_exists.clone().unwrap_or_default();
                    let reason = Note::info(format!("{} exists", path.display()));
                    (command, reason)
                }
                (Some(Taken::Run(command)), Skipped::Unknown(reason)) => (command, Note::warning(reason)),
                (Some(Taken::Drop(command, missing)), _) => {
                    let reason = format!("{missing} (prepare), above it in the file, never began");
                    (command, Note::warning(reason))
                }
            };
            if let Some(undo) = &command.undo {
                lease.commands.forget_undo(undo.entry);
            }
            let text =
                command.say(format_args!("{command} ({}) is skipped: {}", event.as_str(), reason.text));
            outcome.notes.push(Note { text, ..reason });
        }
    }

    /// Whether a file keeps a command from being run; others get at the ledger meanwhile.
    fn is_skipped(&mut self, path: &Path) -> Result<Skipped, LedgerError> {
        self.unlocked(|host, deadline| {
            let read =
                host.read_bounded(&[path.to_owned()], Deadline::after(LOOK_FOR_FILE).earlier(deadline));
            match read {
                Ok(texts) if texts.iter().all(Option::is_none) => Skipped::No,
                Ok(_) => Skipped::Exists,
                Err(error) if error.is_absent() => Skipped::No,
                Err(error) if error.ran_out_of_time() => {
                    Skipped::Unknown(format!("whether {} exists cannot be told: {error}", path.display()))
                }
                // A folder, or what cannot be read.
                Err(_) => Skipped::Exists,
            }
        })
    }

    fn batch(
        &self,
        uuid: GuestUuid,
        commands: Vec<Command>,
        event: Operation,
        reason: &str,
        answer: AnswerAt,
    ) -> CommandBatch {
        let runs = matches!(event, Operation::Started | Operation::Reconnect);
        let lease = self.record.leases.get(&uuid).filter(|_| runs);
        CommandBatch {
            commands,
            event,
            reason: reason.to_owned(),
            answer,
            within: None,
            qemu: lease.and_then(|lease| lease.qemu).map(|process| process.pid),
        }
    }
}

fn command_failure(command: &Command, failure: CommandFailure) -> LedgerError {
    let program = match command.program {
        Program::Scripts(_) => FailedProgram::Script,
        Program::Arguments(_) => FailedProgram::Command,
    };
    LedgerError::Command { words: failure.words, program }
}
