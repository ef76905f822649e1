//! The guest's commands: run one after the other, in a thread of their own.

use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::HostSource;
use super::askers::TAKES_ANSWER;
use super::background::{Background, EndOfGuest};
use super::notices::{Notice, NoticeSender, STACK};
use crate::actions::check_program;
use crate::command::{Command, CommandMode, OnCommandFailure, Program};
use crate::deadline::Deadline;
use crate::event::Operation;
use crate::guest::{GuestName, GuestUuid};
use crate::host::{
    CommandEnd, CommandLine, Host, LocalSocket, ROOT_PATH, Session, User, Variable, send, xml_file,
};
use crate::keeper_protocol::{Answer, AnswerAt, Beginning, CommandBatch, CommandFailure};
use crate::ledger::CommandNews;
use crate::lifecycle;
use crate::user_name::UserName;

/// How long it may take to write down that a command begins, the wait for the ledger included.
const NOTED: Duration = Duration::from_secs(5);

/// How much of the last line of a command that failed goes into messages, in characters.
const MAX_QUOTED: usize = 200;

/// The guest's commands that wait, and the means to end those that run.
pub(super) struct CommandQueue {
    guest: GuestUuid,
    hosts: HostSource,
    notices: NoticeSender,
    queue: Option<Sender<Waiting>>,
    unfinished: usize,
    /// What nobody waits for: dropping one ends the batch of its event.
    holds: Vec<(Operation, PipeWriter)>,
    background: Background,
    /// As long as the guest has not ended.
    end_of_guest: Option<EndOfGuest>,
}

struct Waiting {
    batch: CommandBatch,
    /// The guest's.
    name: String,
    ended_by: EndedBy,
}

/// What ends a batch before its time.
enum EndedBy {
    /// The asker hangs up.
    HangUp(LocalSocket),
    /// The keeper drops the other end.
    Keeper(PipeReader),
}

impl CommandQueue {
    pub(super) fn new(guest: GuestUuid, hosts: HostSource, notices: NoticeSender) -> io::Result<Self> {
        let (background, end_of_guest) = Background::new(Arc::clone(&hosts), notices.clone())?;
        Ok(Self {
            guest,
            hosts,
            notices,
            queue: None,
            unfinished: 0,
            holds: Vec::new(),
            background,
            end_of_guest: Some(end_of_guest),
        })
    }

    /// How many are not finished, those in the background included.
    pub(super) fn unfinished(&self) -> usize {
        self.unfinished + self.background.running()
    }

    /// Whether something comes to its end without the guest's.
    pub(super) fn is_at_work(&self) -> bool {
        self.unfinished > 0 || (self.end_of_guest.is_none() && self.background.running() > 0)
    }

    /// One is.
    pub(super) fn finished(&mut self) {
        self.unfinished = self.unfinished.saturating_sub(1);
    }

    /// Runs commands after those that are being run. The asker gets the answer at the end.
    pub(super) fn run(
        &mut self,
        batch: CommandBatch,
        guest_name: &str,
        asker: Option<LocalSocket>,
    ) -> io::Result<()> {
        let ended_by = match asker {
            Some(socket) => EndedBy::HangUp(socket),
            None => {
                let (reader, writer) = io::pipe()?;
                self.holds.push((batch.event, writer));
                EndedBy::Keeper(reader)
            }
        };
        let queue = match &self.queue {
            Some(queue) => queue,
            None => {
                let (hosts, notices) = (Arc::clone(&self.hosts), self.notices.clone());
                let runner = start_runner(self.guest, hosts, notices, self.background.clone())?;
                self.queue.insert(runner)
            }
        };
        queue.send(Waiting { batch, name: guest_name.to_owned(), ended_by }).map_err(io::Error::other)?;
        self.unfinished += 1;
        Ok(())
    }

    /// Ends what was begun while the guest ran, and nobody waits for.
    pub(super) fn cancel_of_running_guest(&mut self) {
        self.holds.retain(|(event, _)| *event == Operation::Stopped);
        self.end_of_guest = None;
    }

