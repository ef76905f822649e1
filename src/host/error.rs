//! What went wrong at the machine: what was tried, where, with which value, why, and what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use super::i2c::MonitorTrouble;
use super::lock_holder::LockState;
use super::pci::PciTrouble;
use crate::process_id::ProcessId;

/// A failed contact with the machine.
#[derive(Debug)]
pub struct HostError {
    attempt: Attempt,
    cause: Cause,
}

/// What was tried, and where.
#[derive(Debug)]
enum Attempt {
    Read(PathBuf),
    Write {
        path: PathBuf,
        value: String,
    },
    /// One of the program's own files.
    Keep(PathBuf),
    List(PathBuf),
    Remove(PathBuf),
    /// To find a device; the cause names it.
    Find,
    /// To have programs let go of functions.
    LetGo(String),
    Lock(PathBuf),
    Call {
        method: &'static str,
        object: String,
    },
    /// What was tried with a monitor, and the bus it was tried over; empty before one was found.
    Reach {
        attempt: String,
        bus: String,
    },
}

#[derive(Debug)]
enum Cause {
    Io(io::Error),
    Text(String),
    /// It was there once and is no more, in words that name it.
    Gone(String),
    /// It was not over in time: what was seen last.
    Late(String),
    Monitor(MonitorTrouble),
    Pci(PciTrouble),
    /// Another process holds the lock.
    Held(LockState),
    /// The kernel did not come back; a child was left behind in it.
    Stuck {
        process: ProcessId,
        waited: Duration,
        /// What the kernel said meanwhile that tells why.
        said: Option<Box<str>>,
    },
    /// The kernel failed in it ("oops"), and ended the process: what that held in the kernel is held until the next boot.
    KernelFailed(Box<str>),
}

impl Attempt {
    /// Whether a folder holds the file that it was about.
    fn is_in(&self, folder: &str) -> bool {
        match self {
            Self::Read(path) | Self::List(path) | Self::Write { path, .. } => path.starts_with(folder),
            Self::Call { object, .. } => Path::new(object).starts_with(folder),
            _ => false,
        }
    }
}

/// The process that stands for the kernel itself where it will never come back: the first one lives as long.
const AS_LONG_AS_THE_KERNEL: ProcessId = ProcessId { pid: 1, start_time: 0 };

/// Whether a file is one of the kernel's, in a host's folder too.
fn is_of_kernel(path: &Path) -> bool {
    path.iter().any(|part| part == "proc" || part == "sys")
}

/// Whether it was this process or the host that lacked descriptors, memory or processes.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    let lacking = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EAGAIN];
    error.raw_os_error().is_some_and(|errno| lacking.contains(&Errno::from_raw(errno)))
}

impl HostError {
    pub(crate) fn read(path: &Path, cause: io::Error) -> Self {
        Self { attempt: Attempt::Read(path.to_owned()), cause: Cause::Io(cause) }
    }

    pub(crate) fn write(path: &Path, value: &str, cause: io::Error) -> Self {
        Self {
            attempt: Attempt::Write { path: path.to_owned(), value: value.trim_end().to_owned() },
            cause: Cause::Io(cause),
        }
    }

    /// A write that the kernel took, but not as it was meant.
    pub(crate) fn written_otherwise(path: &Path, value: &str, reason: String) -> Self {
        Self {
            attempt: Attempt::Write { path: path.to_owned(), value: value.to_owned() },
            cause: Cause::Text(reason),
        }
    }

    pub(crate) fn keep(path: &Path, cause: io::Error) -> Self {
        Self { attempt: Attempt::Keep(path.to_owned()), cause: Cause::Io(cause) }
    }

    pub(crate) fn list(path: &Path, cause: io::Error) -> Self {
        Self { attempt: Attempt::List(path.to_owned()), cause: Cause::Io(cause) }
    }

    pub(crate) fn remove(path: &Path, cause: io::Error) -> Self {
        Self { attempt: Attempt::Remove(path.to_owned()), cause: Cause::Io(cause) }
    }

    pub(crate) fn lock(path: &Path, cause: io::Error) -> Self {
        Self { attempt: Attempt::Lock(path.to_owned()), cause: Cause::Io(cause) }
    }

    /// A lock that another process holds.
    pub(crate) fn locked(path: &Path, state: LockState) -> Self {
        Self { attempt: Attempt::Lock(path.to_owned()), cause: Cause::Held(state) }
    }

