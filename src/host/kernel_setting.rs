//! Files of the kernel's that a person names by their path: which of them are settings.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use super::{Host, HostError};

/// The longest value; the longest that is known, `core_pattern`, has 128 bytes.
const LONGEST: usize = 1024;

/// The folders that may be named. Links in them that lead elsewhere are not followed.
const FOLDERS: [&str; 3] = ["/proc/sys", "/sys/kernel", "/sys/module"];

/// Each name in it is a link to the folder of a disk.
const DISKS: &str = "/sys/block";

/// Other file systems below `/sys/kernel`, of which no file is a setting; the scheduler's are, since Linux 5.13.
const NO_SETTINGS: [&str; 4] =
    ["/sys/kernel/config", "/sys/kernel/debug", "/sys/kernel/security", "/sys/kernel/tracing"];
const SCHEDULER: &str = "/sys/kernel/debug/sched";

/// A value that a file holds, and which others it takes, where it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSetting {
    /// The value: all of a line, or the word in brackets.
    pub value: String,
    /// The words of a line of which one is in brackets; else none.
    pub choices: Vec<String>,
}

/// Why a file of the kernel's is not taken for a setting.
#[derive(Debug, Error)]
pub enum NoSetting {
    /// It is none that can be set and given back.
    #[error("{}: {reason}", path.display())]
    Unsuitable {
        /// The file.
        path: PathBuf,
        /// What speaks against it.
        reason: String,
    },
    /// It cannot be looked at.
    #[error(transparent)]
    Host(#[from] HostError),
}

impl From<NoSetting> for HostError {
    fn from(no_setting: NoSetting) -> Self {
        match no_setting {
            NoSetting::Unsuitable { path, reason } => Self::content(&path, reason),
            NoSetting::Host(error) => error,
        }
    }
}

/// Why a path cannot be one of a setting, by its name alone.
///
/// # Errors
/// What is wrong with it.
pub fn check_kernel_path(path: &str) -> Result<(), String> {
    let is_plain = path.starts_with('/')
        && !path.contains("//")
        && !path.ends_with('/')
        && Path::new(path).components().skip(1).all(|part| matches!(part, Component::Normal(_)))
        && !path.split('/').any(|part| part == "." || part == "..")
        && !path.chars().any(char::is_control);
    if !is_plain {
        return Err("it has to be the whole path, without `.`, `..` and `//`".to_owned());
    }
    let below = |folder: &str| Path::new(path).starts_with(folder) && path.len() > folder.len();
    if NO_SETTINGS.iter().any(|folder| below(folder)) && !below(SCHEDULER) {
        return Err("what lies there is no setting".to_owned());
    }
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let is_setting = match parts[..] {
        ["sys", "module", _, "parameters", _] => true,
        ["sys", "module", ..] => false,
        ["sys", "block", _, _, ..] => true,
        _ => below("/proc/sys") || below("/sys/kernel"),
    };
    match is_setting {
        true => Ok(()),
        false => Err(
            "it has to lie below /proc/sys, /sys/kernel, /sys/module/MODULE/parameters or /sys/block/DISK"
                .to_owned(),
        ),
    }
}

fn unsuitable(path: &Path, reason: impl Into<String>) -> NoSetting {
    NoSetting::Unsuitable { path: path.to_owned(), reason: reason.into() }
}

impl Host {
    /// What a file of the kernel's holds that a person named.
    ///
    /// # Errors
    /// It is not there, is no file, cannot be read or written, has several lines, or a link on the way leads elsewhere.
    pub fn kernel_setting(&self, path: &Path) -> Result<KernelSetting, NoSetting> {
        self.check_place(path)?;
        let file = fs::metadata(self.files.locate(path)).map_err(|error| HostError::read(path, error))?;
        if !file.is_file() {
            return Err(unsuitable(path, "it is no file"));
        }
        let mode = file.permissions().mode();
        if mode & 0o400 == 0 {
            return Err(unsuitable(path, "it can only be written: what was there before is not known"));
        }
        if mode & 0o200 == 0 {
            return Err(unsuitable(path, "it can only be read"));
        }
        let text = self.text(path)?;
        if text.trim().is_empty() {
            return Err(unsuitable(path, "it holds nothing: what was there before is not known"));
        }
        if text.lines().count() > 1 {
            return Err(unsuitable(path, "it has several lines"));
        }
        if text.len() > LONGEST || text.chars().any(|c| c.is_control() && c != '\t') {
            return Err(unsuitable(path, "what it holds is no value"));
        }
        let words = || text.split_whitespace();
        let bracketed = |word: &str| word.strip_prefix('[')?.strip_suffix(']').map(str::to_owned);
        let mut chosen = words().filter_map(bracketed);
        if let (Some(chosen), None) = (chosen.next(), chosen.next()) {
            let choices = words().map(|word| word.trim_matches(['[', ']']).to_owned()).collect();
            return Ok(KernelSetting { value: chosen, choices });
        }
        Ok(KernelSetting { value: words().collect::<Vec<_>>().join(" "), choices: Vec::new() })
    }

