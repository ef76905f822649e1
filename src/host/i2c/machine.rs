//! The buses of this machine.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;

use super::holder::holder_of;
use super::transfer::{Message, makes_plain_messages, transfer};
use super::{BusKind, I2cBus, I2cBuses, I2cHandle, LockHolder, Pace};

/// `/dev/i2c-N`.
#[derive(Debug)]
pub(in crate::host) struct MachineBuses;

impl I2cBuses for MachineBuses {
    fn open(&self, bus: I2cBus) -> io::Result<Box<dyn I2cHandle>> {
        let file = OpenOptions::new().read(true).write(true).open(bus.node())?;
        Ok(Box::new(OpenBus(file)))
    }

    fn pace(&self) -> Pace {
        Pace::STANDARD
    }
}

struct OpenBus(File);

impl I2cHandle for OpenBus {
    fn kind(&self) -> io::Result<BusKind> {
        Ok(if makes_plain_messages(&self.0)? { BusKind::I2c } else { BusKind::SmbusOnly })
    }

    fn try_lock(&self) -> io::Result<()> {
        self.0.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
            TryLockError::Error(error) => error,
        })
    }

    fn lock_holder(&self) -> Option<LockHolder> {
        holder_of(&self.0)
    }

    fn write(&mut self, address: u8, bytes: &[u8]) -> io::Result<()> {
        transfer(&self.0, &mut [Message::write(address, bytes)?])
    }

    fn read(&mut self, address: u8, buffer: &mut [u8]) -> io::Result<()> {
        transfer(&self.0, &mut [Message::read(address, buffer)?])
    }

    fn write_read(&mut self, address: u8, bytes: &[u8], buffer: &mut [u8]) -> io::Result<()> {
        transfer(&self.0, &mut [Message::write(address, bytes)?, Message::read(address, buffer)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &std::path::Path) -> OpenBus {
        OpenBus(OpenOptions::new().read(true).write(true).open(path).unwrap())
    }

    /// There is no bus on the machines that tests run on: this only shows that messages get as far as the kernel.
    #[test]
    fn what_is_no_bus_refuses_every_message() {
        let mut bus = open("/dev/null".as_ref());
        let mut buffer = [0; 128];
        let refusals = [
            bus.kind().map(drop),
            bus.write(0x37, &[0x51, 0x82, 0x01, 0x10, 0xac]),
            bus.read(0x37, &mut buffer),
            bus.write_read(0x50, &[0], &mut buffer),
        ];
        for refusal in refusals {
            assert_eq!(refusal.unwrap_err().raw_os_error(), Some(nix::libc::ENOTTY));
        }
    }

    #[test]
    fn one_handle_at_a_time_has_the_lock() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (first, second) = (open(file.path()), open(file.path()));
        first.try_lock().unwrap();
        assert_eq!(second.try_lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        second.try_lock().unwrap();
    }
}