    /// A file whose content makes no sense.
    pub(crate) fn content(path: &Path, reason: impl fmt::Display) -> Self {
        Self { attempt: Attempt::Read(path.to_owned()), cause: Cause::Text(reason.to_string()) }
    }

    /// A call to a service: `method` of `object`.
    pub(crate) fn call(method: &'static str, object: &str, reason: impl fmt::Display) -> Self {
        Self {
            attempt: Attempt::Call { method, object: object.to_owned() },
            cause: Cause::Text(reason.to_string()),
        }
    }

    /// The same, where it was not over in time: what was seen last.
    pub(crate) fn late_call(method: &'static str, object: &str, state: impl Into<String>) -> Self {
        Self {
            attempt: Attempt::Call { method, object: object.to_owned() },
            cause: Cause::Late(state.into()),
        }
    }

    /// A write that the kernel has not come back from; the child that made it was left behind.
    pub(crate) fn stuck(
        path: &Path,
        value: &str,
        process: ProcessId,
        waited: Duration,
        said: Option<String>,
    ) -> Self {
        Self {
            attempt: Attempt::Write { path: path.to_owned(), value: value.trim_end().to_owned() },
            cause: Cause::Stuck { process, waited, said: said.map(String::into_boxed_str) },
        }
    }

    /// A write that the kernel failed in: the first line that it said of it.
    pub(crate) fn kernel_failed(path: &Path, value: &str, line: &str) -> Self {
        Self {
            attempt: Attempt::Write { path: path.to_owned(), value: value.trim_end().to_owned() },
            cause: Cause::KernelFailed(line.into()),
        }
    }

    /// The same of a read.
    pub(crate) fn stuck_read(path: &Path, process: ProcessId, waited: Duration) -> Self {
        Self { attempt: Attempt::Read(path.to_owned()), cause: Cause::Stuck { process, waited, said: None } }
    }

    /// A PCI function that is not as it should be.
    pub(crate) fn pci(trouble: PciTrouble) -> Self {
        Self { attempt: Attempt::Find, cause: Cause::Pci(trouble) }
    }

    /// A monitor that cannot be reached: what was tried, such as `read input of ...`, and the bus it was tried over.
    pub(crate) fn monitor(attempt: String, bus: &str, trouble: MonitorTrouble) -> Self {
        Self { attempt: Attempt::Reach { attempt, bus: bus.to_owned() }, cause: Cause::Monitor(trouble) }
    }

    /// Functions that programs of the host use, in words that name both.
    pub(crate) fn in_use(functions: &str, holders: String) -> Self {
        Self { attempt: Attempt::LetGo(functions.to_owned()), cause: Cause::Text(holders) }
    }

    /// A thing that was there once and is no more.
    pub(crate) fn gone(reason: String) -> Self {
        Self { attempt: Attempt::Find, cause: Cause::Gone(reason) }
    }

    /// The kernel's word, where it was the kernel that refused.
    #[must_use]
    pub fn kind(&self) -> Option<io::ErrorKind> {
        match &self.cause {
            Cause::Io(error) => Some(error.kind()),
            Cause::Text(_) | Cause::Pci(_) | Cause::KernelFailed(_) => None,
            Cause::Gone(_) => Some(io::ErrorKind::NotFound),
            Cause::Monitor(trouble) => trouble.kind(),
            Cause::Held(_) => Some(io::ErrorKind::WouldBlock),
            Cause::Stuck { .. } | Cause::Late(_) => Some(io::ErrorKind::TimedOut),
        }
    }

