//! The guest's commands: run one after the other, in a thread of their own.

use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use super::HostSource;
use super::askers::TAKES_ANSWER;
use super::notices::{Notice, NoticeSender, STACK};
use crate::actions::check_program;
use crate::command::{Command, OnCommandFailure, Program};
use crate::deadline::Deadline;
use crate::event::Operation;
use crate::guest::{GuestName, GuestUuid};
use crate::host::{
    Answer, CommandEnd, CommandFailure, CommandLine, Errand, Host, LocalSocket, ROOT_PATH, User, UserName,
    send, xml_file,
};

/// The guest's commands that wait, and the means to end those that run.
pub(super) struct Errands {
    guest: GuestUuid,
    hosts: HostSource,
    notices: NoticeSender,
    queue: Option<Sender<Waiting>>,
    unfinished: usize,
    /// What nobody waits for: dropping one ends the errand of its event.
    holds: Vec<(Operation, PipeWriter)>,
}

struct Waiting {
    errand: Errand,
    /// The guest's.
    name: String,
    ended_by: EndedBy,
}

/// What ends an errand before its time.
enum EndedBy {
    /// Whoever waits for the answer hangs up.
    HangUp(LocalSocket),
    /// The keeper drops the other end.
    Keeper(PipeReader),
}

impl Errands {
    pub(super) fn new(guest: GuestUuid, hosts: HostSource, notices: NoticeSender) -> Self {
        Self { guest, hosts, notices, queue: None, unfinished: 0, holds: Vec::new() }
    }

    /// How many are not finished.
    pub(super) fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// One is.
    pub(super) fn finished(&mut self) {
        self.unfinished = self.unfinished.saturating_sub(1);
    }

    /// Runs commands after those that are being run. Whoever waits for the answer gets it at the end.
    pub(super) fn run(
        &mut self,
        errand: Errand,
        guest_name: &str,
        asker: Option<LocalSocket>,
    ) -> io::Result<()> {
        let ended_by = match asker {
            Some(socket) => EndedBy::HangUp(socket),
            None => {
                let (reader, writer) = io::pipe()?;
                self.holds.push((errand.event, writer));
                EndedBy::Keeper(reader)
            }
        };
        let queue = match &self.queue {
            Some(queue) => queue,
            None => {
                let runner = start_runner(self.guest, Arc::clone(&self.hosts), self.notices.clone())?;
                self.queue.insert(runner)
            }
        };
        queue.send(Waiting { errand, name: guest_name.to_owned(), ended_by }).map_err(io::Error::other)?;
        self.unfinished += 1;
        Ok(())
    }

    /// Ends what was begun while the guest ran, and nobody waits for.
    pub(super) fn cancel_of_running_guest(&mut self) {
        self.holds.retain(|(event, _)| *event == Operation::Stopped);
    }

    /// Ends what nobody waits for.
    pub(super) fn cancel(&mut self) {
        self.holds.clear();
    }
}

fn start_runner(guest: GuestUuid, hosts: HostSource, notices: NoticeSender) -> io::Result<Sender<Waiting>> {
    let (queue, waiting): (_, Receiver<Waiting>) = mpsc::channel();
    let run = move || {
        let mut runner = Runner { host: hosts(), guest, name: String::new() };
        for Waiting { errand, name, ended_by } in waiting {
            runner.name = name;
            // std panics where a child cannot say whether it started (`recv` fails with anything but EINTR), and an
            // errand that is never done would keep the lease for ever.
            let ran = catch_unwind(AssertUnwindSafe(|| runner.run(&errand, &ended_by)));
            let failures = ran.unwrap_or_else(|_| vec![ended_by_a_bug(&errand)]);
            // First: whoever gets the answer shall find the keeper at rest.
            notices.send(Notice::ErrandDone);
            match ended_by {
                EndedBy::HangUp(socket) => {
                    // It may have given up waiting.
                    let _ = send(&socket, &Answer::Ran(failures), Deadline::after(TAKES_ANSWER));
                }
                EndedBy::Keeper(_) => {
                    for failure in failures {
                        tracing::warn!("{}", failure.words);
                    }
                }
            }
        }
    };
    thread::Builder::new().name("commands".to_owned()).stack_size(STACK).spawn(run)?;
    Ok(queue)
}

/// What is said of an errand that panicked; refused if one of its commands may refuse.
fn ended_by_a_bug(errand: &Errand) -> CommandFailure {
    let may_refuse = errand.commands.iter().any(|command| command.on_failure == OnCommandFailure::Refuse);
    CommandFailure {
        words: format!("a bug in vfio-hook ended the commands of {}", errand.event.as_str()),
        meaning: if may_refuse { OnCommandFailure::Refuse } else { OnCommandFailure::Warn },
    }
}

struct Runner {
    host: Host,
    guest: GuestUuid,
    name: String,
}

/// One program of a command.
struct Step {
    program: PathBuf,
    arguments: Vec<OsString>,
    stdin: Option<Vec<u8>>,
}

impl Runner {
    /// Runs an errand's commands; stops at one that must not fail and did.
    fn run(&mut self, errand: &Errand, ended_by: &EndedBy) -> Vec<CommandFailure> {
        let mut failures = Vec::new();
        for command in &errand.commands {
            if let Err(words) = self.run_command(command, errand, ended_by) {
                let meaning = command.on_failure;
                failures.push(CommandFailure { words, meaning });
                if meaning == OnCommandFailure::Refuse {
                    break;
                }
            }
        }
        failures
    }