    /// Sets such a file, in a child: what the kernel does for it is not known. Of a value that it refuses in its middle
    /// the kernel keeps the beginning (`do_proc_dointvec` in `kernel/sysctl.c`): that is taken back.
    ///
    /// # Errors
    /// As [`Self::kernel_setting`]; the kernel refuses the value, or takes too long.
    pub fn set_kernel_setting(
        &mut self,
        path: &Path,
        value: &str,
        deadline: crate::deadline::Deadline,
    ) -> Result<(), HostError> {
        self.check_place(path)?;
        let before = self.kernel_setting(path)?.value;
        let set = self.set_device_attribute(path, value, deadline);
        // What hangs is left alone.
        if let Err(error) = &set
            && error.stuck_process().is_none()
            && self.kernel_setting(path).is_ok_and(|now| now.value != before)
        {
            self.set_device_attribute(path, &before, deadline)?;
        }
        set
    }

    /// Whether an attribute can be written: the kernel takes this right from those that cannot.
    #[must_use]
    pub fn is_writable(&self, path: &Path) -> bool {
        self.files.is_writable(path)
    }

    /// The names in a folder, sorted; none where it cannot be read.
    pub fn folder_names(&self, folder: impl AsRef<Path>) -> Vec<String> {
        self.names_if_present(folder).unwrap_or_default()
    }