    /// Ends what nobody waits for.
    pub(super) fn cancel(&mut self) {
        self.holds.clear();
        self.end_of_guest = None;
    }
}

fn start_runner(
    guest: GuestUuid,
    hosts: HostSource,
    notices: NoticeSender,
    background: Background,
) -> io::Result<Sender<Waiting>> {
    let (queue, waiting): (_, Receiver<Waiting>) = mpsc::channel();
    let run = move || {
        let mut runner = Runner { host: hosts(), guest, name: String::new(), background };
        for Waiting { batch, name, ended_by } in waiting {
            runner.name = name;
            // std panics where a child cannot say whether it started (`recv` fails with anything but EINTR), and a
            // batch that is never done would keep the lease for ever.
            let ran = catch_unwind(AssertUnwindSafe(|| runner.run(&batch, &ended_by)));
            let failures = ran.unwrap_or_else(|_| vec![ended_by_a_bug(&batch)]);
            // First: the asker shall find the keeper at rest when it has the answer.
            notices.send(Notice::CommandsDone);
            match ended_by {
                EndedBy::HangUp(socket) => {
                    // It may have given up waiting.
                    let _ = send(&socket, &Answer::Ran(failures), Deadline::after(TAKES_ANSWER));
                }
                EndedBy::Keeper(_) => {
                    for failure in failures {
                        crate::log::log_warning!("{}", failure.words);
                    }
                }
            }
        }
    };
    thread::Builder::new().name("commands".to_owned()).stack_size(STACK).spawn(run)?;
    Ok(queue)
}

/// What is said of a batch that panicked; refused if one of its commands may refuse.
fn ended_by_a_bug(batch: &CommandBatch) -> CommandFailure {
    let may_refuse = batch.commands.iter().any(|command| command.on_failure == OnCommandFailure::Refuse);
    CommandFailure {
        words: format!("a bug in vfio-hook ended the commands of {}", batch.event.as_str()),
        meaning: if may_refuse { OnCommandFailure::Refuse } else { OnCommandFailure::Warn },
        beginning: Beginning::Perhaps,
    }
}

struct Runner {
    host: Host,
    guest: GuestUuid,
    name: String,
    background: Background,
}

/// One program of a command.
struct Step {
    program: PathBuf,
    arguments: Vec<OsString>,
    stdin: Option<Vec<u8>>,
}

/// Why a command did not do what it should.
struct Failed {
    words: String,
    beginning: Beginning,
}

impl Failed {
    /// It was not even begun.
    fn before(words: impl Into<String>) -> Self {
        Self { words: words.into(), beginning: Beginning::Never }
    }
}

impl Runner {
    /// Runs a batch of commands; stops at one that must not fail and did.
    fn run(&mut self, batch: &CommandBatch, ended_by: &EndedBy) -> Vec<CommandFailure> {
        let mut failures = Vec::new();
        let end = batch.within.map(Deadline::after);
        for command in &batch.commands {
            if let Err(Failed { words, beginning }) = self.run_command(command, batch, ended_by, end) {
                if beginning == Beginning::Never {
                    self.note(command, batch, CommandNews::NeverBegan);
                }
                let meaning = command.on_failure;
                failures.push(CommandFailure { words: command.say(words), meaning, beginning });
                if meaning == OnCommandFailure::Refuse {
                    break;
                }
            }
        }
        failures
    }

