//! The section `run`: commands and scripts of the host's administrator.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::harmful_commands::{Waiting, harm};
use super::item::Item;
use super::key::Key;
use super::section::Section;
use super::shell_words;
use super::timeout::Timeout;
use super::tree::{Node, shortened};
use super::value::{Fault, Toggle, any_of, choice, toggle, user};
use crate::user_name::UserName;

const COMMAND_IN_PREPARE: Timeout = Timeout::during_prepare(Duration::from_secs(10));
const COMMAND_AFTERWARDS: Timeout = Timeout::afterwards(Duration::from_secs(10));
const SCRIPT: Timeout = Timeout::during_prepare(Duration::from_secs(30));

/// Keys of a command that `scripts` has no use for.
const OF_COMMANDS: [&str; 8] =
    ["when", "command", "undo", "env", "background", "unless_exists", "user", "on_failure"];

/// Variables whose names begin so are the program's own, or have the loader run what they name.
const REFUSED_VARIABLES: [(&str, &str); 2] =
    [("VFIO_HOOK_", "vfio-hook sets those itself"), ("LD_", "the loader would run what it names, as root")];

/// The longest name of a variable; the kernel has a limit for all of them together.
const MAX_VARIABLE_NAME: usize = 100;

/// What is run for the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// In this order; never none.
    pub entries: Vec<RunEntry>,
}

impl Run {
    /// Its keys, for people.
    pub const KEYS: &'static [Key] = &[
        Key::new(
            "when",
            "`prepare`, `start`, `started`, `stopped`, `release`",
            "needed",
            "the event; `prepare` comes before the guest's devices are libvirt's, `start` between that and \
                    QEMU, and both delay the guest. What runs at the others delays nothing",
        ),
        Key::new(
            "command",
            "a list such as `[/usr/bin/logger, \"guest is up\"]`",
            "needed",
            "the program with its whole path, and its arguments; quote `\"0x10\"`, which YAML makes \
                    16",
        ),
        Key::new(
            "undo",
            "a list as for `command`",
            "nothing",
            "what takes the command back when the guest is gone, if and only if the command may have begun; \
                    not with `stopped` and `release`",
        ),
        Key::new(
            "timeout",
            "`1s` to `50s`, not at `prepare` and `start` up to `10min`; for scripts `1s` to `50s` each",
            "`10s`, for scripts `30s`",
            "how long it may take; with `background`, how long it may take to end when the guest has ended",
        ),
        Key::new(
            "background",
            "`true`, `false`",
            "`false`",
            "it runs until the guest ends, and nothing waits for it; not with `stopped` and `release`",
        ),
        Key::new(
            "env",
            "names and texts such as `{ DISPLAY: \":0\" }`",
            "nothing",
            "variables of its own; `VFIO_HOOK_…` and `LD_…` are refused",
        ),
        Key::new(
            "unless_exists",
            "a path such as `/.no-hooks`",
            "",
            "the command is skipped, and the log says so, if there is such a file when its turn comes",
        ),
        Key::new(
            "user",
            "a user's name",
            "root",
            "as whom it runs, and in whose session: with its bus, runtime folder and display, if that user is logged in",
        ),
        Key::new(
            "on_failure",
            "`warn`, `refuse`",
            "`warn`",
            "a line in the log, or (only at `prepare` and `start`) the start is refused",
        ),
        Key::new(
            "scripts",
            "a folder such as `/etc/libvirt/hooks/qemu.d`",
            "",
            "runs the scripts in `GUEST/OPERATION/SUB-OPERATION/` below it; goes only with `timeout`",
        ),
    ];
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
    /// What takes it back, of the same form.
    pub undo: Option<Vec<String>>,
    /// How long it may take; in the background, how long it may take to end.
    pub timeout: Duration,
    /// Whether its end is waited for.
    pub background: Toggle,
    /// Its own variables.
    pub env: BTreeMap<String, String>,
    /// The file that keeps it from being run, an absolute path.
    pub unless_exists: Option<PathBuf>,
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
    /// Its devices are libvirt's, and QEMU is about to be started, which waits for it.
    Start,
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
    /// The start is refused; only where [`RunWhen::delays_start`].
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
    const ALL: [Self; 5] = [Self::Prepare, Self::Start, Self::Started, Self::Stopped, Self::Release];

    /// libvirt's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Start => "start",
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Release => "release",
        }
    }

    /// Whether the guest waits for it.
    #[must_use]
    pub fn delays_start(self) -> bool {
        matches!(self, Self::Prepare | Self::Start)
    }

    /// Whether the guest has ended by then.
    #[must_use]
    pub fn is_at_the_end(self) -> bool {
        matches!(self, Self::Stopped | Self::Release)
    }
}

