//! Commands on this machine.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Seek, Write, pipe};
use std::os::fd::BorrowedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;

use super::output::{Drained, LineSink, read_in_background};
use super::program::{Orphaned, RUN_PROGRAM, RunAs, WITH_ITS_PARENT};
use super::{CommandEnd, CommandLine};
use crate::deadline::Deadline;
use crate::host::THIS_PROGRAM;
use crate::host::children::{OwnedChild, Wake};
use crate::host::descendants;

/// How long a group has to end by itself after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);
/// What a program that may run for as long as it likes gets for a deadline: a hundred years.
const NO_LIMIT: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// How long the kernel has to end it after SIGKILL.
const KILL: Duration = Duration::from_secs(1);
/// How long what is still in the pipe is waited for: a program in the background may keep it open.
const DRAIN: Duration = Duration::from_millis(50);

/// The longest message of a program that could not be started.
const MAX_REPORT: u64 = 4096;

/// Starts programs through `vfio-hook run-program`, which prepares what only the child itself can.
pub(in crate::host) struct MachinePrograms {
    vfio_hook: PathBuf,
}

impl MachinePrograms {
    /// Through this `vfio-hook`.
    pub(in crate::host) fn through(vfio_hook: PathBuf) -> Self {
        Self { vfio_hook }
    }

    /// Runs a program to its end.
    pub(in crate::host) fn run(
        &self,
        command: &CommandLine,
        deadline: Deadline,
        cancel: Option<BorrowedFd<'_>>,
        sink: LineSink,
    ) -> CommandEnd {
        self.run_and_stop(command, Limits { deadline, ends_within: GRACE }, Orphaned::RunsOn, cancel, sink)
    }

    /// The same for one that has a time of its own to end in once it is asked to, and no other limit.
    pub(in crate::host) fn run_until_cancelled(
        &self,
        command: &CommandLine,
        cancel: BorrowedFd<'_>,
        ends_within: Duration,
        sink: LineSink,
    ) -> CommandEnd {
        let limits = Limits { deadline: Deadline::after(NO_LIMIT), ends_within };
        self.run_and_stop(command, limits, Orphaned::Ends, Some(cancel), sink)
    }

    fn run_and_stop(
        &self,
        command: &CommandLine,
        limits: Limits,
        orphaned: Orphaned,
        cancel: Option<BorrowedFd<'_>>,
        sink: LineSink,
    ) -> CommandEnd {
        let program = command.program.display();
        if !command.program.is_absolute() {
            return CommandEnd::NotStarted(format!(
                "failed to run {program}: its path does not start with `/`, and nothing is looked for in PATH"
            ));
        }
        let end = match self.start(command, orphaned, sink) {
            Ok(running) => running.finish(&command.program, limits, cancel),
            Err(error) => CommandEnd::NotStarted(format!("failed to start a process for {program}: {error}")),
        };
        descendants::reap_adopted();
        end
    }

