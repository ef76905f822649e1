//! Having a card let go: waiting for its users, ending desktops.

use std::time::Duration;

use crate::deadline::Deadline;
use crate::host::{Host, HostError};
use crate::pci::{PciAddress, listed};
use crate::user_name::UserName;

/// How often it is looked whether a program still uses a card.
const LOOK: Duration = Duration::from_millis(200);

/// How long one look through all processes may take.
const ONE_LOOK: Duration = Duration::from_secs(3);

impl Host {
    /// Waits until no program uses these functions any more. Looks at least once.
    ///
    /// # Errors
    /// Some still do at the deadline: the error names them.
    pub fn wait_until_unused(&self, functions: &[PciAddress], deadline: Deadline) -> Result<(), HostError> {
        loop {
            let holders = self.holders_of(functions, Deadline::after(ONE_LOOK))?;
            if holders.is_empty() {
                return Ok(());
            }
            if deadline.has_passed() {
                let holders: Vec<String> = holders.iter().map(ToString::to_string).collect();
                return Err(HostError::in_use(&listed(functions), holders.join("; ")));
            }
            deadline.pause(LOOK);
        }
    }

    /// Ends the desktops on the host's seats, and what the login screen left behind: the sessions, and what the users'
    /// own managers run of them. The display manager has to be stopped before, or it opens new ones.
    ///
    /// # Errors
    /// logind or a user's manager refuses, or it takes longer than there is time.
    pub fn end_graphical_sessions(&mut self, deadline: Deadline) -> Result<(), HostError> {
        let sessions = self.graphical_sessions(deadline)?;
        for session in &sessions {
            self.terminate_session(&session.id, deadline)?;
        }
        for session in &sessions {
            let Ok(user) = UserName::new(&session.user) else { continue };
            match self.stop_graphical_session_target(&user, deadline) {
                // The manager ended with the session.
                Err(error) if error.is_absent() => {}
                stopped => stopped?,
            }
        }
        Ok(())
    }
}
