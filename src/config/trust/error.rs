//! Why a file is not trusted, and the command that mends it.

use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use thiserror::Error;

use crate::config::diagnostic::printable;
use crate::config::source::MAX_FILE_BYTES;

use super::owners::{Owners, Purpose, name};
use super::walk::MAX_LINKS;

/// Why a file is not read. The first line says what is wrong, the second one how to mend it.
#[derive(Debug, Error)]
pub enum TrustError {
    /// Somebody else can change the file or a folder on the way to it.
    #[error("{}", untrusted(path, *found, *mode, owners, *purpose))]
    Untrusted {
        /// The file or folder at fault.
        path: PathBuf,
        /// Who owns it.
        found: Uid,
        /// Its permissions.
        mode: u32,
        /// Who should own it.
        owners: Owners,
        /// What it is for.
        purpose: Purpose,
    },
    /// There is no such program.
    #[error("{} does not exist\nlook for it with: ls -l {}", display(.0), quoted(.0))]
    Missing(PathBuf),
    /// A program that nobody may execute.
    #[error("{} is not executable (mode {mode:04o})\nchmod +x {}", display(path), quoted(path))]
    NotExecutable {
        /// The program.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is no file, or there is something else where a folder belongs.
    #[error("{} is {found}, not {expected}\nremove it or move it away: mv {path} {path}.old", display(path), path = quoted(path))]
    WrongKind {
        /// The path at fault.
        path: PathBuf,
        /// What is there.
        found: &'static str,
        /// What belongs there.
        expected: &'static str,
    },
    /// A link on the way leads to nothing.
    #[error(
        "{} does not exist, and a symbolic link leads there\ncreate it, or remove the link at {}",
        display(path),
        display(link)
    )]
    Dangling {
        /// What is missing.
        path: PathBuf,
        /// The link.
        link: PathBuf,
    },
    /// Links lead in a circle.
    #[error("{} is reached through more than {MAX_LINKS} symbolic links\nput the file there instead of a link", display(.0))]
    TooManyLinks(PathBuf),
    /// More than any configuration needs.
    #[error("{} is larger than {MAX_FILE_BYTES} bytes\na guest's file needs a few hundred", display(.0))]
    TooLarge(PathBuf),
    /// The system refuses.
    #[error("cannot read {}: {cause}\nlook at it with: ls -ld {}", display(path), quoted(path))]
    Io {
        /// The path at fault.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
}

pub(super) fn untrusted(path: &Path, found: Uid, mode: u32, owners: &Owners, purpose: Purpose) -> String {
    let mut wrong = Vec::new();
    let mut mend = Vec::new();
    if !owners.has(found) {
        wrong.push(format!("belongs to {}, not to {owners}", name(found)));
        let owner = owners.first();
        mend.push(match owner.is_root() {
            true => format!("chown root:root {}", quoted(path)),
            false => format!("chown {owner} {}", quoted(path)),
        });
    }
    if mode & 0o022 != 0 {
        let writers = match (mode & 0o020 != 0, mode & 0o002 != 0) {
            (true, true) => "its group and everybody else",
            (true, false) => "its group",
            _ => "everybody",
        };
        wrong.push(format!("can be written by {writers}"));
        mend.push(format!("chmod go-w {}", quoted(path)));
    }
    format!(
        "{} {} (owner {}, mode {mode:04o}), and {}\n{}",
        display(path),
        wrong.join(" and "),
        name(found),
        purpose.stake(owners),
        mend.join(" && ")
    )
}

fn display(path: &Path) -> String {
    printable(&path.to_string_lossy()).into_owned()
}

/// The path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = display(path);
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+:@%,=".contains(&byte)) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
