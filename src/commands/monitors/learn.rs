//! Learning a monitor's inputs: a person switches it by its own button, and what it says before and after goes into the
//! guest's file.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::{PATIENCE, choose, deviation_of, input, named};
use crate::commands::output::{self, Format};
use crate::commands::user_error::UserResult;
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::host::{Host, HostError, MonitorFound, MonitorsFound};
use crate::monitor::{Deviation, VcpValue};

/// How long a change is waited for.
const WAIT: Duration = Duration::from_secs(60);
/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);

/// What a monitor said, and what to write because of it.
#[derive(Debug, Serialize)]
pub(super) struct Lesson {
    monitor: String,
    before: VcpValue,
    /// None where it did not change, or does not answer on the other input.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<VcpValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    yaml: Option<String>,
    #[serde(skip)]
    deviation: Deviation,
    #[serde(skip)]
    last: Option<HostError>,
}

/// What a person who waits has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Person {
    Waits,
    PressedEnter,
}

pub(super) fn run(host: &Host, monitor: Option<&str>, format: Format) -> UserResult<Exit> {
    let found = host.monitors(Deadline::after(PATIENCE))?;
    let monitor = choose::one(host, &found, monitor)?;
    output::aside(format_args!(
        "switch {} to the guest's input with its own button; a change is waited for, for {} s at most (Enter \
         ends it)",
        monitor.key,
        WAIT.as_secs()
    ));
    let enter = enter();
    let mut is_open = true;
    let lesson = learn(host, &found, monitor, Deadline::after(WAIT), &mut || {
        if !is_open {
            thread::sleep(LOOK);
            return Person::Waits;
        }
        match enter.recv_timeout(LOOK) {
            Ok(()) => Person::PressedEnter,
            Err(RecvTimeoutError::Timeout) => Person::Waits,
            Err(RecvTimeoutError::Disconnected) => {
                // Standard input is no terminal, and over: then only a change ends this.
                is_open = false;
                Person::Waits
            }
        }
    })?;
    match format {
        Format::Json => output::json(&lesson),
        Format::Text => lines(&lesson).iter().for_each(output::line),
    }
    Ok(if lesson.after.is_some() { Exit::Done } else { Exit::Failed })
}

/// Waits for Enter in the background; nobody waits for the end of it.
fn enter() -> Receiver<()> {
    // One is enough, and an input of nothing else does not fill the memory.
    let (sender, receiver) = sync_channel(1);
    let read = move || tell_of_enter(io::stdin().lock(), &sender);
    // Without a thread Enter ends nothing, and the time does.
    let _ = thread::Builder::new().name("stdin".to_owned()).spawn(read);
    receiver
}

/// Tells of each Enter until nobody listens or the input is over. Lines may be without an end.
fn tell_of_enter(mut input: impl Read, listener: &SyncSender<()>) {
    let mut piece = [0; 1024];
    loop {
        match input.read(&mut piece) {
            Ok(0) => return,
            Ok(length) if piece[..length].contains(&b'\n') && listener.send(()).is_err() => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Waits until the monitor tells another input twice, the person presses Enter, or the time is over.
pub(super) fn learn(
    host: &Host,
    found: &MonitorsFound,
    monitor: &MonitorFound,
    deadline: Deadline,
    person: &mut dyn FnMut() -> Person,
) -> UserResult<Lesson> {
    let deviation = deviation_of(host, monitor)?;
    let before = input(host, monitor, &deviation, Deadline::after(PATIENCE))?;
    let (mut changed, mut last) = (None, None);
    let after = loop {
        let waits = person();
        let now = input(host, monitor, &deviation, Deadline::after(PATIENCE));
        let seen = now.as_ref().ok().copied().filter(|now| *now != before);
        last = now.err().or(last.filter(|_| seen.is_none()));
        // Menus step through the inputs: one that is seen twice is meant.
        if seen.is_some() && (seen == changed || waits == Person::PressedEnter) {
            break seen;
        }
        changed = seen;
        if waits == Person::PressedEnter || deadline.has_passed() {
            break None;
        }
    };
    let yaml = after.map(|after| yaml(&selector(found, monitor), &deviation, before, after));
    Ok(Lesson { monitor: monitor.key.to_string(), before, after, yaml, deviation, last })
}

pub(super) fn lines(lesson: &Lesson) -> Vec<String> {
    let Lesson { monitor, before, after, yaml, deviation, last } = lesson;
    let before = named(deviation, *before);
    if let (Some(after), Some(yaml)) = (after, yaml) {
        let seen = format!("{monitor}: {before} -> {}", named(deviation, *after));
        return vec![seen, String::new(), yaml.clone()];
    }
    let mut lines = vec![match last {
        Some(error) => format!("{monitor}: {before}, and then nothing: {error}"),
        None => format!("{monitor}: {before}, and it did not change"),
    }];
    lines.push(
        match last {
            Some(_) => {
                "help: it does not answer while another input is shown; try names with `vfio-hook monitors \
                 set`"
            }
            None => "help: it may tell the same for all inputs, or switch by a feature of its maker's",
        }
        .to_owned(),
    );
    lines
}

fn yaml(selector: &str, deviation: &Deviation, host: VcpValue, guest: VcpValue) -> String {
    let name = |value: VcpValue| deviation.name_of(value).unwrap_or_else(|| value.to_string());
    format!(
        "switch_input:\n  - monitor: {{ {selector} }}\n    guest: {}\n    host: {}",
        name(guest),
        name(host)
    )
}

/// What tells the monitor from the others: its model, else its serial number, else its connector.
pub(super) fn selector(found: &MonitorsFound, monitor: &MonitorFound) -> String {
    let is_only = |tells: &dyn Fn(&MonitorFound) -> Option<String>| {
        let own = tells(monitor)?;
        let same = found.monitors.iter().filter(|other| tells(other).as_ref() == Some(&own));
        (same.count() == 1).then_some(own)
    };
    let model =
        |monitor: &MonitorFound| monitor.key.identity.model.as_ref().map(|model| model.to_lowercase());
    let connector = |monitor: &MonitorFound| monitor.key.place.connector.as_ref().map(ToString::to_string);
    // A text of JSON is one of YAML.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    if let (Some(_), Some(model)) = (is_only(&model), &monitor.key.identity.model) {
        return format!("model: {}", quoted(model));
    }
    if let Some(serial) = is_only(&choose::serial) {
        return format!("serial: {}", quoted(&serial));
    }
    match is_only(&connector) {
        Some(connector) => format!("connector: {connector}"),
        None => format!("manufacturer: {}", monitor.key.identity.manufacturer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives only pieces, and remembers the largest that was asked for.
    struct Endless {
        pieces: usize,
        largest: usize,
    }

    impl Read for &mut Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.largest = self.largest.max(buffer.len());
            self.pieces = self.pieces.saturating_sub(1);
            buffer.fill(b'x');
            Ok(if self.pieces == 0 { 0 } else { buffer.len() })
        }
    }

    #[test]
    fn a_line_without_an_end_is_no_enter_and_is_not_kept() {
        let (sender, receiver) = sync_channel(1);
        let mut endless = Endless { pieces: 100_000, largest: 0 };
        tell_of_enter(&mut endless, &sender);
        assert_eq!(endless.largest, 1024);
        tell_of_enter(&b"\n"[..], &sender);
        drop(sender);
        assert_eq!(receiver.iter().count(), 1);
    }
}
