//! Talks with monitors, in a process of their own. A driver that hangs in a transfer keeps the whole process from
//! ending that made it, and this one is waited for, by libvirt or by systemd; the other can be left behind.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Failure, MonitorsFound};
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::host::bounded::hear_more;
use crate::host::children::{OwnedChild, Wake};
use crate::host::i2c::{I2cBus, MonitorTrouble};
use crate::host::{Host, HostError};
use crate::monitor::{MonitorFeature, VcpValue};

/// The hidden first argument of the child.
pub const TALK_TO_MONITORS: &str = "talk-to-monitors";

/// How much earlier than this process the child gives up, so that it can still say why.
const MARGIN: Duration = Duration::from_millis(150);

/// How long a child may take to end once it has answered; one that hangs takes for ever.
const ENDS: Duration = Duration::from_millis(100);

/// What is said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Talk {
    /// Who is there?
    Find,
    /// What are the values of these features?
    Get(Vec<MonitorFeature>),
    /// Set these.
    Set(Vec<(MonitorFeature, VcpValue)>),
}

#[derive(Serialize, Deserialize)]
struct Order {
    talk: Talk,
    milliseconds: u64,
    /// Where a child hangs that was left behind: these are not touched.
    hanging: Vec<I2cBus>,
}

/// A child that did not end, and where it hangs.
struct LeftBehind {
    child: OwnedChild,
    buses: Vec<I2cBus>,
}

static LEFT_BEHIND: Mutex<Vec<LeftBehind>> = Mutex::new(Vec::new());

/// What an answer tells of buses that hang.
pub(super) trait Hanging {
    /// Those buses.
    fn hanging(&self) -> Vec<I2cBus>;
}

impl Hanging for MonitorsFound {
    fn hanging(&self) -> Vec<I2cBus> {
        self.problems.iter().filter_map(super::MonitorProblem::hanging_bus).collect()
    }
}

impl<T> Hanging for Vec<Result<T, Failure>> {
    fn hanging(&self) -> Vec<I2cBus> {
        let failures = self.iter().filter_map(|answer| answer.as_ref().err());
        failures
            .filter(|failure| failure.trouble == MonitorTrouble::Hangs)
            .filter_map(|failure| failure.bus)
            .collect()
    }
}

/// Has a child say something.
///
/// # Errors
/// No process can be started, or it does not answer in time, which it should in spite of all monitors.
pub(super) fn aside<T: DeserializeOwned + Hanging>(talk: Talk, deadline: Deadline) -> Result<T, HostError> {
    let failed = |reason: &dyn std::fmt::Display| HostError::call(TALK_TO_MONITORS, "the monitors", reason);
    let milliseconds =
        u64::try_from(deadline.remaining().saturating_sub(MARGIN).as_millis()).unwrap_or(u64::MAX);
    let order = Order { talk, milliseconds, hanging: hanging() };
    let order = serde_json::to_string(&order).map_err(|error| failed(&error))?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("vfio-hook")
        .args([TALK_TO_MONITORS, &order])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0);
    let mut child = OwnedChild::spawn(&mut command).map_err(|error| failed(&error))?;
    let answer = child.take_stdout().map_or_else(
        || Err(io::Error::other("it has no output")),
        |mut stdout| answer_of(&child, &mut stdout, deadline),
    );
    let answer = answer.and_then(|line| serde_json::from_str::<T>(&line).map_err(io::Error::other));
    if matches!(child.wait(Deadline::after(ENDS), None), Ok(Wake::Ended)) {
        let _ = child.reap();
    } else {
        let buses = answer.as_ref().map(Hanging::hanging).unwrap_or_default();
        left_behind().push(LeftBehind { child, buses });
    }
    answer.map_err(|error| failed(&error))
}

fn answer_of(child: &OwnedChild, stdout: &mut ChildStdout, deadline: Deadline) -> io::Result<String> {
    let mut heard = Vec::new();
    loop {
        let end = hear_more(child, stdout, &mut heard, deadline)?;
        // The last thing it does before it ends is to answer, in one line.
        if let Some(length) = heard.iter().position(|byte| *byte == b'\n') {
            heard.truncate(length);
            return String::from_utf8(heard).map_err(io::Error::other);
        }
        match end {
            None => {}
            Some(Wake::TimedOut) => return Err(io::ErrorKind::TimedOut.into()),
            Some(Wake::Ended | Wake::Cancelled) => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn hanging() -> Vec<I2cBus> {
    let mut left_behind = left_behind();
    left_behind
        .retain(|left| !matches!(left.child.wait(Deadline::after(Duration::ZERO), None), Ok(Wake::Ended)));
    left_behind.iter().flat_map(|left| left.buses.iter().copied()).collect()
}

fn left_behind() -> MutexGuard<'static, Vec<LeftBehind>> {
    LEFT_BEHIND.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the child does.
///
/// # Errors
/// Nobody is there any more to hear the answer; what it is given to do makes no sense.
pub fn talk_to_monitors(order: &str) -> io::Result<Exit> {
    let Order { talk, milliseconds, hanging } = serde_json::from_str(order)?;
    let deadline = Deadline::after(Duration::from_millis(milliseconds));
    let host = Host::beside_monitors(&hanging);
    let mut answer = match talk {
        Talk::Find => serde_json::to_vec(&host.monitors_here(deadline).map_err(io::Error::other)?)?,
        Talk::Get(asked) => serde_json::to_vec(&host.get_here(&asked, deadline))?,
        Talk::Set(orders) => serde_json::to_vec(&host.set_here(&orders, deadline))?,
    };
    answer.push(b'\n');
    io::stdout().write_all(&answer)?;
    io::stdout().flush()?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;
    use crate::host::virsh::kill;

    #[test]
    fn half_an_answer_is_waited_for_no_longer_than_there_is_time() {
        let (sender, end) = channel();
        thread::spawn(move || {
            let ask = |script: &str, time| {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", script]).stdout(Stdio::piped()).process_group(0);
                let mut child = OwnedChild::spawn(&mut command).unwrap();
                let mut stdout = child.take_stdout().unwrap();
                let answer = answer_of(&child, &mut stdout, Deadline::after(time));
                kill(child);
                answer.map_err(|error| error.kind())
            };
            let (short, long) = (Duration::from_millis(200), Duration::from_secs(20));
            sender.send(ask("printf half; exec sleep 1000", short)).unwrap();
            sender.send(ask("printf half", long)).unwrap();
            sender.send(ask("printf 'whole\n'; exec sleep 1000", long)).unwrap();
        });
        let answer = || end.recv_timeout(Duration::from_secs(20)).expect("it hangs");
        assert_eq!(answer(), Err(io::ErrorKind::TimedOut));
        assert_eq!(answer(), Err(io::ErrorKind::UnexpectedEof));
        assert_eq!(answer(), Ok("whole".to_owned()));
    }
}
