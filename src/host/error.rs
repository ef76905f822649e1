//! What went wrong at the machine: what was tried, where, with which value, why, and what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::i2c::MonitorTrouble;
use super::lock_holder::LockState;
use super::pci::PciTrouble;
use super::process::ProcessId;

/// A failed contact with the machine.
#[derive(Debug)]
pub struct HostError {
    attempt: Attempt,
    place: PathBuf,
    cause: Cause,
}

#[derive(Debug)]
enum Attempt {
    Read,
    Write(String),
    List,
    Remove,
    Find,
    LetGo,
    Lock,
    Call(&'static str),
    /// What was tried with a monitor.
    Reach(String),
}

#[derive(Debug)]
enum Cause {
    Io(io::Error),
    Text(String),
    Monitor(MonitorTrouble),
    Pci(PciTrouble),
    /// Another process holds the lock.
    Held(LockState),
    /// The kernel did not come back; a child was left behind in it.
    Stuck {
        process: ProcessId,
        waited: Duration,
    },
}

impl HostError {
    pub(crate) fn read(path: &Path, cause: io::Error) -> Self {
        Self { attempt: Attempt::Read, place: path.to_owned(), cause: Cause::Io(cause) }
    }

    pub(crate) fn write(path: &Path, value: &str, cause: io::Error) -> Self {
        Self {
            attempt: Attempt::Write(value.trim_end().to_owned()),
            place: path.to_owned(),
            cause: Cause::Io(cause),
        }
    }

    pub(crate) fn list(path: &Path, cause: io::Error) -> Self {
        Self { attempt: Attempt::List, place: path.to_owned(), cause: Cause::Io(cause) }
    }

    pub(crate) fn remove(path: &Path, cause: io::Error) -> Self {
        Self { attempt: Attempt::Remove, place: path.to_owned(), cause: Cause::Io(cause) }
    }

    pub(crate) fn lock(path: &Path, cause: io::Error) -> Self {
        Self { attempt: Attempt::Lock, place: path.to_owned(), cause: Cause::Io(cause) }
    }

    /// A lock that another process holds.
    pub(crate) fn locked(path: &Path, state: LockState) -> Self {
        Self { attempt: Attempt::Lock, place: path.to_owned(), cause: Cause::Held(state) }
    }

    /// A file whose content makes no sense.
    pub(crate) fn content(path: &Path, reason: impl fmt::Display) -> Self {
        Self { attempt: Attempt::Read, place: path.to_owned(), cause: Cause::Text(reason.to_string()) }
    }

    /// A call to a service: `method` of the object `place`.
    pub(crate) fn call(method: &'static str, place: &str, reason: impl fmt::Display) -> Self {
        Self {
            attempt: Attempt::Call(method),
            place: PathBuf::from(place),
            cause: Cause::Text(reason.to_string()),
        }
    }

    /// A write that the kernel has not come back from; the child that made it was left behind.
    pub(crate) fn stuck(path: &Path, value: &str, process: ProcessId, waited: Duration) -> Self {
        Self {
            attempt: Attempt::Write(value.trim_end().to_owned()),
            place: path.to_owned(),
            cause: Cause::Stuck { process, waited },
        }
    }

    /// The same of a read.
    pub(crate) fn stuck_read(path: &Path, process: ProcessId, waited: Duration) -> Self {
        Self { attempt: Attempt::Read, place: path.to_owned(), cause: Cause::Stuck { process, waited } }
    }

    /// A PCI function that is not as it should be.
    pub(crate) fn pci(trouble: PciTrouble) -> Self {
        Self { attempt: Attempt::Find, place: PathBuf::new(), cause: Cause::Pci(trouble) }
    }

    /// A monitor that cannot be reached: what was tried, such as `read input of ...`, and the bus it was tried over.
    pub(crate) fn monitor(attempt: String, bus: &str, trouble: MonitorTrouble) -> Self {
        Self { attempt: Attempt::Reach(attempt), place: PathBuf::from(bus), cause: Cause::Monitor(trouble) }
    }

