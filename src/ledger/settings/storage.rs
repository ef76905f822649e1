//! Layers of storage upon drives that a guest gets: taken down before it, and brought back after it.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::deadline::Deadline;
use crate::host::{Host, HostError, LayerName, LayerState};
use crate::ledger::rule::SameForAll;
use crate::ledger::setting::{Locking, Phase, Place, Setting, Traits};

/// A layer of storage: a mount, swap, a volume, an array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageLayer {
    /// How far above the drive it is.
    pub height: u16,
    /// The layer.
    pub layer: LayerName,
}

impl Ord for StorageLayer {
    /// In the order in which they are taken down: what is above comes first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.height.cmp(&self.height).then_with(|| self.layer.cmp(&other.layer))
    }
}

impl PartialOrd for StorageLayer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for StorageLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.layer.fmt(f)
    }
}

impl Setting for StorageLayer {
    type Value = LayerState;
    type Want = LayerState;
    type Rule = SameForAll;

    fn place(&self) -> Place {
        Place::Storage
    }

    fn traits(&self) -> Traits {
        Traits { locking: Locking::Released, ..Traits::of_peer(Phase::AroundCommands) }
    }

    fn read(&self, host: &Host, _deadline: Deadline) -> Result<LayerState, HostError> {
        host.storage_layer(&self.layer)
    }

    fn write(&self, host: &mut Host, state: &LayerState, deadline: Deadline) -> Result<(), HostError> {
        host.set_storage_layer(&self.layer, state, deadline)
    }

    /// It is there or it is not: how it is then, is the administrator's.
    fn is_same(left: &LayerState, right: &LayerState) -> bool {
        left.is_there() == right.is_there()
    }
}
