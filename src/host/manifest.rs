//! A host described in one text: each line a file and what it holds.
//!
//! ```text
//! # comment
//! /sys/devices/system/cpu/online = 0-7
//! /sys/devices/system/cpu/cpu{0..7}/cpufreq/scaling_governor = powersave
//! read-only /proc/irq/24/smp_affinity_list = 3
//! /proc/meminfo = MemTotal: 100 kB\nMemAvailable: 50 kB
//! /run/systemd/system/
//! /sys/class/drm/card0 -> ../../devices/pci0000:00/0000:00:02.0/drm/card0
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use thiserror::Error;

use super::files::make_link;

/// Why a manifest could not be laid out.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// A line that is neither a comment, a file, a folder nor a link.
    #[error("line {line}: `{text}` is neither `PATH = VALUE`, `FOLDER/` nor `PATH -> TARGET`")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// The folder could not be filled.
    #[error("failed to lay out {path}: {cause}")]
    Io {
        /// The path below the folder.
        path: String,
        /// The cause.
        cause: io::Error,
    },
}

/// Lays the described host out below a folder.
///
/// # Errors
/// A line that makes no sense; a file that cannot be made.
pub fn lay_out(manifest: &str, root: &Path) -> Result<(), ManifestError> {
    for (number, line) in (1..).zip(manifest.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (mode, entry) = match line.strip_prefix("read-only ") {
            Some(entry) => (0o444, entry),
            None => (0o644, line),
        };
        match entry.split_once(" =") {
            Some((pattern, value)) if pattern.starts_with('/') => {
                for path in expand_braces(pattern) {
                    make_file(root, &path, value.trim(), mode)
                        .map_err(|cause| ManifestError::Io { path, cause })?;
                }
            }
            None if entry.starts_with('/') && entry.ends_with('/') => {
                for path in expand_braces(entry) {
                    fs::create_dir_all(below(root, &path))
                        .map_err(|cause| ManifestError::Io { path, cause })?;
                }
            }
            None if entry.starts_with('/') && entry.contains(" -> ") => {
                let (path, target) = entry.split_once(" -> ").unwrap_or((entry, ""));
                make_link(&below(root, path), target.as_ref())
                    .map_err(|cause| ManifestError::Io { path: path.to_owned(), cause })?;
            }
            _ => return Err(ManifestError::Line { line: number, text: line.to_owned() }),
        }
    }
    Ok(())
}

fn make_file(root: &Path, path: &str, value: &str, mode: u32) -> io::Result<()> {
    let path = below(root, path);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&path, value.replace("\\n", "\n") + "\n")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))
}

fn below(root: &Path, path: &str) -> std::path::PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// `cpu{0..2}` becomes `cpu0`, `cpu1`, `cpu2`; several pairs of braces multiply.
fn expand_braces(pattern: &str) -> Vec<String> {
    let range = || {
        let (before, rest) = pattern.split_once('{')?;
        let (range, after) = rest.split_once('}')?;
        let (first, last) = range.split_once("..")?;
        Some((before, first.parse::<u32>().ok()?, last.parse::<u32>().ok()?, after))
    };
    match range() {
        None => vec![pattern.to_owned()],
        Some((before, first, last, after)) => {
            (first..=last).flat_map(|n| expand_braces(&format!("{before}{n}{after}"))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lays_out_ranges_folders_and_modes() {
        let root = tempfile::tempdir().unwrap();
        let manifest = "# a host\n/cpu{0..1}/x{8..9} = a b\nread-only /irq = 3\n/run/systemd/\n/m = A: 1\\nB: 2\n/e =\n/l -> cpu0/x8\n";
        lay_out(manifest, root.path()).unwrap();
        for path in ["cpu0/x8", "cpu0/x9", "cpu1/x8", "cpu1/x9"] {
            assert_eq!(fs::read_to_string(root.path().join(path)).unwrap(), "a b\n");
        }
        assert_eq!(fs::read_to_string(root.path().join("l")).unwrap(), "a b\n");
        assert_eq!(fs::metadata(root.path().join("irq")).unwrap().permissions().mode() & 0o777, 0o444);
        assert!(root.path().join("run/systemd").is_dir());
        assert_eq!(fs::read_to_string(root.path().join("m")).unwrap(), "A: 1\nB: 2\n");
        assert_eq!(fs::read_to_string(root.path().join("e")).unwrap(), "\n");
    }

    #[test]
    fn says_which_line_makes_no_sense() {
        let root = tempfile::tempdir().unwrap();
        let error = lay_out("/a = 1\nwhat is this\n", root.path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 2: `what is this` is neither `PATH = VALUE`, `FOLDER/` nor `PATH -> TARGET`"
        );
    }
}
