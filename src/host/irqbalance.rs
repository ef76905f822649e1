//! irqbalance, which would move interrupts back onto the guest's CPUs, over its socket.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::local_socket::LocalSocket;
use super::{Host, HostError};
use crate::cpuset::CpuSet;
use crate::deadline::Deadline;
use crate::failpoint;
use crate::printable::excerpt;

/// Where irqbalance 1.5 and newer makes its socket (`irqbalance.h`, `SOCKET_TMPFS`).
pub(super) const FOLDER: &str = "/run/irqbalance";

/// The longest wait for one exchange; it is served between two rounds, which take milliseconds.
const ANSWER: Duration = Duration::from_secs(1);

/// The longest answer: some 60 bytes for each interrupt that its configuration bans.
const MAX_ANSWER: usize = 256 * 1024;

/// How much of an answer that makes no sense is shown, in characters.
const EXCERPT: usize = 100;

/// The socket of one irqbalance: `irqbalanceNNN.sock`, NNN its process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IrqbalanceSocket(String);

/// Whether an irqbalance runs.
#[derive(Debug)]
pub enum Irqbalance {
    /// None does.
    Absent,
    /// This one does, and answers.
    Runs(IrqbalanceSocket),
    /// One seems to, but it does not answer.
    Unknown(HostError),
}

/// Those that did not answer within their time: none is waited for twice by one host, so that it costs an event one
/// wait. A new one has another socket.
#[derive(Debug, Default)]
pub(super) struct SilentIrqbalances(Mutex<BTreeSet<IrqbalanceSocket>>);

impl IrqbalanceSocket {
    fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.0)
    }
}

impl SilentIrqbalances {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<IrqbalanceSocket>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host {
    /// Whether an irqbalance runs, and where. It has 1 s to answer, and no more than until the deadline.
    #[must_use]
    pub fn irqbalance(&self, deadline: Deadline) -> Irqbalance {
        let names = match self.names(FOLDER) {
            Ok(names) => names,
            Err(error) if error.is_absent() => return Irqbalance::Absent,
            Err(error) => return Irqbalance::Unknown(error),
        };
        let mut silent = None;
        let names = names.iter().filter_map(|name| name.to_str());
        for name in names.filter(|name| name.starts_with("irqbalance") && name.ends_with(".sock")) {
            let socket = IrqbalanceSocket(name.to_owned());
            match self.irqbalance_banned_cpus(&socket, deadline) {
                Ok(_) => return Irqbalance::Runs(socket),
                // A daemon that was killed leaves its socket behind.
                Err(error) if error.is_absent() => {}
                Err(error) => silent = Some(error),
            }
        }
        silent.map_or(Irqbalance::Absent, Irqbalance::Unknown)
    }

    /// The CPUs it keeps interrupts away from, as its `setup` says. A change shows only at its next round (10 s).
    ///
    /// # Errors
    /// It is gone; it does not answer within 1 s or until the deadline, or did not before; its answer makes no sense.
    pub fn irqbalance_banned_cpus(
        &self,
        socket: &IrqbalanceSocket,
        deadline: Deadline,
    ) -> Result<CpuSet, HostError> {
        let path = socket.path();
        let answer = self.ask_irqbalance(socket, "setup", deadline).map_err(|error| match error.kind() {
            // A daemon that was killed leaves its socket behind.
            io::ErrorKind::ConnectionRefused => {
                HostError::gone(format!("nobody listens at {} any more", path.display()))
            }
            _ => HostError::read(&path, error),
        })?;
        let Some((_, mask)) = answer.rsplit_once("BANNED ") else {
            let answer = excerpt(&answer, EXCERPT);
            return Err(HostError::content(
                &path,
                format!("`{answer}`: it does not say which CPUs are banned"),
            ));
        };
        CpuSet::from_mask(mask.trim())
            .map_err(|reason| HostError::content(&path, format!("`{}`: {reason}", excerpt(mask, EXCERPT))))
    }

