//! Scripts in a tree of folders, as a widespread dispatcher for libvirt hooks runs them:
//! `FOLDER/GUEST/OPERATION/SUB-OPERATION`, which is a script or a folder of scripts.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use super::presence::told_from_dangling;
use super::{Host, HostError};

impl Host {
    /// The scripts of a guest for an event, in the order of the bytes of their names: every file that can be executed
    /// (`find -L -maxdepth 1 -type f -executable`), links followed. None where there is no such folder, nor for a guest
    /// whose name cannot be that of a folder.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn hook_scripts(
        &self,
        directory: &Path,
        guest: &OsStr,
        operation: &str,
        sub_operation: &str,
    ) -> Result<Vec<PathBuf>, HostError> {
        let mut place = directory.to_owned();
        for name in [guest, operation.as_ref(), sub_operation.as_ref()] {
            if !is_one_name(name) {
                return Ok(Vec::new());
            }
            place.push(name);
        }
        let Some(found) = self.if_present(&place)? else { return Ok(Vec::new()) };
        if !found.is_dir() {
            return Ok(if is_script(&found) { vec![place] } else { Vec::new() });
        }
        let mut scripts = Vec::new();
        for name in self.names(&place)? {
            let path = place.join(name);
            if self.if_present(&path)?.is_some_and(|file| is_script(&file)) {
                scripts.push(path);
            }
        }
        Ok(scripts)
    }

    /// The number, from 1, of the first line of a script that calls `virsh`, comments left out; none where the script
    /// cannot be read.
    #[must_use]
    pub fn line_that_asks_libvirt(&self, script: &Path) -> Option<usize> {
        let bytes = self.files.read(script).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let asks = |line: &str| {
            let is_of_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            let in_background = line.trim_end().ends_with('&');
            !line.trim_start().starts_with('#')
                && !in_background
                && line.split(|c: char| !is_of_name(c)).any(|word| word == "virsh")
        };
        text.lines().position(asks).map(|number| number + 1)
    }

    /// The names in a folder that are texts; none of a folder that is missing or cannot be read.
    #[must_use]
    pub fn names_in(&self, folder: &Path) -> Vec<String> {
        let names = self.files.list(folder).unwrap_or_default();
        names.into_iter().filter_map(|name| name.into_string().ok()).collect()
    }

    /// Whether there is a folder; not so where its name is free.
    ///
    /// # Errors
    /// Something else is there, a link that leads to nothing among it, or the folder cannot be looked at.
    pub fn has_folder(&self, path: &Path) -> Result<bool, HostError> {
        let place = self.files.locate(path);
        match fs::metadata(&place).map_err(|error| told_from_dangling(&place, error)) {
            Ok(found) if found.is_dir() => Ok(true),
            Ok(_) => Err(HostError::list(path, io::Error::from_raw_os_error(nix::libc::ENOTDIR))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(HostError::list(path, error)),
        }
    }

    /// What is there, links followed; none also for a link that leads nowhere or in a circle.
    fn if_present(&self, path: &Path) -> Result<Option<Metadata>, HostError> {
        match fs::metadata(self.files.locate(path)) {
            Ok(found) => Ok(Some(found)),
            Err(error) if leads_nowhere(&error) => Ok(None),
            Err(error) => Err(HostError::read(path, error)),
        }
    }
}

fn leads_nowhere(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | InvalidFilename)
        || error.raw_os_error() == Some(nix::libc::ELOOP)
}

fn is_script(file: &Metadata) -> bool {
    file.is_file() && file.permissions().mode() & 0o111 != 0
}

