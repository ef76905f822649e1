//! Files of other programs that root alone can have written.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

use super::{Host, HostError};

/// The permission bits with which others than the owner could write.
const OTHERS_WRITE: u32 = 0o022;

impl Host {
    /// Reads a file that root alone can have written; none where it is absent, or where it or a folder above it is no
    /// plain file or folder, belongs to another user, or may be written by others. Its own folder may also belong to
    /// one of these service users: they can exchange files of root's in it, and make none.
    ///
    /// # Errors
    /// It is there but cannot be read, or is larger than so many bytes.
    pub(super) fn read_root_file(
        &self,
        path: &Path,
        most: u64,
        folder_owners: &[u32],
    ) -> Result<Option<Vec<u8>>, HostError> {
        match self.bytes_of_root(path, most, folder_owners) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // A symbolic link in its place.
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) => Ok(None),
            read => read.map_err(|error| HostError::read(path, error)),
        }
    }

    fn bytes_of_root(&self, path: &Path, most: u64, folder_owners: &[u32]) -> io::Result<Option<Vec<u8>>> {
        // From the top: a user who cannot write a folder exchanges nothing in it.
        let mut folders: Vec<&Path> =
            path.ancestors().skip(1).filter(|path| path.parent().is_some()).collect();
        folders.reverse();
        for folder in folders {
            let file = fs::symlink_metadata(self.files.locate(folder))?;
            let is_its_own = path.parent() == Some(folder);
            let is_services = is_its_own && folder_owners.contains(&file.uid());
            let is_safe = self.is_roots(&file) || is_services && file.mode() & OTHERS_WRITE == 0;
            if !file.is_dir() || !is_safe {
                return Ok(None);
            }
        }
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(self.files.locate(path))?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || !self.is_roots(&metadata) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it has more than {most} bytes"),
            ));
        }
        Ok(Some(bytes))
    }

    /// Whether root alone can write it.
    pub(super) fn is_roots(&self, file: &Metadata) -> bool {
        file.uid() == self.trusted_owner().as_raw() && file.mode() & OTHERS_WRITE == 0
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use nix::sys::stat::Mode;

    use super::*;
    use crate::host::manifest::lay_out;
    use crate::host::simulated::Faults;

    #[test]
    fn only_what_nobody_else_can_have_written_is_read() {
        let root = tempfile::tempdir().unwrap();
        lay_out("/run/a/b.xml = text\n/run/a/folder.xml/\n/run/a/link.xml -> b.xml\n", root.path()).unwrap();
        nix::unistd::mkfifo(&root.path().join("run/a/fifo.xml"), Mode::S_IRUSR).unwrap();
        let host = Host::simulated(root.path(), &Faults::default());
        let read = |path: &str| host.read_root_file(path.as_ref(), 5, &[]).unwrap();
        let set = |path: &str, mode: u32| {
            fs::set_permissions(root.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
        };
        set("run", 0o755);
        set("run/a", 0o755);
        assert_eq!(read("/run/a/b.xml").as_deref(), Some(&b"text\n"[..]));
        for path in
            ["/run/a/c.xml", "/run/c/b.xml", "/run/a/folder.xml", "/run/a/link.xml", "/run/a/fifo.xml"]
        {
            assert_eq!(read(path), None, "{path}");
        }
        for (path, wrong, right) in
            [("run/a/b.xml", 0o664, 0o644), ("run/a", 0o757, 0o755), ("run", 0o775, 0o755)]
        {
            set(path, wrong);
            assert_eq!(read("/run/a/b.xml"), None, "{path}");
            set(path, right);
        }
        assert!(read("/run/a/b.xml").is_some());
        let error = host.read_root_file("/run/a/b.xml".as_ref(), 4, &[]).unwrap_err().to_string();
        assert_eq!(error, "failed to read /run/a/b.xml: it has more than 4 bytes");
    }

    /// Only root can give a folder to another user.
    #[test]
    fn the_folder_of_a_service_is_believed_but_no_file_of_it() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        lay_out("/run/a/b.xml = text\n", root.path()).unwrap();
        let host = Host::simulated(root.path(), &Faults::default());
        let read =
            |owners: &[u32]| host.read_root_file("/run/a/b.xml".as_ref(), 5, owners).unwrap().is_some();
        let give = |path: &str, user: u32| {
            std::os::unix::fs::chown(root.path().join(path), Some(user), None).unwrap()
        };
        assert!(read(&[]));
        give("run/a", 64055);
        assert!(!read(&[]));
        assert!(!read(&[64056]));
        assert!(read(&[64055]));
        fs::set_permissions(root.path().join("run/a"), fs::Permissions::from_mode(0o775)).unwrap();
        assert!(!read(&[64055]));
        fs::set_permissions(root.path().join("run/a"), fs::Permissions::from_mode(0o755)).unwrap();
        give("run", 64055);
        assert!(!read(&[64055]));
        give("run", 0);
        give("run/a/b.xml", 64055);
        assert!(!read(&[64055]));
    }
}