    /// Whether no link on the way leads out of where the path seems to lie.
    fn check_place(&self, path: &Path) -> Result<(), NoSetting> {
        let text = path.to_str().unwrap_or_default();
        check_kernel_path(text).map_err(|reason| unsuitable(path, reason))?;
        let Some(there) = self.real_path(path)? else {
            let reason = std::io::Error::from(nix::errno::Errno::ENOENT);
            return Err(HostError::read(path, reason).into());
        };
        let real = |folder: &Path| -> Result<PathBuf, HostError> {
            Ok(self.real_path(folder)?.unwrap_or_else(|| folder.to_owned()))
        };
        // Where the folder lies, and what has to follow below it. A disk's name is a link to where it is; no other is
        // followed.
        let (folder, expected) = match path.strip_prefix(DISKS) {
            Ok(below) => {
                let disk = below.iter().next().map(|name| Path::new(DISKS).join(name)).unwrap_or_default();
                let folder = real(&disk)?;
                if !folder.starts_with("/sys/devices") && !folder.starts_with(DISKS) {
                    return Err(unsuitable(
                        path,
                        format!("{} leads to {}", disk.display(), folder.display()),
                    ));
                }
                let rest: PathBuf = below.iter().skip(1).collect();
                (folder.clone(), folder.join(rest))
            }
            Err(_) => {
                let folder = FOLDERS.iter().map(Path::new).find(|folder| path.starts_with(folder));
                (folder.unwrap_or(Path::new("/")).to_owned(), path.to_owned())
            }
        };
        match there == expected && there.starts_with(&folder) {
            true => Ok(()),
            false => Err(unsuitable(path, format!("a link in it leads to {}", there.display()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::host::manifest;
    use crate::host::simulated::Faults;

    #[test]
    fn only_files_below_certain_folders_can_be_named() {
        for good in [
            "/proc/sys/kernel/sched_autogroup_enabled",
            "/sys/kernel/mm/lru_gen/enabled",
            "/sys/kernel/debug/sched/migration_cost_ns",
            "/sys/module/kvm/parameters/halt_poll_ns",
            "/sys/block/nvme0n1/queue/nr_requests",
        ] {
            assert_eq!(check_kernel_path(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "proc/sys/vm/swappiness",
            "/proc/sys",
            "/proc/sys/",
            "/proc/system",
            "/proc/sys/../sysrq-trigger",
            "/proc/sys/./vm/swappiness",
            "/proc/sys//vm/swappiness",
            "/proc/sys/vm/swappiness/",
            "/proc/sysrq-trigger",
            "/proc/1/oom_score_adj",
            "/sys/module/kvm",
            "/sys/module/kvm/parameters",
            "/sys/module/kvm/uevent",
            "/sys/module/kvm/parameters/a/b",
            "/sys/block",
            "/sys/block/sda",
            "/sys/kernel/security/apparmor/.remove",
            "/sys/kernel/debug/clear_warn_once",
            "/sys/kernel/debug/schedule",
            "/sys/devices/system/cpu/cpu1/online",
            "/etc/passwd",
            "/proc/sys/vm/swap\npiness",
        ] {
            assert!(check_kernel_path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_no_setting_is_told_from_one_that_is() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::simulated(root.path(), &Faults::default());
        let lines = "/proc/sys/kernel/printk = 4  4 1 7\n\
                     /sys/kernel/mm/choice = one [two] three\n\
                     /proc/sys/vm/lines = 1\\n2\n\
                     read-only /proc/sys/vm/fixed = 1\n\
             /proc/sys/vm/empty =\n\
                     /sys/devices/pci/block/sda/queue/nr_requests = 64\n\
                     /sys/devices/pci/vendor = 0x1\n\
                     /etc/secret = 1\n\
                     /sys/block/\n";
        manifest::lay_out(lines, root.path()).unwrap();
        symlink("../devices/pci/block/sda", root.path().join("sys/block/sda")).unwrap();
        symlink("../../../pci", root.path().join("sys/devices/pci/block/sda/device")).unwrap();
        symlink("../../etc", root.path().join("sys/block/odd")).unwrap();
        symlink("/etc/secret", root.path().join("proc/sys/vm/link")).unwrap();
        symlink("../kernel", root.path().join("proc/sys/vm/other")).unwrap();
        let read = |path: &str| host.kernel_setting(path.as_ref());
        let value = |path: &str| read(path).unwrap().value;
        assert_eq!(value("/proc/sys/kernel/printk"), "4 4 1 7");
        assert_eq!(value("/sys/block/sda/queue/nr_requests"), "64");
        let choice = read("/sys/kernel/mm/choice").unwrap();
        assert_eq!((choice.value.as_str(), choice.choices.join(" ").as_str()), ("two", "one two three"));
        for (path, reason) in [
            ("/proc/sys/vm/lines", "it has several lines"),
            ("/proc/sys/vm/fixed", "it can only be read"),
            ("/proc/sys/vm/empty", "it holds nothing"),
            ("/proc/sys/kernel", "it is no file"),
            ("/sys/block/sda/device/vendor", "a link in it leads to /sys/devices/pci/vendor"),
            ("/sys/block/odd/secret", "/sys/block/odd leads to /etc"),
            ("/proc/sys/vm/other/printk", "a link in it leads to /proc/sys/kernel/printk"),
        ] {
            let error = read(path).unwrap_err().to_string();
            assert!(error.contains(reason), "{path}: {error}");
        }
        assert!(HostError::from(read("/proc/sys/vm/none").unwrap_err()).is_absent());
        // Where it leads is not on this host.
        assert!(read("/proc/sys/vm/link").is_err());
    }
}
