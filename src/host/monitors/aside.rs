//! Talks with monitors, in a process of their own. A driver that hangs in a transfer keeps the whole process from
//! ending that made it, and this one is waited for, by libvirt or by systemd; the other can be left behind.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Failure, MonitorsFound};
use crate::deadline::Deadline;
use crate::exit::Exit;
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
        |stdout| answer_of(&child, stdout, deadline),
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

fn answer_of(child: &OwnedChild, stdout: ChildStdout, deadline: Deadline) -> io::Result<String> {
    match child.wait(deadline, Some(stdout.as_fd()))? {
        Wake::TimedOut => Err(io::ErrorKind::TimedOut.into()),
        // The last thing it does before it ends is to answer, in one line that fits into the pipe.
        Wake::Cancelled | Wake::Ended => {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line)?;
            Ok(line)
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
