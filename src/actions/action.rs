//! What an action is: one section of a guest's file, and what it wants for the guest.

use thiserror::Error;

use super::{GuestConfig, Proposal, Situation};
use crate::config::{Key, Section};
use crate::host::HostError;
use crate::key_path::KeyPath;
use crate::ledger::{Peer, remedy};

/// One action, whose configuration this is. [`super::list`] has all of them.
pub(crate) trait Action: Sized {
    /// The name of its section.
    const SECTION: &'static str;

    /// The keys of its section, for people.
    const KEYS: &'static [Key];

    /// Reads its section of a file, and notes what is wrong with it; none where the file has no such section. `before`
    /// are the sections that stand before it in the list.
    fn read(file: &mut Section<'_>, before: &GuestConfig) -> Option<Self>;

    /// What has to answer to its checks.
    fn peer(&self) -> Peer {
        Peer::Kernel
    }

    /// Makes its preflight checks, and says what it wants.
    ///
    /// # Errors
    /// The host cannot be read at all; what merely stands in the way is a [`super::Problem`].
    fn propose(&self, situation: Situation<'_>, proposal: &mut Proposal) -> Result<(), HostError>;
}

/// An action could not look at the host.
#[derive(Debug, Error)]
#[error("{cause}")]
pub struct ActionError {
    /// The action's section.
    section: &'static str,
    /// What it could not look at, and why.
    cause: Box<HostError>,
}

impl ActionError {
    pub(super) fn new(section: &'static str, cause: HostError) -> Self {
        Self { section, cause: Box::new(cause) }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        let key = KeyPath::from(&[self.section]);
        KeyPath::add_to_hint(Some(&key), remedy(&self.cause))
    }
}