impl Run {
    /// Whether something of it is given the guest's XML.
    #[must_use]
    pub fn wants_xml(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry, RunEntry::Scripts(_)))
    }

    pub(crate) fn read(item: Item<'_>) -> Self {
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
        let directory = section.value("scripts", read_directory);
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
            "say when it runs: `prepare`, `start`, `started`, `stopped` or `release`",
        );
        let when =
            section.required("when", no_event).and_then(|item| item.value(|node| read_when(node, &events)));
        let no_command = Fault::new("`run.command` is missing", format!("say what runs: {LIKE_THIS}"));
        let background = section.value("background", toggle).unwrap_or(Toggle::Off);
        let waiting = |delayed: Waiting| match when {
            Some(when) if when.delays_start() => delayed,
            Some(when) if when.is_at_the_end() => Waiting::AtTheEnd,
            _ => Waiting::Nobody,
        };
        let waited = if background.is_on() { Waiting::Nobody } else { Waiting::Libvirt };
        let command = section.required("command", no_command);
        let command = command.and_then(|item| read_command(item, waiting(waited)));
        let undo = section.item("undo").map(|item| read_command(item, waiting(Waiting::LibvirtIfRefused)));
        let delays_start = when.is_some_and(RunWhen::delays_start) && !background.is_on();
        let limits = if delays_start { COMMAND_IN_PREPARE } else { COMMAND_AFTERWARDS };
        let timeout = section.value("timeout", |node| limits.read(node)).unwrap_or(limits.default);
        let env = section.item("env").map_or_else(BTreeMap::new, read_env);
        let unless_exists = section.value("unless_exists", |node| {
            let path = absolute_path(node, "a file", "for example `/.no-hooks`")?;
            shell_words::fault_of_path(&path).map_or(Ok(PathBuf::from(path)), Err)
        });
        let user = section.value("user", user);
        let on_failure = section.value("on_failure", |node| read_on_failure(node, when, background));
        refuse_at_the_end(&mut section, when, background);
        section.finish();
        let on_failure = on_failure.unwrap_or(OnFailure::Warn);
        let (command, when) = (command?, when?);
        let undo = match undo {
            Some(undo) => Some(undo?),
            None => None,
        };
        Some(Self { when, command, undo, timeout, background, env, unless_exists, user, on_failure })
    }
}

/// What has no effect once the guest has ended.
fn refuse_at_the_end(section: &mut Section<'_>, when: Option<RunWhen>, background: Toggle) {
    let Some(when) = when.filter(|when| when.is_at_the_end()) else { return };
    let when = when.as_str();
    if section.has("undo") {
        let message = format!("has no effect with `when: {when}`: the guest has ended");
        section.refuse("undo", Fault::new(message, "remove it, or run the command earlier"));
    }
    if background.is_on() {
        let message = format!("has no effect with `when: {when}`: the guest has ended");
        section.refuse("background", Fault::new(message, "remove it, or run the command earlier"));
    }
}

/// Reads variables; YAML would make numbers and booleans of texts, and `007` another one.
fn read_env(item: Item<'_>) -> BTreeMap<String, String> {
    let example = "env: {DISPLAY: \":0\"}";
    item.pairs("sets nothing", example, read_variable_name, |value| {
        value.value(|node| match node {
            Node::Text(text) => match shell_words::fault_of_variable(text) {
                Some(fault) => Err(fault),
                None => without_nul(text),
            },
            other => Err(Fault::expected_like("a text", other, "put quotes around it")),
        })
    })
    .into_iter()
    .collect()
}

fn read_variable_name(node: &Node) -> Result<String, Fault> {
    let Node::Text(name) = node else {
        return Err(Fault::expected_like("a variable's name", node, "for example `DISPLAY`"));
    };
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && (1..=MAX_VARIABLE_NAME).contains(&name.len());
    if !is_plain {
        let help = format!(
            "a name has letters, digits and `_`, no digit first, and at most {MAX_VARIABLE_NAME} of them"
        );
        return Err(Fault::expected_like("a variable's name", node, help));
    }
    match REFUSED_VARIABLES.iter().find(|(start, _)| name.starts_with(start)) {
        Some((_, reason)) => {
            Err(Fault::new(format!("`{}` cannot be set", shortened(name)), format!("remove it: {reason}")))
        }
        None => Ok(name.clone()),
    }
}

const LIKE_THIS: &str = "`command: [/usr/bin/logger, \"the guest runs\"]`";

/// Events of libvirt's and words of dispatchers at which no command runs, and where it may run instead.
const OTHER_EVENTS: [(&str, &str); 7] = [
    ("reconnect", "at `reconnect` only `scripts` run"),
    ("begin", "`prepare` and `started` have what scripts have in `prepare/begin` and `started/begin`"),
    ("end", "`stopped` and `release` have what scripts have in `stopped/end` and `release/end`"),
    ("stop", "`stopped` comes when QEMU is gone, `release` when libvirt is done with its devices"),
    ("shutdown", "`stopped` comes when QEMU is gone, `release` when libvirt is done with its devices"),
    ("migrate", "nothing is run at `migrate`"),
    ("restore", "nothing is run at `restore`"),
];

