//! `/run/vfio-hook`: the program's own files, root only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::lock_holder::{erase, sign};
use super::presence::told_from_dangling;
use super::{Host, HostError, LockState};
use crate::deadline::Deadline;
use crate::failpoint;

/// The folder; on a tmpfs, so that it is gone after a boot as the knobs' values are.
pub const STATE_DIR: &str = "/run/vfio-hook";

/// How often a lock that somebody holds is tried again. Who gives it up for others has to stay away for longer than
/// that, or nobody notices.
pub(crate) const LOCK_RETRY: Duration = Duration::from_millis(3);

/// An exclusive lock on a file of the folder; given back when dropped, or by the kernel when the process dies.
#[derive(Debug)]
pub struct LockFile(File);

impl Drop for LockFile {
    fn drop(&mut self) {
        let _ = erase(&self.0);
    }
}

/// A share of such a lock: as long as this lives, nobody has it for himself alone.
#[derive(Debug)]
pub struct SharedLock(#[expect(dead_code, reason = "held, not used")] Option<File>);

impl Host {
    /// Reads a file of the folder; none where it is absent.
    ///
    /// # Errors
    /// It is there but cannot be read.
    pub fn read_state(&self, name: &str) -> Result<Option<Vec<u8>>, HostError> {
        let path = state_path(name);
        match self.files.read(&path).map_err(|error| told_from_dangling(&self.locate(&path), error)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(HostError::read(&path, error)),
        }
    }

    /// Replaces a file of the folder: the old text or the new one is there at every moment, and the new one is
    /// flushed before this returns.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn replace_state(&mut self, name: &str, bytes: &[u8]) -> Result<(), HostError> {
        let path = state_path(name);
        failpoint::reached("ledger");
        self.files.replace(&path, bytes).map_err(|error| HostError::write(&path, "<ledger>", error))?;
        failpoint::reached("ledger");
        Ok(())
    }

    /// Removes a file of the folder, and whatever a killed process left of a replacement.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn remove_state(&mut self, name: &str) -> Result<(), HostError> {
        failpoint::reached("ledger");
        for entry in self.names(STATE_DIR).unwrap_or_default() {
            if entry.to_str().is_some_and(|entry| entry.starts_with('.') && entry.ends_with(".new")) {
                let _ = self.files.remove(&Path::new(STATE_DIR).join(entry));
            }
        }
        self.remove_if_present(&state_path(name))?;
        failpoint::reached("ledger");
        Ok(())
    }

    /// Removes a file of the folder that is not the ledger, if it is there.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn remove_state_file(&mut self, name: &str) -> Result<(), HostError> {
        self.remove_if_present(&state_path(name))
    }

    /// Keeps a file of the folder under another name.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn archive_state(&mut self, name: &str, archived: &str) -> Result<(), HostError> {
        let (from, to) = (state_path(name), state_path(archived));
        fs::rename(self.files.locate(&from), self.files.locate(&to))
            .map_err(|error| HostError::write(&to, name, error))
    }

    /// Takes an exclusive lock, making the folder (0700) where it is missing, and writes into its file who holds it.
    ///
    /// # Errors
    /// Another process holds it until the deadline (`WouldBlock`), and which, as far as that is known; the folder cannot be
    /// made.
    pub fn lock_state(&mut self, name: &str, deadline: Deadline) -> Result<LockFile, HostError> {
        let path = state_path(name);
        let fail = |error| HostError::lock(&path, error);
        let folder = self.files.locate(STATE_DIR.as_ref());
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(fail)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(folder.join(name))
            .map_err(fail)?;
        loop {
            match file.try_lock() {
                Ok(()) => {
                    sign(&file, self.this_process());
                    return Ok(LockFile(file));
                }
                Err(fs::TryLockError::WouldBlock) if !deadline.has_passed() => deadline.pause(LOCK_RETRY),
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(HostError::locked(&path, LockState::held(&file)));
                }
                Err(fs::TryLockError::Error(error)) => return Err(fail(error)),
            }
        }
    }

    /// Whether a lock of the folder is held now, and by which process.
    ///
    /// # Errors
    /// Its file is there but cannot be opened.
    pub fn lock_holder(&self, name: &str) -> Result<LockState, HostError> {
        let path = state_path(name);
        LockState::of(&self.files.locate(&path)).map_err(|error| HostError::lock(&path, error))
    }

    /// Shares a lock that others take for themselves alone; none where it is held until the deadline. Makes nothing:
    /// a lock that is not there is had by nobody.
    ///
    /// # Errors
    /// The file is there and cannot be opened.
    pub fn share_state_lock(&self, name: &str, deadline: Deadline) -> Result<Option<SharedLock>, HostError> {
        let path = state_path(name);
        let fail = |error| HostError::lock(&path, error);
        let file = match File::open(self.files.locate(&path)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(SharedLock(None))),
            Err(error) => return Err(fail(error)),
        };
        loop {
            match file.try_lock_shared() {
                Ok(()) => return Ok(Some(SharedLock(Some(file)))),
                Err(fs::TryLockError::WouldBlock) if deadline.has_passed() => return Ok(None),
                Err(fs::TryLockError::WouldBlock) => deadline.pause(LOCK_RETRY),
                Err(fs::TryLockError::Error(error)) => return Err(fail(error)),
            }
        }
    }
}

fn state_path(name: &str) -> PathBuf {
    Path::new(STATE_DIR).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::simulated::Faults;

    #[test]
    fn whoever_does_not_get_a_lock_is_told_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let host = || Host::simulated(folder.path(), &Faults::default());
        let soon = || Deadline::after(Duration::from_millis(20));
        let first = host().lock_state("lock", soon()).unwrap();
        let error = host().lock_state("lock", soon()).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("failed to lock /run/vfio-hook/lock: held by `vfio_hook-"), "{message}");
        assert!(message.contains(&format!("` (process {}) since ", std::process::id())), "{message}");
        assert_eq!(error.kind(), Some(io::ErrorKind::WouldBlock));
        assert!(error.help().unwrap().contains("`vfio-hook status` shows who holds it"));

        let file = folder.path().join("run/vfio-hook/lock");
        fs::write(&file, "no word of it is true").unwrap();
        let message = host().lock_state("lock", soon()).unwrap_err().to_string();
        assert_eq!(message, "failed to lock /run/vfio-hook/lock: held by a process that is not known");
        drop(first);
        assert_eq!(fs::read(&file).unwrap(), b"", "nobody holds it");
        host().lock_state("lock", soon()).unwrap();
    }
}
