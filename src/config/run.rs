//! The section `run`: commands and scripts of the host's administrator.

use std::path::PathBuf;
use std::time::Duration;

use super::item::Item;
use super::section::Section;
use super::timeout::Timeout;
use super::tree::{Node, shortened};
use super::value::{Fault, choice, user};
use crate::host::UserName;

const COMMAND_IN_PREPARE: Timeout = Timeout::during_prepare(Duration::from_secs(10));
const COMMAND_AFTERWARDS: Timeout = Timeout::afterwards(Duration::from_secs(10));
const SCRIPT: Timeout = Timeout::during_prepare(Duration::from_secs(30));

/// Keys of a command that `scripts` has no use for.
const OF_COMMANDS: [&str; 4] = ["when", "command", "user", "on_failure"];

/// What is run for the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// In this order; never none.
    pub entries: Vec<RunEntry>,
}

/// One thing to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEntry {
    /// A command at one event.
    Command(RunCommand),
    /// Scripts for many events, in folders.
    Scripts(RunScripts),
}

/// A command, run without a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunCommand {
    /// At which event.
    pub when: RunWhen,
    /// The program, an absolute path, and its arguments; no NUL in any of them.
    pub command: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
    /// As whom; none for root.
    pub user: Option<UserName>,
    /// What happens if it fails.
    pub on_failure: OnFailure,
}

/// The events that commands are run at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunWhen {
    /// Before the guest starts, which waits for it.
    Prepare,
    /// The guest runs.
    Started,
    /// The guest has stopped; its devices are still libvirt's.
    Stopped,
    /// The guest is gone.
    Release,
}

/// What a command that fails means to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnFailure {
    /// The log says so.
    Warn,
    /// The start is refused; only at [`RunWhen::Prepare`].
    Refuse,
}

/// Scripts as dispatchers have them: `GUEST/OPERATION/SUB-OPERATION/*` below a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunScripts {
    /// The folder, an absolute path.
    pub directory: PathBuf,
    /// How long each script may take.
    pub timeout: Duration,
}

impl RunWhen {
    const ALL: [Self; 4] = [Self::Prepare, Self::Started, Self::Stopped, Self::Release];

    /// libvirt's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Release => "release",
        }
    }
}

impl Run {
    /// Whether something of it is given the guest's XML.
    #[must_use]
    pub fn wants_xml(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry, RunEntry::Scripts(_)))
    }

    pub(super) fn read(item: Item<'_>) -> Self {
        let entries = item.elements("runs nothing", |element| {
            let example = "{when: started, command: [/usr/bin/logger, hello]}";
            let section = element.section(example)?;
            if section.has("scripts") {
                RunScripts::read(section).map(RunEntry::Scripts)
            } else {
                RunCommand::read(section).map(RunEntry::Command)
            }
        });
        Self { entries }
    }
}

impl RunScripts {
    fn read(mut section: Section<'_>) -> Option<Self> {
        let directory = section.value("scripts", |node| {
            absolute_path(node, "a folder", "for example `/etc/libvirt/hooks/qemu.d`").map(PathBuf::from)
        });
        let timeout = section.value("timeout", |node| SCRIPT.read(node)).unwrap_or(SCRIPT.default);
        for key in OF_COMMANDS {
            section.unfit(key, "scripts", "give the command an entry of its own");
        }
        section.finish();
        Some(Self { directory: directory?, timeout })
    }
}

impl RunCommand {
    fn read(mut section: Section<'_>) -> Option<Self> {
        section.offer("scripts");
        let events = RunWhen::ALL.map(|when| (when.as_str(), when));
        let no_event = Fault::new(
            "`run.when` is missing",
            "say when it runs: `prepare`, `started`, `stopped` or `release`",
        );
        let when =
            section.required("when", no_event).and_then(|item| item.value(|node| choice(node, &events)));
        let no_command = Fault::new("`run.command` is missing", format!("say what runs: {LIKE_THIS}"));
        let command = section.required("command", no_command).and_then(read_command);
        let limits = if when == Some(RunWhen::Prepare) { COMMAND_IN_PREPARE } else { COMMAND_AFTERWARDS };
        let timeout = section.value("timeout", |node| limits.read(node)).unwrap_or(limits.default);
        let user = section.value("user", user);
        let on_failure = section.value("on_failure", |node| read_on_failure(node, when));
        section.finish();
        let on_failure = on_failure.unwrap_or(OnFailure::Warn);
        Some(Self { when: when?, command: command?, timeout, user, on_failure })
    }
}

const LIKE_THIS: &str = "`command: [/usr/bin/logger, \"the guest runs\"]`";

fn read_command(item: Item<'_>) -> Option<Vec<String>> {
    if !matches!(item.node(), Node::List(_)) {
        let help = format!("there is no shell, so each argument stands alone: {LIKE_THIS}");
        let fault = Fault::expected_like("a list of a program and its arguments", item.node(), help);
        item.refuse(fault);
        return None;
    }
    let mut read = read_program as fn(&Node) -> Result<String, Fault>;
    let words = item.elements("runs nothing", |word| {
        let word = word.value(read);
        read = read_argument;
        word
    });
    (!words.is_empty()).then_some(words)
}

fn read_program(node: &Node) -> Result<String, Fault> {
    absolute_path(
        node,
        "a program",
        "`command -v logger` shows where a program is: for example `/usr/bin/logger`",
    )
}

/// YAML reads words such as `5` and `true` as numbers and booleans; arguments are text.
fn read_argument(node: &Node) -> Result<String, Fault> {
    match node {
        Node::Text(text) | Node::Integer(text) => without_nul(text),
        Node::Bool(value) => Ok(value.to_string()),
        other => Err(Fault::expected_like("an argument", other, "put quotes around it if it is a text")),
    }
}

fn absolute_path(node: &Node, what: &str, help: &str) -> Result<String, Fault> {
    let expected = format!("the absolute path of {what}");
    match node {
        Node::Text(path) if path.starts_with('/') => without_nul(path),
        other => Err(Fault::expected_like(&expected, other, help)),
    }
}

fn without_nul(text: &str) -> Result<String, Fault> {
    if text.contains('\0') {
        let message = format!("`{}` holds a NUL, which no program can be given", shortened(text));
        return Err(Fault::new(message, "remove the `\\0`"));
    }
    Ok(text.to_owned())
}

fn read_on_failure(node: &Node, when: Option<RunWhen>) -> Result<OnFailure, Fault> {
    let on_failure = choice(node, &[("warn", OnFailure::Warn), ("refuse", OnFailure::Refuse)])?;
    match when {
        Some(when) if on_failure == OnFailure::Refuse && when != RunWhen::Prepare => Err(Fault::new(
            format!("`refuse` has no effect with `when: {}`: the guest has started", when.as_str()),
            "write `on_failure: warn`, or `when: prepare`",
        )),
        _ => Ok(on_failure),
    }
}
