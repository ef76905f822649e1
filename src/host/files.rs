//! The machine's files, behind a trait: tests and `demo` have files in a folder instead.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc::{O_NOCTTY, O_NOFOLLOW, O_NONBLOCK};

use super::sched;
use crate::cpuset::CpuSet;
use crate::failpoint;

/// The largest kernel attribute read; `/proc/cpuinfo` of a machine with 512 CPUs is about 1 MiB.
const MAX_ATTRIBUTE: u64 = 8 * 1024 * 1024;

/// Fills a buffer with a device's registers from a place on, as far as there are any: how many bytes it read. Each four
/// are a question to the device.
pub(super) type ReadRegisters<'f> = Box<dyn Fn(u64, &mut [u8]) -> io::Result<usize> + 'f>;

/// Reads and writes files named by their absolute path on the machine.
///
/// Two implementations: the kernel's own ([`KernelFiles`]) and a host in a folder
/// ([`SimulatedFiles`](super::simulated::SimulatedFiles)).
pub(super) trait Files: Send + Sync {
    /// The whole text of a file, as bytes.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The registers of a device, in a file. Nothing is read yet.
    fn registers(&self, path: &Path) -> io::Result<ReadRegisters<'_>>;

    /// Writes a value into a file that is there, in one `write(2)` as kernel attributes need it; never creates one.
    fn write(&self, path: &Path, value: &str) -> io::Result<()>;

    /// Replaces a file of the program's own: the old text or the new one is there at every moment, and the new one is
    /// flushed before this returns.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Writes a slot: the beginning of a file of the program's own that is written in place, and stays as large as it
    /// is. So much space is set aside for it before the first byte is written: later writes of no more need none.
    fn write_slot(&self, path: &Path, bytes: &[u8], reserved: u64) -> io::Result<()>;

    /// The names in a folder, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;

    /// Whether the owner may write the file: the kernel takes this bit from interrupts that cannot be moved.
    fn is_writable(&self, path: &Path) -> bool;

    /// Removes a file, or a folder that is empty.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a file, and the folders on the way.
    fn make(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Makes a symbolic link.
    fn link(&self, path: &Path, target: &Path) -> io::Result<()>;

    /// Where a symbolic link leads; none where there is no link.
    fn link_target(&self, path: &Path) -> io::Result<Option<PathBuf>>;

    /// Has a thread use these CPUs alone (`sched_setaffinity(2)`).
    fn set_affinity(&self, thread: i32, cpus: &CpuSet) -> io::Result<()>;
    /// Has the kernel schedule a thread by another policy; `stat` is the thread's file in `/proc`.
    fn set_scheduling_policy(&self, stat: &Path, thread: i32, policy: i32, priority: i32) -> io::Result<()>;

    /// Gives a thread another nice value; `stat` is its file in `/proc`.
    fn set_nice(&self, stat: &Path, thread: i32, nice: i32) -> io::Result<()>;

    /// Called before each call that changes a file of another program's in a way of its own.
    fn announce_change(&self, path: &Path) -> io::Result<()>;

    /// Where the path really is, for sockets and locks.
    fn locate(&self, path: &Path) -> PathBuf;
}

/// The files of this machine.
#[derive(Debug)]
pub(super) struct KernelFiles;

impl Files for KernelFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        read_limited(path)
    }

    fn registers(&self, path: &Path) -> io::Result<ReadRegisters<'_>> {
        let file = fs::File::open(path)?;
        Ok(Box::new(move |offset, buffer| {
            loop {
                match file.read_at(buffer, offset) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => return read,
                }
            }
        }))
    }

    fn write(&self, path: &Path, value: &str) -> io::Result<()> {
        failpoint::reached("setting");
        write_existing(path, value)?;
        failpoint::reached("setting");
        Ok(())
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        replace_flushed(path, bytes)
    }

    fn write_slot(&self, path: &Path, bytes: &[u8], reserved: u64) -> io::Result<()> {
        write_reserved(&open_slot(path, reserved)?, bytes)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        list_sorted(path)
    }

    fn is_writable(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o200 != 0)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        remove_any(path)
    }

    fn make(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        failpoint::reached("setting");
        make_with_folders(path, bytes)?;
        failpoint::reached("setting");
        Ok(())
    }

    fn link(&self, path: &Path, target: &Path) -> io::Result<()> {
        failpoint::reached("setting");
        make_link(path, target)?;
        failpoint::reached("setting");
        Ok(())
    }

    fn link_target(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        read_link(path)
    }

    fn set_affinity(&self, thread: i32, cpus: &CpuSet) -> io::Result<()> {
        failpoint::reached("setting");
        let mut set = nix::sched::CpuSet::new();
        for cpu in cpus.iter() {
            // The kernel takes as many as it may ever have; a mask of the library has 1024.
            let cpu = usize::try_from(cpu).unwrap_or(usize::MAX);
            if cpu < nix::sched::CpuSet::count() {
                set.set(cpu)?;
            }
        }
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(thread), &set)?;
        failpoint::reached("setting");
        Ok(())
    }

    fn set_scheduling_policy(&self, _stat: &Path, thread: i32, policy: i32, priority: i32) -> io::Result<()> {
        failpoint::reached("setting");
        sched::set_policy(thread, policy, priority)?;
        failpoint::reached("setting");
        Ok(())
    }

    fn set_nice(&self, _stat: &Path, thread: i32, nice: i32) -> io::Result<()> {
        failpoint::reached("setting");
        sched::set_nice(thread, nice)?;
        failpoint::reached("setting");
        Ok(())
    }

    fn announce_change(&self, _path: &Path) -> io::Result<()> {
        failpoint::reached("setting");
        Ok(())
    }

    fn locate(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }
}