    /// Replaces its list of CPUs; the empty list gives the choice back to its own configuration.
    ///
    /// # Errors
    /// It does not take the command within 1 s or until the deadline, or took none before.
    pub fn set_irqbalance_banned_cpus(
        &mut self,
        socket: &IrqbalanceSocket,
        cpus: &CpuSet,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        let list = if cpus.is_empty() { "NULL".to_owned() } else { cpus.to_string() };
        let command = format!("settings cpus {list}");
        failpoint::reached("setting");
        self.ask_irqbalance(socket, &command, deadline)
            .map_err(|error| HostError::write(&socket.path(), &command, error))?;
        failpoint::reached("setting");
        Ok(())
    }

    fn ask_irqbalance(
        &self,
        socket: &IrqbalanceSocket,
        command: &str,
        deadline: Deadline,
    ) -> io::Result<String> {
        if self.silent_irqbalances.lock().contains(socket) {
            let words = "it did not answer a moment ago, and is not asked again now";
            return Err(io::Error::new(io::ErrorKind::TimedOut, words));
        }
        let patience = Deadline::after(ANSWER);
        let answer = ask(&self.files.locate(&socket.path()), command, patience.earlier(deadline));
        let is_silent = answer.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut);
        // One that had less time than that because the event's was over may answer later.
        if is_silent && patience.has_passed() {
            self.silent_irqbalances.lock().insert(socket.clone());
        }
        answer
    }
}

/// One command a connection; irqbalance wants the sender's credentials beside it and closes when it has answered.
fn ask(path: &Path, command: &str, deadline: Deadline) -> io::Result<String> {
    let socket = LocalSocket::connect(path, deadline)?;
    socket.send_with_credentials(command.as_bytes(), deadline)?;
    let answer = socket.receive_all(MAX_ANSWER, deadline)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::host::hung_peer::{HungPeer, Kind};
    use crate::host::simulated::Faults;

    fn later() -> Deadline {
        Deadline::after(Duration::from_secs(20))
    }

    fn hung(kind: Kind) -> (tempfile::TempDir, HungPeer, Host) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("run/irqbalance")).unwrap();
        let peer = HungPeer::start(&root.path().join("run/irqbalance/irqbalance1.sock"), kind);
        let host = Host::simulated(root.path(), &Faults::default());
        (root, peer, host)
    }

    #[test]
    fn none_is_told_from_one_that_does_not_answer() {
        for kind in [Kind::TakesNoConnection, Kind::SaysNothing, Kind::TricklesForEver, Kind::Closes] {
            let (_root, peer, host) = hung(kind);
            let Irqbalance::Unknown(error) = host.irqbalance(later()) else { panic!("{kind:?}") };
            assert!(!error.is_absent(), "{kind:?}: {error}");
            drop(peer);
            let root = host.root();
            let again = Host::simulated(&root, &Faults::default()).irqbalance(later());
            assert!(matches!(again, Irqbalance::Absent), "{kind:?}: a socket without a daemon: {again:?}");
            std::fs::remove_dir_all(root.join("run/irqbalance")).unwrap();
            let again = Host::simulated(&root, &Faults::default()).irqbalance(later());
            assert!(matches!(again, Irqbalance::Absent), "{kind:?}: no folder: {again:?}");
        }
    }

    #[test]
    fn one_that_hangs_is_waited_for_once_and_not_longer_than_there_is_time() {
        let (_root, peer, mut host) = hung(Kind::SaysNothing);
        let socket = IrqbalanceSocket("irqbalance1.sock".to_owned());
        let soon = Deadline::after(Duration::from_millis(100));
        let error = host.irqbalance_banned_cpus(&socket, soon).unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to read /run/irqbalance/irqbalance1.sock: it did not answer in time"
        );
        assert!(error.help().unwrap().contains("systemctl restart irqbalance"));
        // The time that was over was the event's.
        let began = Instant::now();
        host.irqbalance_banned_cpus(&socket, later()).unwrap_err();
        assert!(began.elapsed() >= ANSWER);
        for _ in 0..3 {
            let error = host.irqbalance_banned_cpus(&socket, later()).unwrap_err();
            assert_eq!(error.kind(), Some(io::ErrorKind::TimedOut));
            host.set_irqbalance_banned_cpus(&socket, &CpuSet::new(), later()).unwrap_err();
        }
        assert_eq!(peer.taken(), 2);
    }
}
