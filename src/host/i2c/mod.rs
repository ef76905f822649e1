//! i2c buses, and the monitors at their end.
//!
//! The kernel reaches a bus through `/dev/i2c-N`. Transfers are made with `I2C_RDWR`, which names the address in every
//! message, so that a kernel driver bound to a monitor's address is no obstacle.

mod bus_threads;
mod card;
#[cfg(test)]
mod card_tests;
mod conversation;
mod holder;
mod machine;
mod pace;
#[cfg(test)]
mod tests;
mod transfer;
mod trouble;

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(super) use bus_threads::{BusJob, BusThreads};
pub(super) use card::BusOfCard;
pub(super) use conversation::Conversation;
pub(super) use holder::{HolderState, LockHolder};
pub(super) use machine::MachineBuses;
pub(super) use pace::Pace;
pub use trouble::MonitorTrouble;

/// The i2c address of an EDID (VESA E-DDC).
pub(super) const EDID_ADDRESS: u8 = 0x50;

/// An i2c bus by the kernel's number for it, written `i2c-7`. The number can be another one after a driver was loaded
/// again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct I2cBus(pub u32);

/// What a bus can do (`I2C_FUNCS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BusKind {
    /// Messages of any length, as monitors need.
    I2c,
    /// Only SMBus commands: no monitor is on it, but maybe memory modules and voltage regulators.
    SmbusOnly,
}

/// Opens buses: the machine's ([`MachineBuses`]), or those of a host in a folder.
pub(super) trait I2cBuses: Send + Sync {
    /// Opens `/dev/i2c-N`; says nothing on the bus.
    fn open(&self, bus: I2cBus) -> io::Result<Box<dyn I2cHandle>>;

    /// How long the monitors on these buses take.
    fn pace(&self) -> Pace;
}

/// An open bus. Addresses have seven bits.
pub(super) trait I2cHandle: Send {
    /// What the bus can do.
    fn kind(&self) -> io::Result<BusKind>;

    /// Takes the lock that ddcutil takes too, until the handle is dropped. `WouldBlock` while another program has it.
    fn try_lock(&self) -> io::Result<()>;

    /// Who has that lock, where it can be found.
    fn lock_holder(&self) -> Option<LockHolder>;

    /// Writes in one message.
    fn write(&mut self, address: u8, bytes: &[u8]) -> io::Result<()>;

    /// Fills the buffer in one message.
    fn read(&mut self, address: u8, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes, and fills the buffer after a repeated start: nobody comes in between.
    fn write_read(&mut self, address: u8, bytes: &[u8], buffer: &mut [u8]) -> io::Result<()>;
}

impl I2cBus {
    /// The bus of this name; none where the name is none of a bus.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        name.strip_prefix("i2c-")?.parse().ok().map(Self)
    }

    /// Its device node.
    #[must_use]
    pub fn node(self) -> PathBuf {
        PathBuf::from(format!("/dev/{self}"))
    }
}

impl fmt::Display for I2cBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i2c-{}", self.0)
    }
}