    fn run_command(
        &mut self,
        command: &Command,
        batch: &CommandBatch,
        ended_by: &EndedBy,
        end: Option<Deadline>,
    ) -> Result<(), Failed> {
        let user = command.user.as_ref().map(|name| self.user(name)).transpose().map_err(Failed::before)?;
        let session = user.as_ref().map(|user| self.session_of(user, command)).unwrap_or_default();
        for (number, step) in self.steps(command, batch).map_err(Failed::before)?.into_iter().enumerate() {
            let program = step.program.clone();
            let owner = user.as_ref().map(|user| user.uid);
            check_program(&self.host, &program, owner).map_err(|error| Failed::before(error.to_string()))?;
            let is_given_xml = step.stdin.is_some();
            let line = CommandLine {
                program: step.program,
                arguments: step.arguments,
                environment: self.environment(command, batch, user.as_ref(), &session),
                user: user.clone(),
                stdin: step.stdin,
            };
            // All commands of an event share the time that libvirt can be kept waiting.
            let left = end.map_or(command.timeout, |end| end.remaining());
            if left.is_zero() {
                return Err(Failed::before(format!(
                    "{} of {} was not run: those before it took all the time that there is",
                    program.display(),
                    batch.event.as_str()
                )));
            }
            if number == 0 && !self.note(command, batch, CommandNews::Begins) {
                let reason = "the ledger cannot be told that it begins, so that nothing would take it back";
                let (program, event) = (program.display(), batch.event.as_str());
                return Err(Failed::before(format!("{program} ({event}) was not run: {reason}")));
            }
            if command.mode == CommandMode::Background {
                let label = format!("{} ({})", program.display(), batch.event.as_str());
                return self
                    .background
                    .start(command, line, label.clone())
                    .map_err(|error| Failed::before(format!("{label} could not be started: {error}")));
            }
            let timeout = command.timeout.min(left);
            let (print, last) = printing(&program);
            let cancel = match ended_by {
                EndedBy::HangUp(socket) => socket.as_fd(),
                EndedBy::Keeper(reader) => reader.as_fd(),
            };
            let end = self.host.run_command(&line, Deadline::after(timeout), Some(cancel), print);
            let said = if is_given_xml { last.take_but_xml() } else { last.take() };
            judge(&end, &program.display().to_string(), batch.event, timeout, &said)?;
        }
        Ok(())
    }

    /// Writes down what becomes of a command that something takes back, where the process that had it run does not: whether that is
    /// done, or not needed.
    fn note(&mut self, command: &Command, batch: &CommandBatch, news: CommandNews) -> bool {
        let Some(undo) = command.undo.as_ref().filter(|_| batch.answer == AnswerAt::Once) else {
            return true;
        };
        let noted =
            lifecycle::note_command(&mut self.host, self.guest, undo.entry, news, Deadline::after(NOTED));
        noted.unwrap_or_else(|error| {
            crate::log::log_warning!("{}", command.say(format_args!("{command}: {error}")));
            false
        })
    }

    fn user(&self, name: &UserName) -> Result<User, String> {
        let user = self.host.user(name.as_str()).map_err(|error| error.to_string())?;
        user.ok_or_else(|| format!("this host has no user {name}"))
    }

    /// What leads a command to its user's session. One without that runs all the same, and fails by itself if it needs it.
    fn session_of(&self, user: &User, command: &Command) -> Vec<Variable> {
        let (variables, missing) = match self.host.session_of(user) {
            Ok(Session::Open(variables)) => (variables, None),
            Ok(Session::WithoutDesktop(variables, reason)) => {
                (variables, Some(format!("it has no display of {}: {reason}", user.name)))
            }
            Ok(Session::None) if user.is_person() => (
                Vec::new(),
                Some(format!(
                    "{} is not logged in: it has neither a bus of the user nor a display",
                    user.name
                )),
            ),
            Ok(Session::None) => (Vec::new(), None),
            Err(error) => (Vec::new(), Some(format!("it is without the session of {}: {error}", user.name))),
        };
        if let Some(missing) = missing {
            crate::log::log_warning!("{}", command.say(format_args!("{command}: {missing}")));
        }
        variables
    }

