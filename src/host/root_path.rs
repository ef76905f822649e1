//! Where root's programs are.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// root's `PATH` on Debian; none of the program's own environment is trusted with that.
pub(crate) const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The whole path of a program; none where this host does not have it.
pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    ROOT_PATH.split(':').map(|folder| Path::new(folder).join(name)).find(is_program)
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
