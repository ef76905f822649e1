//! Files and devices of shared memory: made, given an owner and a mode, and removed.
//!
//! `/dev/shm` is everyone's: a name in it may be a link, or a file of a user who waits for root to give it away. So the
//! folder is opened first, no link is followed, and what is changed is the file that was opened and looked at.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, chmodat, chownat, fchmod, fchown, fstat, ftruncate,
    openat, statat, unlinkat,
};

use super::{Host, HostError};
use crate::deadline::Deadline;
use crate::pages::MemorySize;
use crate::shared_memory::{SharedMemory, SharedMemoryKind, SharedMemoryPath};

/// The permission bits of a file's mode.
const PERMISSIONS: u32 = 0o7777;

/// The sizes of the module's devices in MiB, in the order of their numbers (`static_size_mb` in Looking Glass's
/// `module/kvmfr.c`).
const KVMFR_SIZES: &str = "/sys/module/kvmfr/parameters/static_size_mb";

impl Host {
    /// What is at a path.
    ///
    /// # Errors
    /// Something else than a plain file, or than the device, is there; or it has several names.
    pub fn shared_memory(&self, path: &SharedMemoryPath) -> Result<SharedMemory, HostError> {
        let failed = |error: io::Error| HostError::read(Path::new(path.as_str()), error);
        let folder = match self.shared_folder(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(SharedMemory::Absent),
            folder => folder.map_err(failed)?,
        };
        match statat(&folder, path.split().1, AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) => Ok(SharedMemory::Absent),
            Err(error) => Err(failed(error.into())),
            Ok(stat) => self.found(path, &stat).map_err(failed),
        }
    }

    /// Makes it, or gives it an owner and a mode.
    ///
    /// # Errors
    /// Something else is there, or a file of a user who is neither root, QEMU nor its owner to be; the kernel refuses.
    pub fn set_shared_memory(&mut self, path: &SharedMemoryPath, to: &SharedMemory) -> Result<(), HostError> {
        self.change_shared_memory(path, None, to)
    }

    /// Gives it the owner and the mode it had, or removes it; `from` is what the guest had.
    ///
    /// # Errors
    /// As [`Self::set_shared_memory`].
    pub fn give_back_shared_memory(
        &mut self,
        path: &SharedMemoryPath,
        from: &SharedMemory,
        to: &SharedMemory,
    ) -> Result<(), HostError> {
        let owner = match *from {
            SharedMemory::Absent => None,
            SharedMemory::There { owner, .. } => Some(owner),
        };
        self.change_shared_memory(path, owner, to)
    }

    fn change_shared_memory(
        &mut self,
        path: &SharedMemoryPath,
        known_owner: Option<u32>,
        to: &SharedMemory,
    ) -> Result<(), HostError> {
        let set = match *to {
            SharedMemory::Absent => self.remove_shared(path),
            SharedMemory::There { size, owner, group, mode } => {
                let access = Access {
                    owner: Uid::from_raw(owner),
                    group: Gid::from_raw(group),
                    mode: Mode::from_raw_mode(mode),
                };
                match path.kind() {
                    SharedMemoryKind::File => self.make_shared(path, size, access, known_owner),
                    SharedMemoryKind::Kvmfr(_) => self.give_device(path, access),
                }
            }
        };
        set.map_err(|error| HostError::write(Path::new(path.as_str()), &to.to_string(), error))
    }

    /// The programs that have it open or mapped, in words; empty where none has.
    ///
    /// # Errors
    /// The processes cannot all be looked at in time.
    pub fn shared_memory_users(
        &self,
        path: &SharedMemoryPath,
        deadline: Deadline,
    ) -> Result<Vec<String>, HostError> {
        let holders = self.holders_of_file(Path::new(path.as_str()), deadline)?;
        Ok(holders.iter().map(ToString::to_string).collect())
    }

    /// How large a device of Looking Glass's module is; none where the module is not loaded, or has no such device.
    ///
    /// # Errors
    /// The module's parameter cannot be read.
    pub fn kvmfr_size(&self, number: usize) -> Result<Option<MemorySize>, HostError> {
        let Some(text) = self.text_if_present(KVMFR_SIZES)? else { return Ok(None) };
        let mib = text.split(',').nth(number).and_then(|mib| mib.trim().parse::<u64>().ok());
        Ok(mib.filter(|mib| *mib > 0).map(|mib| MemorySize::from_kib(mib.saturating_mul(1024))))
    }

    fn shared_folder(&self, path: &SharedMemoryPath) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(CWD, self.files.locate(path.split().0.as_ref()), flags, Mode::empty())?)
    }

    fn found(&self, path: &SharedMemoryPath, stat: &Stat) -> io::Result<SharedMemory> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let (is_right, size) = match path.kind() {
            SharedMemoryKind::File => (kind == FileType::RegularFile, stat.st_size),
            // A host in a folder has no devices.
            SharedMemoryKind::Kvmfr(_) if !self.is_real() => (kind == FileType::RegularFile, 0),
            SharedMemoryKind::Kvmfr(_) => (kind == FileType::CharacterDevice, 0),
        };
        let what = match kind {
            _ if is_right && stat.st_nlink <= 1 => {
                return Ok(SharedMemory::There {
                    size: MemorySize::from_bytes(u64::try_from(size).unwrap_or(0)),
                    owner: stat.st_uid,
                    group: stat.st_gid,
                    mode: stat.st_mode & PERMISSIONS,
                });
            }
            FileType::Symlink => "a symbolic link",
            FileType::Directory => "a folder",
            FileType::RegularFile if is_right => "a file with other names",
            FileType::RegularFile => "a plain file",
            _ => "something else",
        };
        Err(io::Error::other(format!("{what} is there")))
    }

    fn make_shared(
        &self,
        path: &SharedMemoryPath,
        size: MemorySize,
        access: Access,
        known_owner: Option<u32>,
    ) -> io::Result<()> {
        let (folder, name) = (self.shared_folder(path)?, path.split().1);
        let there = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        self.files.announce_change(path.as_str().as_ref())?;
        let made = openat(&folder, name, there | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR);
        let file = match made {
            Err(rustix::io::Errno::EXIST) => openat(&folder, name, there, Mode::empty())?,
            made => made?,
        };
        // What was opened is looked at, whatever the name leads to by now: its maker may have it open, and would share
        // the guest's memory.
        let SharedMemory::There { size: now, owner, .. } = self.found(path, &fstat(&file)?)? else {
            return Ok(());
        };
        let known = [self.trusted_owner().as_raw(), access.owner.as_raw()];
        let is_known = known.contains(&owner)
            || known_owner == Some(owner)
            || self.is_qemu_user(owner).map_err(io::Error::other)?;
        if !is_known {
            return Err(io::Error::other(format!("a file of user {owner} is there")));
        }
        if now != size {
            // One that was just made; or one of which a killed process made no more.
            if now != MemorySize::ZERO {
                return Err(io::Error::other(format!("a file of {now} is there")));
            }
            self.files.announce_change(path.as_str().as_ref())?;
            ftruncate(&file, size.bytes())?;
        }
        self.files.announce_change(path.as_str().as_ref())?;
        fchown(&file, Some(access.owner), Some(access.group))?;
        self.files.announce_change(path.as_str().as_ref())?;
        fchmod(&file, access.mode)?;
        Ok(())
    }

    /// Nobody but root makes names in `/dev`.
    fn give_device(&self, path: &SharedMemoryPath, access: Access) -> io::Result<()> {
        let (folder, name) = (self.shared_folder(path)?, path.split().1);
        self.found(path, &statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?)?;
        self.files.announce_change(path.as_str().as_ref())?;
        chownat(&folder, name, Some(access.owner), Some(access.group), AtFlags::SYMLINK_NOFOLLOW)?;
        self.files.announce_change(path.as_str().as_ref())?;
        chmodat(&folder, name, access.mode, AtFlags::empty())?;
        Ok(())
    }

    fn remove_shared(&self, path: &SharedMemoryPath) -> io::Result<()> {
        if path.kind() != SharedMemoryKind::File {
            return Err(io::Error::other("a device is not removed"));
        }
        let folder = self.shared_folder(path)?;
        self.files.announce_change(path.as_str().as_ref())?;
        match unlinkat(folder.as_fd(), path.split().1, AtFlags::empty()) {
            Err(rustix::io::Errno::NOENT) => Ok(()),
            removed => Ok(removed?),
        }
    }
}

#[derive(Clone, Copy)]
struct Access {
    owner: Uid,
    group: Gid,
    mode: Mode,
}