fn read_when(node: &Node, events: &[(&str, RunWhen)]) -> Result<RunWhen, Fault> {
    let Node::Text(text) = node else { return choice(node, events) };
    let names: Vec<&str> = events.iter().map(|(name, _)| *name).collect();
    let expected = &any_of(&names);
    let words = || text.split(['/', ' ']);
    // `prepare/begin`, as a dispatcher's folders are called.
    if let Some((event, _)) =
        events.iter().find(|(name, _)| text != name && words().any(|word| word == *name))
    {
        return Err(Fault::expected_like(expected, node, format!("write `{event}`")));
    }
    match OTHER_EVENTS.iter().find(|(word, _)| words().any(|part| part == *word)) {
        Some((_, help)) => Err(Fault::expected_like(expected, node, *help)),
        None => choice(node, events),
    }
}

fn read_command(item: Item<'_>, waiting: Waiting) -> Option<Vec<String>> {
    let Node::List(nodes) = item.node() else {
        let help = match item.node() {
            Node::Text(line) => shell_words::help_for_line(line),
            _ => None,
        };
        let each = || format!("there is no shell, so each argument stands alone: {LIKE_THIS}");
        let help = help.unwrap_or_else(each);
        let fault = Fault::expected_like("a list of a program and its arguments", item.node(), help);
        item.refuse(fault);
        return None;
    };
    let written: Vec<String> = nodes.iter().map(|node| read_argument(node).unwrap_or_default()).collect();
    let mut harm = harm(&written, waiting);
    let for_a_shell = (0..written.len()).find(|number| shell_words::fault(&written, *number).is_some());
    let mut number = 0;
    let words = item.elements("runs nothing", |mut word| {
        let at = number;
        number += 1;
        if let Node::Integer(_) | Node::Bool(_) = word.node() {
            let read = written.get(at).cloned().unwrap_or_default();
            word.judge_as_written(move |text| another_text(text, &read));
        }
        word.value(|node| {
            let word = if at == 0 { read_program(node) } else { read_argument(node) }?;
            if let Some((_, fault)) = harm.take_if(|(number, _)| *number == at) {
                return Err(fault);
            }
            match shell_words::fault(&written, at).filter(|_| for_a_shell == Some(at)) {
                Some(fault) => Err(fault),
                None => Ok(word),
            }
        })
    });
    (!words.is_empty()).then_some(words)
}

/// A number or a boolean that YAML does not read as it is written: `0x0f`, `+1`, `0o17`, `True`.
fn another_text(written: &str, read: &str) -> Option<Fault> {
    if written == read {
        return None;
    }
    let written = shortened(written);
    let message = format!("YAML reads `{written}` as `{}`, and the program would get that", shortened(read));
    Some(Fault::new(message, format!("put quotes around it: `\"{written}\"`")))
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

fn read_directory(node: &Node) -> Result<PathBuf, Fault> {
    let path =
        absolute_path(node, "a folder", "for example `/etc/libvirt/hooks/qemu.d`").map(PathBuf::from)?;
    match top_of_tree(&path) {
        None => Ok(path),
        Some(top) => Err(Fault::new(
            "the folder of one event: the scripts are looked for in `GUEST/OPERATION/SUB-OPERATION` below this folder",
            format!("did you mean `{}`?", shortened(&top.to_string_lossy())),
        )),
    }
}

/// The folder that was probably meant, where one within its tree is named: `TOP/GUEST/prepare/begin`.
fn top_of_tree(path: &Path) -> Option<PathBuf> {
    const SUB_OPERATIONS: [&str; 2] = ["begin", "end"];
    const OPERATIONS: [&str; 6] = ["prepare", "start", "started", "stopped", "release", "reconnect"];
    let is_one_of = |path: &Path, names: &[&str]| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| names.contains(&name))
    };
    let event = if is_one_of(path, &SUB_OPERATIONS) { path.parent()? } else { path };
    let guest = is_one_of(event, &OPERATIONS).then(|| event.parent()).flatten()?;
    guest.parent().map(Path::to_path_buf)
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

fn read_on_failure(node: &Node, when: Option<RunWhen>, background: Toggle) -> Result<OnFailure, Fault> {
    let on_failure = choice(node, &[("warn", OnFailure::Warn), ("refuse", OnFailure::Refuse)])?;
    match when {
        Some(when) if on_failure == OnFailure::Refuse && !when.delays_start() => Err(Fault::new(
            format!("`refuse` has no effect with `when: {}`: the guest has started", when.as_str()),
            "write `on_failure: warn`, or `when: prepare`",
        )),
        Some(_) if on_failure == OnFailure::Refuse && background.is_on() => Err(Fault::new(
            "`refuse` has no effect with `background: true`: nothing waits for its end",
            "write `on_failure: warn`, or remove `background`",
        )),
        _ => Ok(on_failure),
    }
}
