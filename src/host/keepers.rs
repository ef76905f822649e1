//! The keepers: one small process a guest, which holds what lives only as long as a file descriptor, and does what
//! must come later than an event of libvirt's. Here is how the rest of the program starts one and reaches it; what is
//! said to it is in [`crate::keeper_protocol`], and what it does itself in `keeper`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Host, HostError, STATE_DIR};
use crate::deadline::Deadline;
use crate::guest::GuestUuid;
use crate::keeper_protocol::{
    Answer, AnswerAt, CommandBatch, CommandFailure, EARLIER_GENERATIONS, GENERATION, Generation, KeeperState,
    Request,
};

/// How long a keeper may take to say how it stands: it waits for nothing, so one that takes longer hangs. `release`,
/// which asks several times, has 5 s in all.
const STATE: Duration = Duration::from_millis(500);

/// What of an event's time is left for what comes after its commands.
const AFTER_COMMANDS: Duration = Duration::from_secs(5);

/// How long a keeper may take to do what it does at once: of that, logind has 3 s to give a sleep lock.
const AT_ONCE: Duration = Duration::from_secs(5);

/// The keepers of a host.
pub trait Keepers: Send + Sync {
    /// Starts one, and waits until it answers.
    ///
    /// # Errors
    /// It does not come up in time.
    fn start(&self, guest: GuestUuid, deadline: Deadline) -> Result<(), HostError>;

    /// Whether there is one of a generation. Waits for nothing: one that hangs is there too.
    fn is_there(&self, guest: GuestUuid, generation: Generation) -> bool;

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

    /// Ends one of a generation, and waits until it is gone.
    ///
    /// # Errors
    /// It cannot even be killed.
    fn stop(&self, guest: GuestUuid, generation: Generation, deadline: Deadline) -> Result<(), HostError>;
}

impl Host {
    /// Whether a guest has a keeper, which may hang. Costs no more than a look at its lock.
    #[must_use]
    pub fn has_keeper(&self, guest: GuestUuid) -> bool {
        self.keepers.is_there(guest, GENERATION)
    }

    /// The generations before this program's of which a guest has a keeper.
    #[must_use]
    pub(crate) fn earlier_keepers(&self, guest: GuestUuid) -> Vec<Generation> {
        EARLIER_GENERATIONS
            .into_iter()
            .filter(|generation| self.keepers.is_there(guest, *generation))
            .collect()
    }

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

    /// Removes the socket that a killed keeper leaves behind. It does no harm where that fails.
    pub(crate) fn forget_dead_keeper(&mut self, guest: GuestUuid) {
        if !self.has_keeper(guest) {
            let _ = self.remove_state_file(&GENERATION.socket_file(guest));
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

    /// Starts a guest's keeper if there is none.
    ///
    /// # Errors
    /// There is none that answers, and none can be started.
    pub fn ensure_keeper(&mut self, guest: GuestUuid, deadline: Deadline) -> Result<(), HostError> {
        let soon = Deadline::after(AT_ONCE).earlier(deadline);
        match self.keepers.ask(guest, &Request::State, soon)? {
            Some(_) => Ok(()),
            None => self.start_keeper(guest, deadline),
        }
    }

    /// Has a guest's keeper run commands: there has to be one ([`Self::ensure_keeper`]).
    ///
    /// # Errors
    /// There is no keeper, or it ended meanwhile.
    pub fn run_commands(
        &mut self,
        guest: GuestUuid,
        mut commands: CommandBatch,
        deadline: Deadline,
    ) -> Result<Vec<CommandFailure>, HostError> {
        let deadline = match commands.answer {
            AnswerAt::Once => Deadline::after(AT_ONCE).earlier(deadline),
            AnswerAt::End => deadline,
        };
        if commands.answer == AnswerAt::End {
            // What comes after them needs time too.
            let left = deadline.remaining();
            commands.within = Some(left.saturating_sub(AFTER_COMMANDS.min(left / 4)));
        }
        match self.keepers.ask(guest, &Request::Run(commands), deadline)? {
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
        for generation in self.earlier_keepers(guest) {
            self.stop_keeper_of(guest, generation, deadline)?;
        }
        self.stop_keeper_of(guest, GENERATION, deadline)
    }

    /// Ends a guest's keeper of one generation.
    ///
    /// # Errors
    /// It cannot even be killed.
    pub(crate) fn stop_keeper_of(
        &mut self,
        guest: GuestUuid,
        generation: Generation,
        deadline: Deadline,
    ) -> Result<(), HostError> {
        self.keepers.stop(guest, generation, deadline)?;
        // One that had to be killed leaves them behind.
        self.remove_if_present(&socket_of(generation, guest))?;
        self.remove_state_file(&generation.lock_file(guest))
    }
}

pub(super) fn no_answer(guest: GuestUuid, reason: impl std::fmt::Display) -> HostError {
    HostError::call("the keeper", &format!("guest {guest}"), reason)
}

/// Where a guest's keeper listens.
pub(crate) fn keeper_socket(guest: GuestUuid) -> PathBuf {
    socket_of(GENERATION, guest)
}

/// Where a keeper of a generation listens.
pub(super) fn socket_of(generation: Generation, guest: GuestUuid) -> PathBuf {
    Path::new(STATE_DIR).join(generation.socket_file(guest))
}

/// The name of the file in [`STATE_DIR`] that a guest's keeper has locked: there is one at a time.
pub(crate) fn keeper_lock(guest: GuestUuid) -> String {
    GENERATION.lock_file(guest)
}

/// The name of the guest's XML in [`STATE_DIR`], kept for scripts that get it.
pub(crate) fn xml_file(guest: GuestUuid) -> String {
    format!("{guest}.xml")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::event::Operation;
    use crate::host::simulated::Faults;

    /// Keepers that answer nothing, and how long each was waited for.
    #[derive(Default)]
    struct Silent(Arc<Mutex<Vec<Duration>>>);

    impl Keepers for Silent {
        fn start(&self, _: GuestUuid, _: Deadline) -> Result<(), HostError> {
            Ok(())
        }

        fn is_there(&self, _: GuestUuid, _: Generation) -> bool {
            true
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

        fn stop(&self, _: GuestUuid, _: Generation, _: Deadline) -> Result<(), HostError> {
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
        let commands = |answer| CommandBatch {
            commands: Vec::new(),
            event: Operation::Release,
            reason: String::new(),
            answer,
            within: None,
            qemu: None,
        };
        host.keeper(guest, event()).unwrap_err();
        host.ask_keeper(guest, &Request::Leave, event()).unwrap_err();
        host.run_commands(guest, commands(AnswerAt::Once), event()).unwrap_err();
        host.run_commands(guest, commands(AnswerAt::End), event()).unwrap_err();
        let waits = waits.lock().unwrap();
        let (end, others) = waits.split_last().unwrap();
        assert!(*end > AT_ONCE, "{end:?}");
        assert_eq!(others.len(), 3);
        assert!(others.iter().all(|wait| *wait <= AT_ONCE), "{others:?}");
    }
}
