//! The folder of the simulated host: it is gone when the demo ends, however it ends.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, Signal};

use crate::host::{Afterwards, afterwards};

/// How often a folder is removed in which files are still made.
const TRIES: usize = 100;

/// A folder that is removed at the end.
pub(super) struct HostFolder {
    path: PathBuf,
    /// Removing takes a descriptor, of which there may be none left by then.
    spare: Option<File>,
    /// Removes it when a signal has ended this process.
    _afterwards: Option<Afterwards>,
}

impl HostFolder {
    /// Makes it where temporary files are.
    pub(super) fn make() -> io::Result<Self> {
        let spare = Some(File::open("/dev/null")?);
        // A file that may not grow so far is an error like any other then.
        SigSet::from(Signal::SIGXFSZ).thread_block()?;
        let path = tempfile::Builder::new().prefix("vfio-hook-demo-").tempdir()?.keep();
        // Where there can be no child, a signal leaves the folder behind.
        let afterwards = afterwards({
            let path = path.clone();
            move || remove(&path)
        });
        Ok(Self { path, spare, _afterwards: afterwards })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for HostFolder {
    fn drop(&mut self) {
        self.spare = None;
        remove(&self.path);
    }
}

/// What of the program still runs may make files in it.
fn remove(path: &Path) {
    for _ in 0..TRIES {
        if remove_once(path).is_ok() || !path.exists() {
            return;
        }
    }
}

/// As `fs::remove_dir_all`, with one folder open at a time.
fn remove_once(folder: &Path) -> io::Result<()> {
    let entries: Vec<fs::DirEntry> = fs::read_dir(folder)?.collect::<io::Result<_>>()?;
    let paths: Vec<(PathBuf, bool)> = entries
        .iter()
        .map(|entry| Ok((entry.path(), entry.file_type()?.is_dir())))
        .collect::<io::Result<_>>()?;
    // Each entry keeps its folder open.
    drop(entries);
    for (path, is_folder) in paths {
        if is_folder { remove_once(&path)? } else { fs::remove_file(path)? }
    }
    fs::remove_dir(folder)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_folder_goes_with_all_that_is_in_it_and_links_are_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "").unwrap();
        let folder = tempfile::tempdir().unwrap().keep();
        fs::create_dir_all(folder.join("a/b/c")).unwrap();
        fs::write(folder.join("a/b/file"), "").unwrap();
        symlink(outside.path(), folder.join("a/link")).unwrap();
        remove(&folder);
        assert!(!folder.exists());
        assert!(outside.path().join("kept").exists());
    }
}