    /// The programs of a command: one, or all scripts of a folder.
    fn steps(&self, command: &Command, batch: &CommandBatch) -> Result<Vec<Step>, String> {
        let (event, sub_operation) = (batch.event.as_str(), batch.event.sub_operation());
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
                let extra = if batch.reason.is_empty() { "-" } else { &batch.reason };
                let arguments: Vec<OsString> =
                    [self.name.as_str(), event, sub_operation, extra].map(OsString::from).into();
                let step = |program| Step { program, arguments: arguments.clone(), stdin: Some(xml.clone()) };
                Ok(scripts.into_iter().map(step).collect())
            }
        }
    }

    fn environment(
        &self,
        command: &Command,
        batch: &CommandBatch,
        user: Option<&User>,
        session: &[Variable],
    ) -> Vec<(OsString, OsString)> {
        let mut environment: Vec<(&str, OsString)> = vec![
            ("PATH", ROOT_PATH.into()),
            ("LANG", "C.UTF-8".into()),
            ("VFIO_HOOK_GUEST", OsString::from(&self.name)),
            ("VFIO_HOOK_UUID", self.guest.to_string().into()),
            ("VFIO_HOOK_EVENT", batch.event.as_str().into()),
            ("VFIO_HOOK_REASON", OsString::from(&batch.reason)),
        ];
        if let Some(user) = user {
            environment.push(("HOME", user.home.clone().into()));
            environment.push(("USER", OsString::from(&user.name)));
            environment.push(("LOGNAME", OsString::from(&user.name)));
        }
        environment.extend(session.iter().map(|(name, value)| (*name, OsString::from(value))));
        if let Some(qemu) = batch.qemu {
            environment.push(("VFIO_HOOK_QEMU_PID", qemu.to_string().into()));
        }
        environment.retain(|(name, _)| !command.env.contains_key(*name));
        environment.extend(command.env.iter().map(|(name, value)| (name.as_str(), value.into())));
        environment.into_iter().map(|(name, value)| (name.into(), value)).collect()
    }
}

/// The last line that a program printed.
#[derive(Clone, Default)]
pub(super) struct LastLine(Arc<Mutex<String>>);

/// Has what a program prints go into the log, and keeps the last line of it.
pub(super) fn printing(program: &Path) -> (impl FnMut(&str) + Send + 'static, LastLine) {
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let last = LastLine::default();
    let kept = Arc::clone(&last.0);
    let print = move |text: &str| {
        crate::log::log_info!("{name}: {text}");
        if !text.trim().is_empty() {
            text.clone_into(&mut kept.lock().unwrap_or_else(PoisonError::into_inner));
        }
    };
    (print, last)
}

impl LastLine {
    /// As the end of a message; empty where nothing was printed.
    pub(super) fn take(&self) -> String {
        let line = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let line = line.trim();
        match line.char_indices().nth(MAX_QUOTED) {
            _ if line.is_empty() => String::new(),
            Some((end, _)) => format!(": {}…", &line[..end]),
            None => format!(": {line}"),
        }
    }

    /// The same for a program that was given the guest's XML, which may hold secrets: no part of it goes anywhere but into
    /// root's journal.
    fn take_but_xml(&self) -> String {
        let said = self.take();
        if said.contains(['<', '>', '=']) { String::new() } else { said }
    }
}

