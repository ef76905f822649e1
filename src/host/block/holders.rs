//! Programs that keep a mount in use.

use std::fs;
use std::path::{Path, PathBuf};

use crate::deadline::Deadline;
use crate::host::process_owner::is_gone;
use crate::host::process_search::ProcessSearch;
use crate::host::{Host, HostError};

/// What the kernel appends to the path of a file that was removed.
const DELETED: &str = " (deleted)";

/// A process that has a file below a path open, runs from there, or is in a folder there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathHolder {
    /// Its number.
    pub pid: i32,
    /// Its name, of at most 15 bytes.
    pub name: String,
    /// One of its files there.
    pub path: PathBuf,
    /// The unit that it belongs to, as systemd names it; none where it belongs to none.
    pub unit: Option<String>,
}

impl Host {
    /// The processes that keep a mount in use, in the order of their numbers. Only links of `/proc` are read, so that no
    /// file system is asked. Those that map a file there and have closed it are not among them.
    ///
    /// # Errors
    /// The processes cannot all be looked at in time.
    pub fn holders_below(&self, path: &Path, deadline: Deadline) -> Result<Vec<PathHolder>, HostError> {
        let proc = self.files.locate("/proc".as_ref());
        let (folder, path) = (proc.clone(), path.to_owned());
        let mut search =
            ProcessSearch::start(proc, move |pid| look_at(&folder.join(pid.to_string()), pid, &path))?;
        let mut holders = Vec::new();
        while let Some(holder) = search.next(deadline)? {
            holders.push(holder);
        }
        Ok(holders)
    }
}

fn look_at(process: &Path, pid: i32, below: &Path) -> Result<Option<PathHolder>, HostError> {
    let held = |link: &Path| {
        let target = fs::read_link(link).ok()?;
        let text = target.to_str()?;
        let path = Path::new(text.strip_suffix(DELETED).unwrap_or(text));
        path.starts_with(below).then(|| path.to_owned())
    };
    let mut found = ["cwd", "root", "exe"].iter().find_map(|name| held(&process.join(name)));
    if found.is_none() {
        let fds = process.join("fd");
        match fs::read_dir(&fds) {
            Ok(entries) => found = entries.flatten().find_map(|entry| held(&entry.path())),
            Err(error) if is_gone(&error) || error.kind() == std::io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(HostError::list(&fds, error)),
        }
    }
    let Some(path) = found else { return Ok(None) };
    let text = |name: &str| fs::read_to_string(process.join(name)).unwrap_or_default();
    let cgroup = text("cgroup");
    let unit = cgroup.lines().find_map(|line| line.rsplit('/').next().filter(|unit| unit.contains('.')));
    Ok(Some(PathHolder { pid, name: text("comm").trim().to_owned(), path, unit: unit.map(str::to_owned) }))
}