pub(super) fn make_with_folders(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    fs::write(path, bytes)
}

pub(super) fn make_link(path: &Path, target: &Path) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    std::os::unix::fs::symlink(target, path)
}

pub(super) fn read_link(path: &Path) -> io::Result<Option<PathBuf>> {
    match fs::read_link(path) {
        Ok(target) => Ok(Some(target)),
        // `InvalidInput`: it is something else.
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput => Ok(None),
            _ => Err(error),
        },
    }
}

/// Opens a file to be read. A named pipe in its place has nothing to say, and is not waited for.
pub(super) fn open_without_waiting(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new().read(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(path)
}

pub(super) fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    // Most attributes fit a page: one read for the text, one for its end.
    let mut bytes = Vec::with_capacity(4096);
    open_without_waiting(path)?.take(MAX_ATTRIBUTE + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_ATTRIBUTE {
        // A part of it would say something else.
        true => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {MAX_ATTRIBUTE} bytes"),
        )),
        false => Ok(bytes),
    }
}

/// Not `fs::write`: it would create a misspelt attribute in a test's folder, and truncate before it writes.
pub(super) fn write_existing(path: &Path, value: &str) -> io::Result<()> {
    let written = OpenOptions::new().write(true).open(path)?.write(value.as_bytes())?;
    if written == value.len() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::WriteZero,
        format!("only {written} of {} bytes were taken", value.len()),
    ))
}

pub(super) fn replace_flushed(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new().prefix(".").suffix(".new").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_data()?;
    failpoint::reached("ledger");
    file.persist(path).map_err(|error| error.error)?;
    fs::File::open(folder)?.sync_all()
}

/// Opens a slot, making it where it is missing, and sets so much space aside.
pub(super) fn open_slot(path: &Path, reserved: u64) -> io::Result<fs::File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let file = options.custom_flags(O_NONBLOCK | O_NOFOLLOW).open(path)?;
    let reserved = i64::try_from(reserved).unwrap_or(i64::MAX);
    if reserved == 0 {
        return Ok(file);
    }
    match fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, reserved) {
        // A file system that cannot set space aside takes what it has when it is written.
        Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(file),
        Err(errno) => Err(errno.into()),
    }
}

/// Writes from the beginning of a slot, and flushes it.
pub(super) fn write_reserved(file: &fs::File, bytes: &[u8]) -> io::Result<()> {
    file.write_all_at(bytes, 0)?;
    failpoint::reached("ledger");
    file.sync_data()
}

pub(super) fn list_sorted(path: &Path) -> io::Result<Vec<OsString>> {
    let mut names = fs::read_dir(path)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

pub(super) fn remove_any(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) }
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn a_named_pipe_in_place_of_a_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("os-release");
        mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(read_limited(&path).unwrap(), b"");
    }
}
