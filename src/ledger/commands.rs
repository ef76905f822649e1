//! The commands a guest's YAML file asks for, kept in its lease: what is run after `prepare` is not read from the file
//! again. Each command is run once at most; what takes one back is run once at least, if that command may have begun.

use serde::{Deserialize, Serialize};

use crate::command::{Command, Program};
use crate::event::Operation;

/// What is still to be run for a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commands {
    /// Whether `prepare` came as far as its commands: without that nothing is there that the others belong to.
    pub progress: Progress,
    /// In the order of the file.
    pub list: Vec<Command>,
    /// What takes back commands that are not in the list any more, in the order in which these were handed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undos: Vec<PendingUndo>,
}

/// What takes a command back, as long as it was not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingUndo {
    /// The number of its command in the file.
    pub entry: usize,
    /// Whether its command may have begun. The guest's keeper may have others to run before it.
    pub progress: Progress,
    /// What is run.
    pub command: Command,
}

/// How far a guest's commands, or one of them, have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// None was run.
    #[default]
    NotBegun,
    /// Those of `prepare` were, or are being run; the one may have been.
    Begun,
}

/// A command that is taken out of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is to be run.
    Run(Command),
    /// It is not: this one above it in the file never began.
    Drop(Command, Box<Command>),
}

impl Commands {
    /// These, none of which was run yet.
    #[must_use]
    pub fn new(list: Vec<Command>) -> Self {
        Self { progress: Progress::NotBegun, list, undos: Vec::new() }
    }

