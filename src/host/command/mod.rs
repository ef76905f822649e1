//! Running a user's commands: one program, no shell, within its time.

mod machine;
mod output;
mod program;

use std::ffi::OsString;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::descendants::{self, LeftRunning};
use super::user::User;
use super::worker::Workers;
use super::{Host, HostError};
use crate::deadline::Deadline;

pub(super) use machine::MachinePrograms;
pub use program::{Orphaned, RUN_PROGRAM, RunAs, WITH_ITS_PARENT, run_program};

/// A program, and all it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// Its absolute path; nothing is looked for in `PATH`.
    pub program: PathBuf,
    /// The arguments after its name.
    pub arguments: Vec<OsString>,
    /// Its whole environment.
    pub environment: Vec<(OsString, OsString)>,
    /// The user who runs it; none for the user of this process.
    pub user: Option<User>,
    /// What it can read on standard input, as a file; none for `/dev/null`.
    pub stdin: Option<Vec<u8>>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandEnd {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal, which did not come from here.
    Killed(i32),
    /// It took too long, and was ended with its group.
    TimedOut,
    /// It was cancelled, and ended with its group.
    Cancelled,
    /// It never ran: why, in words.
    NotStarted(String),
}

impl fmt::Display for CommandEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "ended with exit code {code}"),
            Self::Killed(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(signal) => write!(f, "was killed by {signal}"),
                Err(_) => write!(f, "was killed by signal {signal}"),
            },
            Self::TimedOut => f.write_str("did not end in time and was ended"),
            Self::Cancelled => f.write_str("was cancelled"),
            Self::NotStarted(reason) => f.write_str(reason),
        }
    }
}

impl Host {
    /// Runs a program without a shell, in `/` and in a process group of its own, with nothing inherited but its user.
    ///
    /// It is over when the program ends, at the deadline, or when `cancel` becomes readable or hangs up. At a timeout
    /// and when it is cancelled its group gets SIGTERM and 2 s later SIGKILL; a process that even then does not end
    /// within 1 s is left behind, and said in the log. What a program leaves in the background runs on: see
    /// [`Self::end_children`].
    ///
    /// `on_line` gets each line of standard output and standard error, printable and cut after 2 KiB; at most 500 lines
    /// and 64 KiB, then their number. A program in the background may still print when this is over.
    pub fn run_command(
        &mut self,
        command: &CommandLine,
        deadline: Deadline,
        cancel: Option<BorrowedFd<'_>>,
        on_line: impl FnMut(&str) + Send + 'static,
    ) -> CommandEnd {
        if self.root() != Path::new("/") {
            return CommandEnd::NotStarted("a simulated host runs no programs".to_owned());
        }
        self.programs.run(command, deadline, cancel, Box::new(on_line))
    }

    /// Runs a program as [`Self::run_command`] does until it ends by itself, or `cancel` becomes readable or hangs up: then
    /// its group gets SIGTERM. The program itself has so long to end, what is left of its group 2 s more at most; then
    /// the group gets SIGKILL. The program gets SIGTERM, too, when the thread that calls this is killed.
    pub fn run_in_background(
        &mut self,
        command: &CommandLine,
        cancel: BorrowedFd<'_>,
        ends_within: Duration,
        on_line: impl FnMut(&str) + Send + 'static,
    ) -> CommandEnd {
        if self.root() != Path::new("/") {
            return CommandEnd::NotStarted("a simulated host runs no programs".to_owned());
        }
        self.programs.run_until_cancelled(command, cancel, ends_within, Box::new(on_line))
    }

    /// From now on this process is the parent of what its commands leave in the background, so that
    /// [`Self::end_children`] finds it even where it has made itself a daemon.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn adopt_orphans(&mut self) -> Result<(), HostError> {
        if !self.is_real() {
            return Ok(());
        }
        descendants::adopt_orphans()
            .map_err(|error| HostError::call("prctl(PR_SET_CHILD_SUBREAPER)", "this process", error))
    }

    /// Waits for adopted processes that have ended, so that none stays a zombie; every command does it too.
    pub fn reap_orphans(&mut self) {
        descendants::reap_adopted();
    }

    /// Ends every process below this one, of whatever thread: SIGTERM, after 2 s or at the deadline SIGKILL. Gives
    /// those that are still there.
    #[must_use]
    pub fn end_children(&mut self, deadline: Deadline) -> Vec<LeftRunning> {
        if !self.is_real() {
            return Vec::new();
        }
        descendants::end_all(deadline)
    }

    /// Starts programs and workers through this `vfio-hook` instead of the running one, for who is none itself: a test.
    #[must_use]
    pub fn starting_programs_through(mut self, vfio_hook: PathBuf) -> Self {
        if self.is_real() {
            self.workers = Workers::machine(vfio_hook.clone());
        }
        self.programs = MachinePrograms::through(vfio_hook);
        self
    }
}
