//! What is known of a guest before its call is answered.

use std::path::Path;
use std::time::Duration;

use crate::event::{Event, FailureEffect, Operation};
use crate::exit::Exit;
use crate::host::{Host, WorkEnd, apart, is_named, is_named_at_once, let_go_of_stdin};
use crate::ledger::LEDGER_PATH;
use crate::lifecycle::{CONFIG_DIR, GROUPS_FILE, config_path};

/// How long the file system may take that has the YAML files. It may be a server's.
const LOOK: Duration = Duration::from_secs(5);

/// Whether there is something to do for a call, and what a failure does to its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// There is nothing to do: the guest has no file, there are no groups, and no guest holds anything.
    NothingToDo,
    /// There may be something to do. A guest without a file is not refused, whatever state other guests left the ledger
    /// in, unless it turns out that a group has it, or that it holds something.
    MayConcern(FailureEffect),
    /// The file system that has the YAML files does not answer.
    Unknown,
}

impl Standing {
    /// Looks at up to three names, for every guest on every host.
    pub(super) fn of(event: &Event) -> Self {
        let has_ledger = Host::real().is_named(LEDGER_PATH);
        let is_prepare = event.operation == Operation::Prepare;
        if !has_ledger && !is_prepare {
            return Self::NothingToDo;
        }
        let has_file = config_path(&event.guest).map_or(Some(false), |path| is_named_in_time(&path));
        match has_file {
            Some(true) => Self::MayConcern(event.operation.failure_effect()),
            None if is_prepare => Self::Unknown,
            Some(false) | None if has_ledger || is_named_in_time(GROUPS_FILE.as_ref()) != Some(false) => {
                Self::MayConcern(FailureEffect::MustNotHappen)
            }
            Some(false) | None => Self::NothingToDo,
        }
    }

    /// What is said of a guest of which nothing is known.
    pub(super) fn unknown_message() -> String {
        format!(
            "prepare cannot tell whether the guest has a file: {CONFIG_DIR} does not answer within {} s\n\
             help: see which file system it is on: `findmnt -T {CONFIG_DIR}`\n",
            LOOK.as_secs()
        )
    }
}

/// Whether something has this name. What the kernel does not know by itself a child asks for, which is left behind where
/// it gets no answer, without libvirt's pipe.
fn is_named_in_time(path: &Path) -> Option<bool> {
    if let Some(known) = is_named_at_once(path) {
        return Some(known);
    }
    let look = || {
        let_go_of_stdin();
        if is_named(path) { Exit::Done } else { Exit::Failed }
    };
    match apart(LOOK, look) {
        WorkEnd::Exited(code) if code == Exit::Done.code() => Some(true),
        WorkEnd::Exited(code) if code == Exit::Failed.code() => Some(false),
        WorkEnd::NotStarted => Some(is_named(path)),
        WorkEnd::Exited(_) | WorkEnd::Killed(_) | WorkEnd::TimedOut | WorkEnd::Lost => None,
    }
}
