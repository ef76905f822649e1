//! Whose a process is. Nothing here waits for the process, whatever it does.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;

/// Real, effective, saved and file system user of a process, from the line `Uid:` of `status` in its folder.
pub(super) fn users_of(folder: &Path) -> io::Result<[u32; 4]> {
    let text = fs::read_to_string(folder.join("status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Uid:"));
    let numbers: Option<Vec<u32>> =
        line.map(|line| line.split_whitespace().map_while(|number| number.parse().ok()).collect());
    let users = numbers.and_then(|numbers| numbers.try_into().ok());
    users.ok_or_else(|| io::Error::other("no line `Uid:` with four numbers"))
}

/// Where it stands whose a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerIn {
    /// The owner of its folder below `/proc`.
    Folder,
    /// `status`, if it is there: on a host in a folder all belongs to one user.
    Status,
}

/// The effective user of a process, by its folder.
pub(super) fn effective_user(folder: &Path, owner: OwnerIn) -> io::Result<u32> {
    if owner == OwnerIn::Status {
        match users_of(folder) {
            Ok([_, effective, ..]) => return Ok(effective),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    // The kernel has it there whatever the process does (`task_dump_owner` in `fs/proc/base.c`).
    Ok(fs::metadata(folder)?.uid())
}

/// Whether a process has ended while it was looked at.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ESRCH as i32)
}
