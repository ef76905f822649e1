//! Which version of the protocol a keeper speaks: its names tell.

use crate::guest::GuestUuid;

/// Keepers of one version of the protocol and of the ledger's format: part of the names of their units, sockets and
/// locks. A successor has names of its own, and holds what its predecessor holds before that lets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(&'static str);

/// This program's keepers. It changes with the ledger's format.
pub(crate) const GENERATION: Generation = Generation("4-");

/// Those of earlier versions, which may still run when the program has been replaced. Without a number: they read
/// ledgers up to format 3.
pub(crate) const EARLIER_GENERATIONS: [Generation; 1] = [Generation("")];

impl Generation {
    /// The name of the socket where a keeper of this generation listens, in the program's folder below `/run`.
    pub(crate) fn socket_file(self, guest: GuestUuid) -> String {
        format!("keeper-{}{guest}.sock", self.0)
    }

    /// The name of what it has locked, in the same folder.
    pub(crate) fn lock_file(self, guest: GuestUuid) -> String {
        format!("keeper-{}{guest}.lock", self.0)
    }

    /// The unit it runs in.
    pub(crate) fn service(self, guest: GuestUuid) -> String {
        format!("vfio-hook-keeper-{}{guest}.service", self.0)
    }
}
