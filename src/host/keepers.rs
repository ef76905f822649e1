//! The keepers: one small process a guest, which holds what lives only as long as a file descriptor, and does what
//! must come later than an event of libvirt's. Here is how the rest of the program starts one and talks to it; what it
//! does itself is in [`crate::keeper`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::process::ProcessId;
use super::{Host, HostError, STATE_DIR};
use crate::command::{Command, OnCommandFailure};
use crate::deadline::Deadline;
use crate::event::Operation;
use crate::guest::GuestUuid;

/// How long a keeper may take to say how it stands: it waits for nothing, so one that takes longer hangs. `release`,
/// which asks several times, has 5 s in all.
const STATE: Duration = Duration::from_millis(500);

/// How long a keeper may take to do what it does at once: of that, logind has 3 s to give a sleep lock.
const AT_ONCE: Duration = Duration::from_secs(5);

/// What a keeper is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// What it holds and watches.
    State,
    /// To hold this sleep lock (logind's words, joined by colons), or none.
    SleepLock(Option<String>),
    /// To keep all CPUs from idle states that take longer to leave than so many microseconds, or none.
    CpuDmaLatency(Option<u32>),
    /// To look at the ledger again: the guest has come further in its life.
    Look,
    /// To run commands, one after the other.
    Run(Errand),
    /// To give the guest's lease back, because libvirt said that it stopped.
    GiveBack {
        /// libvirt's reason.
        reason: String,
        /// Who starts the guest again, and gets its monitors as they are.
        heir: Option<ProcessId>,
    },
    /// To end.
    Leave,
}

impl Request {
    /// Whether asking twice is the same as asking once.
    pub(super) fn may_be_repeated(&self) -> bool {
        match self {
            Self::State
            | Self::SleepLock(_)
            | Self::CpuDmaLatency(_)
            | Self::Look
            | Self::GiveBack { .. } => true,
            Self::Run(_) | Self::Leave => false,
        }
    }
}

/// Commands to be run, and what they are told about the event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errand {
    /// The commands.
    pub commands: Vec<Command>,
    /// The event they belong to.
    pub event: Operation,
    /// Why the guest stopped, where libvirt said so; else empty.
    pub reason: String,
    /// When the answer comes.
    pub answer: AnswerAt,
}

/// When a keeper answers that it ran what it was asked to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerAt {
    /// Before it begins.
    Once,
    /// When all is run. Hanging up ends what is running.
    End,
}

/// What a keeper answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It did what it was asked, and this is how it stands now.
    Done(KeeperState),
    /// It ran the commands; these failed.
    Ran(Vec<CommandFailure>),
    /// It could not.
    Failed(String),
}

/// How a keeper stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperState {
    /// The keeper.
    pub process: ProcessId,
    /// The sleep lock it holds.
    pub sleep_lock: Option<String>,
    /// The latency it asked the kernel for, in microseconds.
    pub cpu_dma_latency: Option<u32>,
    /// How many errands it has not finished.
    pub errands: usize,
    /// libvirt's daemon, while it is about to start QEMU.
    pub daemon: Option<i32>,
    /// The guest's QEMU, while it is watched.
    pub qemu: Option<i32>,
}

/// A command that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandFailure {
    /// Which, and how, in words.
    pub words: String,
    /// What that means.
    pub meaning: OnCommandFailure,
}

/// The keepers of a host.
pub trait Keepers: Send + Sync {
    /// Starts one, and waits until it answers.
    ///
    /// # Errors
    /// It does not come up in time.
    fn start(&self, guest: GuestUuid, deadline: Deadline) -> Result<(), HostError>;

    /// Asks one; none where there is none.
    ///
    /// # Errors
    /// It does not answer in time.
    fn ask(
        &self,
        guest: GuestUuid,
        request: &Request,
        deadline: Deadline,
    ) -> Result<Option<Answer>, HostError>;

    /// Ends one, and waits until it is gone.
    ///
    /// # Errors
    /// It cannot even be killed.
    fn stop(&self, guest: GuestUuid, deadline: Deadline) -> Result<(), HostError>;
}

impl Host {
    /// How a guest's keeper stands; none where there is none.
    ///
    /// # Errors
    /// There is one, but it does not answer.
    pub fn keeper(&self, guest: GuestUuid, deadline: Deadline) -> Result<Option<KeeperState>, HostError> {
        let deadline = Deadline::after(STATE).earlier(deadline);
        match self.keepers.ask(guest, &Request::State, deadline)? {
            Some(Answer::Done(state)) => Ok(Some(state)),
            Some(_) => Err(no_answer(guest, "it answered something else")),
            None => Ok(None),
        }
    }

    /// Asks a guest's keeper for something that it does at once: it has 5 s for it, and no more than until the deadline.
    ///
    /// # Errors
    /// There is none, it does not answer in time, or it could not.
    pub fn ask_keeper(
        &mut self,
        guest: GuestUuid,
        request: &Request,
        deadline: Deadline,
    ) -> Result<KeeperState, HostError> {
        match self.keepers.ask(guest, request, Deadline::after(AT_ONCE).earlier(deadline))? {
            Some(Answer::Done(state)) => Ok(state),
            Some(Answer::Failed(reason)) => Err(no_answer(guest, reason)),
            Some(Answer::Ran(_)) => Err(no_answer(guest, "it answered something else")),
            None => Err(no_answer(guest, "there is none")),
        }
    }

