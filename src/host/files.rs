//! The machine's files, behind a door that a folder can stand in for.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::libc::{O_NOCTTY, O_NONBLOCK};

use crate::failpoint;

/// The largest kernel attribute read; `/proc/cpuinfo` of a machine with 512 CPUs is about 1 MiB.
const MAX_ATTRIBUTE: u64 = 8 * 1024 * 1024;

/// Reads and writes files named by their absolute path on the machine.
///
/// Two implementations: the kernel's own ([`KernelFiles`]) and a host in a folder
/// ([`SimulatedFiles`](super::simulated::SimulatedFiles)).
pub(super) trait Files: Send + Sync {
    /// The whole text of a file, as bytes.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// So many bytes of a file from a place on, or as many as there are: of a device's registers, where each one read
    /// is a question to the device.
    fn read_at(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>>;

    /// Writes a value into a file that is there, in one `write(2)` as kernel attributes need it; never creates one.
    fn write(&self, path: &Path, value: &str) -> io::Result<()>;

    /// Replaces a file of the program's own: the old text or the new one is there at every moment, and the new one is
    /// flushed before this returns.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

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

    fn read_at(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let read = fs::File::open(path)?.read_at(&mut bytes, offset)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    fn write(&self, path: &Path, value: &str) -> io::Result<()> {
        failpoint::reached("knob");
        write_existing(path, value)?;
        failpoint::reached("knob");
        Ok(())
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        replace_flushed(path, bytes)
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
        failpoint::reached("knob");
        make_with_folders(path, bytes)?;
        failpoint::reached("knob");
        Ok(())
    }

    fn link(&self, path: &Path, target: &Path) -> io::Result<()> {
        failpoint::reached("knob");
        make_link(path, target)?;
        failpoint::reached("knob");
        Ok(())
    }

    fn link_target(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        read_link(path)
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

pub(super) fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    // Most attributes fit a page: one read for the text, one for its end.
    let mut bytes = Vec::with_capacity(4096);
    // A named pipe in a file's place has nothing to say, and is not waited for.
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(path)?;
    file.take(MAX_ATTRIBUTE).read_to_end(&mut bytes)?;
    Ok(bytes)
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
