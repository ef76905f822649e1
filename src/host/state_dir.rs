//! `/run/vfio-hook`: the program's own files, root only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;

use super::lock_holder::{erase, sign};
use super::presence::told_from_dangling;
use super::{Host, HostError, LockState};
use crate::deadline::Deadline;
use crate::failpoint;

/// The folder; on a tmpfs, so that it is gone after a boot as the settings' values are.
pub const STATE_DIR: &str = "/run/vfio-hook";

/// How often a lock that another process holds is tried again. Who gives it up for others has to stay away for longer than
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
        self.check_folder().map_err(|error| HostError::read(&path, error))?;
        match self.read_own(&path).map_err(|error| told_from_dangling(&self.locate(&path), error)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(HostError::read(&path, error)),
        }
    }

    /// Of any size: what is cut off says something else.
    fn read_own(&self, path: &Path) -> io::Result<Vec<u8>> {
        // On a host in a folder reads may fail.
        if !self.is_real() {
            return self.files.read(path);
        }
        let mut bytes = Vec::new();
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Replaces a file of the folder: the old text or the new one is there at every moment, and the new one is
    /// flushed before this returns.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn replace_state(&mut self, name: &str, bytes: &[u8]) -> Result<(), HostError> {
        let path = state_path(name);
        failpoint::reached("ledger");
        self.files.replace(&path, bytes).map_err(|error| HostError::keep(&path, error))?;
        failpoint::reached("ledger");
        Ok(())
    }

    /// Writes the beginning of a slot of the folder, in place, and sets so many bytes aside for it before.
    ///
    /// # Errors
    /// The folder cannot be written, or has not so much space.
    pub fn write_state_slot(&mut self, name: &str, bytes: &[u8], reserved: u64) -> Result<(), HostError> {
        let path = state_path(name);
        failpoint::reached("ledger");
        self.files.write_slot(&path, bytes, reserved).map_err(|error| HostError::keep(&path, error))?;
        failpoint::reached("ledger");
        Ok(())
    }

    /// Removes what a killed process left of replacements.
    pub fn remove_replacements(&mut self) {
        for entry in self.names(STATE_DIR).unwrap_or_default() {
            if entry.to_str().is_some_and(|entry| entry.starts_with('.') && entry.ends_with(".new")) {
                let _ = self.files.remove(&Path::new(STATE_DIR).join(entry));
            }
        }
    }

    /// Whether the folder has a file of this name.
    #[must_use]
    pub fn has_state(&self, name: &str) -> bool {
        self.is_named(state_path(name))
    }

    /// How large a file of the folder is; 0 where it is absent.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn state_size(&self, name: &str) -> Result<u64, HostError> {
        let path = state_path(name);
        match fs::metadata(self.files.locate(&path)) {
            Ok(file) => Ok(file.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(HostError::read(&path, error)),
        }
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
        self.check_folder().map_err(fail)?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let file = open_lock(&mut options, &folder.join(name)).map_err(fail)?;
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
        let look = || {
            self.check_folder()?;
            match open_lock(OpenOptions::new().read(true), &self.files.locate(&path)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(LockState::Free),
                file => LockState::of(&file?),
            }
        };
        look().map_err(|error| HostError::lock(&path, error))
    }

    /// Whether the folder is one that root alone can write; one that is not there is too.
    fn check_folder(&self) -> io::Result<()> {
        let folder = match fs::symlink_metadata(self.files.locate(STATE_DIR.as_ref())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            folder => folder?,
        };
        match folder.is_dir() && self.is_roots(&folder) {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "{STATE_DIR} is not a folder that only root can write, so that nothing in it is believed"
            ))),
        }
    }

    /// Shares a lock that others take for themselves alone; none where it is held until the deadline. Makes nothing:
    /// a lock that is not there is had by nobody.
    ///
    /// # Errors
    /// The file is there and cannot be opened.
    pub fn share_state_lock(&self, name: &str, deadline: Deadline) -> Result<Option<SharedLock>, HostError> {
        let path = state_path(name);
        let fail = |error| HostError::lock(&path, error);
        self.check_folder().map_err(fail)?;
        let file = match open_lock(OpenOptions::new().read(true), &self.files.locate(&path)) {
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

/// Opens a lock's file, without a wait and through no link; only a plain file can be locked for all to see.
pub(super) fn open_lock(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = options.custom_flags(flags.bits()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no plain file")),
    }
}

fn state_path(name: &str) -> PathBuf {
    Path::new(STATE_DIR).join(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nix::sys::stat::Mode;

    use super::*;
    use crate::host::simulated::Faults;

    #[test]
    fn a_folder_that_others_could_write_is_not_believed() {
        let root = tempfile::tempdir().unwrap();
        let mut host = Host::simulated(root.path(), &Faults::default());
        let soon = || Deadline::after(Duration::from_millis(20));
        drop(host.lock_state("lock", soon()).unwrap());
        let folder = root.path().join("run/vfio-hook");
        fs::write(folder.join("ledger.json"), "text").unwrap();
        assert!(host.read_state("ledger.json").unwrap().is_some());
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).unwrap();
        let refused = |host: &mut Host| {
            host.lock_state("lock", soon()).map(drop).unwrap_err();
            host.lock_holder("lock").unwrap_err();
            host.share_state_lock("lock", soon()).map(drop).unwrap_err();
            host.read_state("ledger.json").unwrap_err()
        };
        let error = refused(&mut host).to_string();
        assert!(
            error.ends_with(
                "/run/vfio-hook is not a folder that only root can write, so that nothing in it is believed"
            ),
            "{error}"
        );
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        fs::rename(&folder, root.path().join("elsewhere")).unwrap();
        symlink(root.path().join("elsewhere"), &folder).unwrap();
        refused(&mut host);
    }

    #[test]
    fn a_lock_that_is_no_file_is_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let mut host = Host::simulated(root.path(), &Faults::default());
        let soon = || Deadline::after(Duration::from_millis(20));
        drop(host.lock_state("lock", soon()).unwrap());
        let lock = root.path().join("run/vfio-hook/lock");
        fs::remove_file(&lock).unwrap();
        nix::unistd::mkfifo(&lock, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        host.lock_state("lock", soon()).map(drop).unwrap_err();
        host.lock_holder("lock").unwrap_err();
        host.share_state_lock("lock", soon()).map(drop).unwrap_err();
        let precious = root.path().join("precious");
        fs::write(&precious, "text").unwrap();
        fs::remove_file(&lock).unwrap();
        symlink(&precious, &lock).unwrap();
        host.lock_state("lock", soon()).map(drop).unwrap_err();
        assert_eq!(fs::read(&precious).unwrap(), b"text");
    }

    #[test]
    fn a_process_that_does_not_get_a_lock_is_told_which_one_has_it() {
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
