//! Whether anyone has a block device for itself alone: a file system, a swap area, an array, a ZFS pool, a program.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::device::BlockDevice;
use crate::deadline::Deadline;
use crate::host::bounded_look::BoundedLook;
use crate::host::{Host, HostError};

/// What a file of a host in a folder holds that stands for a device which is taken.
const HELD: &str = "held";

impl Host {
    /// Whether the device, or a part of it, has an exclusive owner. The kernel says so to a program that asks for the same
    /// (`bd_prepare_to_claim` in `block/bdev.c`), whatever the owner is. Nothing is read from the device.
    ///
    /// # Errors
    /// It cannot be opened, or its driver does not answer in time.
    pub fn is_held_exclusively(&self, device: &BlockDevice, deadline: Deadline) -> Result<bool, HostError> {
        if let Some(is_held) = self.early_answers.held(&device.path()) {
            return Ok(is_held);
        }
        let (path, is_real) = (device.path(), self.is_real());
        let look = BoundedLook { call: "open", path: &path, silent: "its driver does not answer" };
        let is_held = self.look_in_time(look, deadline, move |path| match is_real {
            true => is_held(path),
            false => is_held_in_folder(path),
        })?;
        self.early_answers.keep_held(path, is_held);
        Ok(is_held)
    }
}

fn is_held(path: &Path) -> io::Result<bool> {
    // O_NONBLOCK: a drive without a medium opens, too.
    let flags = OFlag::O_EXCL | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Ok(_) => Ok(false),
        Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => Ok(true),
        // Gone, or without a medium.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || [Errno::ENOMEDIUM, Errno::ENXIO]
                    .iter()
                    .any(|errno| error.raw_os_error() == Some(*errno as i32)) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn is_held_in_folder(path: &Path) -> io::Result<bool> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim() == HELD),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
