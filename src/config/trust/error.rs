//! Why a file is not trusted, and the command that fixes it.

use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use thiserror::Error;

use crate::config::source::MAX_FILE_BYTES;
use crate::printable::printable;

use super::owners::{Owners, Purpose, name};
use super::walk::MAX_LINKS;

/// The bit of folders such as `/tmp`, into which everybody may put files.
const STICKY: u32 = 0o1000;

/// What is not trusted on the way to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayPart {
    /// The file itself.
    File,
    /// A folder that its path names.
    Folder,
    /// What only a link leads to.
    Linked,
}

/// Why a file is not read. The first line says what is wrong, the second one how to fix it.
#[derive(Debug, Error)]
pub enum TrustError {
    /// Another user can change the file or a folder on the way to it.
    #[error("{}", untrusted(path, *found, *mode, owners, *purpose).0)]
    Untrusted {
        /// The file or folder at fault.
        path: PathBuf,
        /// What it is on the way.
        part: WayPart,
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
    #[error("{} does not exist", display(.0))]
    Missing(PathBuf),
    /// A program that nobody may execute.
    #[error("{} is not executable (mode {mode:04o})", display(path))]
    NotExecutable {
        /// The program.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is no file, or there is something else where a folder belongs.
    #[error("{} is {found}, not {expected}", display(path))]
    WrongKind {
        /// The path at fault.
        path: PathBuf,
        /// What it is on the way.
        part: WayPart,
        /// What is there.
        found: &'static str,
        /// What belongs there.
        expected: &'static str,
        /// What the file is for.
        purpose: Purpose,
    },
    /// A link on the way leads to nothing.
    #[error("{} does not exist, and a symbolic link leads there", display(path))]
    Dangling {
        /// What is missing.
        path: PathBuf,
        /// The link.
        link: PathBuf,
    },
    /// Links lead in a circle.
    #[error("{} is reached through more than {MAX_LINKS} symbolic links", display(.0))]
    TooManyLinks(PathBuf),
    /// More than any configuration needs.
    #[error("{} is larger than {MAX_FILE_BYTES} bytes", display(.0))]
    TooLarge(PathBuf),
    /// The system refuses.
    #[error("cannot read {}: {cause}", display(path))]
    Io {
        /// The path at fault.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
}

impl TrustError {
    /// What a person can do about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Untrusted { path, part, found, mode, owners, purpose } => {
                let is_shared = mode & STICKY != 0 || (!owners.has(*found) && !is_of_system(path));
                match (purpose, part) {
                    // Another user's home, `/tmp`: what is right for them is not changed for one program.
                    (Purpose::Program, WayPart::Folder | WayPart::Linked) if is_shared => elsewhere(path),
                    (Purpose::Configuration, WayPart::Linked) => {
                        "put the file itself there instead of a link".to_owned()
                    }
                    _ => untrusted(path, *found, *mode, owners, *purpose).1,
                }
            }
            Self::Missing(path) => format!("look for it with: ls -l {}", quoted(path)),
            Self::NotExecutable { path, .. } => format!("if it is a program: chmod +x {}", quoted(path)),
            Self::WrongKind { path, found: "a folder", purpose: Purpose::Program, .. } => {
                format!("name the program in it: `ls {}` shows what is there", quoted(path))
            }
            Self::WrongKind { purpose: Purpose::Program, .. } => {
                "name a program: for example `/usr/bin/logger`".to_owned()
            }
            // `/dev/null`, which systemd takes for masking.
            Self::WrongKind { part: WayPart::Linked, .. } => {
                "remove the link that leads there, or have it lead to a file".to_owned()
            }
            Self::WrongKind { path, .. } => {
                let path = quoted(path);
                format!("remove it or move it away: mv {path} {path}.old")
            }
            Self::Dangling { link, .. } => format!("create it, or remove the link at {}", display(link)),
            Self::TooManyLinks(_) => "put the file there instead of a link".to_owned(),
            Self::TooLarge(_) => "a guest's file needs a few hundred".to_owned(),
            Self::Io { path, .. } => format!("look at it with: ls -ld {}", quoted(path)),
        }
    }
}

/// What is wrong, and how to fix it.
pub(super) fn untrusted(
    path: &Path,
    found: Uid,
    mode: u32,
    owners: &Owners,
    purpose: Purpose,
) -> (String, String) {
    let mut wrong = Vec::new();
    let mut fixes = Vec::new();
    if !owners.has(found) {
        wrong.push(format!("belongs to {}, not to {owners}", name(found)));
        let owner = owners.first();
        fixes.push(match owner.is_root() {
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
        fixes.push(format!("chmod go-w {}", quoted(path)));
    }
    let message = format!(
        "{} {} (owner {}, mode {mode:04o}), and {}",
        display(path),
        wrong.join(" and "),
        name(found),
        purpose.stake(owners)
    );
    (message, fixes.join(" && "))
}

/// Whether a folder is the system's: programs lie there, and root alone has to write it.
fn is_of_system(path: &Path) -> bool {
    path == Path::new("/")
        || ["/usr", "/bin", "/sbin", "/etc", "/opt"].iter().any(|top| path.starts_with(top))
}

/// A program has to lie where root alone writes.
fn elsewhere(path: &Path) -> String {
    let folder = if path.starts_with("/usr/local") { "/usr/bin" } else { "/usr/local/bin" };
    format!("put the program somewhere else, for example {folder}")
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