    /// Functions that programs of the host use, in words that name both.
    pub(crate) fn in_use(functions: &str, holders: String) -> Self {
        Self { attempt: Attempt::LetGo, place: PathBuf::from(functions), cause: Cause::Text(holders) }
    }

    /// A thing that was there once and is no more.
    pub(crate) fn gone(reason: String) -> Self {
        Self {
            attempt: Attempt::Find,
            place: PathBuf::new(),
            cause: Cause::Io(io::Error::new(io::ErrorKind::NotFound, reason)),
        }
    }

    /// The kernel's word, where it was the kernel that refused.
    #[must_use]
    pub fn kind(&self) -> Option<io::ErrorKind> {
        match &self.cause {
            Cause::Io(error) => Some(error.kind()),
            Cause::Text(_) | Cause::Pci(_) => None,
            Cause::Monitor(trouble) => trouble.kind(),
            Cause::Held(_) => Some(io::ErrorKind::WouldBlock),
            Cause::Stuck { .. } => Some(io::ErrorKind::TimedOut),
        }
    }

    /// The `errno` of a refusing kernel.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match &self.cause {
            Cause::Io(error) => error.raw_os_error(),
            Cause::Text(_) | Cause::Monitor(_) | Cause::Pci(_) | Cause::Held(_) | Cause::Stuck { .. } => None,
        }
    }

    /// The child that was left behind in the kernel, where the kernel did not come back.
    #[must_use]
    pub fn stuck_process(&self) -> Option<ProcessId> {
        match &self.cause {
            Cause::Stuck { process, .. } => Some(*process),
            _ => None,
        }
    }

    /// What is the matter with a PCI function, where that is what failed.
    #[must_use]
    pub fn pci_trouble(&self) -> Option<&PciTrouble> {
        match &self.cause {
            Cause::Pci(trouble) => Some(trouble),
            _ => None,
        }
    }

    /// Whether the thing is not there (any more).
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.kind() == Some(io::ErrorKind::NotFound)
    }

    /// What is the matter with a monitor, where that is what failed.
    #[must_use]
    pub fn monitor_trouble(&self) -> Option<&MonitorTrouble> {
        match &self.cause {
            Cause::Monitor(trouble) => Some(trouble),
            _ => None,
        }
    }

    /// Whether a monitor that is there, or may be, did not answer. It may later.
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        self.monitor_trouble().is_some_and(MonitorTrouble::is_unanswered)
    }

    /// Whether a monitor answers but has no such feature, or does not tell it.
    #[must_use]
    pub fn is_unreadable_feature(&self) -> bool {
        self.monitor_trouble().is_some_and(MonitorTrouble::is_unreadable_feature)
    }

    /// What a person can do about it.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match &self.cause {
            Cause::Monitor(trouble) => return trouble.help(),
            Cause::Pci(trouble) => return trouble.help(),
            Cause::Stuck { .. } => {
                return Some(
                    "nothing but a reboot of the host ends it, if the kernel does not come back by itself",
                );
            }
            Cause::Held(_) => {
                return Some(
                    "it lets go when it is done; `vfio-hook status` shows who holds it, `journalctl -t vfio-hook` \
                     what it waits for",
                );
            }
            Cause::Io(_) | Cause::Text(_) => {}
        }
        match &self.attempt {
            Attempt::LetGo => {
                return Some(
                    "end these programs, or have `holders` of the YAML file `stop` their units or `wait` longer",
                );
            }
            Attempt::Call("virsh") => return Some("`virsh` comes with libvirt's clients: is it installed?"),
            _ => {}
        }
        match (&self.attempt, self.kind()?) {
            (_, io::ErrorKind::PermissionDenied) => {
                Some("run it as root; under AppArmor or SELinux look at the audit log")
            }
            (Attempt::Read | Attempt::List, io::ErrorKind::NotFound) => {
                Some("this kernel does not have it; leave the setting that needs it out of the YAML file")
            }
            (Attempt::Write(_), io::ErrorKind::ReadOnlyFilesystem) => {
                Some("the file system is mounted read-only; is this a container?")
            }
            (Attempt::Write(_), io::ErrorKind::InvalidInput) if self.place.ends_with("nr_hugepages") => Some(
                "this kernel cannot make pages of this size at run time; reserve them at boot (hugepages= on the \
                 kernel command line)",
            ),
            (Attempt::Write(_), io::ErrorKind::InvalidInput) if self.place.ends_with("reset_method") => Some(
                "the function has no such reset; `cat` the same file on the freshly booted host to see those it has",
            ),
            (Attempt::Write(_), io::ErrorKind::Other) if self.place.starts_with("/sys/class/vtconsole") => {
                Some(
                    "a text console is bound only where there is a framebuffer, and unbound only by a kernel with \
                 CONFIG_VT_HW_CONSOLE_BINDING",
                )
            }
            (Attempt::Read, io::ErrorKind::TimedOut) if self.place.starts_with("/proc") => Some(
                "`ps -o state,wchan` of that process shows what it waits for; if it hangs in a driver, only a \
                 reboot helps",
            ),
            (_, io::ErrorKind::TimedOut) if self.place.starts_with(super::irqbalance::FOLDER) => {
                Some("irqbalance hangs: `systemctl restart irqbalance`")
            }
            _ => None,
        }
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place.display();
        match &self.attempt {
            Attempt::Read => write!(f, "failed to read {place}"),
            Attempt::Write(value) => write!(f, "failed to write `{value}` to {place}"),
            Attempt::List => write!(f, "failed to list {place}"),
            Attempt::Remove => write!(f, "failed to remove {place}"),
            Attempt::Find => Ok(()),
            Attempt::LetGo => write!(f, "{place} still in use"),
            Attempt::Lock => write!(f, "failed to lock {place}"),
            Attempt::Call(method) => write!(f, "failed to call {method} for {place}"),
            Attempt::Reach(attempt) if self.place.as_os_str().is_empty() => write!(f, "failed to {attempt}"),
            Attempt::Reach(attempt) => write!(f, "failed to {attempt} over {place}"),
        }?;
        match &self.cause {
            Cause::Io(error) if matches!(self.attempt, Attempt::Find) => write!(f, "{error}"),
            Cause::Pci(trouble) => write!(f, "{trouble}"),
            Cause::Io(error) => write!(f, ": {error}"),
            Cause::Text(reason) => write!(f, ": {reason}"),
            Cause::Monitor(trouble) => write!(f, ": {trouble}"),
            Cause::Held(LockState::HeldBy(holder)) => write!(f, ": held by {holder}"),
            Cause::Held(_) => f.write_str(": held by a process that is not known"),
            Cause::Stuck { process, waited } => write!(
                f,
                ": the kernel has not come back within {} (process {})",
                rounded(*waited),
                process.pid
            ),
        }
    }
}

