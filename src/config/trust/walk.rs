//! The walk from the root to the file, through open folders only.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::Uid;

use super::error::{TrustError, WayPart};
use super::owners::{Owners, Purpose};
use crate::config::source::MAX_FILE_BYTES;

/// Links followed on the way to one file, as the kernel allows.
pub(super) const MAX_LINKS: usize = 40;

/// Reads a file that nobody but `owner` can have written; `None` if there is none.
///
/// Every folder from `/` on, every target of a link and the file itself must belong to `owner` and not be writable by
/// group or others; a sticky bit makes no exception. `root` stands for `/`: with another folder than `/` the check
/// starts below it, and absolute links stay in it. What is read is the opened file that was checked, and a named pipe
/// or device in its place is never opened.
///
/// # Errors
/// See [`TrustError`]. A folder that others may write is no error as long as there is no file.
pub fn read_trusted(root: &Path, path: &Path, owner: Uid) -> Result<Option<Vec<u8>>, TrustError> {
    let walk = Walk::start(root, path, Owners::from(owner), Purpose::Configuration)?;
    match walk.run()? {
        Some(found) => found.read(),
        None => Ok(None),
    }
}

/// Checks that nobody but its owners can have written a program, in the way of [`read_trusted`], and that it can be
/// executed. It is not opened.
///
/// # Errors
/// See [`TrustError`]; no program is an error too.
pub fn check_trusted_program(root: &Path, path: &Path, owners: &Owners) -> Result<(), TrustError> {
    match Walk::start(root, path, owners.clone(), Purpose::Program)?.run()? {
        Some(found) => found.check_program(),
        None => Err(TrustError::Missing(path.to_owned())),
    }
}

/// A folder on the way, open, so that nobody can exchange it under the walk.
struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

/// A part of the path that is still to be walked.
struct Step {
    name: OsString,
    /// The link that it comes from.
    link: Option<PathBuf>,
}

struct Walk {
    owners: Owners,
    purpose: Purpose,
    /// The file as it was named.
    asked: PathBuf,
    /// From the root to the folder that was reached.
    folders: Vec<Folder>,
    /// The next one is the last.
    steps: Vec<Step>,
    links: usize,
    /// The first distrust; it counts only if there is a file.
    distrust: Option<TrustError>,
}

impl Walk {
    fn start(root: &Path, path: &Path, owners: Owners, purpose: Purpose) -> Result<Self, TrustError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = open(root, flags, Mode::empty()).map_err(|errno| io_error(root, errno))?;
        let asked = root.join(path.strip_prefix("/").unwrap_or(path));
        let mut walk =
            Self { owners, purpose, asked, folders: Vec::new(), steps: Vec::new(), links: 0, distrust: None };
        if root == Path::new("/") {
            let stat = fstat(&fd).map_err(|errno| io_error(root, errno))?;
            walk.distrust = walk.judge(root, &stat, WayPart::Folder);
        }
        walk.folders.push(Folder { fd, path: root.to_owned() });
        walk.push_steps(path.as_os_str(), None);
        Ok(walk)
    }

    fn run(mut self) -> Result<Option<Found>, TrustError> {
        while let Some(step) = self.steps.pop() {
            if step.name == ".." {
                // The root's parent is the root.
                self.folders.truncate((self.folders.len() - 1).max(1));
                continue;
            }
            let folder = self.here();
            let path = folder.path.join(&step.name);
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let fd = match openat(&folder.fd, step.name.as_os_str(), flags, Mode::empty()) {
                Ok(fd) => fd,
                // No file can have a name that is too long.
                Err(Errno::ENOENT | Errno::ENAMETOOLONG) => {
                    return step.link.map_or(Ok(None), |link| Err(TrustError::Dangling { path, link }));
                }
                Err(errno) => return Err(io_error(&path, errno)),
            };
            let stat = fstat(&fd).map_err(|errno| io_error(&path, errno))?;
            match kind(&stat) {
                SFlag::S_IFLNK => self.follow(&fd, path)?,
                SFlag::S_IFDIR => {
                    let part = self.part(&path);
                    self.distrust = self.distrust.take().or_else(|| self.judge(&path, &stat, part));
                    self.folders.push(Folder { fd, path });
                }
                SFlag::S_IFREG if self.steps.is_empty() => {
                    return match self.distrust.take() {
                        Some(distrust) => Err(distrust),
                        None => Ok(Some(Found { walk: self, name: step.name, path, stat })),
                    };
                }
                other => {
                    let expected = if self.steps.is_empty() { "a regular file" } else { "a folder" };
                    return Err(self.wrong_kind(path, kind_name(other), expected));
                }
            }
        }
        let path = self.here().path.clone();
        Err(self.wrong_kind(path, "a folder", "a regular file"))
    }

    fn wrong_kind(&self, path: PathBuf, found: &'static str, expected: &'static str) -> TrustError {
        let part = self.part(&path);
        TrustError::WrongKind { path, part, found, expected, purpose: self.purpose }
    }

    /// What something on the way is that is not the file itself.
    fn part(&self, path: &Path) -> WayPart {
        if self.asked.starts_with(path) { WayPart::Folder } else { WayPart::Linked }
    }

    fn here(&self) -> &Folder {
        // The root is never taken away.
        &self.folders[self.folders.len() - 1]
    }

    /// Goes on with a link's target. The link itself needs no check: changing it takes writing to its folder.
    fn follow(&mut self, fd: &OwnedFd, path: PathBuf) -> Result<(), TrustError> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(TrustError::TooManyLinks(path));
        }
        let target = readlinkat(fd, "").map_err(|errno| io_error(&path, errno))?;
        if target.as_bytes().starts_with(b"/") {
            self.folders.truncate(1);
        }
        self.push_steps(&target, Some(&path));
        Ok(())
    }

    fn push_steps(&mut self, path: &OsStr, link: Option<&PathBuf>) {
        let names = path.as_bytes().split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
        let steps = names.map(|name| Step { name: OsString::from_vec(name.to_vec()), link: link.cloned() });
        self.steps.extend(steps.rev());
    }

    fn judge(&self, path: &Path, stat: &FileStat, part: WayPart) -> Option<TrustError> {
        let (found, mode) = (Uid::from_raw(stat.st_uid), stat.st_mode & 0o7777);
        (!self.owners.has(found) || mode & 0o022 != 0).then(|| TrustError::Untrusted {
            path: path.to_owned(),
            part,
            found,
            mode,
            owners: self.owners.clone(),
            purpose: self.purpose,
        })
    }
}

