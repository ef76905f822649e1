//! The keepers of this machine: a transient service each, or a detached process where there is no systemd.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::children::{inherit_nothing, spawn};
use super::keepers::{Keepers, keeper_socket, no_answer, socket_of};
use super::local_socket::LocalSocket;
use super::lock_holder::LockState;
use super::process::pidfd;
use super::state_dir::open_lock;
use super::systemd::{Bus, ServicePurpose, StartFailure, TransientService, restart_given_up, stop_service};
use super::{HostError, RUNNING_SYSTEMD, STATE_DIR, THIS_PROGRAM};
use crate::deadline::Deadline;
use crate::failpoint;
use crate::guest::GuestUuid;
use crate::keeper_protocol::{Answer, GENERATION, Generation, MAX_MESSAGE, Request};
use crate::unit_file_name::UnitFileName;

/// The hidden first argument of a keeper.
pub const KEEPER: &str = "keeper";

/// The longest wait for a keeper to come up.
const START: Duration = Duration::from_secs(5);

/// The longest wait for an earlier keeper to be gone: it ends what its guest's commands left running.
const PREDECESSOR: Duration = Duration::from_secs(5);

/// How often a keeper that comes up or goes away is looked for.
const LOOK: Duration = Duration::from_millis(2);

/// How long a keeper may take to answer that it ends.
const LEAVE: Duration = Duration::from_millis(500);

/// How long a keeper that hangs may take to be connected to, by who wants to know its number.
const HUNG: Duration = Duration::from_millis(100);

/// The keepers of the running system.
#[derive(Debug)]
pub(super) struct KeeperServices(Arc<Bus>);

impl KeeperServices {
    pub(super) fn new(bus: Arc<Bus>) -> Self {
        Self(bus)
    }

    fn start_service(&self, guest: GuestUuid, deadline: Deadline) -> Result<(), HostError> {
        let name = GENERATION.service(guest);
        let program = this_program().map_err(|error| no_answer(guest, error))?;
        let service = TransientService {
            name: &name,
            description: &format!("vfio-hook: keeper of guest {guest}"),
            program: &program,
            arguments: &["vfio-hook", KEEPER, &guest.to_string()],
            purpose: ServicePurpose::Keep,
        };
        loop {
            match service.start(&self.0, deadline) {
                Ok(()) => return Ok(()),
                // An earlier life's keeper is just going, one that was killed is just being started again, or systemd has
                // given it up.
                Err(StartFailure::NameTaken) if !deadline.has_passed() => {
                    if self.ask(guest, &Request::State, deadline)?.is_some() {
                        return Ok(());
                    }
                    if let Ok(unit) = UnitFileName::new(&name) {
                        // Whether that helped, the next question tells.
                        let _ = restart_given_up(&self.0, &unit, deadline);
                    }
                    deadline.pause(LOOK);
                }
                Err(StartFailure::NameTaken) => {
                    return Err(HostError::call(
                        "StartTransientUnit",
                        &name,
                        "an earlier one is still there",
                    ));
                }
                Err(StartFailure::Other(reason)) => {
                    return Err(HostError::call("StartTransientUnit", &name, reason));
                }
            }
        }
    }
}

impl Keepers for KeeperServices {
    fn start(&self, guest: GuestUuid, deadline: Deadline) -> Result<(), HostError> {
        if failpoint::is_without_keeper() {
            return Err(no_answer(guest, "tests run without one"));
        }
        if Path::new(RUNNING_SYSTEMD).exists() {
            self.start_service(guest, Deadline::after(PREDECESSOR).earlier(deadline))?;
        } else {
            start_detached(guest)?;
        }
        let deadline = Deadline::after(START).earlier(deadline);
        loop {
            match self.ask(guest, &Request::State, deadline)? {
                Some(_) => return Ok(()),
                None if deadline.has_passed() => return Err(no_answer(guest, "it did not come up in time")),
                None => deadline.pause(LOOK),
            }
        }
    }

    /// It has its lock from its start to its very end.
    fn is_there(&self, guest: GuestUuid, generation: Generation) -> bool {
        is_locked(&Path::new(STATE_DIR).join(generation.lock_file(guest)))
    }

    fn ask(
        &self,
        guest: GuestUuid,
        request: &Request,
        deadline: Deadline,
    ) -> Result<Option<Answer>, HostError> {
        exchange(&keeper_socket(guest), request, deadline).map_err(|error| no_answer(guest, error))
    }

    fn stop(&self, guest: GuestUuid, generation: Generation, deadline: Deadline) -> Result<(), HostError> {
        let (socket, lock) =
            (socket_of(generation, guest), Path::new(STATE_DIR).join(generation.lock_file(guest)));
        // Once it has answered it holds nothing any more; what commands left running it ends in its own time.
        let answered = exchange(&socket, &Request::Leave, Deadline::after(LEAVE).earlier(deadline));
        if answered.is_ok() {
            return Ok(());
        }
        if !Path::new(RUNNING_SYSTEMD).exists() {
            return kill_hung(&socket, &lock)
                .map_err(|error| no_answer(guest, format!("it cannot be killed: {error}")));
        }
        // The service is not started again, as it would be if it were killed.
        stop_service(&self.0, &generation.service(guest), deadline)
    }
}

