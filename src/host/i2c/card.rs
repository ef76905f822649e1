//! One conversation at a time on a graphics card. Several of a card's buses used at once have hung whole cards ("Fence
//! fallback timer expired", "device lost from bus!", <https://github.com/rockowitz/ddcutil/issues/629>); one bus after
//! the other is fine.
//!
//! Processes keep out of each other's way by a lock on the card's lowest bus. ddcutil locks the bus that it talks on and
//! no other, so it can be kept from this one bus only.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::holder::Watch;
use super::trouble::{MonitorTrouble, Taken};
use super::{I2cBus, I2cBuses, I2cHandle, Pace};
use crate::deadline::Deadline;

/// A bus, and the card that it is on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(in crate::host) struct BusOfCard {
    /// The bus.
    pub(in crate::host) bus: I2cBus,
    /// All buses of its card, the lowest first: the lock on that stands for the card. Only itself where it is on none.
    of_card: Vec<I2cBus>,
}

impl BusOfCard {
    /// A bus of a card with these buses.
    pub(in crate::host) fn new(bus: I2cBus, mut of_card: Vec<I2cBus>) -> Self {
        of_card.push(bus);
        of_card.sort_unstable();
        of_card.dedup();
        Self { bus, of_card }
    }

    /// What tells cards apart: the lowest bus.
    pub(super) fn card(&self) -> I2cBus {
        self.of_card.first().copied().unwrap_or(self.bus)
    }
}

/// The lock that a conversation has on its card. The thread that talks may never come back from the kernel, so who waits
/// for it can give the lock back in its place.
#[derive(Clone, Default)]
pub(in crate::host) struct CardLock(Arc<Mutex<Option<Held>>>);

struct Held {
    bus: I2cBus,
    _handle: Box<dyn I2cHandle>,
}

impl CardLock {
    /// Waits for the lock, until the deadline. One whose holder hangs in the kernel stands for nothing any more, and the
    /// card's next bus does in its place: a single bus that hangs must not take all of the card's monitors with it.
    pub(super) fn take(
        &self,
        buses: &dyn I2cBuses,
        at: &BusOfCard,
        hanging: &[I2cBus],
        deadline: Deadline,
    ) -> Result<(), MonitorTrouble> {
        let mut trouble = MonitorTrouble::NoBus;
        for bus in at.of_card.iter().copied().filter(|bus| *bus == at.bus || !hanging.contains(bus)) {
            let handle = match buses.open(bus).map_err(|error| MonitorTrouble::of_open(&error)) {
                Ok(handle) => handle,
                // It has no device node, so nobody else locks it either.
                Err(MonitorTrouble::NoBus) => continue,
                Err(trouble) => return Err(trouble),
            };
            let what = if bus == at.bus { Taken::Bus } else { Taken::Card };
            match wait_for(handle.as_ref(), what, buses.pace(), deadline) {
                Ok(()) => {
                    let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                    *held = Some(Held { bus, _handle: handle });
                    return Ok(());
                }
                Err(taken @ MonitorTrouble::Locked(..)) if taken.is_by_one_that_hangs() && bus != at.bus => {
                    tracing::warn!("{bus} {taken}: the lock on the card's next bus counts");
                    trouble = taken;
                }
                Err(trouble) => return Err(trouble),
            }
        }
        Err(trouble)
    }

    /// Whether the lock is one on this bus.
    pub(super) fn is_on(&self, bus: I2cBus) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|held| held.bus == bus)
    }

    /// Gives the lock back.
    pub(super) fn release(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Gives the lock back, unless it is the one on this bus too.
    pub(super) fn release_but(&self, bus: I2cBus) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take_if(|held| held.bus != bus);
    }
}

/// Waits until a bus is locked.
pub(super) fn wait_for(
    handle: &dyn I2cHandle,
    what: Taken,
    pace: Pace,
    deadline: Deadline,
) -> Result<(), MonitorTrouble> {
    let mut watch = Watch::default();
    loop {
        match handle.try_lock() {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(MonitorTrouble::of_transfer(&error)),
        }
        if watch.hangs(handle) || deadline.has_passed() {
            return Err(MonitorTrouble::Locked(what, watch.holder(handle)));
        }
        deadline.pause(pace.lock);
    }
}
