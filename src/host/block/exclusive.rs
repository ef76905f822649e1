//! Whether anyone has a block device for itself alone: a file system, a swap area, an array, a ZFS pool, a program.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::Sender;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::device::BlockDevice;
use crate::deadline::Deadline;
use crate::host::worker::{BoundedThread, NotStarted, StuckIn, StuckRegistry, TookTooLong};
use crate::host::{Host, HostError};

/// What a file of a host in a folder holds that stands for a device which somebody has.
const HELD: &str = "held";

impl Host {
    /// Whether somebody has the device, or a part of it, for itself alone. The kernel says so to who asks for the same
    /// (`bd_prepare_to_claim` in `block/bdev.c`), whatever the owner is. Nothing is read from the device.
    ///
    /// # Errors
    /// It cannot be opened, or its driver does not answer in time.
    pub fn is_held_exclusively(&self, device: &BlockDevice, deadline: Deadline) -> Result<bool, HostError> {
        if let Some(is_held) = self.early_answers.held(&device.path()) {
            return Ok(is_held);
        }
        let path = self.files.locate(&device.path());
        let is_real = self.is_real();
        let stuck_in = StuckIn::Path(path.clone());
        let look = move |tell: &Sender<io::Result<bool>>| {
            let held = if is_real { is_held(&path) } else { is_held_in_folder(&path) };
            // The caller may have given up.
            let _ = tell.send(held);
        };
        let late = || {
            HostError::late_call("open", &device.path().display().to_string(), "its driver does not answer")
        };
        let failed = |error: io::Error| HostError::read(&device.path(), error);
        let mut thread = match BoundedThread::start(&StuckRegistry::of_this_process(), stuck_in, look) {
            Ok(thread) => thread,
            Err(NotStarted::Hangs) => return Err(late()),
            Err(NotStarted::NoThread(error)) => return Err(failed(error)),
        };
        match thread.next(deadline) {
            Ok(Some(Ok(is_held))) => {
                self.early_answers.keep_held(device.path(), is_held);
                Ok(is_held)
            }
            Ok(Some(Err(error))) => Err(failed(error)),
            Ok(None) => Err(failed(io::Error::other("the thread that looks ended without an answer"))),
            Err(TookTooLong) => Err(late()),
        }
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