/// What the end of a program means, in words if it failed.
fn judge(
    end: &CommandEnd,
    program: &str,
    event: Operation,
    timeout: Duration,
    said: &str,
) -> Result<(), Failed> {
    let event = event.as_str();
    let failed = |what: String| Failed {
        words: format!("{program} ({event}) {what}{said}"),
        beginning: Beginning::Perhaps,
    };
    match end {
        CommandEnd::Exited(0) => Ok(()),
        CommandEnd::Exited(code) => Err(failed(format!("ended with exit status {code}"))),
        CommandEnd::Killed(signal) => Err(failed(format!("was ended by signal {signal}"))),
        CommandEnd::TimedOut => {
            Err(failed(format!("did not end within {} s and was killed", timeout.as_secs())))
        }
        CommandEnd::Cancelled => Err(failed("was ended before its time".to_owned())),
        CommandEnd::NotStarted(reason) => {
            Err(Failed::before(format!("{program} ({event}) could not be started: {reason}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nix::errno::Errno;

    use super::*;
    use crate::host::manifest::lay_out;
    use crate::host::simulated::Faults;
    use crate::keeper::notices::Notices;

    fn runner(host: Host, guest: GuestUuid) -> Runner {
        let notices = Notices::new().unwrap();
        let (background, _end) = Background::new(Arc::new(Host::real), notices.sender()).unwrap();
        Runner { host, guest, name: "win11".to_owned(), background }
    }

    fn command(program: Program) -> Command {
        Command {
            when: Operation::Release,
            program,
            timeout: Duration::from_secs(1),
            user: None,
            on_failure: OnCommandFailure::Warn,
            env: BTreeMap::new(),
            mode: CommandMode::Waited,
            unless_exists: None,
            undo: None,
            place: None,
        }
    }

    #[test]
    fn a_command_gets_its_own_variables_over_the_usual_ones_and_qemu_where_it_runs() {
        let root = tempfile::tempdir().unwrap();
        let runner = runner(Host::simulated(root.path(), &Faults::default()), GuestUuid::from_bytes([1; 16]));
        let mut command = command(Program::Arguments(vec!["/bin/true".to_owned()]));
        command.env = [("LANG", "de_DE.UTF-8"), ("DISPLAY", ":0")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let mut batch = CommandBatch {
            commands: Vec::new(),
            event: Operation::Started,
            reason: String::new(),
            answer: AnswerAt::Once,
            within: None,
            qemu: Some(4711),
        };
        let get = |batch: &CommandBatch, name: &str| -> Vec<OsString> {
            let all = runner.environment(&command, batch, None, &[]);
            all.into_iter().filter(|(other, _)| other == name).map(|(_, value)| value).collect()
        };
        assert_eq!(get(&batch, "LANG"), ["de_DE.UTF-8"]);
        assert_eq!(get(&batch, "DISPLAY"), [":0"]);
        assert_eq!(get(&batch, "VFIO_HOOK_EVENT"), ["started"]);
        assert_eq!(get(&batch, "VFIO_HOOK_QEMU_PID"), ["4711"]);
        batch.qemu = None;
        assert!(get(&batch, "VFIO_HOOK_QEMU_PID").is_empty());
    }

    #[test]
    fn the_last_line_that_says_something_is_quoted_and_no_part_of_the_xml() {
        let said = |lines: &[&str]| {
            let (mut print, last) = printing(Path::new("/bin/x"));
            lines.iter().for_each(|line| print(line));
            last
        };
        assert_eq!(said(&[]).take(), "");
        assert_eq!(said(&["one", " two ", "", "  "]).take(), ": two");
        let long = said(&[&"ü".repeat(500)]).take();
        assert_eq!(long.chars().count(), MAX_QUOTED + 3);
        assert_eq!(said(&["cannot do it"]).take_but_xml(), ": cannot do it");
        for line in ["<graphics passwd='x'/>", "password=x", "passwd='x'"] {
            assert_eq!(said(&[line]).take_but_xml(), "", "{line}");
        }
    }

    /// A script that got nothing instead of the guest's XML would take it for a guest without anything.
    #[test]
    fn scripts_are_not_run_without_the_xml_that_there_is() {
        let root = tempfile::tempdir().unwrap();
        let guest = GuestUuid::from_bytes([1; 16]);
        let file = format!("/run/vfio-hook/{guest}.xml");
        lay_out(&format!("{file} = <domain/>\n/etc/scripts/\n"), root.path()).unwrap();
        let faults = Faults::default();
        let host = Host::simulated(root.path(), &faults);
        let runner = runner(host, guest);
        let command = command(Program::Scripts("/etc/scripts".into()));
        let batch = CommandBatch {
            commands: vec![command.clone()],
            event: Operation::Release,
            reason: String::new(),
            answer: AnswerAt::End,
            within: None,
            qemu: None,
        };
        assert!(runner.steps(&command, &batch).is_ok());
        faults.refuse_read(&file, Errno::EIO);
        let reason = runner.steps(&command, &batch).map(drop).unwrap_err();
        assert!(reason.starts_with(&format!("failed to read {file}: ")), "{reason}");
    }
}