    /// Has a guest's keeper run commands. A missing keeper is started first.
    ///
    /// # Errors
    /// There is no keeper, or it ended meanwhile.
    pub fn run_commands(
        &mut self,
        guest: GuestUuid,
        errand: Errand,
        deadline: Deadline,
    ) -> Result<Vec<CommandFailure>, HostError> {
        let soon = Deadline::after(AT_ONCE).earlier(deadline);
        if self.keepers.ask(guest, &Request::State, soon)?.is_none() {
            self.start_keeper(guest, deadline)?;
        }
        let deadline = match errand.answer {
            AnswerAt::Once => Deadline::after(AT_ONCE).earlier(deadline),
            AnswerAt::End => deadline,
        };
        match self.keepers.ask(guest, &Request::Run(errand), deadline)? {
            Some(Answer::Ran(failures)) => Ok(failures),
            Some(Answer::Done(_)) => Ok(Vec::new()),
            Some(Answer::Failed(reason)) => Err(no_answer(guest, reason)),
            None => Err(no_answer(guest, "it ended meanwhile")),
        }
    }

    /// Starts a guest's keeper, and waits until it answers.
    ///
    /// # Errors
    /// It does not come up in time.
    pub fn start_keeper(&mut self, guest: GuestUuid, deadline: Deadline) -> Result<(), HostError> {
        self.keepers.start(guest, deadline)
    }

    /// Ends a guest's keeper, with everything that it still holds or runs.
    ///
    /// # Errors
    /// It cannot even be killed.
    pub fn stop_keeper(&mut self, guest: GuestUuid, deadline: Deadline) -> Result<(), HostError> {
        self.keepers.stop(guest, deadline)?;
        // One that had to be killed leaves them behind.
        self.remove_if_present(&keeper_socket(guest))?;
        self.remove_state_file(&keeper_lock(guest))
    }
}

pub(super) fn no_answer(guest: GuestUuid, reason: impl std::fmt::Display) -> HostError {
    HostError::call("the keeper", &format!("guest {guest}"), reason)
}

/// Where a guest's keeper listens.
pub(crate) fn keeper_socket(guest: GuestUuid) -> PathBuf {
    Path::new(STATE_DIR).join(format!("keeper-{guest}.sock"))
}

/// The name of the file in [`STATE_DIR`] that a guest's keeper has locked: there is one at a time.
pub(crate) fn keeper_lock(guest: GuestUuid) -> String {
    format!("keeper-{guest}.lock")
}

/// The name of the guest's XML in [`STATE_DIR`], kept for scripts that get it.
pub(crate) fn xml_file(guest: GuestUuid) -> String {
    format!("{guest}.xml")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::host::simulated::Faults;

    /// Keepers that answer nothing, and how long each was waited for.
    #[derive(Default)]
    struct Silent(Arc<Mutex<Vec<Duration>>>);

    impl Keepers for Silent {
        fn start(&self, _: GuestUuid, _: Deadline) -> Result<(), HostError> {
            Ok(())
        }

        fn ask(
            &self,
            guest: GuestUuid,
            request: &Request,
            deadline: Deadline,
        ) -> Result<Option<Answer>, HostError> {
            self.0.lock().unwrap().push(deadline.remaining());
            match request {
                Request::Run(_) => Err(no_answer(guest, "it hangs")),
                _ => Ok(Some(Answer::Failed("it hangs".to_owned()))),
            }
        }

        fn stop(&self, _: GuestUuid, _: Deadline) -> Result<(), HostError> {
            Ok(())
        }
    }

    #[test]
    fn nothing_but_the_end_of_commands_is_waited_for_as_long_as_an_event_may_take() {
        let (root, waits) = (tempfile::tempdir().unwrap(), Arc::<Mutex<Vec<Duration>>>::default());
        let keepers = Box::new(Silent(Arc::clone(&waits)));
        let mut host = Host { keepers, ..Host::simulated(root.path(), &Faults::default()) };
        let guest = "c0ffee00-1111-4222-8333-44445555666f".parse().unwrap();
        let event = || Deadline::after(Duration::from_secs(1000));
        let errand = |answer| Errand {
            commands: Vec::new(),
            event: Operation::Release,
            reason: String::new(),
            answer,
        };
        host.keeper(guest, event()).unwrap_err();
        host.ask_keeper(guest, &Request::Leave, event()).unwrap_err();
        host.run_commands(guest, errand(AnswerAt::Once), event()).unwrap_err();
        host.run_commands(guest, errand(AnswerAt::End), event()).unwrap_err();
        let waits = waits.lock().unwrap();
        let (end, others) = waits.split_last().unwrap();
        assert!(*end > AT_ONCE, "{end:?}");
        assert_eq!(others.len(), 5);
        assert!(others.iter().all(|wait| *wait <= AT_ONCE), "{others:?}");
    }
}