/// A regular file at the end of a way that is trusted. It has not been judged itself.
struct Found {
    walk: Walk,
    name: OsString,
    path: PathBuf,
    stat: FileStat,
}

impl Found {
    /// Opens the file, checks what was opened and reads it.
    fn read(self) -> Result<Option<Vec<u8>>, TrustError> {
        let Self { walk, name, path, .. } = self;
        // Without O_NONBLOCK a named pipe put there meanwhile would block.
        let flags =
            OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let fd = match openat(&walk.here().fd, name.as_os_str(), flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(io_error(&path, errno)),
        };
        let stat = fstat(&fd).map_err(|errno| io_error(&path, errno))?;
        if kind(&stat) != SFlag::S_IFREG {
            let found = kind_name(kind(&stat));
            return Err(walk.wrong_kind(path, found, "a regular file"));
        }
        if let Some(distrust) = walk.judge(&path, &stat, WayPart::File) {
            return Err(distrust);
        }
        let mut bytes = Vec::new();
        let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
        match File::from(fd).take(limit.saturating_add(1)).read_to_end(&mut bytes) {
            Ok(length) if length > MAX_FILE_BYTES => Err(TrustError::TooLarge(path)),
            Ok(_) => Ok(Some(bytes)),
            Err(cause) => Err(TrustError::Io { path, cause }),
        }
    }

    fn check_program(self) -> Result<(), TrustError> {
        let Self { walk, path, stat, .. } = self;
        if let Some(distrust) = walk.judge(&path, &stat, WayPart::File) {
            return Err(distrust);
        }
        match stat.st_mode & 0o111 {
            0 => Err(TrustError::NotExecutable { path, mode: stat.st_mode & 0o7777 }),
            _ => Ok(()),
        }
    }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn kind_name(kind: SFlag) -> &'static str {
    match kind {
        SFlag::S_IFREG => "a regular file",
        SFlag::S_IFDIR => "a folder",
        SFlag::S_IFIFO => "a named pipe",
        SFlag::S_IFSOCK => "a socket",
        SFlag::S_IFCHR | SFlag::S_IFBLK => "a device",
        _ => "something else",
    }
}

fn io_error(path: &Path, errno: Errno) -> TrustError {
    TrustError::Io { path: path.to_owned(), cause: errno.into() }
}