/// Whether it names something in a folder: `..`, `a/b` and nothing at all do not.
fn is_one_name(name: &OsStr) -> bool {
    let mut components = Path::new(name).components();
    let is_normal = components.next() == Some(Component::Normal(name));
    is_normal && components.next().is_none()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::host::simulated::Faults;

    const TREE: &str = "/etc/libvirt/hooks/qemu.d";

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(&TREE[1..]).join(path)
        }

        fn write(&self, path: &str, mode: u32) {
            let path = self.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }

        fn scripts(&self, guest: impl AsRef<OsStr>) -> Vec<String> {
            let host = Host::simulated(self.0.path(), &Faults::default());
            let scripts = host.hook_scripts(Path::new(TREE), guest.as_ref(), "prepare", "begin").unwrap();
            let relative = |path: PathBuf| path.strip_prefix(TREE).unwrap().to_str().unwrap().to_owned();
            scripts.into_iter().map(relative).collect()
        }
    }

    #[test]
    fn finds_what_can_be_executed_sorted_by_bytes() {
        let tree = Tree::new();
        for name in ["b.sh", "a.sh", "10-x", "9-x", "Z", ".hidden", "é"] {
            tree.write(&format!("win11/prepare/begin/{name}"), 0o755);
        }
        tree.write("win11/prepare/begin/README", 0o644);
        tree.write("win11/prepare/begin/folder/inner", 0o755);
        symlink("a.sh", tree.path("win11/prepare/begin/link")).unwrap();
        symlink("nowhere", tree.path("win11/prepare/begin/dangling")).unwrap();
        symlink("circle", tree.path("win11/prepare/begin/circle")).unwrap();
        let names: Vec<String> = [".hidden", "10-x", "9-x", "Z", "a.sh", "b.sh", "link", "é"]
            .map(|name| format!("win11/prepare/begin/{name}"))
            .into();
        assert_eq!(tree.scripts("win11"), names);
    }

    #[test]
    fn takes_a_single_file_too() {
        let tree = Tree::new();
        tree.write("win11/prepare/begin", 0o755);
        assert_eq!(tree.scripts("win11"), ["win11/prepare/begin"]);
        tree.write("win11/prepare/begin", 0o644);
        assert!(tree.scripts("win11").is_empty());
    }

    #[test]
    fn what_is_no_folder_is_told_from_none() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::simulated(root.path(), &Faults::default());
        fs::create_dir(root.path().join("folder")).unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        symlink("folder", root.path().join("link")).unwrap();
        symlink("nowhere", root.path().join("dangling")).unwrap();
        symlink("circle", root.path().join("circle")).unwrap();
        let has_folder = |path: &str| host.has_folder(path.as_ref()).map_err(|error| error.to_string());
        assert_eq!(has_folder("/folder"), Ok(true));
        assert_eq!(has_folder("/link"), Ok(true));
        assert_eq!(has_folder("/none"), Ok(false));
        assert_eq!(has_folder("/none/folder"), Ok(false));
        for (path, reason) in [
            ("/file", "Not a directory (os error 20)"),
            ("/file/x", "Not a directory (os error 20)"),
            ("/dangling", "a symbolic link leads to nothing"),
            ("/dangling/x", "a symbolic link leads to nothing"),
            ("/circle", "Too many levels of symbolic links (os error 40)"),
        ] {
            assert_eq!(has_folder(path), Err(format!("failed to list {path}: {reason}")));
        }
    }

    #[test]
    fn never_leaves_its_folder() {
        let tree = Tree::new();
        assert!(tree.scripts("win11").is_empty());
        tree.write("prepare/begin", 0o755);
        tree.write("../prepare/begin", 0o755);
        tree.write("a/b/prepare/begin", 0o755);
        tree.write("file", 0o755);
        for name in ["", ".", "..", "../qemu.d", "a/b", "/", "/a", "a/", "file", &"x".repeat(300)] {
            assert!(tree.scripts(name).is_empty(), "{name}");
        }
        tree.write("--help/prepare/begin", 0o755);
        assert_eq!(tree.scripts("--help"), ["--help/prepare/begin"]);
        assert!(tree.scripts(OsStr::from_bytes(b"a\xff")).is_empty());
    }
}