    /// The `errno` of a refusing kernel.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match &self.cause {
            Cause::Io(error) => error.raw_os_error(),
            Cause::Text(_)
            | Cause::Gone(_)
            | Cause::Late(_)
            | Cause::Monitor(_)
            | Cause::Pci(_)
            | Cause::Held(_)
            | Cause::KernelFailed(_)
            | Cause::Stuck { .. } => None,
        }
    }

    /// The process that lives as long as the kernel has not come back: the child that was left behind in it, or the
    /// first of all where the kernel failed and never comes back.
    #[must_use]
    pub fn stuck_process(&self) -> Option<ProcessId> {
        match &self.cause {
            Cause::Stuck { process, .. } => Some(*process),
            Cause::KernelFailed(_) => Some(AS_LONG_AS_THE_KERNEL),
            _ => None,
        }
    }

    /// Whether the kernel failed in it ("oops"): only a restart of the host fixes that.
    #[must_use]
    pub fn is_kernel_failure(&self) -> bool {
        matches!(self.cause, Cause::KernelFailed(_))
    }

    /// Whether a signal that was not this program's ended the process that did it: the same may be done once more.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.kind() == Some(io::ErrorKind::Interrupted)
    }

    /// What is the matter with a PCI function, where that is what failed.
    #[must_use]
    pub fn pci_trouble(&self) -> Option<&PciTrouble> {
        match &self.cause {
            Cause::Pci(trouble) => Some(trouble),
            _ => None,
        }
    }

    /// Whether a driver refused: not this host for lack of something, a signal, a hanging or failing kernel, or the end of
    /// the time.
    #[must_use]
    pub fn is_of_driver(&self) -> bool {
        match &self.cause {
            Cause::Pci(_) => true,
            Cause::Io(error) => error.raw_os_error().is_some() && !is_shortage(error),
            _ => false,
        }
    }

    /// Whether it could not be looked at because this process or the host lacked something: that says nothing of the
    /// thing, and may pass. Not for writes: a driver may answer one with the same error.
    #[must_use]
    pub fn is_shortage(&self) -> bool {
        match (&self.attempt, &self.cause) {
            (Attempt::Write { .. }, _) => false,
            (_, Cause::Io(error)) => is_shortage(error),
            _ => false,
        }
    }

    /// Whether more time might have helped: it went on as it should, but was not over. What hangs in the kernel does not.
    #[must_use]
    pub fn ran_out_of_time(&self) -> bool {
        let is_late = self.kind() == Some(io::ErrorKind::TimedOut);
        (is_late && self.stuck_process().is_none()) || matches!(self.attempt, Attempt::LetGo(_))
    }

    /// Whether programs use what was to be free.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        matches!(self.attempt, Attempt::LetGo(_))
    }

    /// Whether it was about a file of this program's own.
    #[must_use]
    pub fn is_of_own_file(&self) -> bool {
        matches!(self.attempt, Attempt::Lock(_) | Attempt::Keep(_))
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

    /// What a person can do about it at the machine. What the configuration can do, the layers above know.
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
            Cause::KernelFailed(_) => {
                return Some(
                    "only restarting the host helps: the kernel keeps what it was at work with locked",
                );
            }
            Cause::Held(_) => {
                return Some(
                    "it lets go when it is done; `vfio-hook status` shows who holds it, `journalctl -t vfio-hook` \
                     what it waits for",
                );
            }
            Cause::Io(_) | Cause::Text(_) | Cause::Gone(_) | Cause::Late(_) => {}
        }
        match &self.attempt {
            Attempt::LetGo(_) => {
                return Some("end these programs, or have their units stopped first");
            }
            Attempt::Call { method: "virsh", .. } => {
                return Some("`virsh` comes with libvirt's clients: is it installed?");
            }
            _ => {}
        }
        match (&self.attempt, self.kind()?) {
            (Attempt::Keep(_), io::ErrorKind::StorageFull) => {
                Some("make room in /run: `df -h /run` and `du -xh /run` show what fills it")
            }
            (_, io::ErrorKind::PermissionDenied) => {
                Some("run it as root; under AppArmor or SELinux look at the audit log")
            }
            (Attempt::Read(path) | Attempt::List(path), io::ErrorKind::NotFound) if is_of_kernel(path) => {
                Some("this kernel does not have it")
            }
            (Attempt::Write { .. }, io::ErrorKind::ReadOnlyFilesystem) => {
                Some("the file system is mounted read-only; is this a container?")
            }
            (Attempt::Write { path, .. }, io::ErrorKind::InvalidInput) if path.ends_with("nr_hugepages") => {
                Some(
                    "this kernel cannot make pages of this size at run time; reserve them at boot (hugepages= on the \
                 kernel command line)",
                )
            }
            (Attempt::Write { path, .. }, io::ErrorKind::InvalidInput) if path.ends_with("reset_method") => {
                Some(
                    "the function has no such reset; `cat` the same file on the freshly booted host to see those it has",
                )
            }
            (Attempt::Write { path, .. }, io::ErrorKind::Other)
                if path.starts_with("/sys/class/vtconsole") =>
            {
                Some(
                    "a text console is bound only where there is a framebuffer, and unbound only by a kernel with \
                 CONFIG_VT_HW_CONSOLE_BINDING",
                )
            }
            (Attempt::Read(path), io::ErrorKind::TimedOut) if path.starts_with("/proc") => Some(
                "`ps -o state,wchan` of that process shows what it waits for; if it hangs in a driver, only a \
                 reboot helps",
            ),
            (attempt, io::ErrorKind::TimedOut) if attempt.is_in(super::irqbalance::FOLDER) => {
                Some("irqbalance hangs: `systemctl restart irqbalance`")
            }
            _ => None,
        }
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.attempt {
            Attempt::Read(path) => write!(f, "failed to read {}", path.display()),
            Attempt::Write { path, value } => write!(f, "failed to write `{value}` to {}", path.display()),
            Attempt::Keep(path) => write!(f, "failed to write {}", path.display()),
            Attempt::List(path) => write!(f, "failed to list {}", path.display()),
            Attempt::Remove(path) => write!(f, "failed to remove {}", path.display()),
            Attempt::Find => Ok(()),
            Attempt::LetGo(functions) => write!(f, "{functions} still in use"),
            Attempt::Lock(path) => write!(f, "failed to lock {}", path.display()),
            Attempt::Call { method, object } => write!(f, "failed to call {method} for {object}"),
            Attempt::Reach { attempt, bus } if bus.is_empty() => write!(f, "failed to {attempt}"),
            Attempt::Reach { attempt, bus } => write!(f, "failed to {attempt} over {bus}"),
        }?;
        match &self.cause {
            Cause::Gone(reason) => f.write_str(reason),
            Cause::Pci(trouble) => write!(f, "{trouble}"),
            Cause::Io(error) => write!(f, ": {error}"),
            Cause::Text(reason) | Cause::Late(reason) => write!(f, ": {reason}"),
            Cause::Monitor(trouble) => write!(f, ": {trouble}"),
            Cause::Held(LockState::HeldBy(holder)) => write!(f, ": held by {holder}"),
            Cause::Held(_) => f.write_str(": held by a process that is not known"),
            Cause::Stuck { process, waited, said } => {
                let (waited, pid) = (rounded(*waited), process.pid);
                write!(f, ": the kernel has not come back within {waited} (process {pid})")?;
                said.as_ref().map_or(Ok(()), |said| write!(f, "; it says: {said}"))
            }
            Cause::KernelFailed(line) => write!(f, ": the kernel failed in it: {line}"),
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

impl std::error::Error for HostError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Io(error) => Some(error),
            Cause::Monitor(_)
            | Cause::Pci(_)
            | Cause::KernelFailed(_)
            | Cause::Text(_)
            | Cause::Gone(_)
            | Cause::Late(_)
            | Cause::Held(_)
            | Cause::Stuck { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_who_was_left_behind_in_the_kernel() {
        let process = ProcessId { pid: 4711, start_time: 1 };
        let path = Path::new("/sys/bus/pci/drivers/amdgpu/unbind");
        let error =
            HostError::stuck(path, "0000:03:00.0\n", process, Duration::from_micros(29_999_900), None);
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
    fn says_why_where_the_kernel_does() {
        let process = ProcessId { pid: 4711, start_time: 1 };
        let path = Path::new("/sys/bus/pci/drivers/nvidia/unbind");
        let said = "NVRM: Attempting to remove device 0000:01:00.0 with non-zero usage count!";
        let error =
            HostError::stuck(path, "0000:01:00.0", process, Duration::from_secs(30), Some(said.to_owned()));
        assert!(
            error.to_string().ends_with(&format!("within 30 s (process 4711); it says: {said}")),
            "{error}"
        );
        let error = HostError::kernel_failed(path, "0000:01:00.0", "Oops: 0000 [#1] SMP");
        assert_eq!(
            error.to_string(),
            "failed to write `0000:01:00.0` to /sys/bus/pci/drivers/nvidia/unbind: the kernel failed in it: Oops: \
             0000 [#1] SMP"
        );
        assert!(error.is_kernel_failure() && !error.ran_out_of_time());
        assert!(error.help().unwrap().contains("restarting the host"));
    }

    #[test]
    fn short_waits_are_said_in_milliseconds() {
        for (milliseconds, words) in [(200, "200 ms"), (1999, "1999 ms"), (2000, "2 s"), (59_600, "60 s")] {
            assert_eq!(rounded(Duration::from_millis(milliseconds)), words);
        }
    }
}
