//! irqbalance, which would move interrupts back onto the guest's CPUs, over its socket.

use std::io::{self, IoSlice, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixCredentials, sendmsg};
use serde::{Deserialize, Serialize};

use super::{Host, HostError};
use crate::cpuset::CpuSet;
use crate::failpoint;

/// Where irqbalance 1.5 and newer makes its socket (`irqbalance.h`, `SOCKET_TMPFS`).
const FOLDER: &str = "/run/irqbalance";

/// The longest wait for an answer; it is served between two rounds, which take milliseconds.
const ANSWER: Duration = Duration::from_secs(1);

/// The socket of one running irqbalance: `irqbalanceNNN.sock`, NNN its process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IrqbalanceSocket(String);

impl IrqbalanceSocket {
    fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.0)
    }
}

impl Host {
    /// The socket of the irqbalance that runs; none where none does.
    #[must_use]
    pub fn irqbalance(&self) -> Option<IrqbalanceSocket> {
        let names = self.names(FOLDER).unwrap_or_default();
        let sockets = names.iter().filter_map(|name| name.to_str());
        // A daemon that was killed leaves its socket behind; only one that answers counts.
        sockets
            .filter(|name| name.starts_with("irqbalance") && name.ends_with(".sock"))
            .map(|name| IrqbalanceSocket(name.to_owned()))
            .find(|socket| self.irqbalance_banned_cpus(socket).is_ok())
    }

    /// The CPUs it keeps interrupts away from, as its `setup` says. A change shows only at its next round (10 s).
    ///
    /// # Errors
    /// It does not answer.
    pub fn irqbalance_banned_cpus(&self, socket: &IrqbalanceSocket) -> Result<CpuSet, HostError> {
        let path = socket.path();
        let answer = ask(&self.files.locate(&path), "setup").map_err(|error| match error.kind() {
            // A daemon that was killed leaves its socket behind.
            io::ErrorKind::ConnectionRefused => {
                HostError::gone(format!("nobody listens at {} any more", path.display()))
            }
            _ => HostError::read(&path, error),
        })?;
        let mask = answer.rsplit_once("BANNED ").map_or("", |(_, mask)| mask.trim());
        CpuSet::from_mask(mask).map_err(|reason| HostError::content(&path, format!("`{answer}`: {reason}")))
    }

    /// Replaces its list of CPUs; the empty list gives the choice back to its own configuration.
    ///
    /// # Errors
    /// It does not take the command.
    pub fn set_irqbalance_banned_cpus(
        &mut self,
        socket: &IrqbalanceSocket,
        cpus: &CpuSet,
    ) -> Result<(), HostError> {
        let list = if cpus.is_empty() { "NULL".to_owned() } else { cpus.to_string() };
        let (path, command) = (socket.path(), format!("settings cpus {list}"));
        failpoint::reached("knob");
        ask(&self.files.locate(&path), &command).map_err(|error| HostError::write(&path, &command, error))?;
        failpoint::reached("knob");
        Ok(())
    }
}

/// One command a connection; irqbalance wants the sender's credentials beside it and closes when it has answered.
fn ask(path: &Path, command: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    let credentials = UnixCredentials::new();
    let bytes = [IoSlice::new(command.as_bytes())];
    let control = [ControlMessage::ScmCredentials(&credentials)];
    sendmsg::<()>(stream.as_raw_fd(), &bytes, &control, MsgFlags::MSG_NOSIGNAL, None)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
