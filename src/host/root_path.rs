//! Where root's programs are.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Host;

/// root's `PATH` on Debian, and behind it the places that NixOS has (`nixos/modules/programs/environment.nix`); none of
/// the program's own environment is trusted with that. The only list of such places.
pub(crate) const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/wrappers/bin:\
                                    /run/current-system/sw/bin";

/// The whole path of a program; none where this host does not have it.
pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    ROOT_PATH.split(':').map(|folder| Path::new(folder).join(name)).find(is_program)
}

impl Host {
    /// Where this host has a program of this name; none where it does not.
    #[must_use]
    pub fn program_named(&self, name: &str) -> Option<PathBuf> {
        let is_there = |path: &PathBuf| self.files.locate(path).is_file();
        ROOT_PATH.split(':').map(|folder| Path::new(folder).join(name)).find(is_there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_programs_by_their_names() {
        let shell = find_program("sh").unwrap();
        assert!(shell.is_absolute() && shell.ends_with("sh"));
        assert_eq!(find_program("no-program-has-this-name"), None);
    }
}