    fn run_command(&mut self, command: &Command, errand: &Errand, ended_by: &EndedBy) -> Result<(), String> {
        let user = command.user.as_ref().map(|name| self.user(name)).transpose()?;
        for step in self.steps(command, errand)? {
            let program = step.program.clone();
            let owner = user.as_ref().map(|user| user.uid);
            check_program(&self.host, &program, owner).map_err(|error| error.to_string())?;
            let line = CommandLine {
                program: step.program,
                arguments: step.arguments,
                environment: self.environment(errand, user.as_ref()),
                user: user.clone(),
                stdin: step.stdin,
            };
            let deadline = Deadline::after(command.timeout);
            let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let print = move |text: &str| tracing::info!("{name}: {text}");
            let cancel = match ended_by {
                EndedBy::HangUp(socket) => socket.as_fd(),
                EndedBy::Keeper(reader) => reader.as_fd(),
            };
            let end = self.host.run_command(&line, deadline, Some(cancel), print);
            judge(&end, &program.display().to_string(), errand.event, command.timeout)?;
        }
        Ok(())
    }

    fn user(&self, name: &UserName) -> Result<User, String> {
        let user = self.host.user(name.as_str()).map_err(|error| error.to_string())?;
        user.ok_or_else(|| format!("this host has no user {name}"))
    }

    /// The programs of a command: one, or all scripts of a folder.
    fn steps(&self, command: &Command, errand: &Errand) -> Result<Vec<Step>, String> {
        let (event, sub_operation) = (errand.event.as_str(), errand.event.sub_operation());
        match &command.program {
            Program::Arguments(words) => {
                let mut words = words.iter().map(OsString::from);
                let program = PathBuf::from(words.next().unwrap_or_default());
                Ok(vec![Step { program, arguments: words.collect(), stdin: None }])
            }
            Program::Scripts(folder) => {
                let name = GuestName::new(&self.name);
                let scripts = self
                    .host
                    .hook_scripts(folder, name.as_os_str(), event, sub_operation)
                    .map_err(|error| error.to_string())?;
                // Scripts that read half of what they are told would do something else.
                let xml = self.host.read_state(&xml_file(self.guest)).map_err(|error| error.to_string())?;
                let xml = xml.unwrap_or_default();
                let extra = if errand.reason.is_empty() { "-" } else { &errand.reason };
                let arguments: Vec<OsString> =
                    [self.name.as_str(), event, sub_operation, extra].map(OsString::from).into();
                let step = |program| Step { program, arguments: arguments.clone(), stdin: Some(xml.clone()) };
                Ok(scripts.into_iter().map(step).collect())
            }
        }
    }

    fn environment(&self, errand: &Errand, user: Option<&User>) -> Vec<(OsString, OsString)> {
        let mut environment = vec![
            ("PATH", ROOT_PATH.into()),
            ("LANG", "C.UTF-8".into()),
            ("VFIO_HOOK_GUEST", OsString::from(&self.name)),
            ("VFIO_HOOK_UUID", self.guest.to_string().into()),
            ("VFIO_HOOK_EVENT", errand.event.as_str().into()),
            ("VFIO_HOOK_REASON", OsString::from(&errand.reason)),
        ];
        if let Some(user) = user {
            environment.push(("HOME", user.home.clone().into()));
            environment.push(("USER", OsString::from(&user.name)));
            environment.push(("LOGNAME", OsString::from(&user.name)));
        }
        environment.into_iter().map(|(name, value)| (name.into(), value)).collect()
    }
}

/// What the end of a program means, in words if it failed.
fn judge(end: &CommandEnd, program: &str, event: Operation, timeout: Duration) -> Result<(), String> {
    let event = event.as_str();
    match end {
        CommandEnd::Exited(0) => Ok(()),
        CommandEnd::Exited(code) => Err(format!("{program} ({event}) ended with exit status {code}")),
        CommandEnd::Killed(signal) => Err(format!("{program} ({event}) was ended by signal {signal}")),
        CommandEnd::TimedOut => {
            Err(format!("{program} ({event}) did not end within {} s and was killed", timeout.as_secs()))
        }
        CommandEnd::Cancelled => Err(format!("{program} ({event}) was ended before its time")),
        CommandEnd::NotStarted(reason) => Err(format!("{program} ({event}) could not be started: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;
    use crate::host::AnswerAt;
    use crate::host::manifest::lay_out;
    use crate::host::simulated::Faults;

    /// A script that got nothing instead of the guest's XML would take it for a guest without anything.
    #[test]
    fn scripts_are_not_run_without_the_xml_that_there_is() {
        let root = tempfile::tempdir().unwrap();
        let guest = GuestUuid::from_bytes([1; 16]);
        let file = format!("/run/vfio-hook/{guest}.xml");
        lay_out(&format!("{file} = <domain/>\n/etc/scripts/\n"), root.path()).unwrap();
        let faults = Faults::default();
        let host = Host::simulated(root.path(), &faults);
        let runner = Runner { host, guest, name: "win11".to_owned() };
        let command = Command {
            when: Operation::Release,
            program: Program::Scripts("/etc/scripts".into()),
            timeout: Duration::from_secs(1),
            user: None,
            on_failure: OnCommandFailure::Warn,
        };
        let errand = Errand {
            commands: vec![command.clone()],
            event: Operation::Release,
            reason: String::new(),
            answer: AnswerAt::End,
        };
        assert!(runner.steps(&command, &errand).is_ok());
        faults.refuse_read(&file, Errno::EIO);
        let reason = runner.steps(&command, &errand).map(drop).unwrap_err();
        assert!(reason.starts_with(&format!("failed to read {file}: ")), "{reason}");
    }
}