    fn start(&self, command: &CommandLine, orphaned: Orphaned, sink: LineSink) -> io::Result<Running> {
        let (output, into_output) = pipe()?;
        let (report, into_report) = pipe()?;
        fcntl(&report, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let stdin = match &command.stdin {
            Some(bytes) => Stdio::from(readable(bytes)?),
            None => Stdio::null(),
        };
        let drained = read_in_background(output, sink)?;
        let child = self.spawn(command, orphaned, stdin, (into_output, into_report))?;
        Ok(Running { child, drained, report })
    }

    /// When this returns, the child alone has the writing ends.
    fn spawn(
        &self,
        command: &CommandLine,
        orphaned: Orphaned,
        stdin: Stdio,
        (output, report): (PipeWriter, PipeWriter),
    ) -> io::Result<OwnedChild> {
        let before_program = match orphaned {
            Orphaned::RunsOn => "--",
            Orphaned::Ends => WITH_ITS_PARENT,
        };
        let run_as = command.user.as_ref().map_or(RunAs::Caller, RunAs::user);
        let mut starter = Command::new(&self.vfio_hook);
        starter
            .arg0("vfio-hook")
            .args([RUN_PROGRAM, &run_as.to_string(), before_program])
            .arg(&command.program)
            .args(&command.arguments)
            .env_clear()
            .envs(command.environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(stdin)
            .stdout(output)
            .stderr(report)
            .process_group(0);
        OwnedChild::spawn(&mut starter)
    }
}

impl Default for MachinePrograms {
    fn default() -> Self {
        Self::through(PathBuf::from(THIS_PROGRAM))
    }
}

/// A file in memory: a program that does not read it blocks nobody, and one that opens `/dev/stdin` finds it.
fn readable(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"stdin", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

/// How long a program may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// By when it has to end.
    deadline: Deadline,
    /// How long it has to end by itself after SIGTERM.
    ends_within: Duration,
}

/// A program that was started.
struct Running {
    child: OwnedChild,
    drained: Drained,
    /// Where the child says why the program cannot be run; closed without a word as soon as it runs.
    report: PipeReader,
}

impl Running {
    fn finish(self, program: &Path, limits: Limits, cancel: Option<BorrowedFd<'_>>) -> CommandEnd {
        let end = match self.child.wait(limits.deadline, cancel) {
            Ok(Wake::Ended) => None,
            Ok(Wake::Cancelled) => Some(CommandEnd::Cancelled),
            // Without a way to wait there is none to see it end.
            Ok(Wake::TimedOut) | Err(_) => Some(CommandEnd::TimedOut),
        };
        if end.is_some() && !stop(&self.child, limits.ends_within) {
            tracing::warn!(
                "{} (process {}) does not end, even by SIGKILL: it is left behind",
                program.display(),
                self.child.pid()
            );
        }
        let has_ended = matches!(self.child.wait(Deadline::after(Duration::ZERO), None), Ok(Wake::Ended));
        let status = has_ended.then(|| self.child.reap());
        // Nothing is sent: the end of the sender is what is waited for.
        let _ = self.drained.0.recv_timeout(DRAIN);
        if let Some(reason) = said(self.report) {
            return CommandEnd::NotStarted(reason);
        }
        match (end, status) {
            (Some(end), _) => end,
            (None, Some(Ok(status))) => ended(status),
            (None, Some(Err(error))) => {
                CommandEnd::NotStarted(format!("failed to wait for {}: {error}", program.display()))
            }
            (None, None) => CommandEnd::TimedOut,
        }
    }
}

/// Ends the group of a child, which has so long for it; whether nothing of it is left.
fn stop(child: &OwnedChild, ends_within: Duration) -> bool {
    child.signal_group(Signal::SIGTERM);
    // One that is stopped takes the other signal only when it goes on.
    child.signal_group(Signal::SIGCONT);
    let deadline = Deadline::after(ends_within);
    // The whole group is looked for in /proc, again and again: not for as long as the child itself takes.
    let _ = child.wait(deadline, None);
    if child.group_ends(deadline.earlier(Deadline::after(GRACE))) {
        return true;
    }
    child.signal_group(Signal::SIGKILL);
    child.group_ends(Deadline::after(KILL))
}

fn ended(status: ExitStatus) -> CommandEnd {
    match (status.code(), status.signal()) {
        (Some(code), _) => CommandEnd::Exited(code),
        (None, Some(signal)) => CommandEnd::Killed(signal),
        (None, None) => CommandEnd::Exited(status.into_raw()),
    }
}

/// What the child has written, if anything; never waits for more.
fn said(report: PipeReader) -> Option<String> {
    let mut bytes = Vec::new();
    // Something else may still have the pipe open: then this ends with an error, and what came before is there.
    let _ = report.take(MAX_REPORT).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    (!text.is_empty()).then_some(text)
}
