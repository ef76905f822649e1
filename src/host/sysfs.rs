//! Paths of sysfs: where links lead, what lies below a device, and which PCI function it belongs to.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::{Host, HostError};
use crate::pci::PciAddress;

impl Host {
    /// Where a path of sysfs leads when all links are followed; none where there is nothing.
    pub(super) fn real_path(&self, path: &Path) -> Result<Option<PathBuf>, HostError> {
        let canonical = |path: PathBuf| match path.canonicalize() {
            Ok(there) => Ok(Some(there)),
            Err(error) if is_nothing(&error) => Ok(None),
            Err(error) => Err(error),
        };
        let there = || -> io::Result<Option<PathBuf>> {
            Ok(canonical(self.root())?
                .zip(canonical(self.files.locate(path))?)
                .and_then(|(root, there)| Some(Path::new("/").join(there.strip_prefix(root).ok()?))))
        };
        there().map_err(|error| HostError::read(path, error))
    }

    /// The folder of a PCI function; none where there is no such function.
    pub(super) fn pci_folder(&self, function: PciAddress) -> Result<Option<PathBuf>, HostError> {
        self.real_path(format!("/sys/bus/pci/devices/{function}").as_ref())
    }

    /// The folders in a folder, sorted, but no links to folders; none where it is gone.
    pub(super) fn subfolders(&self, folder: &Path) -> Result<Vec<PathBuf>, HostError> {
        let list = || -> io::Result<Vec<PathBuf>> {
            let mut folders = Vec::new();
            for entry in fs::read_dir(self.files.locate(folder))? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(folder.join(entry.file_name()));
                }
            }
            folders.sort_unstable();
            Ok(folders)
        };
        match list() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.map_err(|error| HostError::list(folder, error)),
        }
    }

    /// The names in a folder that are text; none where it is not there.
    pub(super) fn names_if_present(&self, folder: impl AsRef<Path>) -> Result<Vec<String>, HostError> {
        match self.names(folder) {
            Ok(names) => Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect()),
            Err(error) if error.is_absent() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Where a link leads; none where there is no link.
    pub(super) fn link_target(&self, link: &Path) -> Result<Option<PathBuf>, HostError> {
        self.files.link_target(link).map_err(|error| HostError::read(link, error))
    }

    /// The name at the end of a link, such as `driver` and `subsystem` are; none where there is no link.
    pub(super) fn link_name(&self, link: &Path) -> Result<Option<String>, HostError> {
        let target = self.link_target(link)?;
        Ok(target.and_then(|target| target.file_name()?.to_str().map(str::to_owned)))
    }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The nearest PCI function that a device lies below, by its real path.
pub(super) fn pci_ancestor(device: &Path) -> Option<PciAddress> {
    device.components().rev().find_map(|component| match component {
        Component::Normal(name) => name.to_str()?.parse().ok(),
        _ => None,
    })
}
