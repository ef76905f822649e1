//! The commands a guest's YAML file asks for, kept in its lease: what is run after `prepare` is not read from the file
//! again, and each is run once.

use serde::{Deserialize, Serialize};

use crate::command::{Command, Program};
use crate::event::Operation;

/// What is still to be run for a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commands {
    /// Whether those of `prepare` were begun: only then there is something that those of `release` take back.
    pub progress: Progress,
    /// In the order of the file.
    pub list: Vec<Command>,
}

/// How far a guest's commands have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// None was run.
    #[default]
    NotBegun,
    /// Those of `prepare` were, or are being run.
    Begun,
}

impl Commands {
    /// These, none of which was run yet.
    #[must_use]
    pub fn new(list: Vec<Command>) -> Self {
        Self { progress: Progress::NotBegun, list }
    }

    /// Whether nothing is left to be run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether something is to be run at an event.
    #[must_use]
    pub fn has(&self, when: Operation) -> bool {
        self.at(when).next().is_some()
    }

    /// What is to be run at an event.
    pub fn at(&self, when: Operation) -> impl Iterator<Item = &Command> {
        let may_run = self.may_run(when);
        self.list.iter().filter(move |command| may_run && command.when == when)
    }

    /// Takes out what is run at an event: it is not run again, whatever becomes of it. Only libvirt's `reconnect` may
    /// come several times.
    pub(super) fn take(&mut self, when: Operation) -> Vec<Command> {
        let may_run = self.may_run(when);
        if when == Operation::Prepare {
            self.progress = Progress::Begun;
        }
        let (now, mut later): (Vec<_>, Vec<_>) =
            self.list.drain(..).partition(|command| command.when == when);
        if when == Operation::Reconnect {
            later.extend(now.iter().cloned());
        }
        self.list = later;
        if may_run { now } else { Vec::new() }
    }

    /// Whether a folder of scripts is among them, which get the guest's XML.
    #[must_use]
    pub fn want_xml(&self) -> bool {
        self.list.iter().any(|command| matches!(command.program, Program::Scripts(_)))
    }

    fn may_run(&self, when: Operation) -> bool {
        when == Operation::Prepare || self.progress == Progress::Begun
    }
}