    /// Whether nothing is left to be run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && self.undos.is_empty()
    }

    /// Whether nothing is to be run and nothing was.
    pub(super) fn is_untouched(&self) -> bool {
        self.is_empty() && self.progress == Progress::NotBegun
    }

    /// Whether something is to be run at an event.
    #[must_use]
    pub fn has(&self, when: Operation) -> bool {
        self.at(when).next().is_some()
    }

    /// What is to be run at an event.
    pub fn at(&self, when: Operation) -> impl Iterator<Item = &Command> {
        let may_run = self.may_run(when);
        let is_of_event = move |(_, command): &(usize, &Command)| may_run && command.when == when;
        let commands = self.list.iter().enumerate().filter(is_of_event);
        commands.filter(|(place, _)| self.missing_before(*place).is_none()).map(|(_, command)| command)
    }

    /// What takes back the commands that may have begun, in the order in which it is run.
    pub fn due_undos(&self) -> impl Iterator<Item = &PendingUndo> {
        self.undos.iter().rev().filter(|undo| undo.progress == Progress::Begun)
    }

    /// The commands of an event are about to be run.
    pub(super) fn begin(&mut self, when: Operation) {
        if when == Operation::Prepare {
            self.progress = Progress::Begun;
        }
    }

    /// The command of an event that is run next, as it stands in the list.
    pub(super) fn next(&self, when: Operation) -> Option<&Command> {
        self.list.iter().find(|command| command.when == when && self.may_run(when))
    }

    /// Takes out the command of an event that is run next: it is not run again, whatever becomes of it, but what takes it
    /// back is kept. `progress` says whether it begins at once.
    pub(super) fn take_next(&mut self, when: Operation, progress: Progress) -> Option<Taken> {
        if !self.may_run(when) {
            return None;
        }
        let place = self.list.iter().position(|command| command.when == when)?;
        let missing = self.missing_before(place).cloned();
        let command = self.list.remove(place);
        if let Some(missing) = missing {
            return Some(Taken::Drop(command, Box::new(missing)));
        }
        if let (Some(undo), Some(undoing)) = (&command.undo, command.undoing()) {
            self.undos.push(PendingUndo { entry: undo.entry, progress, command: undoing });
        }
        Some(Taken::Run(command))
    }

    /// Puts back what only libvirt's `reconnect` may have run several times.
    pub(super) fn keep_for_next_time(&mut self, commands: &[Command]) {
        self.list.extend_from_slice(commands);
    }

    /// A command is about to begin: whether it is known.
    pub(super) fn begins(&mut self, entry: usize) -> bool {
        let undo = self.undos.iter_mut().find(|undo| undo.entry == entry);
        undo.map(|undo| undo.progress = Progress::Begun).is_some()
    }

    /// A command is taken back, or it is certain that it never began.
    pub(super) fn forget_undo(&mut self, entry: usize) {
        self.undos.retain(|undo| undo.entry != entry);
    }

    /// Takes over what an earlier life of the guest could not have run.
    pub(super) fn inherit_undos(&mut self, earlier: &Self) {
        // No entry of the file has such a number.
        let numbers = self.list.len()..;
        // A `prepare` that goes on after its first part has them already.
        let is_missing = |undo: &&PendingUndo| undo.progress == Progress::Begun && !self.undos.contains(undo);
        let due = earlier.undos.iter().filter(is_missing).cloned();
        let inherited = due.zip(numbers).map(|(undo, entry)| PendingUndo { entry, ..undo });
        self.undos.splice(0..0, inherited.collect::<Vec<_>>());
    }

    /// Whether a folder of scripts is among them, which get the guest's XML.
    #[must_use]
    pub fn want_xml(&self) -> bool {
        self.list.iter().any(|command| matches!(command.program, Program::Scripts(_)))
    }

    fn may_run(&self, when: Operation) -> bool {
        when == Operation::Prepare || self.progress == Progress::Begun
    }

    /// The command of `prepare` above a place in the list that never began; of those at `prepare` themselves none is
    /// needed. What stands below it in the file may be meant to take it back.
    fn missing_before(&self, place: usize) -> Option<&Command> {
        if self.list.get(place).is_none_or(|command| command.when == Operation::Prepare) {
            return None;
        }
        self.list[..place].iter().find(|command| command.when == Operation::Prepare)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::command::{CommandMode, OnCommandFailure, Undo};

    fn command(entry: usize, when: Operation, word: &str, undo: Option<&str>) -> Command {
        Command {
            when,
            program: Program::Arguments(vec![word.to_owned()]),
            timeout: Duration::from_secs(1),
            user: None,
            on_failure: OnCommandFailure::Refuse,
            env: BTreeMap::new(),
            mode: CommandMode::Waited,
            unless_exists: None,
            undo: undo.map(|word| Undo { entry, command: vec![word.to_owned()] }),
            place: None,
        }
    }

    fn due(commands: &Commands) -> Vec<String> {
        commands.due_undos().map(|undo| undo.command.to_string()).collect()
    }

    #[test]
    fn what_takes_commands_back_is_due_in_reverse_order_and_only_for_those_that_began() {
        let mut commands = Commands::new(vec![
            command(0, Operation::Prepare, "a", Some("not a")),
            command(1, Operation::Prepare, "b", None),
            command(2, Operation::Started, "c", Some("not c")),
            command(3, Operation::Prepare, "d", Some("not d")),
            command(4, Operation::Prepare, "e", Some("not e")),
        ]);
        commands.begin(Operation::Prepare);
        assert_eq!(due(&commands), [""; 0]);
        for _ in 0..3 {
            commands.take_next(Operation::Prepare, Progress::Begun).unwrap();
        }
        assert_eq!(due(&commands), ["not d", "not a"]);
        commands.take_next(Operation::Prepare, Progress::Begun).unwrap();
        commands.take_next(Operation::Started, Progress::NotBegun).unwrap();
        assert_eq!(due(&commands), ["not e", "not d", "not a"], "the keeper has not come to it");
        assert!(commands.begins(2) && !commands.begins(7));
        commands.forget_undo(3);
        assert_eq!(due(&commands), ["not c", "not e", "not a"]);
        assert!(commands.list.is_empty() && !commands.is_empty());
    }

    #[test]
    fn a_command_below_one_that_never_began_is_not_run() {
        let mut commands = Commands::new(vec![
            command(0, Operation::Prepare, "a", None),
            command(1, Operation::Release, "after a", None),
            command(2, Operation::Prepare, "b", None),
            command(3, Operation::Release, "after b", None),
        ]);
        assert!(!commands.has(Operation::Release), "prepare did not come as far");
        commands.begin(Operation::Prepare);
        commands.take_next(Operation::Prepare, Progress::Begun).unwrap();
        let left: Vec<String> = commands.at(Operation::Release).map(ToString::to_string).collect();
        assert_eq!(left, ["after a"]);
        let taken = commands.take_next(Operation::Release, Progress::Begun);
        assert!(matches!(taken, Some(Taken::Run(command)) if command.to_string() == "after a"));
        let taken = commands.take_next(Operation::Release, Progress::Begun);
        let Some(Taken::Drop(dropped, missing)) = taken else { panic!("{taken:?}") };
        assert_eq!((dropped.to_string().as_str(), missing.to_string().as_str()), ("after b", "b"));
        assert_eq!(commands.take_next(Operation::Release, Progress::Begun), None);
    }

    #[test]
    fn what_an_earlier_life_left_is_run_last_and_is_not_mixed_up() {
        let life = |word: &str| {
            let mut commands = Commands::new(vec![command(0, Operation::Prepare, "a", Some(word))]);
            commands.begin(Operation::Prepare);
            commands
        };
        let (mut earlier, mut commands) = (life("not earlier"), life("not now"));
        earlier.take_next(Operation::Prepare, Progress::Begun).unwrap();
        commands.inherit_undos(&earlier);
        commands.take_next(Operation::Prepare, Progress::Begun).unwrap();
        assert_eq!(due(&commands), ["not now", "not earlier"]);
        commands.forget_undo(0);
        assert_eq!(due(&commands), ["not earlier"]);
    }

    /// A ledger of an earlier build of this format.
    #[test]
    fn commands_without_the_newer_fields_are_read_and_written_as_before() {
        let text = r#"{"progress":"begun","list":[{"when":"release","program":{"arguments":["/bin/true"]},"timeout":{"secs":10,"nanos":0},"on_failure":"warn"}]}"#;
        let commands: Commands = serde_json::from_str(text).unwrap();
        assert!(commands.has(Operation::Release));
        assert_eq!(serde_json::to_string(&commands).unwrap(), text);
    }
}
