//! Whether something is there.

use std::io;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::Host;

impl Host {
    /// Whether a file or folder is there, links followed, for all that is known: where the kernel does not say (`EIO`,
    /// `ELOOP`, no access), it is, and its reader learns why it cannot be had.
    #[must_use]
    pub fn is_present(&self, path: impl AsRef<Path>) -> bool {
        is_there(&self.files.locate(path.as_ref()))
    }

    /// Whether there is something of any kind under this name, whether or not it can be read: a link that leads
    /// to nothing or in a circle is there, and so is what the kernel will not tell about. Not so where the name is free,
    /// or the folder that it would be in.
    #[must_use]
    pub fn is_named(&self, path: impl AsRef<Path>) -> bool {
        is_named(&self.files.locate(path.as_ref()))
    }
}

/// As [`Host::is_present`], where the path really is.
pub(super) fn is_there(path: &Path) -> bool {
    path.try_exists().unwrap_or_else(|error| {
        !matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename)
    })
}

/// As [`Host::is_named`] on this machine, for a process that must not allocate: a short path needs no memory.
pub(crate) fn is_named(path: &Path) -> bool {
    match path.symlink_metadata() {
        Ok(_) => true,
        // The folder may be missing behind a link that is there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.parent().is_some_and(leads_nowhere),
        // No file can have this name.
        Err(error) if error.kind() == io::ErrorKind::InvalidFilename => false,
        Err(_) => true,
    }
}

/// The same, from what the kernel has at hand (`RESOLVE_CACHED` of `openat2(2)`, since Linux 5.12). None where it would
/// have to ask a file system, which may wait for a server.
pub(crate) fn is_named_at_once(path: &Path) -> Option<bool> {
    let look = |path: &Path, flags| {
        let flags = OFlags::PATH | OFlags::CLOEXEC | flags;
        openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED)
    };
    match look(path, OFlags::NOFOLLOW) {
        Ok(_) => Some(true),
        Err(Errno::NOENT) => look(path.parent()?, OFlags::DIRECTORY).is_ok().then_some(false),
        Err(_) => None,
    }
}

/// The error for a path that could not be opened. The kernel answers ENOENT both where nothing has the name and where a
/// symbolic link of this name leads to nothing: the second gets a text of its own.
pub(super) fn told_from_dangling(path: &Path, error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::NotFound && is_named(path) {
        return io::Error::other("a symbolic link leads to nothing");
    }
    error
}

fn leads_nowhere(folder: &Path) -> bool {
    folder.metadata().is_err() && is_named(folder)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode as FileMode;
    use nix::unistd::mkfifo;

    use super::*;
    use crate::host::simulated::Faults;

    #[test]
    fn what_is_there_under_a_name_counts_however_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::simulated(folder.path(), &Faults::default());
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "").unwrap();
        fs::create_dir(at("folder")).unwrap();
        mkfifo(&at("pipe"), FileMode::S_IRUSR).unwrap();
        symlink("file", at("link")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        symlink("circle", at("circle")).unwrap();
        let long = format!("/{}", "x".repeat(256));
        for (path, is_named, is_present) in [
            ("/file", true, true),
            ("/folder", true, true),
            ("/pipe", true, true),
            ("/link", true, true),
            ("/dangling", true, false),
            ("/circle", true, true),
            // ENOTDIR, ELOOP, and a folder that is missing behind a link.
            ("/file/x", true, false),
            ("/circle/x", true, true),
            ("/dangling/x", true, false),
            ("/dangling/x/y", true, false),
            ("/none", false, false),
            ("/folder/none", false, false),
            ("/none/x", false, false),
            ("/none/x/y", false, false),
            (&long, false, false),
        ] {
            assert_eq!((host.is_named(path), host.is_present(path)), (is_named, is_present), "{path}");
        }
    }

    #[test]
    fn what_the_kernel_has_at_hand_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "").unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        for name in ["file", "dangling", "none", "none/x", "dangling/x"] {
            // Looked at before, so that the kernel knows.
            let expected = is_named(&at(name));
            if let Some(known) = is_named_at_once(&at(name)) {
                assert_eq!(known, expected, "{name}");
            }
        }
        assert_eq!(is_named_at_once(&at("file")), Some(true));
    }
}