/// Whether a process has a lock; one that cannot be looked at may be held.
fn is_locked(lock: &Path) -> bool {
    match open_lock(OpenOptions::new().read(true), lock) {
        Ok(lock) => lock.try_lock_shared().is_err(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// One question and its answer; none where there is no keeper at this socket, or none any more.
fn exchange(socket: &Path, request: &Request, deadline: Deadline) -> io::Result<Option<Answer>> {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    let ask = || {
        let socket = LocalSocket::connect(socket, deadline)?;
        send(&socket, request, deadline)?;
        receive(&socket, deadline)
    };
    loop {
        let error = match ask() {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) => error,
        };
        match error.kind() {
            // A keeper that was killed leaves its socket behind.
            NotFound | ConnectionRefused => return Ok(None),
            // It was killed meanwhile or has just ended, which the next connection shows; or this process was too slow
            // for it.
            UnexpectedEof | ConnectionReset | BrokenPipe if !request.may_be_repeated() => return Ok(None),
            UnexpectedEof | ConnectionReset | BrokenPipe if !deadline.has_passed() => deadline.pause(LOOK),
            _ => return Err(error),
        }
    }
}

/// Kills a keeper that hangs: the kernel knows who listens, and where its queue of connections is full, its lock names
/// it too.
fn kill_hung(socket: &Path, lock: &Path) -> io::Result<()> {
    let listener = LocalSocket::connect(socket, Deadline::after(HUNG)).and_then(|socket| socket.peer());
    let process = match listener {
        Ok(pid) => {
            let Some(pid) = rustix::process::Pid::from_raw(pid) else { return Ok(()) };
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?
        }
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            match LockState::of(&open_lock(OpenOptions::new().read(true), lock)?)? {
                LockState::HeldBy(holder) => {
                    let Some(process) = pidfd(holder.process)? else { return Ok(()) };
                    process
                }
                LockState::HeldByUnknown | LockState::Free => return Err(error),
            }
        }
        Err(error) => return Err(error),
    };
    Ok(rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL)?)
}

/// A process of its own, with none of our streams: it makes itself a session when it runs.
fn start_detached(guest: GuestUuid) -> Result<(), HostError> {
    let mut keeper = Command::new(THIS_PROGRAM);
    keeper.arg0("vfio-hook").args([KEEPER, &guest.to_string()]);
    spawn(inherit_nothing(&mut keeper)).map(drop).map_err(|error| no_answer(guest, error))
}

/// The program's own file. Where it was replaced since it was started, the kernel says so behind the path, and the new
/// one is meant.
pub(super) fn this_program() -> io::Result<String> {
    let path = std::env::current_exe()?.to_string_lossy().into_owned();
    Ok(path.strip_suffix(" (deleted)").map(str::to_owned).unwrap_or(path))
}

/// Sends a message: one line of JSON.
pub(crate) fn send(
    socket: &LocalSocket,
    message: &impl serde::Serialize,
    deadline: Deadline,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    socket.send(&line, deadline)
}

/// Receives a message.
fn receive<T: serde::de::DeserializeOwned>(socket: &LocalSocket, deadline: Deadline) -> io::Result<T> {
    let line = socket.receive_line(MAX_MESSAGE, deadline)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&line).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::os::unix::process::ExitStatusExt;
    use std::thread;

    use nix::sys::signal::Signal;

    use super::*;
    use crate::host::ProcessId;
    use crate::host::hung_peer::{HungPeer, Kind};
    use crate::host::lock_holder::sign;

    #[test]
    fn a_keeper_is_there_as_long_as_its_lock_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keeper.lock");
        assert!(!is_locked(&path));
        let lock = File::create(&path).unwrap();
        assert!(!is_locked(&path));
        lock.lock().unwrap();
        assert!(is_locked(&path));
        drop(lock);
        assert!(!is_locked(&path));
    }

    #[test]
    fn a_keeper_that_hangs_is_told_from_one_that_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("keeper.sock");
        let ask = |deadline| exchange(&socket, &Request::State, deadline);
        let later = || Deadline::after(Duration::from_secs(20));
        assert_eq!(ask(later()).unwrap(), None);
        let closes = HungPeer::start(&socket, Kind::Closes);
        ask(Deadline::after(Duration::from_millis(100))).unwrap_err();
        assert_eq!(exchange(&socket, &Request::Leave, later()).unwrap(), None, "it has ended");
        drop(closes);
        assert_eq!(ask(later()).unwrap(), None);
        for kind in [Kind::TakesNoConnection, Kind::SaysNothing, Kind::TricklesForEver] {
            std::fs::remove_file(&socket).unwrap();
            let _peer = HungPeer::start(&socket, kind);
            let error = ask(Deadline::after(Duration::from_millis(100))).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{kind:?}: {error}");
        }
    }

    /// A keeper hears an asker for a second; a machine that is busy may need longer to ask.
    #[test]
    fn one_that_hangs_up_and_is_there_all_the_same_is_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("keeper.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let keeper = thread::spawn(move || {
            drop(listener.accept().unwrap());
            let (mut asker, _) = listener.accept().unwrap();
            // A request that nobody has read would break the connection when it is closed.
            BufReader::new(&asker).read_line(&mut String::new()).unwrap();
            asker.write_all(b"{\"failed\":\"no\"}\n").unwrap();
        });
        let answer = exchange(&socket, &Request::Look, Deadline::after(Duration::from_secs(20))).unwrap();
        assert_eq!(answer, Some(Answer::Failed("no".to_owned())));
        keeper.join().unwrap();
    }

    #[test]
    fn one_that_takes_no_connection_is_found_by_its_lock_and_killed() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, lock) = (folder.path().join("keeper.sock"), folder.path().join("keeper.lock"));
        let _peer = HungPeer::start(&socket, Kind::TakesNoConnection);
        let file = File::create(&lock).unwrap();
        assert_eq!(kill_hung(&socket, &lock).unwrap_err().kind(), io::ErrorKind::TimedOut, "it is not known");
        let mut child = spawn(Command::new("/bin/sleep").arg("1000")).unwrap();
        file.lock().unwrap();
        sign(&file, ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap());
        kill_hung(&socket, &lock).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGKILL as i32));
    }
}