/// A wait as people say it: seconds, or milliseconds where it was shorter than two of those.
pub(super) fn rounded(wait: Duration) -> String {
    // What is left of a deadline is a little less than what it was made of.
    let milliseconds = (wait.as_micros() + 500) / 1000;
    if milliseconds < 2000 {
        format!("{milliseconds} ms")
    } else {
        format!("{} s", (milliseconds + 500) / 1000)
    }
}

impl std::error::Error for HostError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_who_was_left_behind_in_the_kernel() {
        let process = ProcessId { pid: 4711, start_time: 1 };
        let path = Path::new("/sys/bus/pci/drivers/amdgpu/unbind");
        let error = HostError::stuck(path, "0000:03:00.0\n", process, Duration::from_micros(29_999_900));
        assert_eq!(
            error.to_string(),
            "failed to write `0000:03:00.0` to /sys/bus/pci/drivers/amdgpu/unbind: the kernel has not come back \
             within 30 s (process 4711)"
        );
        assert_eq!(error.stuck_process(), Some(process));
        assert_eq!(error.kind(), Some(io::ErrorKind::TimedOut));
        assert!(error.help().unwrap().contains("reboot"));
    }

    #[test]
    fn short_waits_are_said_in_milliseconds() {
        for (milliseconds, words) in [(200, "200 ms"), (1999, "1999 ms"), (2000, "2 s"), (59_600, "60 s")] {
            assert_eq!(rounded(Duration::from_millis(milliseconds)), words);
        }
    }
}
